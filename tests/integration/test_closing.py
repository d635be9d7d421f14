"""Closing a client: what is new is refused, what is in the air is finished, and nothing is left behind."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest

from respan_async import (
    AsyncRespan,
    ClientStateError,
    CreatedKey,
    CreateKeyRequest,
    Effect,
    InvalidRequestError,
    Issued,
    RateLimit,
    RespanError,
    TemporaryKey,
)
from respan_async.events import IssuedEvent
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.testing import FakeRespan
from tests.leftovers import nothing_left
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves a task, or something that the event loop has to complain about."""
    with nothing_left():
        yield
        await asyncio.sleep(0)


@asynccontextmanager
async def world(server: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server, a second away unless said otherwise, and a client that the test closes."""
    server = {"latency": 1.0, **(server or {})}
    async with FakeRespan(**server) as fake:
        yield fake, AsyncRespan(fake.api_key, base_url=fake.url, **settings)


@pytest.mark.parametrize("verb", ["create", "update", "list"])
async def test_what_is_cut_in_the_air_is_not_called_unsent(verb: str) -> None:
    """The error's sentence says what its effect says, and of whom the answer was."""
    async with world() as (fake, respan):
        keys = respan.temporary_keys

        async def call() -> object:
            match verb:
                case "create":
                    return await keys.create()
                case "update":
                    return await keys.update("i", name="x")
            return await keys.list()

        calling = asyncio.create_task(call())
        await asyncio.sleep(0.5)
        await respan.aclose(0)
        with pytest.raises(ClientStateError) as caught:
            await calling

        host = fake.url.removeprefix("http://")
        assert str(caught.value) == f"{verb}: the call was given up before {host} had answered"
        assert caught.value.effect is (Effect.NONE if verb == "list" else Effect.UNKNOWN)


async def test_a_client_that_was_never_used_closes_at_once() -> None:
    """There is no session to be closed."""
    async with world() as (fake, respan):
        await respan.aclose()

        assert now() == 0
        assert fake.counts.connections == 0
        assert "closed" in repr(respan)


@pytest.mark.parametrize("grace", [None, "5", timedelta(seconds=5), float("nan"), -1, True], ids=repr)
async def test_a_grace_that_is_no_number_of_seconds_closes_nothing(grace: Any) -> None:
    """What is in the air arrives, and the client goes on."""
    async with world() as (_, respan):
        creating = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)
        issuer = Issuer(respan, SQLiteLedger(":memory:"))
        for closing in (respan.aclose, issuer.aclose):
            with pytest.raises(InvalidRequestError, match="grace: expected a number of seconds, 0 or more, got "):
                await closing(grace)

        assert (await creating).api_key
        await respan.temporary_keys.list()
        await respan.aclose(float("inf"))


async def test_nothing_new_is_taken_after_closing() -> None:
    """Every operation says that the client is closed, and nothing is sent."""
    async with world() as (fake, respan):
        view = respan.with_options(timeout=5.0)
        await respan.aclose()

        for client in (respan, view):
            keys = client.temporary_keys
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.create()
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.list()
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.retrieve("a")
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.update("a", name="b")
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.delete("a")
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.sweep()
            with pytest.raises(ClientStateError, match="the client is closed"):
                await keys.create_many([CreateKeyRequest()])
            with pytest.raises(ClientStateError, match="the client is closed"):
                await client.__aenter__()
        assert fake.counts.requests == 0


async def test_the_order_of_closing() -> None:
    """Newcomers are refused and waiters fail at once; what is in the air gets its key; then the session is closed."""
    async with world({"latency": 4.0}, pace=RateLimit(3, per=60)) as (fake, respan):
        in_air = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(3)]
        await asyncio.sleep(1)
        waiting = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(respan.aclose())
        await asyncio.sleep(0)

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert now() == pytest.approx(1, abs=1e-4)
        assert {type(result) for result in results} == {ClientStateError}
        with pytest.raises(ClientStateError, match="the client is closed"):
            await respan.temporary_keys.create()

        keys = await asyncio.gather(*in_air)
        assert all(isinstance(key, CreatedKey) for key in keys)
        await closing
        assert now() == pytest.approx(4, abs=0.1)
        assert fake.counts.alive == 3
        assert respan.suspects == ()


