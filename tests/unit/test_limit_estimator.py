"""What the server's refusals tell about its limit."""

import pytest

from respan_async._pacing.limit_estimator import LimitEstimator
from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async._pacing.sliding_log import AdmissionLog


class Story:
    """An estimate with its log, told what happens."""

    def __init__(self, given: RateLimit | None = None) -> None:
        self.log = AdmissionLog(2.0)
        self.estimate = LimitEstimator(given, self.log)

    @property
    def limit(self) -> RateLimit | None:
        return self.estimate.limit

    def let_in(self, *times: float) -> None:
        """Answer requests at these times."""
        for time in times:
            self.log.answered(time)
            self.estimate.taken(time)
            self.estimate.admitted(time)

    def refuse(self, time: float, retry_after: float | None) -> bool:
        """Refuse a request that was sent just before, while nothing else is in the air."""
        expected = self.estimate.refused(time, time - 0.01, retry_after)
        self.estimate.record_outcome(time)
        return expected


def spread(start: float, count: int, over: float) -> list[float]:
    """Give so many times, evenly spread."""
    return [start + over * index / count for index in range(count)]


def test_nothing_is_known_before_the_first_refusal() -> None:
    """However much was let in, that is no limit."""
    story = Story()
    story.let_in(*spread(100, 500, 10))

    assert story.limit is None
    assert story.estimate.learned is False
    assert story.estimate.counted_at is None
    assert story.estimate.scouts(110) == 0


@pytest.mark.parametrize(
    ("count", "over", "asked", "expected"),
    [
        (60, 1.0, 59.0, RateLimit(60, per=60)),
        (60, 1.0, 59.05, RateLimit(60, per=60)),
        (60, 20.0, 40.0, RateLimit(60, per=60)),
        (5, 0.5, 10.0, RateLimit(5, per=10)),
        (100, 0.3, 3600.0, RateLimit(100, per=3600)),
        (30, 2.0, 13.0, RateLimit(30, per=15)),
    ],
)
def test_a_burst_and_the_wait_after_it_tell_the_limit(
    count: int, over: float, asked: float, expected: RateLimit
) -> None:
    """As many as were let in since the pause, in the age of the first of them plus the wait, as a round value."""
    story = Story()
    story.let_in(*spread(1000, count, over))

    story.refuse(1000 + over, asked)

    assert story.limit == expected
    assert story.estimate.learned


def test_a_refusal_with_nothing_let_in_teaches_nothing() -> None:
    """Nothing can be counted."""
    story = Story()

    story.refuse(100, 30)

    assert story.limit is None
    assert not story.estimate.counting(100)


def test_a_refusal_with_nothing_let_in_leaves_a_limit_that_was_given() -> None:
    """Somebody else has used the account up: that says nothing of how much there is."""
    story = Story(RateLimit(1000, per=1))

    story.refuse(100, 0.01)
    story.refuse(200, 0.5)
    story.refuse(300, None)

    assert story.limit == RateLimit(1000, per=1)
    assert not story.estimate.learned


def test_a_refusal_that_does_not_fit_a_given_limit_is_doubted() -> None:
    """Nothing was let in so long ago that its slot could come back when the refusal says that one does."""
    story = Story(RateLimit(600, per=60))
    story.let_in(*spread(1000, 9, 1))

    assert story.estimate.contradicts_limit(1001, 1.0)
    assert story.estimate.contradicts_limit(1001, None)
    assert not story.estimate.contradicts_limit(1001, 59.1)  # that is when the first of them comes back


def test_a_refusal_that_lowers_a_limit_by_little_is_not_doubted() -> None:
    """Nor is one that meets a limit that was learned: it is a hypothesis anyway."""
    nearly_full, learned = Story(RateLimit(60, per=60)), Story()
    nearly_full.let_in(*spread(1000, 59, 59))
    learned.let_in(*spread(1000, 60, 1))
    learned.refuse(1001, 59.0)
    learned.let_in(*spread(1061, 9, 1))

    assert not nearly_full.estimate.contradicts_limit(1059.5, 0.5)
    assert not learned.estimate.contradicts_limit(1063, 1.0)


def test_what_is_in_the_air_is_counted_too_but_not_waited_for_endlessly() -> None:
    """The first refusal holds everything until the rest of the flight has come back, or a second has passed."""
    story = Story()
    story.let_in(*spread(100, 10, 0.5))
    story.log.in_air = 2

    story.estimate.refused(100.5, 100.4, 59.5)
    story.estimate.record_outcome(100.5)
    assert story.estimate.counting(100.6)
    assert story.estimate.counted_at == 101.5

    story.log.in_air = 1
    story.let_in(100.7)
    assert story.limit is None
    assert not story.estimate.counting(101.5)
    assert story.limit == RateLimit(11, per=60)


def test_a_steady_flow_that_is_refused_is_taken_for_the_documented_period() -> None:
    """One that went on for longer than a minute has no start to be counted from."""
    story = Story()
    story.let_in(*spread(0, 600, 300))

    story.refuse(300, 1)

    assert story.limit is not None
    assert story.limit.per == DOCUMENTED_LIMIT.per
    assert 115 <= story.limit.limit <= 126


