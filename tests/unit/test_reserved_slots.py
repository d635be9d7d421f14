"""What one process has of a log that many share, and what it tells of it."""

import math

import pytest

from respan_async._pacing.reserved_slots import HOLD, Holdings
from respan_async._pacing.shared_protocol import Fate, Report


def holding(*begins: float) -> Holdings:
    """Give what holds slots that may be used from these times on."""
    holdings = Holdings()
    _, names = holdings.names(len(begins))
    holdings.granted(names, begins)
    return holdings


def flying(*since: float) -> Holdings:
    """Give what has a slot in the air since each of these times."""
    holdings = holding(*since)
    for time in since:
        holdings.use(time)
    return holdings


def fates(holdings: Holdings, now: float, silence: float = 3.0) -> list[tuple[Fate, str, float]]:
    """Give what is told, with the number of the slot instead of its name."""
    return [(r.fate, r.slot.rpartition(":")[2], r.seconds) for r in holdings.told(now, silence)]


def test_no_name_is_given_twice() -> None:
    """Whatever it is for; the log is told the first of those it may grant, and counts on."""
    holdings = holding(100.0, 100.0)
    holdings.use_unheard()
    holdings.use(100.0)
    holdings.came_again(101.0)

    first, names = holdings.names(2)

    assert first == 5
    assert names == [f"{holdings.owner}:5", f"{holdings.owner}:6"]
    assert len(holdings.owner) == 16


def test_fewer_slots_may_be_granted_than_were_asked_for() -> None:
    """The names of the others are not used."""
    holdings = Holdings()
    holdings.granted(["a", "b", "c"], [100.0])

    assert holdings.begins() == 100.0
    assert holdings.begins(1) is None


def test_what_came_back_is_told_by_its_age() -> None:
    """Answered, given up, not counting, or answered once more than it has slots."""
    holdings = flying(100.0, 100.5, 101.0)

    holdings.came_back(101.0)
    holdings.came_again(101.5)
    holdings.counts_not(102.0)
    holdings.came_back(104.0)

    assert holdings.in_air == 0
    assert fates(holdings, 103.0) == [
        (Fate.ANSWERED, "1", 2.0),
        (Fate.ANSWERED, "4", 1.5),
        (Fate.UNUSED, "3", 1.0),
        (Fate.ANSWERED, "2", -1.0),
    ]


def test_what_is_held_and_not_used_is_given_back() -> None:
    """Once it could have been used for a while; or all at once."""
    holdings = holding(100.0, 100.5, 110.0)

    holdings.give_back(100.0 + HOLD, stale_only=True)
    assert holdings.begins() == 100.0

    holdings.give_back(100.25 + HOLD, stale_only=True)
    assert holdings.begins() == 100.5
    assert fates(holdings, 103.0) == [(Fate.UNUSED, "1", 0.75)]

    holdings.give_back(103.0)
    assert holdings.begins() is None
    assert fates(holdings, 103.0) == [(Fate.UNUSED, "1", 0.75), (Fate.UNUSED, "2", 0.0), (Fate.UNUSED, "3", 0.0)]


def test_a_pause_is_told_by_what_is_left_of_it() -> None:
    """Of no slot, and never less than nothing."""
    holdings = Holdings()
    holdings.pause(130.0)

    assert holdings.told(100.0, 3.0) == (Report(Fate.PAUSE, "", 30.0),)
    assert holdings.told(140.0, 3.0) == (Report(Fate.PAUSE, "", 0.0),)


def test_what_is_in_the_air_is_told_after_a_silence() -> None:
    """And again after the next; not if it came back meanwhile."""
    holdings = flying(100.0, 100.0, 102.0)
    assert fates(holdings, 102.9) == []
    told = holdings.told(103.0, 3.0)
    assert [(r.fate, r.slot[-2:]) for r in told] == [(Fate.FLYING, ":1"), (Fate.FLYING, ":2")]
    holdings.came_back(103.5)

    holdings.heard(told, 104.0)

    assert holdings.in_air == 2
    assert fates(holdings, 106.9) == [(Fate.ANSWERED, "1", pytest.approx(3.4)), (Fate.FLYING, "3", 0.0)]
    assert [slot for _, slot, _ in fates(holdings, 107.0)] == ["1", "2", "3"]


def test_what_was_heard_is_not_told_again() -> None:
    """What happened while the log was listening is."""
    holdings = flying(100.0, 100.0)
    holdings.came_back(101.0)
    told = holdings.told(102.0, 1.0)
    assert [r.fate for r in told] == [Fate.ANSWERED, Fate.FLYING]
    holdings.came_again(103.0)

    holdings.heard(told, 103.5)

    assert fates(holdings, 104.0) == [(Fate.ANSWERED, "3", 1.0)]


def test_a_log_that_knows_nothing_hears_of_all_that_is_in_the_air() -> None:
    """At once, and what is held is given back: it was another log that granted it."""
    holdings = holding(100.0, 100.0)
    holdings.use(100.0)

    holdings.are_unheard(100.5)

    assert holdings.begins() is None
    assert fates(holdings, 101.0) == [(Fate.UNUSED, "2", 0.5), (Fate.FLYING, "1", 0.0)]


def test_what_is_so_old_that_nobody_needs_to_hear_of_it_is_dropped() -> None:
    """From a moment on it is kept."""
    holdings = Holdings()
    for time in (100.0, 101.0, 102.0):
        holdings.disown(time, [str(time)])

    holdings.forget(101.0)

    assert [slot for _, slot, _ in fates(holdings, 103.0)] == ["101.0", "102.0"]
    holdings.forget(103.0)
    assert not holdings.has_news


def test_something_must_be_told_when_the_first_of_several_things_is_due() -> None:
    """News after a while, what is in the air after a silence, what is held once it is stale, a pause at once."""
    assert Holdings().due(1.0, 3.0) == math.inf

    holdings = flying(100.0, 100.5)
    assert holdings.due(1.0, 3.0) == 103.0
    holdings.came_back(101.0)
    assert holdings.due(1.0, 3.0) == 102.0
    assert holdings.due(9.0, 3.0) == 103.5
    holdings.granted(["x"], [99.0])
    assert holdings.due(9.0, 3.0) == 99.0 + HOLD
    holdings.pause(200.0)
    assert holdings.due(1.0, 3.0) == -math.inf


def test_what_is_in_the_air_is_told_without_an_age() -> None:
    """It has none yet. These are the words that the log's script knows."""
    holdings = Holdings()
    holdings.use_unheard()

    (report,) = holdings.told(100.0, silence=1.0)

    assert (report.fate, report.seconds) == (Fate.FLYING, 0.0)
    assert [fate.value for fate in Fate] == ["answered", "unused", "flying", "pause"]