async def test_what_takes_longer_than_the_grace_is_cut_and_remembered() -> None:
    """Its caller is told, and what it may have left is a suspect, of which the log says how many there are."""
    async with world({"latency": 100.0}, timeout=500.0) as (fake, respan):
        tasks = [asyncio.create_task(respan.temporary_keys.create(name=f"tenant-{index}")) for index in range(3)]
        await asyncio.sleep(1)

        await respan.aclose(grace=5.0)

        assert now() == pytest.approx(6, abs=0.1)
        for task in tasks:
            # Not a CancelledError: nobody cancelled those who await the calls.
            with pytest.raises(ClientStateError) as caught:
                await task
            assert caught.value.effect is Effect.UNKNOWN
            assert len(caught.value.suspects) == 1
        assert sorted(suspect.name or "" for suspect in respan.suspects) == ["tenant-0", "tenant-1", "tenant-2"]
        assert {suspect.effect for suspect in respan.suspects} == {Effect.UNKNOWN}
        assert respan.pace.in_flight == 0
        assert fake.counts.created == 0


async def test_suspects_that_are_left_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The last word of a client that closes with suspects is a warning."""
    async with world() as (fake, respan):
        fake.script("lose_answer_after_create")
        await respan.temporary_keys.create()
        with caplog.at_level(logging.WARNING, logger="respan_async"):
            caplog.clear()
            await respan.aclose()

    assert [record.getMessage() for record in caplog.records] == [
        "closed with 1 suspects left, which may be live keys nobody holds"
    ]


async def test_keys_that_nobody_holds_are_revoked_before_the_session_is_closed() -> None:
    """A caller that was cancelled just before: its key arrives, is revoked, and then the client is closed."""
    async with world({"latency": 2.0}) as (fake, respan):
        tasks = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(4)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()

        await respan.aclose()

        assert now() <= 6.1
        assert (fake.counts.created, fake.counts.revoked) == (4, 4)
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("operation", ["list", "retrieve"])
async def test_a_read_whose_caller_is_gone_is_not_waited_for(operation: str) -> None:
    """It would change nothing: its connection is closed at once, and so is the client."""
    async with world() as (fake, respan):
        fake.script("stall", operation=operation)
        keys = respan.temporary_keys
        reading: dict[str, Any] = {"list": keys.list, "retrieve": partial(keys.retrieve, "a")}
        task = asyncio.ensure_future(reading[operation]())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})
        await respan.aclose()

        assert task.cancelled()
        assert now() == pytest.approx(0.5, abs=0.1)
        assert fake.counts.by_operation == {operation: 1}
        assert respan.pace.in_flight == 0


async def test_a_read_whose_caller_goes_while_the_client_is_closed_is_not_waited_for() -> None:
    """Closing waits for it as long as somebody else does."""
    async with world() as (fake, respan):
        fake.script("stall", operation="list")
        task = asyncio.ensure_future(respan.temporary_keys.list())
        await asyncio.sleep(0.5)
        closing = asyncio.create_task(respan.aclose())
        await asyncio.sleep(1)
        assert not closing.done()

        task.cancel()
        await closing

        assert task.cancelled()
        assert now() == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("operation", ["update", "delete"])
async def test_a_change_whose_caller_is_gone_is_made_all_the_same(operation: str) -> None:
    """Cut off on its way, it may or may not have been made; waited for, it is."""
    async with world() as (fake, respan):
        keys = respan.temporary_keys
        key = await keys.create(name="before")
        task = asyncio.create_task(keys.delete(key.id) if operation == "delete" else keys.update(key.id, name="after"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})
        await respan.aclose()

        assert task.cancelled()
        assert now() == pytest.approx(2.0, abs=0.1)
        assert [record.name for record in fake.alive()] == ([] if operation == "delete" else ["after"])


async def test_a_key_that_is_gone_when_it_is_to_be_revoked_is_no_suspect(caplog: pytest.LogCaptureFixture) -> None:
    """Its caller was cancelled, and somebody else has revoked it: nobody holds a live key."""
    async with world({"latency": 2.0}) as (fake, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(1.6)
        (key_id,) = fake.keys
        fake.keys.clear()
        with caplog.at_level(logging.INFO, logger="respan_async"):
            await respan.aclose()

        assert fake.counts.by_operation["delete"] == 1
        assert respan.suspects == ()
        assert f"revoked key {key_id}" in caplog.text


async def test_a_batch_with_deadlines_that_is_cut_tells_each_of_its_items() -> None:
    """The grace is over before the answers come: every item that was taken has its outcome, and its suspect."""
    async with world({"latency": 100.0}, timeout=500.0, deadline=400.0) as (fake, respan):
        outcomes = list[Any]()

        async def consume() -> None:
            requests = [CreateKeyRequest(name=f"tenant-{index}") for index in range(10)]
            async with respan.temporary_keys.create_many(requests, max_in_flight=2) as batch:
                async for outcome in batch:
                    outcomes.append(outcome)

        task = asyncio.create_task(consume())
        await asyncio.sleep(1)
        await respan.aclose(grace=5.0)
        with pytest.raises(ClientStateError, match="closed before the batch was through"):
            await task

        assert now() == pytest.approx(6, abs=0.1)
        assert [type(outcome.error) for outcome in outcomes] == [ClientStateError] * 2
        assert {outcome.error.effect for outcome in outcomes} == {Effect.UNKNOWN}
        assert len(respan.suspects) == fake.counts.requests == 2


async def test_a_key_that_could_not_be_revoked_in_time_is_remembered() -> None:
    """When the grace is over before the revocation is, its id is among the suspects."""
    async with world({"latency": 4.0}) as (fake, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})
        await respan.aclose(grace=4.0)

        assert fake.counts.created == 1
        assert [suspect.id for suspect in respan.suspects] == [record.id for record in fake.keys.values()]


async def test_closing_twice_is_closing_once() -> None:
    """The second time does nothing, also while the first is under way."""
    async with world({"latency": 4.0}) as (_, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)
        first = asyncio.create_task(respan.aclose())
        await asyncio.sleep(0)
        await respan.aclose()
        assert (await task).id
        await first
        await respan.aclose()
        async with AsyncRespan("test-key") as other:
            await other.aclose()


async def test_closing_a_view_closes_nothing() -> None:
    """A view shares the session of the client it was made from."""
    async with world() as (fake, respan):
        view = respan.with_options(timeout=5.0)
        async with view:
            await view.temporary_keys.create()
        await view.temporary_keys.create()
        await respan.temporary_keys.create()
        await respan.aclose()

        assert fake.counts.created == 3


async def test_a_session_that_was_given_stays_open() -> None:
    """It is the caller's to close."""
    async with FakeRespan() as fake, aiohttp.ClientSession() as session:
        async with AsyncRespan(fake.api_key, base_url=fake.url, session=session) as respan:
            await respan.temporary_keys.create()

        assert not session.closed
        async with AsyncRespan(fake.api_key, base_url=fake.url, session=session) as another:
            await another.temporary_keys.create()


