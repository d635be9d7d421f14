"""A client, a session and a ledger where they do not belong: in a forked process, or on another event loop."""

import asyncio
import contextlib
import gc
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from respan_async import AsyncRespan, ClientStateError, CreateKeyRequest, RateLimit, RetryPolicy
from respan_async.issuing import Issuer, PostgresLedger, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def told_in_a_child(*uses: Callable[[], Awaitable[object]]) -> list[str]:
    """Run each use in one forked process, on a loop of its own; give what came of it: an error's class and words."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, as a ledger has one
        child = os.fork()
    if not child:
        try:
            told = asyncio.run(tell(uses))
            os.write(write, "\n".join(told).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read().split("\n")


async def tell(uses: tuple[Callable[[], Awaitable[object]], ...]) -> list[str]:
    """Say what came of each use; none takes long."""
    told: list[str] = []
    for use in uses:
        try:
            async with asyncio.timeout(10):
                await use()
            told.append("no error")
        except Exception as error:  # noqa: BLE001  whatever it is, it is told
            told.append(f"{type(error).__name__}: {error}")
    return told


async def told_on_another_loop(*uses: Callable[[], Awaitable[object]]) -> list[str]:
    """Run each use in a thread, on a loop of its own, while this one lives."""
    return await asyncio.to_thread(lambda: asyncio.run(tell(uses)))


OF_A_FORK = "ClientStateError: the {} before a fork; make one in each process"
OF_ANOTHER_LOOP = (
    "ClientStateError: the {} belongs to another event loop, which is still open; give each loop one of its own, "
    "or let all threads use one loop, such as that of anyio's start_blocking_portal"
)


@forks
async def test_closing_a_client_in_a_forked_process_leaves_the_parents_connections_alone() -> None:
    """The parent's next call goes over the connection that it had, and its key arrives."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url, timeout=5.0) as respan:
        await respan.temporary_keys.create()

        told = told_in_a_child(respan.aclose, respan.temporary_keys.create, respan.with_options().aclose)

        assert told == [OF_A_FORK.format("client was used")] * 2 + ["no error"]  # closing a view closes nothing
        await respan.temporary_keys.create()
        assert (fake.counts.created, fake.counts.connections) == (2, 1)


async def test_closing_a_client_on_another_loop_leaves_it_open() -> None:
    """It goes on where it belongs, and is closed there; after that, closing is nothing anywhere."""
    async with FakeRespan() as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url)
        await respan.temporary_keys.create()

        assert await told_on_another_loop(respan.aclose) == [OF_ANOTHER_LOOP.format("client")]
        await respan.temporary_keys.create()
        assert fake.counts.connections == 1
        await respan.aclose()
        assert await told_on_another_loop(respan.aclose) == ["no error"]


async def test_a_client_that_was_not_used_may_be_closed_anywhere() -> None:
    """It belongs nowhere yet."""
    assert await told_on_another_loop(AsyncRespan("k").aclose) == ["no error"]


@pytest.mark.parametrize("where", [pytest.param("fork", marks=forks), "loop"])
async def test_a_batch_is_neither_taken_from_nor_left_elsewhere(where: str) -> None:
    """Or a child would get the keys that its parent hands out, and revoke them."""
    requests = [CreateKeyRequest(name=f"tenant-{number}") for number in range(4)]
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        respan.temporary_keys.create_many(requests) as batch,
    ):
        first = await anext(batch)

        async def stop() -> None:
            batch.stop()

        uses = (batch.__anext__, stop, lambda: batch.__aexit__(None, None, None))
        told = told_in_a_child(*uses) if where == "fork" else await told_on_another_loop(*uses)

        assert (
            told == [OF_A_FORK.format("client was used") if where == "fork" else OF_ANOTHER_LOOP.format("client")] * 3
        )
        held = [first, *[outcome async for outcome in batch]]

    assert len(held) == len(fake.keys) == fake.counts.alive == 4


# -------------------------------------------------------------------- sessions


async def made_session() -> aiohttp.ClientSession:
    """Give a session of the running loop."""
    return aiohttp.ClientSession()


