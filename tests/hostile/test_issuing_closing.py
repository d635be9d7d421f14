"""Opening and closing an issuer while something goes wrong: nothing is left open, and nobody waits for nothing."""

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from respan_async import AsyncRespan, ClientStateError, CreatedKey, CreateKeyRequest, Issued
from respan_async.issuing import Issuer, Ledger, LedgerError, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan
from tests.integration.test_issuing import TroubledLedger, alive
from tests.waiting import until

TICKET = Ticket("tenant-1", CreateKeyRequest(name="tenant 1"))


def writers() -> list[threading.Thread]:
    """Give the threads in which ledgers are written."""
    return [thread for thread in threading.enumerate() if thread.name == "respan-ledger"]


def names(folder: Path) -> list[str]:
    """Give the names of the files in a folder."""
    return [path.name for path in folder.iterdir()]


async def hang(ticket_id: str, key: CreatedKey) -> None:
    """Deliver to one who never answers."""
    await asyncio.Event().wait()


async def test_an_issuer_whose_ledger_failed_while_it_was_opened_can_be_used_later(fake_respan: FakeRespan) -> None:
    """The ledger is closed again, so that the next call opens it; those that waited with the first one may, too."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.before["recent"] = 1

    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, cast("Ledger", ledger))
        first = await asyncio.gather(*(issuer.issue(TICKET) for _ in range(3)), return_exceptions=True)
        issued = await issuer.issue(TICKET)

    assert [type(outcome) for outcome in first] == [LedgerError] * 3
    assert alive(fake_respan) == [issued.key.id]


async def test_whoever_tries_again_first_is_not_forgotten_by_those_who_failed_with_it(fake_respan: FakeRespan) -> None:
    """One opening at a time, also when the first to hear of its failure begins anew before the others have heard."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.before["recent"] = 1

    async def insist(issuer: Issuer) -> Issued[Ticket]:
        try:
            return await issuer.issue(TICKET)
        except LedgerError:
            return await issuer.issue(TICKET)

    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, cast("Ledger", ledger))
        outcomes = await asyncio.gather(*(insist(issuer) for _ in range(5)))

    assert {outcome.key.id for outcome in outcomes} == set(alive(fake_respan))
    assert ledger.called["open"] == 2


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_a_client_that_is_closed_while_its_issuer_opens_is_closed_at_once(
    fake_respan: FakeRespan, grace: float
) -> None:
    """It does not wait for what the issuer would do by itself; whoever waits for it is told, and not cancelled."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    gate = ledger.gates["recent"] = asyncio.Event()
    respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url)
    issuer = Issuer(respan, cast("Ledger", ledger))
    call = asyncio.create_task(issuer.issue(TICKET))
    await until(lambda: ledger.called["recent"])

    closing = asyncio.create_task(respan.aclose(grace))
    await asyncio.sleep(0.01)
    gate.set()
    async with asyncio.timeout(5.0):
        (outcome, _) = await asyncio.gather(call, closing, return_exceptions=True)

    assert isinstance(outcome, ClientStateError)
    assert fake_respan.counts.requests == 0
    await until(lambda: not writers())


async def test_an_issuer_whose_closing_was_cancelled_while_it_opened_does_not_stay_open(
    fake_respan: FakeRespan,
) -> None:
    """Whoever closes it waits for that no longer; what opens it then finds that it is closed."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    gate = ledger.gates["recent"] = asyncio.Event()
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, cast("Ledger", ledger))
        call = asyncio.create_task(issuer.issue(TICKET))
        await until(lambda: ledger.called["recent"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await issuer.aclose()

        gate.set()
        with pytest.raises(ClientStateError, match="the issuer is closed"):
            await call

    assert fake_respan.counts.requests == 0
    await until(lambda: not writers())


async def test_a_closing_that_is_cancelled_closes_the_ledger_all_the_same(tmp_path: Path) -> None:
    """Or its lease would go on being prolonged, and a ticket that was in the air would stay its own."""
    async with FakeRespan(latency=0.2) as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url)
        issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
        call = asyncio.create_task(issuer.issue(TICKET))
        await until(lambda: fake.counts.requests)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await issuer.aclose()
        await until(lambda: not writers())

        async with (
            AsyncRespan(fake.api_key, base_url=fake.url) as another,
            Issuer(another, SQLiteLedger(tmp_path / "keys.db")) as other,
        ):
            issued = await other.issue(TICKET)
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
            await other.sweep(grace=0, taken_over=True)
            assert alive(fake) == [issued.key.id]
        await respan.aclose()

    assert isinstance(outcome, LedgerError)
    assert names(tmp_path) == ["keys.db"]


@pytest.mark.parametrize("how", ["awaited", "in the background"])
async def test_a_delivery_that_hangs_holds_nothing_up_for_longer_than_the_grace(tmp_path: Path, how: str) -> None:
    """Neither in the call nor for what an earlier run has left; the key is kept, and the next run delivers it."""
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(key.api_key.reveal())

    async with FakeRespan() as fake:
        for does in [None, hang, deliver] if how == "in the background" else [hang, deliver]:
            respan = AsyncRespan(fake.api_key, base_url=fake.url)
            issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"), deliver=cast("Any", does))
            call = asyncio.create_task(issuer.issue(TICKET))
            await asyncio.wait({call}, timeout=0.1)
            async with asyncio.timeout(5.0):
                await issuer.aclose(grace=0.01)
                await respan.aclose(grace=0.01)
            await asyncio.gather(call, return_exceptions=True)

    assert delivered == [record.api_key for record in fake.keys.values()]


async def test_a_ledger_without_a_thread_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no more threads refuses one; nothing waits for it, and the ledger can be opened later."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ledger = SQLiteLedger(tmp_path / "keys.db")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LedgerError, match="could not be opened: can't start new thread"):
            await ledger.open("host key")

    await ledger.open("host key")
    await ledger.aclose()


async def test_a_sweep_does_not_outlive_the_client(fake_respan: FakeRespan) -> None:
    """However long its grace is, and whoever waits for it is told."""
    fake_respan.script("lose_answer_after_create")
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, SQLiteLedger(":memory:"), auto_sweep=False)
        await issuer.issue(TICKET)
        sweeping = asyncio.create_task(issuer.sweep(grace=1000))
        await asyncio.sleep(0.01)

    with pytest.raises(ClientStateError, match="closed during the sweep"):
        await asyncio.wait_for(sweeping, 1)