async def test_a_hook_may_close_the_client() -> None:
    """The task in which it happens cannot wait for itself, and is not cut: its key is handed out."""
    closings = list[asyncio.Task[None]]()

    def hook(event: Any) -> None:
        if isinstance(event, IssuedEvent):
            closings.append(asyncio.create_task(respan.aclose()))

    async with FakeRespan(latency=1.0) as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url, hooks=[hook])

        key = await respan.temporary_keys.create()

        assert key.id in fake.keys
        await asyncio.gather(*closings)
        assert fake.counts.alive == 1
        assert now() == pytest.approx(1, abs=0.1)


async def test_the_source_of_the_token_may_close_the_client() -> None:
    """Closing from within one of the client's own tasks comes to an end."""

    async def token() -> str:
        await respan.aclose(grace=3.0)
        return "test-key"

    async with FakeRespan(latency=1.0) as fake:
        respan = AsyncRespan(token, base_url=fake.url)

        with pytest.raises(ClientStateError, match="given up before it was sent"):
            await respan.temporary_keys.create()

        assert now() <= 5
        assert fake.counts.requests == 0


async def test_an_exception_in_the_body_closes_the_client_as_well() -> None:
    """Leaving `async with` by an error waits for what is in the air, and lets the error through."""

    class BodyError(Exception):
        pass

    async with world() as (fake, respan):

        async def body() -> None:
            async with respan:
                tasks.append(asyncio.create_task(respan.temporary_keys.create()))
                await asyncio.sleep(0.1)
                raise BodyError

        tasks = list[asyncio.Task[CreatedKey]]()
        with pytest.raises(BodyError):
            await body()

        assert (await tasks[0]).id in fake.keys


async def test_closing_can_be_cancelled_and_still_closes_the_session() -> None:
    """Who will not wait for the grace gives up what is in the air, and leaves no session open."""
    async with world({"latency": 100.0}, timeout=500.0) as (_, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1)
        closing = asyncio.create_task(respan.aclose(grace=50.0))
        await asyncio.sleep(1)

        closing.cancel()
        await asyncio.wait({closing, task})

        assert closing.cancelled()
        assert isinstance(task.exception(), ClientStateError)
        assert now() < 3
        assert len(respan.suspects) == 1


