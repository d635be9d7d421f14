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
