"""What one process has of a log that many share, and what it tells of it."""

import math

import pytest

from respan_async._pacing.shared.log_protocol import SlotReport, SlotStatus
from respan_async._pacing.shared.slot_accounting import HOLD, SlotAccounting


def holding(*begins: float) -> SlotAccounting:
    """Give what holds slots that may be used from these times on."""
    slots = SlotAccounting()
    _, names = slots.names(len(begins))
    slots.granted(names, begins)
    return slots


def flying(*since: float) -> SlotAccounting:
    """Give what has a slot in the air since each of these times."""
    slots = holding(*since)
    for time in since:
        slots.use(time)
    return slots


def statuses(slots: SlotAccounting, now: float, silence: float = 3.0) -> list[tuple[SlotStatus, str, float]]:
    """Give what is told, with the number of the slot instead of its name."""
    return [(r.status, r.slot.rpartition(":")[2], r.seconds) for r in slots.pending_reports(now, silence)]


def test_no_name_is_given_twice() -> None:
    """Whatever it is for; the log is told the first of those it may grant, and counts on."""
    slots = holding(100.0, 100.0)
    slots.use_unreserved()
    slots.use(100.0)
    slots.mark_repeated(101.0)

    first, names = slots.names(2)

    assert first == 5
    assert names == [f"{slots.owner}:5", f"{slots.owner}:6"]
    assert len(slots.owner) == 16


def test_fewer_slots_may_be_granted_than_were_asked_for() -> None:
    """The names of the others are not used."""
    slots = SlotAccounting()
    slots.granted(["a", "b", "c"], [100.0])

    assert slots.begins() == 100.0
    assert slots.begins(1) is None


def test_what_came_back_is_told_by_its_age() -> None:
    """Answered, given up, not counting, or answered once more than it has slots."""
    slots = flying(100.0, 100.5, 101.0)

    slots.mark_answered(101.0)
    slots.mark_repeated(101.5)
    slots.mark_unused(102.0)
    slots.mark_answered(104.0)

    assert slots.in_air == 0
    assert statuses(slots, 103.0) == [
        (SlotStatus.ANSWERED, "1", 2.0),
        (SlotStatus.ANSWERED, "4", 1.5),
        (SlotStatus.UNUSED, "3", 1.0),
        (SlotStatus.ANSWERED, "2", -1.0),
    ]


def test_what_is_held_and_not_used_is_given_back() -> None:
    """Once it could have been used for a while; or all at once."""
    slots = holding(100.0, 100.5, 110.0)

    slots.give_back(100.0 + HOLD, stale_only=True)
    assert slots.begins() == 100.0

    slots.give_back(100.25 + HOLD, stale_only=True)
    assert slots.begins() == 100.5
    assert statuses(slots, 103.0) == [(SlotStatus.UNUSED, "1", 0.75)]

    slots.give_back(103.0)
    assert slots.begins() is None
    assert statuses(slots, 103.0) == [
        (SlotStatus.UNUSED, "1", 0.75),
        (SlotStatus.UNUSED, "2", 0.0),
        (SlotStatus.UNUSED, "3", 0.0),
    ]


def test_a_pause_is_told_by_what_is_left_of_it() -> None:
    """Of no slot, and never less than nothing."""
    slots = SlotAccounting()
    slots.pause(130.0)

    assert slots.pending_reports(100.0, 3.0) == (SlotReport(SlotStatus.PAUSE, "", 30.0),)
    assert slots.pending_reports(140.0, 3.0) == (SlotReport(SlotStatus.PAUSE, "", 0.0),)


def test_what_is_in_the_air_is_told_after_a_silence() -> None:
    """And again after the next; not if it came back meanwhile."""
    slots = flying(100.0, 100.0, 102.0)
    assert statuses(slots, 102.9) == []
    told = slots.pending_reports(103.0, 3.0)
    assert [(r.status, r.slot[-2:]) for r in told] == [(SlotStatus.FLYING, ":1"), (SlotStatus.FLYING, ":2")]
    slots.mark_answered(103.5)

    slots.acknowledge(told, 104.0)

    assert slots.in_air == 2
    assert statuses(slots, 106.9) == [(SlotStatus.ANSWERED, "1", pytest.approx(3.4)), (SlotStatus.FLYING, "3", 0.0)]
    assert [slot for _, slot, _ in statuses(slots, 107.0)] == ["1", "2", "3"]


def test_what_was_heard_is_not_told_again() -> None:
    """What happened while the log was listening is."""
    slots = flying(100.0, 100.0)
    slots.mark_answered(101.0)
    told = slots.pending_reports(102.0, 1.0)
    assert [r.status for r in told] == [SlotStatus.ANSWERED, SlotStatus.FLYING]
    slots.mark_repeated(103.0)

    slots.acknowledge(told, 103.5)

    assert statuses(slots, 104.0) == [(SlotStatus.ANSWERED, "3", 1.0)]


def test_a_log_that_knows_nothing_hears_of_all_that_is_in_the_air() -> None:
    """At once, and what is held is given back: it was another log that granted it."""
    slots = holding(100.0, 100.0)
    slots.use(100.0)

    slots.reset(100.5)

    assert slots.begins() is None
    assert statuses(slots, 101.0) == [(SlotStatus.UNUSED, "2", 0.5), (SlotStatus.FLYING, "1", 0.0)]


def test_what_is_so_old_that_nobody_needs_to_hear_of_it_is_dropped() -> None:
    """From a moment on it is kept."""
    slots = SlotAccounting()
    for time in (100.0, 101.0, 102.0):
        slots.give_back_unconfirmed(time, [str(time)])

    slots.forget(101.0)

    assert [slot for _, slot, _ in statuses(slots, 103.0)] == ["101.0", "102.0"]
    slots.forget(103.0)
    assert not slots.has_news


def test_something_must_be_told_when_the_first_of_several_things_is_due() -> None:
    """News after a while, what is in the air after a silence, what is held once it is stale, a pause at once."""
    assert SlotAccounting().due(1.0, 3.0) == math.inf

    slots = flying(100.0, 100.5)
    assert slots.due(1.0, 3.0) == 103.0
    slots.mark_answered(101.0)
    assert slots.due(1.0, 3.0) == 102.0
    assert slots.due(9.0, 3.0) == 103.5
    slots.granted(["x"], [99.0])
    assert slots.due(9.0, 3.0) == 99.0 + HOLD
    slots.pause(200.0)
    assert slots.due(1.0, 3.0) == -math.inf


def test_what_is_in_the_air_is_told_without_an_age() -> None:
    """It has none yet. These are the words that the log's script knows."""
    slots = SlotAccounting()
    slots.use_unreserved()

    (report,) = slots.pending_reports(100.0, silence=1.0)

    assert (report.status, report.seconds) == (SlotStatus.FLYING, 0.0)
    assert [status.value for status in SlotStatus] == ["answered", "unused", "flying", "pause"]