async def test_closing_while_a_batch_runs_hands_out_every_key() -> None:
    """The batch ends with what was in the air; the keys that work are those that came out of it."""
    handed_out = list[str]()

    async def consume() -> None:
        async with respan.temporary_keys.create_many(CreateKeyRequest() for _ in range(1000)) as batch:
            async for outcome in batch:
                if isinstance(outcome, Issued):
                    handed_out.append(outcome.key.id)

    async with world({"latency": (0.5, 3.0)}, pace=RateLimit(120, per=60)) as (fake, respan):
        task = asyncio.create_task(consume())
        await asyncio.sleep(30)
        began = now()
        await respan.aclose()

        with pytest.raises(ClientStateError):
            await task
        assert now() - began <= 3.1
        assert sorted(handed_out) == sorted(record.id for record in fake.alive())


async def test_a_batch_whose_consumer_is_slow_when_the_client_is_closed_hands_out_what_it_has() -> None:
    """Keys that are ready when the client is closed are still taken; they are not revoked behind one's back."""
    handed_out = list[str]()

    async def consume() -> None:
        async with respan.temporary_keys.create_many(CreateKeyRequest() for _ in range(100)) as batch:
            async for outcome in batch:
                assert isinstance(outcome, Issued) or respan._service.context.lifecycle.closing
                if isinstance(outcome, Issued):
                    handed_out.append(outcome.key.id)
                await asyncio.sleep(20)

    async with world({"latency": 0.5}, pace=RateLimit(600, per=60)) as (fake, respan):
        task = asyncio.create_task(consume())
        await asyncio.sleep(10)
        await respan.aclose()
        with pytest.raises(ClientStateError):
            await task

        assert sorted(handed_out) == sorted(record.id for record in fake.alive())


async def test_a_batch_that_is_being_left_when_the_client_is_closed_leaves_no_key() -> None:
    """The body ends by an error while the client is closed around it: what was not handed out is revoked."""
    async with world({"latency": 2.0}, pace=RateLimit(600, per=60)) as (fake, respan):
        async with respan:
            requests = [CreateKeyRequest() for _ in range(30)]
            async with respan.temporary_keys.create_many(requests) as batch:
                kept = await anext(batch)

        assert isinstance(kept, Issued)
        assert [record.id for record in fake.alive()] == [kept.key.id]


async def test_calls_that_wait_for_a_back_off_are_cut_at_the_end_of_the_grace() -> None:
    """A call that sleeps before its next attempt does not keep a client open for longer than the grace."""
    async with world() as (fake, respan):
        fake.script("refuse:100")
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(5)

        await respan.aclose(grace=8.0)

        assert now() == pytest.approx(13, abs=0.1)
        with pytest.raises(ClientStateError) as caught:
            await task
        assert caught.value.effect is Effect.NONE
        assert fake.counts.created == 0


@pytest.mark.parametrize("grace", [10.0, 1.0])
async def test_reading_is_finished_within_the_grace_or_fails(grace: float) -> None:
    """A call that makes no key is waited for as well, and told when the grace is over."""
    async with world({"latency": 4.0}) as (_, respan):
        task = asyncio.create_task(first_page(respan))
        await asyncio.sleep(0.5)

        await respan.aclose(grace=grace)

        if grace > 4:
            assert await task == []
        else:
            with pytest.raises(RespanError):
                await task
        assert now() <= 4.1


async def first_page(respan: AsyncRespan) -> list[TemporaryKey]:
    """Read the first page of the list."""
    return list((await respan.temporary_keys.list()).results)


async def test_a_second_closing_waits_for_the_first() -> None:
    """Whoever leaves `async with` while a signal handler closes the client does not end the process under it."""
    async with FakeRespan(latency=0.2) as fake:
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            creating = asyncio.ensure_future(respan.temporary_keys.create())
            await asyncio.sleep(0.05)  # in the air
            creating.cancel()
            first = asyncio.ensure_future(respan.aclose())
            await asyncio.sleep(0)
            await respan.aclose()

            assert respan._service.context.lifecycle.closed.is_set()
        await first

        assert (fake.counts.created, fake.alive()) == (1, [])


# ----------------------------------------------------------- what comes too late


def not_revoked(caplog: pytest.LogCaptureFixture) -> list[set[str]]:
    """Give the ids that each warning about keys that were not revoked names."""
    told = [record.getMessage() for record in caplog.records if "were not revoked" in record.getMessage()]
    return [set(message.partition("may be alive: ")[2].split(", ")) for message in told]


async def job(respan: AsyncRespan) -> None:
    """Hold a key, and revoke it in the end."""
    key = await respan.temporary_keys.create()
    try:
        await asyncio.sleep(1000)
    finally:
        await respan.temporary_keys.delete(key.id)


