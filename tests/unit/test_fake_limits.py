"""The limits that the fake server may have."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_async.testing import Bucket, FixedWindow, Limit, SlidingLog
from respan_async.testing.limits import GRAIN, busiest_window

steps = st.lists(st.floats(min_value=0, max_value=30, allow_nan=False), max_size=200)


def admitted(limit: Limit, times: list[float]) -> list[float]:
    """Give the times at which a request was let in."""
    return [time for time in times if limit.admit(time) is None]


def moments(gaps: list[float]) -> list[float]:
    """Turn gaps between requests into times."""
    return list(accumulate(gaps, initial=1000.0))[1:]


@given(gaps=steps, limit=st.integers(1, 8), per=st.floats(min_value=0.5, max_value=120))
def test_a_sliding_log_never_lets_in_more_than_its_limit_in_any_window(
    gaps: list[float], limit: int, per: float
) -> None:
    """However requests come, no window of one period has more than the limit in it."""
    let_in = admitted(SlidingLog(limit, per=per), moments(gaps))

    for index, first in enumerate(let_in):
        assert sum(1 for time in let_in[index:] if time < first + per - 2 * GRAIN) <= limit
    assert busiest_window(let_in, per) <= limit


@given(gaps=steps, limit=st.integers(1, 8), per=st.floats(min_value=0.5, max_value=120))
def test_a_sliding_log_refuses_only_when_the_last_period_is_full(gaps: list[float], limit: int, per: float) -> None:
    """A request is refused only if as many as the limit were let in during the period before it."""
    log, let_in = SlidingLog(limit, per=per), list[float]()
    for time in moments(gaps):
        if log.admit(time) is None:
            let_in.append(time)
        else:
            assert sum(1 for earlier in let_in if earlier > time - per - 2 * GRAIN) >= limit


@given(gaps=steps, limit=st.integers(1, 5), kind=st.sampled_from([SlidingLog, FixedWindow, Bucket]))
def test_whoever_waits_as_long_as_told_is_let_in(
    gaps: list[float], limit: int, kind: type[SlidingLog | FixedWindow | Bucket]
) -> None:
    """The wait that a limit names is enough, to the last digit, when nobody else comes in between."""
    rule = kind(limit, per=7.3)
    for time in moments(gaps):
        wait = rule.admit(time)
        if wait is not None:
            assert wait > 0
            assert rule.admit(time + wait) is None
            return


def test_a_sliding_log_frees_a_slot_one_period_after_it_was_taken() -> None:
    """Each slot comes back by itself, and a refused request takes none."""
    log = SlidingLog(2, per=60)

    assert [log.admit(time) for time in (0, 10, 20, 59)] == [None, None, 40, 1]
    assert [log.admit(time) for time in (60, 61, 70)] == [None, 9, None]


def test_a_fixed_window_begins_anew_at_the_multiples_of_its_period() -> None:
    """Two windows' worth may come close together, around a boundary that the offset moves."""
    window = FixedWindow(2, per=60, offset=5)

    assert [window.admit(time) for time in (63, 64, 64.5)] == [None, None, 0.5]
    assert [window.admit(time) for time in (65, 66, 67)] == [None, None, 58]


def test_a_bucket_lets_a_burst_in_and_then_its_rate() -> None:
    """Full at first, it gives the burst at once, and one token every tenth of a second after that."""
    bucket = Bucket(10, per=1, burst=3)

    assert [bucket.admit(50.0) for _ in range(3)] == [None, None, None]
    assert bucket.admit(50.0) == pytest.approx(0.1)
    assert bucket.admit(50.04) == pytest.approx(0.06)
    assert bucket.admit(50.1) is None
    assert [bucket.admit(99.0) for _ in range(4)] == [None, None, None, pytest.approx(0.1)]


def test_a_bucket_without_a_burst_holds_what_one_period_brings() -> None:
    """The burst is the rate when left out, and never less than one."""
    assert Bucket(50, per=1).burst == 50
    assert Bucket(0.5, per=1).burst == 1


@pytest.mark.parametrize("kind", [SlidingLog, FixedWindow, Bucket])
@pytest.mark.parametrize(("limit", "per"), [(0, 60), (-1, 60), (60, 0), (60, -1)])
def test_a_limit_that_lets_nothing_in_is_refused(
    kind: type[SlidingLog | FixedWindow | Bucket], limit: int, per: float
) -> None:
    """A limit and a period are above 0."""
    with pytest.raises(ValueError, match="must be > 0"):
        kind(limit, per=per)


def test_the_busiest_window_is_half_open() -> None:
    """Two times exactly one period apart are in two windows."""
    assert busiest_window([], 60) == 0
    assert busiest_window([0, 60], 60) == 1
    assert busiest_window([0, 1, 59, 60, 61], 60) == 3


@given(gaps=steps, per=st.floats(min_value=1, max_value=100))
def test_the_busiest_window_is_what_counting_each_window_gives(gaps: list[float], per: float) -> None:
    """One pass finds what the slow way finds."""
    times = moments(gaps)

    found = busiest_window(times, per)

    slow = [sum(1 for other in times if time <= other and other + GRAIN < time + per) for time in times]
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert found == max(slow, default=0)
