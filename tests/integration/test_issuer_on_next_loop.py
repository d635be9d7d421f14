"""An issuer whose event loop is closed goes on on the next one, with its ledger and its shared window."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from respan_async import AsyncRespan, ClientStateError, CreatedKey, CreateKeyRequest, RateLimit, Secret
from respan_async.issuing import Issuer, JSONLinesSink, LedgerError, PostgresLedger, SQLiteLedger, Ticket, TicketState
from respan_async.issuing._append_only_file import AppendOnlyFile
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan
from tests.integration.test_next_loop import (
    OF_WHAT_WAS_DROPPED,
    fake_fixture,  # noqa: F401  a fixture
    run,
    run_and_drop,
)
from tests.waiting import until


@pytest.fixture(params=["file", "memory", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Give a ledger that is not open."""
    if request.param == "postgres":
        made = PostgresLedger(request.getfixturevalue("postgres_dsn"))
        run(made.create_schema)
        return made
    return SQLiteLedger(tmp_path / "keys.db" if request.param == "file" else ":memory:")


RUNS = pytest.mark.parametrize("runs", [run, run_and_drop], ids=["in order", "dropped"])


def ticket(number: int) -> Ticket:
    """Name a ticket."""
    return Ticket(f"t-{number}", CreateKeyRequest())


@OF_WHAT_WAS_DROPPED
@RUNS
def test_an_issuer_works_on_one_loop_after_the_other(fake: FakeRespan, ledger: Any, runs: Callable[[Any], Any]) -> None:
    """Each ticket has one key, whichever loop asks for it; the ledger is closed on the last one."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    delivered: list[str] = []

    async def deliver(ticket_id: str, _: CreatedKey) -> None:
        delivered.append(ticket_id)

    issuer = Issuer(respan, ledger, deliver=deliver)
    for number in range(3):
        assert not runs(lambda: issuer.issue(ticket(number))).replayed  # noqa: B023  it is called at once
        assert runs(lambda: issuer.issue(ticket(0))).replayed

    assert runs(issuer.counts).tickets[TicketState.DELIVERED] == 3
    runs(respan.aclose)
    assert (fake.counts.created, delivered) == (3, ["t-0", "t-1", "t-2"])
    assert runs(ledger.aclose) is None  # it is closed, and belongs nowhere


@OF_WHAT_WAS_DROPPED
def test_a_ticket_in_the_air_when_its_loop_was_closed_is_a_suspect_and_is_issued_again(
    fake: FakeRespan, ledger: Any
) -> None:
    """The ledger knows it as one before the ticket is claimed again, by the same owner."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    issuer = Issuer(respan, ledger)
    calls: list[Any] = []

    async def leave() -> None:
        await issuer.issue(ticket(0))
        fake.script("stall")
        calls.extend(asyncio.ensure_future(issuer.issue(ticket(1))) for _ in range(2))  # the second waits for the first
        await until(lambda: fake.counts.requests == 2)
        await asyncio.sleep(0.01)

    run_and_drop(leave)
    issued = run(lambda: issuer.issue(ticket(1)))

    counts = run(issuer.counts)
    assert not issued.replayed
    assert (counts.tickets[TicketState.ISSUED], len(run(ledger_suspects(issuer, ledger)))) == (2, 1)
    run(issuer.aclose)
    run(respan.aclose)
    calls.clear()


def ledger_suspects(issuer: Issuer, ledger: Any) -> Callable[[], Any]:
    """Return what asks for the suspects, once the ledger is open on that loop."""

    async def ask() -> Any:
        await issuer.counts()
        return await ledger.suspects()

    return ask


@OF_WHAT_WAS_DROPPED
def test_an_issuer_can_be_closed_on_the_next_loop(fake: FakeRespan, tmp_path: Path) -> None:
    """What was cut off is noted, the owner says that it leaves, and another opens the file at once."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
    calls: list[Any] = []

    async def leave() -> None:
        fake.script("stall")
        calls.append(asyncio.ensure_future(issuer.issue(ticket(0))))
        await until(lambda: fake.counts.requests == 1)

    run_and_drop(leave)
    run(issuer.aclose)
    run(respan.aclose)

    with closing(sqlite3.connect(tmp_path / "keys.db")) as connection:
        assert connection.execute("SELECT count(*) FROM owners").fetchone() == (0,)
        assert connection.execute("SELECT state FROM attempts").fetchall() == [("suspect",)]
    with pytest.raises(ClientStateError):
        run(lambda: issuer.issue(ticket(0)))
    calls.clear()


@OF_WHAT_WAS_DROPPED
@RUNS
def test_a_delivery_that_its_loop_cut_off_is_made_on_the_next(
    fake: FakeRespan, tmp_path: Path, runs: Callable[[Any], Any]
) -> None:
    """Its key is recorded, and nobody has its secret yet."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    delivered: list[str] = []
    calls: list[Any] = []
    hangs = True

    async def deliver(ticket_id: str, _: CreatedKey) -> None:
        delivered.append(ticket_id)
        if hangs:
            await asyncio.sleep(3600)

    issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"), deliver=deliver)

    async def leave() -> None:
        calls.append(asyncio.ensure_future(issuer.issue(ticket(0))))
        await until(lambda: delivered)

    async def go_on() -> None:
        await issuer.counts()
        await until(lambda: len(delivered) == 2, 5)
        async with asyncio.timeout(5):
            while not (await issuer.counts()).tickets[TicketState.DELIVERED]:  # noqa: ASYNC110  the ledger counts
                await asyncio.sleep(0.01)

    runs(leave)
    hangs = False
    run(go_on)
    run(respan.aclose)
    calls.clear()


