"""A client whose event loop is closed goes on on the next one, with its pace and its suspects."""

import asyncio
import contextlib
import gc
import importlib.util
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

from respan_async import (
    AsyncRespan,
    ClientStateError,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    RateLimit,
    RespanError,
    RetryPolicy,
)
from respan_async._calls.call_service import service_of
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan
from tests.waiting import until

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]

OF_WHAT_WAS_DROPPED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Python complains of tasks and sockets of a loop that was closed without ending them."""


@pytest.fixture(name="fake")
def fake_fixture() -> Iterator[FakeRespan]:
    """Run a server whose loop stays; and let Python complain here of what was dropped with a loop."""
    with FakeRespan.in_thread() as running:
        yield running
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def run(work: Work[T]) -> T:
    """Run something on a loop of its own, as `asyncio.run` does."""

    async def main() -> T:
        return await work()

    return asyncio.run(main())


def run_and_drop(work: Work[T]) -> T:
    """Run something on a loop of its own, and close that without a word to those who are still at work."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let Python complain here of what was dropped with a loop, and not in the next test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def open_sockets() -> int:
    """Count this process's."""
    number = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, by the server's thread
            number += "socket" in str(entry.readlink())
    return number


@OF_WHAT_WAS_DROPPED
@pytest.mark.parametrize("runs", [run, run_and_drop], ids=["in order", "dropped"])
def test_a_client_works_on_one_loop_after_the_other(fake: FakeRespan, runs: Callable[[Work[Any]], Any]) -> None:
    """Single calls, batches and lists, and closing on the last."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)

    for _ in range(3):
        runs(respan.temporary_keys.create)
        outcomes = runs(lambda: _all(respan))
        assert len(outcomes) == 5
    runs(respan.aclose)

    assert (fake.counts.created, respan.suspects) == (18, ())
    with pytest.raises(ClientStateError, match="the client is closed"):
        runs(respan.temporary_keys.create)


async def _all(respan: AsyncRespan) -> list[Any]:
    return await respan.temporary_keys.create_many([CreateKeyRequest()] * 5)


def loop_factories() -> Iterator[Any]:
    """Give what makes loops of other kinds, as far as they are here."""
    if importlib.util.find_spec("uvloop") is not None:
        yield pytest.param(importlib.import_module("uvloop").new_event_loop, id="uvloop")
    if hasattr(asyncio, "eager_task_factory"):

        def eager() -> asyncio.AbstractEventLoop:
            loop = asyncio.new_event_loop()
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # from 3.12 on
            return loop

        yield pytest.param(eager, id="eager")


@pytest.mark.parametrize("factory", [*loop_factories()])
def test_it_does_so_on_loops_of_other_kinds(fake: FakeRespan, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Also with an issuer, a batch, and an attempt that the end of its loop cuts off."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True)
    issuer = Issuer(respan, SQLiteLedger(":memory:"))

    async def cut_off() -> None:
        fake.script("stall")
        before = fake.counts.requests
        call = asyncio.ensure_future(respan.temporary_keys.create(name="cut"))
        await until(lambda: fake.counts.requests > before)
        assert not call.done()

    def once(work: Work[T]) -> T:
        async def main() -> T:
            return await work()

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    for _ in range(2):
        once(respan.temporary_keys.create)
        assert len(once(lambda: _all(respan))) == 5
        assert once(lambda: issuer.issue(Ticket("t", CreateKeyRequest()))).key.id
    once(cut_off)
    once(respan.temporary_keys.create)
    once(respan.aclose)

    assert (fake.counts.created, [suspect.effect for suspect in respan.suspects]) == (15, [Effect.UNKNOWN])


@OF_WHAT_WAS_DROPPED
def test_a_batch_stays_on_its_loop(fake: FakeRespan) -> None:
    """Nobody waits for outcomes that will never come."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    batch = respan.temporary_keys.create_many([CreateKeyRequest()] * 5, max_in_flight=1)

    async def begin() -> None:
        await batch.__aenter__()
        await anext(batch)

    async def go_on() -> None:
        try:
            while True:
                await anext(batch)
        finally:
            await batch.__aexit__(None, None, None)

    run_and_drop(begin)
    with pytest.raises(ClientStateError, match="a batch runs on one event loop"):
        run(lambda: asyncio.wait_for(go_on(), 5))
    run(respan.aclose)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")
