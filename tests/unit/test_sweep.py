"""What proves that a key was left behind by an attempt of ours, and when it may be revoked."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from respan_async import Effect, Suspect, TemporaryKey
from respan_async._calls.key_origin import is_another, is_left_by, is_made_late
from respan_async._calls.name_tags import new_tag, tag_in, tagged
from respan_async._calls.sweep_memory import SweepMemory
from respan_async._calls.sweep_policy import SweepPolicy

TAG = "abcdefghijk2"
SUSPECT = Suspect(
    name=f"tenant ~{TAG}",
    tag=TAG,
    effect=Effect.UNKNOWN,
    sent_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    sent={"name": f"tenant ~{TAG}", "max_usage": 5},
    reason="no answer",
)
KEY = TemporaryKey(id="id", name=f"tenant ~{TAG}")


def test_a_key_with_the_tag_is_left_by_its_attempt() -> None:
    """The random tag at the end of the name is the proof."""
    assert is_left_by(SUSPECT, KEY)


@pytest.mark.parametrize(
    "name", [f"tenant ~{TAG}", f"TENANT ~{TAG.upper()}", f"tenant~{TAG}", f"Tenant  ~{TAG} \n", f"other ~{TAG}", TAG]
)
def test_a_name_may_come_back_normalised(name: str) -> None:
    """White space and case say nothing against the tag, nor does the rest of the name."""
    assert is_left_by(SUSPECT, attrs.evolve(KEY, name=name))


@pytest.mark.parametrize("name", ["", "tenant", "tenant-42", "x" * 36])
def test_the_tag_that_a_name_was_given_is_the_one_found_in_it(name: str) -> None:
    """Whatever the name before it is."""
    tag = new_tag()

    assert tag_in(tagged(name, tag)) == tag


@pytest.mark.parametrize(
    ("suspect", "key"),
    [
        ({"tag": None}, {}),
        ({"tag": ""}, {"name": ""}),
        ({"tag": ""}, {"name": None}),
        ({"tag": "mnopqrstuvwx"}, {}),
        ({}, {"name": None}),
        ({}, {"name": f"tenant ~{TAG} copy"}),
        ({}, {"name": f"tenant ~{TAG[:-1]}"}),
        ({}, {"revoked": True}),
        ({}, {"used": True}),
    ],
    ids=str,
)
def test_another_tag_or_history_is_no_proof(suspect: dict[str, Any], key: dict[str, Any]) -> None:
    """One of them is enough to leave the key alone."""
    assert not is_left_by(attrs.evolve(SUSPECT, **suspect), attrs.evolve(KEY, **key))


# ------------------------------------------------------------------------------------------------------------ times

NONE, MINUTE, HOUR, DAY = timedelta(0), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "ahead", "is_late"),
    [
        (MINUTE, NONE, False),
        (HOUR, NONE, True),
        (HOUR, HOUR, False),  # this machine's clock is slow
        (MINUTE, -DAY, False),  # it was set forward since
        (HOUR, -DAY, True),
        (DAY, HOUR, True),
    ],
)
def test_a_key_is_late_by_this_machines_clock_and_by_the_servers(
    after: timedelta, ahead: timedelta, is_late: bool
) -> None:
    """One of them may have been wrong at the attempt, or be wrong now."""
    key = attrs.evolve(KEY, created_at=SUSPECT.sent_at + after)

    assert is_made_late(SUSPECT, key, ahead, 1800.0) is is_late


def test_a_key_of_which_nobody_says_when_it_was_made_is_not_late() -> None:
    """Nor is it older than its attempt."""
    untagged = attrs.evolve(SUSPECT, tag=None)

    assert not is_made_late(SUSPECT, KEY, NONE, 1800.0)
    assert not is_another(untagged, KEY, NONE)


@pytest.mark.parametrize(
    ("before", "ahead", "other"), [(MINUTE, NONE, False), (HOUR, NONE, True), (HOUR, -HOUR, False)]
)
def test_a_key_that_is_older_than_its_attempt_is_anothers(before: timedelta, ahead: timedelta, other: bool) -> None:
    """By the server's clock; where names are tagged, the tag says it."""
    key = attrs.evolve(KEY, created_at=SUSPECT.sent_at - before)

    assert is_another(attrs.evolve(SUSPECT, tag=None), key, ahead) is other
    assert not is_another(SUSPECT, key, ahead)


@pytest.mark.parametrize("sent_at", [FIRST, LAST])
@pytest.mark.parametrize("created_at", [FIRST, LAST])
@pytest.mark.parametrize("ahead", [-DAY, DAY])
def test_no_date_is_too_far_off(sent_at: datetime, created_at: datetime, ahead: timedelta) -> None:
    """A damaged ledger, or a server, may say any."""
    suspect, key = attrs.evolve(SUSPECT, tag=None, sent_at=sent_at), attrs.evolve(KEY, created_at=created_at)

    assert is_made_late(suspect, key, ahead, 1800.0) is (sent_at < created_at)
    assert is_another(suspect, key, ahead) is (created_at < sent_at or (created_at == sent_at and ahead > NONE))


@pytest.mark.parametrize("taken_over_at", [FIRST, LAST])
@pytest.mark.parametrize("sent_at", [FIRST, LAST, SUSPECT.sent_at])
def test_a_take_over_at_the_end_of_time_is_waited_for(taken_over_at: datetime, sent_at: datetime) -> None:
    """And one before its own attempt was noted by a clock that was wrong."""
    suspect = attrs.evolve(SUSPECT, taken_over_at=taken_over_at, sent_at=sent_at)
    now = datetime(2026, 2, 1, tzinfo=UTC)

    seconds = SweepPolicy().seconds_to_wait(suspect, now)

    if taken_over_at < sent_at:
        assert seconds == math.inf
    else:
        assert (seconds > 0) is (taken_over_at == LAST)


# ------------------------------------------------------------------------------------------------------------ order


def test_what_failed_comes_last_and_what_failed_first_comes_before_what_failed_since() -> None:
    """The others come in any order before that."""
    memory = SweepMemory()
    suspects = [attrs.evolve(SUSPECT, tag=tag) for tag in "abcdef"]
    for suspect in (suspects[0], suspects[1], suspects[2], suspects[0]):
        memory.put_last(suspect)

    orders = {"".join(suspect.tag or "" for suspect in memory.in_order(suspects)) for _ in range(200)}

    assert {order[3:] for order in orders} == {"bca"}
    assert len(orders) == 6


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten."""
    memory = SweepMemory()

    assert all(memory.is_news(str(number)) for number in range(10_001))
    assert not memory.is_news("10000")
    assert memory.is_news("0")