@pytest.fixture(params=["living", "closed"])
def foreign_session(request: pytest.FixtureRequest) -> Iterator[aiohttp.ClientSession]:
    """Give a session of a loop that runs in another thread, or is closed."""
    loop = asyncio.new_event_loop()
    session = loop.run_until_complete(made_session())
    if request.param == "closed":
        loop.close()
        yield session
        session.detach()
        return
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield session
    asyncio.run_coroutine_threadsafe(session.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_a_session_of_another_loop_is_told_before_anything_is_sent(
    foreign_session: aiohttp.ClientSession,
) -> None:
    """One error, at once, that leaves no suspect."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, session=foreign_session) as respan,
    ):
        with pytest.raises(ClientStateError, match="the aiohttp session belongs to another event loop"):
            await respan.temporary_keys.create()
        with pytest.raises(ClientStateError, match="the aiohttp session belongs to another event loop"):
            await respan.temporary_keys.create_many([CreateKeyRequest()] * 100)

        assert (respan.suspects, respan.pace.in_flight, fake.counts.requests) == ((), 0, 0)


# --------------------------------------------------------------------- ledgers


def uses_of(ledger: Any, issuer: Issuer) -> tuple[Callable[[], Awaitable[object]], ...]:
    """Give what may be asked of a ledger, and of its issuer."""
    return (
        ledger.counts,
        ledger.suspects,
        lambda: ledger.undelivered("", 10),
        lambda: ledger.find("t"),
        lambda: ledger.erase("t"),
        ledger.aclose,
        issuer.counts,
        lambda: issuer.issue(Ticket("t", CreateKeyRequest())),
        issuer.aclose,
    )


OF_LEDGER, OF_ISSUER = 6, 3


@pytest.fixture(params=["sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Give a ledger that is not open."""
    if request.param == "sqlite":
        return SQLiteLedger(tmp_path / "keys.db")
    ledger = PostgresLedger(request.getfixturevalue("postgres_dsn"))
    await ledger.create_schema()
    return ledger


@forks
async def test_a_ledger_in_a_forked_process_is_not_touched(ledger: Any) -> None:
    """It says so at once, and the parent goes on, with its lease and its connections."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, ledger) as issuer,
    ):
        first = await issuer.issue(Ticket("first", CreateKeyRequest()))

        told = told_in_a_child(*uses_of(ledger, issuer))

        assert told[:OF_LEDGER] == [OF_A_FORK.format("ledger was opened")] * OF_LEDGER
        assert told[OF_LEDGER:] == [OF_A_FORK.format("client was used")] * OF_ISSUER
        again = await issuer.issue(Ticket("first", CreateKeyRequest()))
        assert (again.replayed, again.key.id) == (True, first.key.id)
        await issuer.issue(Ticket("second", CreateKeyRequest()))
        assert (await issuer.counts()).tickets


@forks
async def test_a_ledgers_file_that_a_parent_has_open_is_not_opened_in_a_child(tmp_path: Path) -> None:
    """SQLite would believe in the parent's locks. Once it is closed here, a child has it as any other process."""
    path = tmp_path / "keys.db"
    parents = SQLiteLedger(path)
    await parents.open("https://api.respan.ai abc")

    async def use() -> None:
        ledger = SQLiteLedger(path)
        await ledger.open("https://api.respan.ai abc")
        await ledger.aclose()

    (told,) = told_in_a_child(use)
    await parents.aclose()

    assert told.startswith(f"LedgerError: {path}: it was open in this process before a fork")
    assert "spawn" in told
    assert told_in_a_child(use) == ["no error"]


async def test_a_ledger_on_another_loop_is_not_touched(ledger: Any) -> None:
    """The same, in another thread."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, ledger) as issuer,
    ):
        await issuer.issue(Ticket("first", CreateKeyRequest()))

        told = await told_on_another_loop(*uses_of(ledger, issuer))

        assert told[:OF_LEDGER] == [OF_ANOTHER_LOOP.format("ledger")] * OF_LEDGER
        assert told[OF_LEDGER:] == [OF_ANOTHER_LOOP.format("client")] * OF_ISSUER
        await issuer.issue(Ticket("second", CreateKeyRequest()))
    assert await told_on_another_loop(ledger.aclose) == ["no error"]  # it was closed, and belongs nowhere


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what will never end
@pytest.mark.parametrize("left", ["nothing", "a call in the air", "a sweep to come"])
def test_a_client_whose_loop_is_closed_can_be_closed_on_another(left: str) -> None:
    """What ran on that loop will never end, and is not waited for."""

    async def use(fake: FakeRespan, respan: AsyncRespan) -> None:
        await respan.temporary_keys.create()
        if left == "a call in the air":
            fake.script("stall")
            calls.append(asyncio.ensure_future(respan.temporary_keys.create()))
            await asyncio.sleep(0.05)
        elif left == "a sweep to come":
            fake.script("lose_answer_after_create")
            await respan.temporary_keys.create()

    async def begin() -> AsyncRespan:
        async with FakeRespan() as fake:
            respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True, retry=RetryPolicy(initial=0.01))
            await use(fake, respan)
        return respan

    calls = list[Any]()
    loop = asyncio.new_event_loop()
    respan = loop.run_until_complete(begin())
    for call in calls:
        call._log_destroy_pending = False
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        loop.close()

    asyncio.run(asyncio.wait_for(respan.aclose(grace=0.5), 5))
    with pytest.raises(ClientStateError):
        asyncio.run(respan.temporary_keys.create())
    calls.clear()
    del respan, loop
    gc.collect()  # here, where Python's complaints of what will never end are expected


async def test_from_another_thread_one_is_told_the_way() -> None:
    """Stopping, and asking for the pace, is for the loop; how far a batch has come may be read from anywhere."""
    requests = [CreateKeyRequest(name=f"tenant-{number}") for number in range(4)]
    unused = AsyncRespan("k")
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1000, per=1)) as respan,
        respan.temporary_keys.create_many(requests) as batch,
    ):
        await anext(batch)
        says = "no event loop runs in this thread; hand the call to the loop of the client"
        for use in (batch.stop, lambda: respan.pace, lambda: unused.pace):
            with pytest.raises(ClientStateError, match=says):
                await asyncio.to_thread(use)
        progress = await asyncio.to_thread(lambda: batch.progress)
        assert (progress.total, progress.eta is not None) == (4, True)

        async def pace() -> None:
            assert respan.pace

        assert await told_on_another_loop(pace) == [OF_ANOTHER_LOOP.format("client")]
        assert len([outcome async for outcome in batch]) == 3