def test_a_loop_that_ends_in_order_leaves_no_connection(fake: FakeRespan) -> None:
    """And nothing for Python to complain about, though the client stays open."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    before = open_sockets()

    for _ in range(3):
        run(respan.temporary_keys.create)
        assert open_sockets() - before <= 1  # the server's end, for a moment
    gc.collect()

    run(respan.aclose)


def test_the_pace_goes_on(fake: FakeRespan) -> None:
    """Two of two were used on the first loop: on the second, there is nothing for a minute."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(2, per=60), deadline=5.0)
    run(respan.temporary_keys.create)
    run(respan.temporary_keys.create)

    with pytest.raises(DeadlineExceededError, match=r"the rate limit has no room for (5\d|60)"):
        run(respan.temporary_keys.create)

    async def used() -> int:
        return respan.pace.used

    assert run(used) == 2
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
def test_what_was_in_the_air_when_the_loop_was_closed_is_a_suspect(fake: FakeRespan) -> None:
    """It is told, it counts against the limit, and its slot in the air is free again."""
    heard: list[Any] = []
    respan = AsyncRespan(
        fake.api_key,
        base_url=fake.url,
        tag_names=True,
        pace=RateLimit(3, per=60),
        max_in_flight=2,
        hooks=[lambda event: heard.append(type(event).__name__)],
    )
    calls: list[Any] = []

    async def leave() -> None:
        fake.script("stall", "stall")
        calls.extend(asyncio.ensure_future(respan.temporary_keys.create(name=name)) for name in "abc")
        await until(lambda: fake.counts.requests == 2)

    async def go_on() -> tuple[int, int]:
        key = await respan.temporary_keys.create(name="d")
        assert key.name is not None
        assert key.name.startswith("d ~")
        assert any("AutoSweep" in repr(task) for task in asyncio.all_tasks())  # it looks for what was left
        return respan.pace.used, respan.pace.in_flight

    run_and_drop(leave)
    assert run(go_on) == (3, 0)

    assert sorted(str(suspect.name)[0] for suspect in respan.suspects) == ["a", "b"]
    assert {suspect.effect for suspect in respan.suspects} == {Effect.UNKNOWN}
    assert heard.count("SuspectEvent") == 2
    run(respan.aclose)


