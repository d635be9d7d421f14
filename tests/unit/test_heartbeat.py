"""The lease of an owner, as it knows of it without asking the store."""

import asyncio
import time
from typing import Any

import pytest

from respan_async import ConfigurationError
from respan_async.issuing import SQLiteLedger
from respan_async.issuing._heartbeat import LeaseKeeper

LEASE = 0.08


async def nothing() -> None:
    """Register, or reclaim."""


async def test_a_renewal_that_came_late_covers_nothing_that_was_claimed_before() -> None:
    """It was asked for in time, and the lease may have ended before the store did it."""
    pauses = iter([0.0, 1.2 * LEASE])

    async def renew() -> bool:
        await asyncio.sleep(next(pauses))
        return True

    keeper = LeaseKeeper(LEASE, renew, nothing, nothing)
    await keeper._hold()
    begun = time.monotonic()
    held_at_first = keeper.lease_held_since(begun)
    await asyncio.sleep(0.5 * LEASE)
    await keeper._hold()
    keeper.until = time.monotonic() + 60

    assert held_at_first
    assert not keeper.lease_held_since(begun)
    assert keeper.lease_held_since(time.monotonic())


@pytest.mark.parametrize("lease", ["30", None, True, 0, -1.0, float("inf"), float("nan")], ids=repr)
def test_a_lease_is_a_number_of_seconds(lease: Any) -> None:
    """For every ledger."""
    with pytest.raises(ConfigurationError, match="lease: expected seconds above 0, got"):
        SQLiteLedger(":memory:", lease=lease)


class Sleeper:
    """A machine that can be asleep: its clock jumps, and the loop's does not.

    Attributes:
        slept: Seconds, so far.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept = 0.0
        real = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + self.slept)


async def test_a_lease_ends_while_the_machine_is_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have gone on meanwhile, and `time.monotonic()` has not."""
    machine = Sleeper(monkeypatch)

    async def renew() -> bool:
        return True

    keeper = LeaseKeeper(30.0, renew, nothing, nothing)
    await keeper._hold()
    begun = time.monotonic()
    awake = keeper.lease_held_since(begun), round(keeper.seconds_left)
    machine.slept = 31.0

    asleep = keeper.lease_held_since(begun), round(keeper.seconds_left)
    await keeper._hold()

    assert awake == (True, 30)
    assert asleep == (False, -1)
    assert not keeper.lease_held_since(begun), "single tickets may have been taken over"
    assert keeper.lease_held_since(time.monotonic())


@pytest.mark.parametrize(("slept", "patient"), [(0.0, False), (0.3 * 60, False), (0.6 * 60, True), (3600.0, True)])
async def test_who_was_asleep_lets_the_others_wake_before_it_takes_them_for_gone(
    monkeypatch: pytest.MonkeyPatch, slept: float, patient: bool
) -> None:
    """For the time of two beats: then it does as always."""
    machine = Sleeper(monkeypatch)

    async def renew() -> bool:
        return True

    keeper = LeaseKeeper(60.0, renew, nothing, nothing)
    await keeper.start()
    keeper.cancel()
    before = keeper.others_may_wake()
    machine.slept = slept

    after = keeper.others_may_wake()
    keeper._beaten += slept  # it has beaten since
    machine.slept += 29.0
    soon = keeper.others_may_wake()
    machine.slept += 2.0
    keeper._beaten += 31.0

    assert (before, after, soon, keeper.others_may_wake()) == (False, patient, patient, False)


async def test_after_a_sleep_others_are_left_in_peace_on_the_next_loop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have slept as well, and may be about to wake."""
    sleeper = Sleeper(monkeypatch)
    reclaimed = 0

    async def renew() -> bool:
        return True

    async def reclaim() -> None:
        nonlocal reclaimed
        reclaimed += 1

    keeper = LeaseKeeper(30.0, renew, nothing, reclaim)
    await keeper.start()
    keeper.cancel()
    sleeper.slept = 3600.0
    await keeper.resume()
    keeper.cancel()

    assert reclaimed == 1  # at its start
