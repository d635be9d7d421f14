"""Whether a refusal is believed."""

import pytest

from respan_async._pacing.refusal_review import Observation, RefusalReview, Verdict


def concluded(review: RefusalReview, now: float = 100.5, in_air: int = 0) -> Verdict:
    """Return what a review comes to."""
    observation = review.conclude(now, in_air)
    assert observation is not None
    return observation.verdict


def undecided(retry_after: float | None = 5.0) -> RefusalReview:
    """Give a review of one refusal at 100, after which a probe decides."""
    review = RefusalReview()
    review.refused(100.0, 99.9, retry_after)
    assert concluded(review) is Verdict.UNDECIDED
    return review


def test_there_is_nothing_to_conclude_before_a_refusal() -> None:
    """Requests that are let in are no news."""
    review = RefusalReview()

    assert review.let_in(99.0) is False
    assert not review.is_open
    assert review.ends_at is None
    assert review.conclude(100.0, 0) is None


def test_a_refusal_holds_everything_until_the_flight_has_come_back() -> None:
    """A second at most."""
    review = RefusalReview()

    assert review.refused(100.0, 99.9, 5.0) is True

    assert review.is_open
    assert review.ends_at == 101.0
    assert review.conclude(100.9, 1) is None
    assert concluded(review, 101.0, in_air=1) is Verdict.UNDECIDED
    assert not review.is_open


def test_the_refusals_of_one_flight_are_one_observation() -> None:
    """The least wait counts, and what was sent before its end is no news later."""
    review = RefusalReview()

    begins = [review.refused(100.0 + nth / 10, 99.9, said) for nth, said in enumerate((None, 7.0, 5.0, 6.0, None))]

    assert begins == [True, False, False, False, False]
    assert review.conclude(100.5, 0) == Observation(Verdict.BELIEVED, 5, 5.0)
    assert review.refused(100.6, 100.4, 9.0) is False
    assert review.conclude(100.6, 0) is None
    assert review.refused(100.7, 100.5, 9.0) is True
    assert review.conclude(100.8, 0) == Observation(Verdict.UNDECIDED, 1, 9.0)


@pytest.mark.parametrize(
    ("refused", "let_in", "verdict"),
    [
        (1, 0, Verdict.UNDECIDED),
        (1, 1, Verdict.UNDECIDED),
        (1, 2, Verdict.DISPROVED),
        (2, 0, Verdict.BELIEVED),
        (2, 1, Verdict.UNDECIDED),
        (4, 1, Verdict.BELIEVED),
        (4, 2, Verdict.UNDECIDED),
        (4, 4, Verdict.UNDECIDED),
        (4, 5, Verdict.DISPROVED),
    ],
)
def test_what_was_let_in_after_it_disproves_a_refusal(refused: int, let_in: int, verdict: Verdict) -> None:
    """Where it is more than was refused; where hardly anything was, the refusal is believed, unless it was one."""
    review = RefusalReview()
    for _ in range(refused):
        review.refused(100.0, 99.9, 5.0)
    for _ in range(let_in):
        assert review.let_in(99.9) is False

    assert concluded(review) is verdict


def test_what_was_sent_before_the_refused_request_proves_nothing() -> None:
    """It may have taken the last slots."""
    review = RefusalReview()
    review.refused(100.0, 99.9, 5.0)
    for _ in range(5):
        review.let_in(99.8)

    assert concluded(review) is Verdict.UNDECIDED


def test_a_probe_that_is_refused_as_well_confirms_a_refusal() -> None:
    """Then it is believed."""
    review = undecided()

    review.refused(101.0, 100.6, 5.0)

    assert concluded(review, 101.0) is Verdict.BELIEVED
    # The next refusal is another matter.
    review.refused(110.0, 109.0, 5.0)
    assert concluded(review, 110.0) is Verdict.UNDECIDED


def test_a_probe_that_is_let_in_before_its_time_disproves_a_refusal() -> None:
    """Once: the requests after it are no news."""
    review = undecided(retry_after=5.5)

    assert review.let_in(100.4) is False  # sent before the end of the review
    assert review.let_in(105.4) is True
    assert review.let_in(105.4) is False


@pytest.mark.parametrize(("retry_after", "last"), [(5.5, 105.5), (5.0, 104.0), (1.0, 100.0), (0.3, 100.3)])
def test_a_probe_that_is_let_in_after_its_time_proves_nothing(retry_after: float, last: float) -> None:
    """Whole seconds were most likely rounded up, so that a slot may have come back up to a second sooner."""
    review = undecided(retry_after)

    assert review.let_in(max(last, 100.5)) is False


def test_a_probe_disproves_a_refusal_that_did_not_say_how_long_to_wait() -> None:
    """Whenever it is let in."""
    assert undecided(retry_after=None).let_in(1e6) is True


def test_what_is_decided_otherwise_needs_no_probe() -> None:
    """A request that is let in then says nothing of the refusal, and one that is refused is a new one."""
    review = undecided()
    review.decided()

    assert review.let_in(101.0) is False
    review.refused(102.0, 101.5, 5.0)
    assert concluded(review, 102.0) is Verdict.UNDECIDED


def test_four_refusals_among_a_hundred_answers_are_frequent() -> None:
    """Those of one flight count too; those that were explained do not."""
    review = RefusalReview()
    for nth in range(4):
        assert not review.are_frequent
        for _ in range(32):
            review.let_in(100.0 + nth)
        review.refused(101.0 + nth, 100.5 + nth, 5.0)
        review.conclude(101.1 + nth, 0)
    assert review.are_frequent

    review.explained()
    assert not review.are_frequent


def test_refusals_that_are_long_ago_are_not_frequent() -> None:
    """The first of four is forgotten with the hundredth answer after it."""
    review = RefusalReview()
    for nth in range(4):
        review.refused(100.0 + nth, 99.5 + nth, 5.0)
        review.conclude(100.1 + nth, 0)
    for _ in range(96):
        review.let_in(104.0)
    assert review.are_frequent

    review.let_in(104.0)

    assert not review.are_frequent
