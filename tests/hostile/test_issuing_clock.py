"""The machine's clock is set forward or back, by hours and by days, while keys are issued: nothing is lost by it.

The server's clock is right all the time. Keys live for a day: a clock that is two days fast takes them for dead.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from respan_async import CreatedKey, RateLimit
from respan_async.issuing import AttemptState, Ticket, TicketState
from respan_async.issuing.ledger import Intent
from respan_async.secret import Secret
from respan_async.testing import FakeRespan
from tests.hostile.clocked_ledger import Clock, ClockedLedger
from tests.hostile.issuer_faults import Happening, set_clock, set_clock_for_a_moment
from tests.hostile.issuing_world import Life, Scenario, World, in_file
from tests.hostile.ledger_steps import all_survived
from tests.hostile.test_cancel_at_every_step_of_issuing import LOST, SCENARIOS, one

ACCOUNT: Final = "https://api.respan.ai abc"
FAST: Final = timedelta(days=2)
DAY: Final = timedelta(days=1)
JUMPS: Final = [FAST, timedelta(hours=3), -timedelta(hours=3), -FAST]
CLOCKED: Final = [
    "not delivered",
    "answer lost",
    "a caller behind another",
    "many, streamed",
    "what a run before has left",
    "swept",
]


@contextlib.asynccontextmanager
async def world(folder: Path, **scenario: object) -> AsyncIterator[World]:
    """Give a server, and a ledger on a machine whose clock can be set."""
    async with FakeRespan() as fake:
        yield World(Scenario(does=one, **scenario), fake, in_file(folder / "keys.db"))  # type: ignore[arg-type]  # as said


async def counted(life: Life, state: TicketState) -> int:
    """Count the tickets in a state, opening the ledger."""
    return (await life.issuer.counts()).tickets[state]


def test_a_clock_that_is_set_forward_at_any_operation_of_the_ledger_costs_nothing() -> None:
    """No secret that was not delivered, no suspect, no key."""
    steps = all_survived(SCENARIOS["answer lost"], Happening(act=set_clock(FAST)))

    assert len(steps) > 20


@pytest.mark.hostile
@pytest.mark.parametrize("scenario", CLOCKED)
def test_a_clock_that_is_set_at_any_operation_of_the_ledger_costs_nothing(scenario: str) -> None:
    """Forward or back, for good or for a moment."""
    for by in JUMPS:
        for act in (set_clock(by), set_clock_for_a_moment(by)):
            assert len(all_survived(SCENARIOS[scenario], Happening(act=act))) >= 8, by


async def test_a_clock_that_is_fast_by_days_erases_no_secret_that_was_not_delivered(tmp_path: Path) -> None:
    """A run with such a clock takes the key for dead, and leaves it alone; when the clock is right, it is delivered."""
    async with world(tmp_path, deliver="at once") as here:
        async with here.life("fails") as life:
            await life.issue()
        here.clock.offset = FAST
        async with here.life("at once") as life:
            kept = await counted(life, TicketState.ISSUED)
            await asyncio.sleep(0.03)
            still_kept = await counted(life, TicketState.ISSUED)
        here.clock.offset = timedelta(0)
        async with here.life("at once") as life:
            await life.issuer.counts()
            await here._delivered(life, 1)

        assert (kept, still_kept) == (1, 1)
        assert [secret for *_, secret in here.delivered] == [key.api_key for key in here.fake.keys.values()]


async def test_a_clock_that_is_fast_by_days_gives_up_no_suspect_that_lives(tmp_path: Path) -> None:
    """A key that should have died is looked for all the same; when the list no longer shows it, its suspect ends."""
    async with world(tmp_path) as here:
        here.fake.script(LOST, "reset")
        async with here.life("", auto_sweep=False) as life:
            issued = await life.issue()
            here.clock.offset = FAST
            report = await life.issuer.sweep()
            counts = await life.issuer.counts()

        assert len(report.revoked) == len(report.expired) == 1
        assert report.left == ()
        assert counts.attempts[AttemptState.REVOKED] == counts.attempts[AttemptState.EXPIRED] == 1
        assert [record.id for record in here.fake.alive()] == [issued.key.id]  # type: ignore[attr-defined]  # an Issued


async def test_what_is_long_dead_is_not_looked_for(tmp_path: Path) -> None:
    """A week after its expiry a suspect ends without a request: an API key may not be allowed to list."""
    async with world(tmp_path, lives=timedelta(days=-8)) as here:
        here.fake.script(LOST)
        async with here.life("", auto_sweep=False) as life:
            await life.issue()
            report = await life.issuer.sweep()

        assert len(report.expired) == 1
        assert set(here.fake.counts.by_operation) == {"create"}


async def test_a_clock_that_is_set_back_makes_nothing_recent_that_is_not(tmp_path: Path) -> None:
    """The run that begins then does not wait for slots that were used a day ago, but still for those of this minute."""
    async with world(tmp_path, client={"pace": RateLimit(5, per=60)}) as here:
        here.clock.offset = DAY
        async with here.life("") as life:
            await life.issue(1)
            await life.issue(2)
        here.clock.offset = timedelta(0)
        async with here.life("") as life:
            await life.issue(3)
            used_after_a_day = life.respan.pace.used
        here.clock.offset = -timedelta(seconds=30)
        async with here.life("") as life:
            await life.issuer.counts()
            used_after_a_moment = life.respan.pace.used

        assert (used_after_a_day, used_after_a_moment) == (1, 1)


async def test_a_clock_that_is_set_back_leaves_nobodys_turn_and_no_delivery_to_tomorrow(tmp_path: Path) -> None:
    """What an owner that lives took or recorded in what is now the future counts as long ago."""
    async with world(tmp_path) as here:
        here.clock.offset = DAY
        async with here.life("") as life:
            await life.issue()
            assert await life.ledger.acquire_sweep_turn(600.0)
            other = ClockedLedger(tmp_path / "keys.db", here.clock)
            await other.open("another", force=True)
            before = await other.acquire_sweep_turn(600.0), len(await other.undelivered("", 10, left_for=600.0))
            here.clock.offset = timedelta(0)
            after = await other.acquire_sweep_turn(600.0), len(await other.undelivered("", 10, left_for=600.0))
            await other.aclose()

    assert before == (False, 0)
    assert after == (True, 1)


async def test_a_dead_owners_ticket_is_free_whatever_the_clock_says(tmp_path: Path) -> None:
    """Its lease seems to last a day longer after the clock was set back; its lock tells that its process has ended."""
    async with world(tmp_path) as here:
        clock = Clock()
        clock.offset = DAY
        dead = ClockedLedger(tmp_path / "keys.db", clock)
        await dead.open("host key")
        await dead.claim_attempt(here.ticket(1), Intent(tag="tag", name=None, sent={}, sent_at=0.0))
        dead._session.owner.lease_keeper.cancel()
        dead._session.owner.lock.release()  # as the system does when a process ends

        async with here.life("", auto_sweep=False) as life:
            life.issuer._force = True
            await life.issue()
            suspects = await life.issuer._suspects.pending()
        await dead.aclose()

    assert [suspect.tag for suspect in suspects] == ["tag"]


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_clock_that_is_set_takes_no_lease_from_a_process_that_is_well(tmp_path: Path, jump: timedelta) -> None:
    """Neither one that opens the ledger then, nor one that has it open already."""
    clock, path = Clock(), tmp_path / "keys.db"
    first, beside, late = (ClockedLedger(path, clock, lease=0.4) for _ in range(3))
    for ledger in (first, beside):
        await ledger.open(ACCOUNT)
    attempt = Intent(tag="tag-1", name="x", sent={}, sent_at=1e9)
    epoch = await first.claim_attempt(Ticket("tenant-1"), attempt)

    clock.offset = jump
    await late.open(ACCOUNT)
    await asyncio.sleep(0.3)  # in which all of them beat

    assert await first.suspects() == []
    assert await first.record("tenant-1", epoch, "tag-1", CreatedKey(id="key-1", api_key=Secret("x" * 20))) is True
    for ledger in (late, beside, first):
        await ledger.aclose()
