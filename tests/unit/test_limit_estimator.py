"""What the server's refusals tell about its limit, where none was given."""

import pytest

from respan_async._pacing.limit_estimator import LimitEstimator
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async._pacing.sliding_log import SlidingLog

ROUND = (0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
LONG = (120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)


class Story:
    """An estimator with its log, told what happens."""

    def __init__(self) -> None:
        self.log = SlidingLog(2.0)
        self.estimator = LimitEstimator(self.log)

    def let_in(self, *times: float) -> RateLimit | None:
        """Answer requests at these times; return what is known after the last."""
        limit = None
        for time in times:
            self.log.answered(time)
            limit = self.estimator.let_in(time)
        return limit

    def refuse(self, time: float, retry_after: float | None) -> RateLimit | None:
        """Refuse a request; return what is known."""
        return self.estimator.refused(time, retry_after)


def spread(start: float, count: int, over: float) -> list[float]:
    """Give so many times, evenly spread."""
    return [start + over * index / count for index in range(count)]


def burst(count: int, over: float = 0.5, start: float = 1000.0) -> Story:
    """Give a story in which so many were let in."""
    story = Story()
    story.let_in(*spread(start, count, over))
    return story


# ------------------------------------------------------------------------------------------------------------ samples


def test_what_is_let_in_is_no_limit() -> None:
    """However much it is."""
    story = Story()

    assert story.let_in(*spread(100, 500, 10)) is None
    assert not story.estimator.is_waiting


def test_a_refusal_with_nothing_let_in_teaches_nothing() -> None:
    """Nothing can be counted."""
    story = Story()

    assert story.refuse(100, 3600.0) is None
    assert story.refuse(101, None) is None
    assert not story.estimator.is_waiting


@pytest.mark.parametrize(
    ("count", "over", "asked", "expected"),
    [
        (61, 1.0, 9.0, RateLimit(61, per=10)),  # more than the documented limit allows
        (100, 0.3, 3600.0, RateLimit(100, per=3600)),  # longer than a minute
        (100, 0.25, 3570.5, RateLimit(100, per=3600)),  # two per cent are no difference
        (70, 2.0, 13.0, RateLimit(70, per=15)),
        (100, 0.25, 1.05, RateLimit(100, per=1.3)),  # near no round value
        (60, 1.0, 59.0, RateLimit(60, per=60)),
        (60, 20.0, 40.0, RateLimit(60, per=60)),
        (5, 1.0, 59.0, RateLimit(60, per=60)),  # others hold the other slots
        (90, 1.0, 59.0, RateLimit(90, per=60)),
    ],
)
def test_a_burst_and_the_wait_after_it_tell_a_limit_that_the_documented_one_does_not_explain(
    count: int, over: float, asked: float, expected: RateLimit
) -> None:
    """As many as were let in since the pause, in the age of the first of them plus the wait, as a round value."""
    assert burst(count, over).refuse(1000 + over, asked) == expected


@pytest.mark.parametrize("period", [*ROUND, *LONG])
def test_these_periods_are_round(period: float) -> None:
    """A wait that is short of one of them by less than two per cent means it."""
    story = Story()
    story.let_in(*[1000.0] * 61)

    assert story.refuse(1000.0, 0.985 * period) == RateLimit(61, per=period)


def test_whole_seconds_may_have_been_rounded_up() -> None:
    """The longest round period that fits is taken, and none shorter than a second."""
    assert burst(100, 0.1).refuse(1000.1, 2.0) == RateLimit(100, per=2)
    assert burst(100, 2.4).refuse(1002.4, 3.0) == RateLimit(100, per=5)


def test_a_burst_begins_after_a_pause_of_half_the_wait() -> None:
    """What was let in before that had come back by then."""
    story = Story()
    story.let_in(*spread(1000, 20, 1), *spread(1040, 70, 1))

    assert story.refuse(1041, 59.0) == RateLimit(70, per=60)


# -------------------------------------------------------------------------------------------------------- the prior


def test_two_samples_that_agree_exclude_the_documented_limit() -> None:
    """One may be others' doing."""
    story = burst(20)
    assert story.refuse(1000.5, 9.5) is None

    story.let_in(*spread(1010.5, 21, 0.5))

    assert story.refuse(1011.0, 9.3) == RateLimit(21, per=10)


@pytest.mark.parametrize(("second", "agrees"), [(15, True), (14, False), (25, True), (26, False)])
def test_samples_agree_within_a_quarter(second: int, agrees: bool) -> None:
    """Of the earlier one, or by one request."""
    story = burst(20)
    story.refuse(1000.5, 9.5)
    story.let_in(*spread(1010.5, second, 0.5))

    assert (story.refuse(1011.0, 9.5) is not None) is agrees


def test_samples_that_agree_take_the_longer_period() -> None:
    """A second that is whole may have been any less."""
    story = burst(20)
    story.refuse(1000.5, 9.5)
    story.let_in(*spread(1010.5, 20, 0.5))

    assert story.refuse(1011.0, 4.0) == RateLimit(20, per=10)


def test_four_samples_that_do_not_agree_leave_the_documented_limit() -> None:
    """What others do makes the difference between them."""
    story, now = Story(), 1000.0
    found = list[RateLimit | None]()
    for count in (5, 10, 5, 10):
        story.let_in(*spread(now, count, 0.5))
        found.append(story.refuse(now + 0.5, 19.5))
        now += 20.0

    assert found == [None, None, None, DOCUMENTED_LIMIT]


def test_a_rate_of_three_times_the_documented_one_excludes_it() -> None:
    """Though no minute had more than sixty."""
    story, now = Story(), 1000.0
    found = list[RateLimit | None]()
    for count in (8, 16, 8, 16):
        story.let_in(*spread(now, count, 0.5))
        found.append(story.refuse(now + 0.5, 3.5))
        now += 4.0

    assert found == [None, None, None, RateLimit(16, per=4)]


@pytest.mark.parametrize(("asked", "expected"), [(39.0, RateLimit(60, per=60)), (10.0, RateLimit(40, per=10))])
def test_of_sixty_within_a_minute_the_first_would_come_back_first(asked: float, expected: RateLimit) -> None:
    """Where a slot is free sooner than that, it is another limit."""
    story = burst(20, 1.0)
    story.let_in(*spread(1020, 40, 1.0))

    assert story.refuse(1021.0, asked) == expected


def test_everything_can_be_learned_anew() -> None:
    """A sample from before agrees with nothing then."""
    story = burst(20)
    story.refuse(1000.5, 9.5)
    story.estimator.forget()

    story.let_in(*spread(1010.5, 20, 0.5))

    assert story.refuse(1011.0, 9.5) is None


# ---------------------------------------------------------------------------------- refusals that say nothing of a wait


@pytest.mark.parametrize("said", [None, 0.0, 1.0])
def test_the_first_answer_after_a_refusal_that_said_nothing_tells_the_period(said: float | None) -> None:
    """It lies between the last refusal and that answer; a whole second may be none at all."""
    story = burst(100)
    assert story.refuse(1000.5, said) is None
    assert story.estimator.is_waiting
    assert story.refuse(1008.0, said) is None

    assert story.let_in(1010.2) == RateLimit(100, per=10 if said is None else 8.0)

    assert not story.estimator.is_waiting


@pytest.mark.parametrize(
    ("refused", "let_in", "per"), [(0.9, 1.1, 1.0), (2.2, 7.0, 4.0), (12.5, 14.0, 14.0), (0.0, 0.3, 0.1)]
)
def test_the_period_is_the_round_one_nearest_to_the_middle(refused: float, let_in: float, per: float) -> None:
    """Of proportions; or the latest time, where no round one lies between."""
    story = Story()
    story.let_in(*[1000.0] * 100)
    story.refuse(1000.0, None)
    story.refuse(1000.0 + refused, None)

    limit = story.let_in(1000.0 + let_in)

    assert limit is not None
    assert limit.limit == 100
    assert limit.per == pytest.approx(per)


def test_a_wait_that_was_said_after_all_ends_the_guessing() -> None:
    """It is worth more."""
    story = burst(100)
    story.refuse(1000.5, None)

    assert story.refuse(1002.0, 8.0) == RateLimit(100, per=10)
    assert not story.estimator.is_waiting


def test_what_is_learned_from_silence_needs_a_second_sample_too() -> None:
    """Unless the documented limit is excluded."""
    story = burst(20)
    story.refuse(1000.5, None)
    assert story.let_in(1010.0) is None

    story.let_in(*spread(1010.1, 19, 0.5))
    story.refuse(1010.8, None)

    assert story.let_in(1020.0) == RateLimit(20, per=3)


def test_where_requests_come_singly_the_last_second_tells_the_rate() -> None:
    """One at least."""
    story = burst(7, 0.9)

    assert story.estimator.let_in_singly(1000.9) == RateLimit(7, per=1)
    assert story.estimator.let_in_singly(1100.0) == RateLimit(1, per=1)


# ------------------------------------------------------------------------------------------- what answers state of it


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (RateHint(limit=100, per=20.0), RateLimit(100, per=20)),
        (RateHint(limit=100, reset=55.0), RateLimit(100, per=60)),
        (RateHint(limit=100, reset=62.0), RateLimit(100, per=60)),
        (RateHint(limit=100, reset=62.2), RateLimit(100, per=120)),
        (RateHint(limit=100, reset=1.0), RateLimit(100, per=0.5)),
        (RateHint(limit=100, reset=1e6), RateLimit(100, per=1e6)),
        (RateHint(limit=100, remaining=5), None),
        (RateHint(remaining=5, reset=20.0), None),
    ],
)
def test_a_limit_that_is_stated_is_taken(hint: RateHint, expected: RateLimit | None) -> None:
    """With the shortest round period that its reset can mean, rounded up and a second late, where it names none."""
    assert Story().estimator.told(hint) == expected


def test_a_period_is_at_least_as_long_as_the_longest_reset() -> None:
    """Later ones are what is left of it."""
    story = Story()

    pers = [story.estimator.told(RateHint(limit=9, reset=reset)) for reset in (20.0, 58.0, 3.0)]

    assert pers == [RateLimit(9, per=per) for per in (20, 60, 60)]