def test_a_refusal_that_does_not_say_how_long_is_told_by_the_next_success() -> None:
    """The period is the shortest round one between the last refusal and the first that is let in again."""
    story = Story()
    story.let_in(*spread(100, 20, 0.5))

    story.refuse(100.5, None)
    story.refuse(108.0, None)
    assert story.limit is None

    story.let_in(110.2)
    assert story.limit == RateLimit(20, per=10)


def test_a_limit_that_was_given_is_lowered_to_what_a_refusal_proves() -> None:
    """Refused with thirty let in during the period: it is thirty."""
    story = Story(RateLimit(60, per=60))
    story.let_in(*spread(1000, 30, 20))

    story.refuse(1020, 40)

    assert story.limit == RateLimit(30, per=60)
    assert story.estimate.learned


def test_a_limit_is_not_lowered_below_what_was_let_in() -> None:
    """One refusal among many successes does not make the limit one."""
    story = Story(RateLimit(60, per=60))
    story.let_in(*spread(1000, 59, 30))

    story.refuse(1030, 30)

    assert story.limit == RateLimit(59, per=60)


def test_refusals_of_the_same_flight_count_once() -> None:
    """What was sent before the correction says nothing that it did not say."""
    story = Story(RateLimit(60, per=60))
    story.let_in(*spread(1000, 30, 20))
    story.refuse(1020, 40)

    for _ in range(20):
        story.estimate.refused(1020.1, 1019.9, 40)

    assert story.limit == RateLimit(30, per=60)


def test_a_wait_longer_than_the_period_makes_the_period_longer() -> None:
    """Nobody waits longer than a period for a slot."""
    story = Story()
    story.let_in(*spread(1000, 60, 0.5))
    story.refuse(1000.5, 22)  # a fixed window that was nearly over
    assert story.limit == RateLimit(60, per=22.5)

    story.let_in(*spread(1022.5, 60, 22))
    story.refuse(1044.5, 38)

    assert story.limit == RateLimit(60, per=60)


def test_a_count_that_cannot_be_makes_the_period_longer() -> None:
    """Refused for half a period with hardly anything let in: not the number was wrong, but the period."""
    story = Story()
    story.let_in(*spread(1000, 60, 0.5))
    story.refuse(1000.5, 30)  # a fixed window of a minute, half of it gone
    assert story.limit == RateLimit(60, per=30)

    story.let_in(*spread(1030.5, 60, 30))
    story.refuse(1060.6, 29.9)

    assert story.limit == RateLimit(60, per=60)


def test_a_number_that_is_much_too_high_leaves_the_period_as_it_is() -> None:
    """Given four times the true limit, with nothing before to make the period look longer."""
    story = Story(RateLimit(120, per=60))
    story.let_in(*spread(1000, 30, 15))

    story.refuse(1015, 45)

    assert story.limit == RateLimit(30, per=60)


def test_scouts_go_beyond_a_learned_limit_after_a_period_that_was_used_up() -> None:
    """One at first, twice as many after each success."""
    story = Story()
    story.let_in(*spread(1000, 10, 1))
    story.refuse(1001, 59)
    assert story.limit == RateLimit(10, per=60)
    assert story.estimate.scouts(1030) == 0

    found = []
    now = 1061.0
    for _ in range(3):
        assert story.limit is not None
        story.let_in(*spread(now, story.limit.limit, 1))
        now += 61
        scouts = story.estimate.scouts(now)
        found.append(scouts)
        story.let_in(*spread(now, story.limit.limit + scouts, 1))
        now += 61

    assert found == [1, 2, 4]
    assert story.limit == RateLimit(17, per=60)


def test_a_scout_that_is_refused_makes_the_next_wait_longer() -> None:
    """It was to be expected, and the limit stays."""
    story = Story()
    story.let_in(*spread(1000, 10, 1))
    story.refuse(1001, 59)
    story.let_in(*spread(1061, 10, 1))
    assert story.estimate.scouts(1122) == 1
    story.let_in(*spread(1122, 10, 1))

    assert story.refuse(1123, 59)

    assert story.limit == RateLimit(10, per=60)
    story.let_in(*spread(1183, 10, 1))
    assert story.estimate.scouts(1200) == 0


def test_a_limit_that_was_given_is_never_exceeded_by_scouts() -> None:
    """What the settings say is the ceiling."""
    story = Story(RateLimit(3, per=10))
    for start in range(100, 200, 10):
        story.let_in(*spread(start, 3, 1))
        assert story.estimate.scouts(start + 9.9) == 0


@pytest.mark.parametrize(
    ("limit", "asked", "bound"),
    [
        (None, 17.0, 17.0),
        (None, None, None),
        (RateLimit(60, per=60), 17.0, 17.0),
        (RateLimit(50, per=1), 1.0, 0.02),
        (RateLimit(10, per=10), 3.0, 2.0),
        (RateLimit(50, per=1), 0.4, 0.4),
    ],
)
def test_how_long_a_refusal_binds_everybody(limit: RateLimit | None, asked: float | None, bound: float | None) -> None:
    """A whole second may mean a moment: beside a short period a probe finds out sooner."""
    assert Story(limit).estimate.global_pause(asked) == bound