@OF_WHAT_WAS_DROPPED
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.004, 0.02])
@pytest.mark.parametrize("work", ["open", "close"])
def test_a_ledger_whose_loop_was_closed_while_it_was_opened_or_closed_is_opened_anew(
    fake: FakeRespan, tmp_path: Path, seconds: float, work: str
) -> None:
    """Whatever it had come to; each ticket has its key."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    ledger = SQLiteLedger(tmp_path / "keys.db")
    issuer = Issuer(respan, ledger)
    calls: list[Any] = []

    async def leave() -> None:
        if work == "close":
            await issuer.issue(ticket(0))
        calls.append(asyncio.ensure_future(issuer.counts() if work == "open" else ledger.aclose()))
        await asyncio.sleep(seconds)

    run_and_drop(leave)
    issued = run(lambda: issuer.issue(ticket(0)))

    assert (issued.replayed, fake.counts.created) == (work == "close", 1)
    run(respan.aclose)
    calls.clear()


@OF_WHAT_WAS_DROPPED
@RUNS
@pytest.mark.parametrize("late", [False, True])
def test_a_file_of_keys_has_each_line_once_though_its_loop_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Callable[[Any], Any], late: bool
) -> None:
    """A write goes on in its thread when nobody is left to hear of its end: the next loop looks into the file."""
    path = tmp_path / "keys.jsonl"
    begun, go_on = threading.Event(), threading.Event()
    write = AppendOnlyFile.append

    def slow(file: AppendOnlyFile, data: bytes, wanted: Callable[[], bool]) -> None:
        begun.set()
        go_on.wait()
        time.sleep(0.02 if late else 0.0)
        write(file, data, wanted)

    calls: list[Any] = []
    key = CreatedKey(id="key-1", api_key=Secret("secret"))

    async def leave() -> None:
        calls.append(asyncio.ensure_future(sink("t-1", key)))
        await until(begun.is_set, 5)
        asyncio.get_running_loop().call_later(0.01, go_on.set)  # or the end of the loop would wait for the thread
        if runs is run_and_drop:
            go_on.set()

    with JSONLinesSink(path) as sink:
        with monkeypatch.context() as patched:
            patched.setattr(AppendOnlyFile, "append", slow)
            runs(leave)
        go_on.set()
        run(lambda: asyncio.wait_for(sink("t-1", key), 5))
        run(lambda: asyncio.wait_for(sink("t-2", CreatedKey(id="key-2", api_key=Secret("secret"))), 5))

    assert [json.loads(line)["ticket"] for line in path.read_text().splitlines()] == ["t-1", "t-2"]
    calls.clear()


def test_a_ledger_that_is_opened_for_another_account_on_the_next_loop_is_refused(
    fake: FakeRespan, tmp_path: Path
) -> None:
    """The file belongs to one account, whatever loop it is on."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    run(lambda: Issuer(respan, ledger).issue(ticket(0)))

    async def other() -> None:
        async with AsyncRespan("another", base_url=fake.url) as another:
            await Issuer(another, ledger).issue(ticket(1))

    with pytest.raises(LedgerError, match="the ledger of another account"):
        run(other)
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
@RUNS
def test_a_shared_window_goes_with_its_client(fake: FakeRespan, redis_url: str, runs: Callable[[Any], Any]) -> None:
    """Each loop has connections of its own; the log in Redis is the same."""
    window = RedisWindow(redis_url, RateLimit(10, per=60), key="next-loop")
    respan = AsyncRespan(fake.api_key, base_url=fake.url, pace=window, deadline=5.0)

    for _ in range(3):
        runs(respan.temporary_keys.create)

    async def used() -> int:
        await respan.temporary_keys.create()
        return respan.pace.used

    assert runs(used) == 4
    run(respan.aclose)
    assert fake.counts.created == 4


def test_a_redis_client_of_the_users_does_not_move(fake: FakeRespan, redis_url: str) -> None:
    """It says so, and what to give instead; and the client can be closed."""

    async def begin() -> AsyncRespan:
        redis = Redis.from_url(redis_url)
        window = RedisWindow(redis, RateLimit(10, per=60), key="given")
        respan = AsyncRespan(fake.api_key, base_url=fake.url, pace=window)
        await respan.temporary_keys.create()
        await redis.aclose()
        return respan

    respan = run(begin)
    with pytest.raises(ClientStateError, match=r"RedisWindow was given belongs .* give RedisWindow a URL"):
        run(respan.temporary_keys.create)
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
def test_a_ledger_whose_loop_was_closed_is_closed_on_another(fake: FakeRespan, ledger: Any) -> None:
    """By itself, without an issuer; its owner is gone then, and it can be opened again."""
    run_and_drop(lambda: ledger.open("https://api.respan.ai abc"))
    run(ledger.aclose)

    async def again() -> None:
        await ledger.open("https://api.respan.ai abc")
        await ledger.aclose()

    run(again)


@OF_WHAT_WAS_DROPPED
@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01])
@pytest.mark.parametrize("opened_before", [False, True])
def test_an_opening_that_its_loop_cut_short_is_done_on_the_next(
    fake: FakeRespan, ledger: Any, seconds: float, opened_before: bool
) -> None:
    """The first one, and that of a ledger that has moved."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    issuer = Issuer(respan, ledger)
    calls: list[Any] = []

    async def leave() -> None:
        calls.append(asyncio.ensure_future(issuer.counts()))
        await asyncio.sleep(seconds)

    if opened_before:
        run_and_drop(issuer.counts)
    run_and_drop(leave)
    issued = run(lambda: issuer.issue(ticket(0)))

    assert (issued.replayed, fake.counts.created) == (False, 1)
    run(respan.aclose)
    calls.clear()
