"""The memory of what was let in."""

from hypothesis import given
from hypothesis import strategies as st

from respan_async._pacing.sliding_log import SlidingLog


def log_of(*times: float, grace: float = 2.0) -> SlidingLog:
    """Make a log in which requests were let in at these times."""
    log = SlidingLog(grace)
    for time in times:
        log.answered(time)
    return log


def test_a_slot_comes_back_one_period_after_its_answer() -> None:
    """It is taken until just before, and free from then on."""
    log = log_of(100.0, 110.0)

    assert [log.used(now, 60) for now in (110.0, 159.9, 160.0, 169.9, 170.0)] == [2, 2, 1, 1, 0]


def test_what_is_in_the_air_is_taken() -> None:
    """A request counts from the moment it is sent."""
    log = log_of(100.0)
    log.in_air = 3

    assert log.used(100.0, 60) == 4
    assert log.expiries(100.0, 9, 60) == [160.0]
    assert log.expiries(160.0, 9, 60) == []


def test_a_lost_answer_counts_for_a_period_and_the_grace() -> None:
    """The server may have let it in later than it was given up."""
    log = log_of(100.0, grace=2.0)
    log.lost(101.0)

    assert log.used(161.5, 60) == 1
    assert [log.used(now, 60) for now in (162.9, 163.0)] == [1, 0]


def test_lost_answers_are_in_line_with_the_others() -> None:
    """Which slot comes back next is a matter of time alone."""
    log = log_of(100.0, grace=2.0)
    log.lost(100.5)
    log.answered(101.0)
    log.answered(103.0)

    assert log.used(103.0, 60) == 4
    assert log.expiries(103.0, 9, 60) == [160.0, 161.0, 162.5, 163.0]
    assert log.expiries(103.0, 3, 60) == [160.0, 161.0, 162.5]
    assert log.expiries(162.4, 3, 60) == [162.5, 163.0]
    assert log.expiries(162.6, 3, 60) == [163.0]


def test_a_repeated_request_counts_as_often_as_it_was_sent() -> None:
    """Each sending met the limit."""
    log = SlidingLog(2.0)
    log.answered(100.0, 3)

    assert log.used(100.0, 60) == 3
    assert log.admitted_within(100.0, 60) == 3


def test_what_was_let_in_before_the_log_was_there_takes_its_place_in_it() -> None:
    """Beside what it has noted already."""
    log = log_of(105.0)

    log.preload([100.0, 110.0])

    assert log.used(111.0, 60) == 3
    assert log.expiries(111.0, 9, 60) == [160.0, 165.0, 170.0]


def test_a_burst_reaches_back_to_the_last_pause() -> None:
    """What came before a pause that is long enough is another burst."""
    log = log_of(10.0, 11.0, 50.0, 51.0, 52.0)

    assert log.burst(53.0, 20) == (3, 3.0)
    assert log.burst(53.0, 60) == (5, 43.0)
    assert log.burst(53.0, 1) == (1, 1.0)
    assert SlidingLog(2.0).burst(53.0, 1) is None


def test_the_age_of_so_many() -> None:
    """The newest is the first of them; of too many there is no age."""
    log = log_of(10.0, 11.0, 50.0)

    assert [log.age(60.0, number) for number in (1, 2, 3)] == [10.0, 49.0, 50.0]
    assert log.age(60.0, 4) == float("inf")


def test_a_period_that_proves_longer_brings_slots_back_to_life() -> None:
    """What was free by the shorter period is taken by the longer one."""
    log = log_of(*range(100, 200, 10))
    assert log.used(200.0, 30) == 2

    log.period_changed(200.0, 60)

    assert log.used(200.0, 60) == 5


def test_the_memory_is_bounded() -> None:
    """Only so many are kept as a limit may need: twenty thousand at least."""
    known, unknown = SlidingLog(2.0), SlidingLog(2.0)
    for number in range(100_000):
        known.answered(number * 0.01)
        known.used(number * 0.01, 1.0)
        unknown.answered(number * 0.01)
        unknown.trim()

    assert known.used(999.99, 1.0) == 100
    assert 20_000 <= known.admitted_within(1000.0, 1e9) <= 40_001
    assert 20_000 <= unknown.admitted_within(1000.0, 1e9) <= 40_001
    assert unknown.admitted_within(999.99, 10) == 1000


@given(
    gaps=st.lists(st.floats(0, 30), min_size=1, max_size=100),
    lost=st.lists(st.booleans(), min_size=100, max_size=100),
    per=st.floats(0.5, 60),
)
def test_the_count_and_the_expiries_agree(gaps: list[float], lost: list[bool], per: float) -> None:
    """As many slots are taken as have an expiry in the future, and the expiries ascend."""
    log, now = SlidingLog(2.0), 1000.0
    for gap, is_lost in zip(gaps, lost, strict=False):
        now += gap
        log.lost(now) if is_lost else log.answered(now)
        used = log.used(now, per)
        ends = log.expiries(now, used + 1, per)
        assert len(ends) == used
        assert ends == sorted(ends)
        assert all(end > now for end in ends)
        assert log.expiries(now, 1, per) == ends[:1]
