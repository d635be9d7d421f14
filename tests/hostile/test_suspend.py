"""A laptop is closed and opened again while two processes issue with one ledger: both go on where they were."""

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from respan_async import CreatedKey, Secret
from respan_async.issuing import AttemptState, LedgerError, Ticket
from respan_async.issuing.ledger import Intent
from tests.hostile.clocked_ledger import Clock, ClockedLedger

ACCOUNT = "https://api.respan.ai 0123456789abcdef"
NIGHT = timedelta(hours=9)
LEASE = 0.6
TICKET = Ticket("tenant-1")
_numbers = itertools.count(1)


class Machine:
    """A machine that can be asleep: all clocks jump but the one that Python and the event loop wait by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        real = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + self.clock.offset.total_seconds())

    def sleep(self) -> None:
        """Be asleep for a night."""
        self.clock.offset += NIGHT


def intent() -> Intent:
    """Give an intent with a fresh tag."""
    return Intent(tag=f"tag{next(_numbers)}", name=None, sent={}, sent_at=datetime.now(UTC).timestamp())


async def test_the_first_to_wake_does_not_take_the_other_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock every lease is over: the other one gets the time to say that it lives."""
    machine = Machine(monkeypatch)
    first, other = (ClockedLedger(tmp_path / "keys.db", machine.clock, lease=LEASE) for _ in range(2))
    await first.open(ACCOUNT)
    await other.open(ACCOUNT)
    other._session.owner.lease_keeper.cancel()  # it is the later one to wake
    attempt = intent()
    epoch = await other.claim_attempt(TICKET, attempt)
    begun = time.monotonic()

    machine.sleep()
    with pytest.raises(LedgerError, match="another process is at work on it") as caught:
        await first.claim_attempt(TICKET, intent())
    assert not other.lease_held_since(begun), "it would send for a claim that may be another's by now"
    await asyncio.sleep(LEASE / 3)  # in which the first has beaten
    assert first.lease_held_since(time.monotonic())
    await other._session.owner.lease_keeper._hold()

    assert caught.value.retryable
    assert await other.record(TICKET.id, epoch, attempt.tag, CreatedKey(id="key-1", api_key=Secret("secret")))
    assert (await first.counts()).attempts[AttemptState.SUSPECT] == 0
    await other.aclose()
    await first.aclose()


async def test_a_process_that_starts_after_the_sleep_takes_nobody_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a timer's does, or a person's, in the seconds before the others have beaten again."""
    machine = Machine(monkeypatch)
    first, late = (ClockedLedger(tmp_path / "keys.db", machine.clock, lease=LEASE) for _ in range(2))
    await first.open(ACCOUNT)
    first._session.owner.lease_keeper.cancel()  # it is about to beat
    attempt = intent()
    epoch = await first.claim_attempt(TICKET, attempt)

    machine.sleep()
    await late.open(ACCOUNT)

    assert (await late.counts()).attempts[AttemptState.SUSPECT] == 0
    with pytest.raises(LedgerError, match="another process is at work on it"):
        await late.claim_attempt(TICKET, intent())
    await first._session.owner.lease_keeper._hold()
    assert await first.record(TICKET.id, epoch, attempt.tag, CreatedKey(id="key-1", api_key=Secret("secret")))
    await late.aclose()
    await first.aclose()


async def test_who_does_not_wake_is_taken_for_gone_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped: its tickets are free after the time of some beats, as they always were."""
    machine = Machine(monkeypatch)
    first, stopped = (ClockedLedger(tmp_path / "keys.db", machine.clock, lease=LEASE) for _ in range(2))
    await first.open(ACCOUNT)
    await stopped.open(ACCOUNT)
    stopped._session.owner.lease_keeper.cancel()
    await stopped.claim_attempt(TICKET, intent())

    machine.sleep()
    async with asyncio.timeout(20):
        while not (await first.counts()).attempts[AttemptState.SUSPECT]:  # noqa: ASYNC110  it is the ledger that counts
            await asyncio.sleep(0.05)

    assert await first.claim_attempt(TICKET, intent()) == 2
    await stopped.aclose()
    await first.aclose()