async def test_keys_whose_jobs_end_after_the_client_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty jobs that were cancelled and not awaited want to revoke their keys: one warning names all of them."""

    async with FakeRespan(latency=0.1) as fake:
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            jobs = [asyncio.create_task(job(respan)) for _ in range(50)]
            await asyncio.sleep(1)
            for task in jobs:
                task.cancel()
        errors = await asyncio.gather(*jobs, return_exceptions=True)
        alive = {record.id for record in fake.alive()}

    assert {type(error) for error in errors} == {ClientStateError}
    assert len(alive) == 50
    assert not_revoked(caplog) == [alive]


async def test_keys_that_are_to_be_revoked_long_after_are_named_too(caplog: pytest.LogCaptureFixture) -> None:
    """All of one turn in one warning."""
    async with world() as (_, respan):
        await respan.aclose()
        await asyncio.gather(*(respan.temporary_keys.delete(key) for key in "abc"), return_exceptions=True)
        await asyncio.sleep(1)
        with pytest.raises(ClientStateError):
            await respan.temporary_keys.delete("d\n")
        await asyncio.sleep(1)

    assert not_revoked(caplog) == [{"a", "b", "c"}, {"d\\n"}]


async def test_a_delete_that_waited_when_the_client_was_closed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """One that was in the air is finished, and is not."""
    async with world(pace=RateLimit(1, per=60)) as (fake, respan):
        sent, waiting = (asyncio.create_task(respan.temporary_keys.delete(key, missing_ok=True)) for key in "ab")
        await asyncio.sleep(0.1)
        await respan.aclose()
        await asyncio.gather(sent, waiting, return_exceptions=True)

        assert fake.counts.requests == 1
    assert not_revoked(caplog) == [{"b"}]


async def test_a_delete_that_was_refused_for_another_reason_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """Its caller knows."""
    async with world() as (_, respan):
        with pytest.raises(RespanError):
            await respan.temporary_keys.delete("a")
        await respan.aclose()

    assert not_revoked(caplog) == []


# ------------------------------------------------------- a session of one's own


@pytest.mark.parametrize(
    "limits", [{"limit": 3}, {"limit": 0, "limit_per_host": 3}, {"limit": 50, "limit_per_host": 3}]
)
async def test_no_more_is_in_the_air_than_a_session_has_connections_for(limits: dict[str, Any]) -> None:
    """A request that waited for a connection would be taken for one whose answer is lost."""
    async with (
        FakeRespan(latency=1.0) as fake,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(**limits)) as session,
        AsyncRespan(fake.api_key, base_url=fake.url, session=session, timeout=1.5) as respan,
    ):
        await asyncio.gather(*(respan.temporary_keys.create() for _ in range(12)))
        assert respan.suspects == ()
        assert (fake.counts.created, fake.counts.max_in_flight) == (12, 3)


@pytest.mark.parametrize("limits", [{"limit": 0}, {"limit": 100}])
async def test_a_wide_session_bounds_nothing(limits: dict[str, Any]) -> None:
    """Then it is `max_in_flight` that counts."""
    async with (
        FakeRespan(latency=1.0) as fake,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(**limits)) as session,
        AsyncRespan(fake.api_key, base_url=fake.url, session=session, max_in_flight=8) as respan,
    ):
        await asyncio.gather(*(respan.temporary_keys.create() for _ in range(12)))
        assert fake.counts.max_in_flight == 8


async def test_a_delete_that_is_cancelled_while_the_client_closes_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A second cancellation, while `finally` wants to revoke: the key is told all the same."""

    async with FakeRespan() as fake:
        async with AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=60)) as respan:
            task = asyncio.create_task(job(respan))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(0.1)
            asyncio.get_running_loop().call_later(0.1, task.cancel)
        await asyncio.gather(task, return_exceptions=True)
        (alive,) = (record.id for record in fake.alive())

    assert not_revoked(caplog) == [{alive}]


async def test_a_client_that_is_closed_twice_from_within_does_not_wait_for_itself() -> None:
    """The source of the token closes it, while it is being closed by another."""

    async def token() -> str:
        await asyncio.sleep(2.0)
        await respan.aclose()
        return "test-key"

    async with FakeRespan() as fake:
        respan = AsyncRespan(token, base_url=fake.url, timeout=60.0)
        creating = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1.0)
        async with asyncio.timeout(5.0):
            await respan.aclose(grace=60.0)

        with pytest.raises(ClientStateError, match="the client is closed"):
            await creating
        assert fake.counts.requests == 0