def test_what_a_loop_cuts_off_at_its_end_is_a_suspect_and_can_be_swept_on_the_next(fake: FakeRespan) -> None:
    """`asyncio.run` cancels what is still at work; the key that was made then is found and revoked."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True)
    fake.script("lose_answer_after_create", "stall")

    async def leave() -> None:
        task = asyncio.ensure_future(respan.temporary_keys.create(name="a"))
        await until(lambda: fake.counts.requests >= 1)
        await asyncio.sleep(0)
        assert not task.done()

    async def sweep() -> int:
        report = await respan.temporary_keys.sweep(grace=0.0)
        return len(report.revoked)

    run(leave)
    assert 1 <= len(respan.suspects) <= 2
    assert run(sweep) == 1
    run(respan.aclose)


@pytest.mark.parametrize("runs", [run, run_and_drop], ids=["in order", "dropped"])
def test_a_suspect_of_a_loop_that_is_closed_is_swept_on_the_next(
    fake: FakeRespan, runs: Callable[[Work[Any]], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A minute after its attempt, whichever loops came in between."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True)

    async def create() -> None:
        await respan.temporary_keys.create(name="tenant-1")

    async def later() -> None:
        await create()
        await asyncio.sleep(0.1)
        assert len(respan.suspects) == 1
        service_of(respan).context.advance(61.0)
        await until(lambda: not respan.suspects)

    fake.script("lose_answer_after_create")
    runs(create)
    assert len(respan.suspects) == 1
    runs(create)
    run(later)

    assert fake.counts.alive == 3
    assert "unexpectedly" not in caplog.text
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
def test_a_session_of_the_callers_does_not_move(fake: FakeRespan) -> None:
    """It says so, each time, before anything is sent; and the client can be closed."""

    async def make() -> AsyncRespan:
        async with aiohttp.ClientSession() as session:
            respan = AsyncRespan(fake.api_key, base_url=fake.url, session=session)
            await respan.temporary_keys.create()
            return respan

    respan = run(make)

    for _ in range(2):
        with pytest.raises(ClientStateError, match="was given an aiohttp session, which belongs to an event loop that"):
            run(respan.temporary_keys.create)
    run(respan.aclose)
    assert fake.counts.created == 1


def test_of_two_threads_that_want_a_client_one_gets_it(fake: FakeRespan) -> None:
    """The other is told the ways out, and nothing of the client is touched twice."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    run(respan.temporary_keys.create)
    barrier = threading.Barrier(8)
    came: list[str] = []

    async def use() -> None:
        barrier.wait()
        try:
            await respan.temporary_keys.create()
        except ClientStateError as error:
            came.append(str(error))
        else:
            came.append("a key")
        barrier.wait()

    threads = [threading.Thread(target=run, args=(use,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert came.count("a key") == 1
    (told,) = set(came) - {"a key"}
    assert told == (
        "the client belongs to another event loop, which is still open; give each loop one of its own, or let all "
        "threads use one loop, such as that of anyio's start_blocking_portal"
    )
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
def test_a_closing_that_its_loop_cut_short_is_done_on_the_next(fake: FakeRespan) -> None:
    """Nobody waits for the end of a closing that will never come."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    left: list[Any] = []

    async def leave() -> None:
        fake.script("stall")
        left.append(asyncio.ensure_future(respan.temporary_keys.create()))
        await until(lambda: fake.counts.requests == 1)
        left.append(asyncio.ensure_future(respan.aclose(grace=60.0)))
        await asyncio.sleep(0.01)

    run_and_drop(leave)
    run(lambda: asyncio.wait_for(respan.aclose(grace=0.1), 5))

    with pytest.raises(ClientStateError, match="the client is closed"):
        run(respan.temporary_keys.create)
    assert len(respan.suspects) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_client_that_was_made_and_not_used_before_a_fork_works_in_the_child(fake: FakeRespan) -> None:
    """As under gunicorn --preload."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        children = [os.fork() for _ in range(1)]
    if 0 in children:
        status = 1
        with contextlib.suppress(BaseException):
            run(respan.temporary_keys.create)
            run(respan.aclose)
            status = 0
        os._exit(status)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0]
    run(respan.temporary_keys.create)
    assert fake.counts.created == 2
    run(respan.aclose)


def test_a_token_that_a_closed_loop_was_asking_for_is_asked_for_anew(fake: FakeRespan) -> None:
    """Whoever waits for it waits for a task that runs."""
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        if len(asked) == 1:
            await asyncio.sleep(3600)
        return fake.api_key

    respan = AsyncRespan(token, base_url=fake.url, retry=RetryPolicy(max_attempts=1))

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(respan.temporary_keys.create(), 0.02)

    run(leave)
    run(respan.temporary_keys.create)
    assert len(asked) == 2
    run(respan.aclose)


def test_an_outage_goes_on(fake: FakeRespan) -> None:
    """Failures in a row on one loop hold a batch back on the next, until a probe gets through."""
    respan = AsyncRespan(fake.api_key, base_url="http://127.0.0.1:9", retry=RetryPolicy(max_attempts=1))

    async def fail() -> bool:
        for _ in range(8):
            with contextlib.suppress(RespanError):
                await respan.temporary_keys.create()
        return respan.pace.outage

    async def outage() -> bool:
        return respan.pace.outage

    assert run(fail)
    assert run(outage)
    run(respan.aclose)


@OF_WHAT_WAS_DROPPED
@pytest.mark.parametrize("ordered", [False, True])
def test_what_a_batch_had_in_hand_when_its_loop_was_closed_is_revoked_on_the_next(
    fake: FakeRespan, ordered: bool
) -> None:
    """Keys that were made and not taken are nobody's."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True)
    requests = [CreateKeyRequest(name=f"tenant-{number}") for number in range(4)]
    kept: list[Any] = []

    async def first() -> None:
        batch = respan.temporary_keys.create_many(requests, max_in_flight=4, ordered=ordered)
        kept.append(batch)
        await batch.__aenter__()
        await until(lambda: batch.progress.done == 4)

    async def then() -> None:
        await respan.temporary_keys.list()
        await until(lambda: not fake.alive())
        await respan.aclose()

    run_and_drop(first)
    assert len(fake.alive()) == 4
    run(then)

    assert respan.suspects == ()


@OF_WHAT_WAS_DROPPED
def test_a_key_whose_revoking_was_cut_off_with_its_loop_is_a_suspect(fake: FakeRespan) -> None:
    """Its id is known, so it is revoked by that on the next."""
    respan = AsyncRespan(fake.api_key, base_url=fake.url)
    fake.script("stall_before", operation="delete")

    async def first() -> None:
        creating = asyncio.ensure_future(respan.temporary_keys.create())
        await until(lambda: fake.counts.requests)
        creating.cancel()
        await until(lambda: fake.counts.by_operation.get("delete"))

    async def then() -> tuple[str | None, ...]:
        await respan.temporary_keys.list()
        return tuple(suspect.id for suspect in respan.suspects)

    fake._latency = (0.05, 0.05)
    run_and_drop(first)
    (key_id,) = fake.keys

    assert run(then) == (key_id,)


@OF_WHAT_WAS_DROPPED
def test_a_client_with_the_callers_session_tells_at_its_closing_what_its_loop_cut_off(
    fake: FakeRespan, tmp_path: Path
) -> None:
    """It does not move; its issuer and ledger are closed with it."""
    fake._latency = (5.0, 5.0)
    made: dict[str, Any] = {}
    others = set(threading.enumerate())

    async def first() -> None:
        made["session"] = aiohttp.ClientSession()
        made["respan"] = respan = AsyncRespan(fake.api_key, base_url=fake.url, session=made["session"])
        made["issuer"] = issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
        await issuer.counts()
        made["task"] = asyncio.ensure_future(respan.temporary_keys.create())
        await until(lambda: fake.counts.requests)

    async def then() -> None:
        await made["respan"].aclose(0.1)
        await made["issuer"].aclose()
        writers = [thread for thread in set(threading.enumerate()) - others if thread.name == "respan-ledger"]
        await until(lambda: not any(map(threading.Thread.is_alive, writers)))

    run_and_drop(first)
    run(then)

    assert [suspect.effect for suspect in made["respan"].suspects] == [Effect.UNKNOWN]
    gc.collect()
