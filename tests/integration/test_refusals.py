"""What refusals come to for callers: an exhausted quota, a server that asks to wait, one operation's own limit."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from respan_async import (
    DOCUMENTED_LIMIT,
    AsyncRespan,
    CreateKeyRequest,
    Failed,
    InternalServerError,
    Issued,
    RateLimit,
    RateLimitError,
    RetryPolicy,
)
from respan_async.testing import FakeRespan, SlidingLog
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


@asynccontextmanager
async def world(server: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server, a tenth of a second away unless said otherwise, and a client."""
    server = {"latency": 0.1, **(server or {})}
    async with FakeRespan(**server) as fake, AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan:
        yield fake, respan


def requests(number: int) -> Iterator[CreateKeyRequest]:
    """Give requests one after the other, as a batch of unknown length."""
    return (CreateKeyRequest(name=f"tenant-{index}") for index in range(number))


@asynccontextmanager
async def server_of(respond: Any) -> AsyncIterator[str]:
    """Run a server that answers by a function of the request, and give its address."""
    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# ------------------------------------------------------------------------------------------------ an exhausted quota


@pytest.mark.parametrize("refusal", ["refuse_bare", "refuse:5"])
@pytest.mark.parametrize("pace", ["auto", DOCUMENTED_LIMIT], ids=str)
async def test_a_call_says_so_when_it_is_refused_again_and_again(refusal: str, pace: Any) -> None:
    """It was refused as often as allowed, and nothing of the client was let in meanwhile."""
    async with world(pace=pace) as (fake, respan):
        fake.chance(refusal, 1.0, operation="any")
        began = now()

        with pytest.raises(RateLimitError):
            await respan.temporary_keys.create()

        assert fake.counts.refused == 21
        assert now() - began < 600


async def test_an_exhausted_quota_ends_a_batch_within_minutes() -> None:
    """What was made is yielded first; then the refusal is raised, and the rest of the input is left alone."""
    async with world(pace=DOCUMENTED_LIMIT) as (fake, respan):
        fake.script(*["ok"] * 20)
        fake.chance("refuse:5", 1.0)
        issued, began = list[str](), now()

        async def run() -> None:
            async with respan.temporary_keys.create_many(requests(1_000)) as batch:
                async for outcome in batch:
                    if isinstance(outcome, Issued):
                        issued.append(outcome.key.id)

        with pytest.raises(RateLimitError):
            await run()

        assert sorted(issued) == sorted(record.id for record in fake.alive())
        assert len(issued) == 20
        assert now() - began < 1_200


async def test_fifty_calls_into_a_full_window_do_not_fail() -> None:
    """However few refusals are allowed: others are let in meanwhile, so that it is no quota."""
    retry = RetryPolicy(max_refusals=1)
    async with world({"limit": SlidingLog(10, per=60)}, pace="auto", retry=retry) as (fake, respan):
        keys = await asyncio.gather(*(respan.temporary_keys.create() for _ in range(50)))

        assert len({key.id for key in keys}) == 50
        assert fake.counts.refused > 40


# -------------------------------------------------------------------------------------- a server that asks to wait


async def test_a_failing_server_that_asks_to_wait_is_left_alone_by_all() -> None:
    """A 503 with a Retry-After holds back single calls and batches, as long as it says."""
    asked = list[float]()

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(now())
        await asyncio.sleep(0.05)
        if now() < down_until:
            return web.json_response({"detail": "down"}, status=503, headers={"Retry-After": "20"})
        return web.json_response({"id": f"key-{len(asked)}", "api_key": f"abcdefgh.{len(asked):032}"}, status=201)

    async with server_of(respond) as url, AsyncRespan("test-key", base_url=url, pace=DOCUMENTED_LIMIT) as respan:
        down_until = now() + 15
        began = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(finished(respan.temporary_keys.create_many(requests(30))))
            for _ in range(5):
                await asyncio.sleep(1)
                group.create_task(respan.temporary_keys.create())

    early = [time for time in asked if began + 1 <= time < began + 20]
    assert not early
    assert len([time for time in asked if time < began + 1]) <= 2


async def finished(batch: Any) -> Any:
    """Await a batch, where a coroutine is asked for."""
    return await batch


async def test_a_long_wait_fails_no_item_of_a_batch() -> None:
    """Where it asks for an hour and is back after ten seconds, it is probed, and every item gets its key."""

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        served.append(now())
        if began + 5 <= now() < began + 15:
            return web.json_response({"detail": "down"}, status=503, headers={"Retry-After": "3600"})
        return web.json_response({"id": f"key-{len(served)}", "api_key": f"abcdefgh.{len(served):032}"}, status=201)

    served = list[float]()
    async with server_of(respond) as url, AsyncRespan("test-key", base_url=url, pace=RateLimit(60, per=6)) as respan:
        began = now()
        outcomes = await respan.temporary_keys.create_many(requests(300))

        assert not [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert len(respan.suspects) <= 5
        assert now() - began < 30 + 2 * 120


async def test_a_single_call_does_not_wait_an_hour() -> None:
    """It says how long the server asks to wait, at once."""
    async with world() as (fake, respan):
        fake.script("refuse:3600")

        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

        assert caught.value.retry_after == 3600
        assert now() < 1


async def test_a_long_refusal_in_a_batch_is_waited_for() -> None:
    """A refusal that asks for an hour fails no item either; it is asked again every two minutes."""
    async with world(pace=DOCUMENTED_LIMIT) as (fake, respan):
        fake.script("ok", "refuse:3600", "refuse:3600")

        outcomes = await respan.temporary_keys.create_many(list(requests(20)))

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert now() < 600


# ------------------------------------------------------------------------------------------ what was refused, alone


async def test_one_refused_list_does_not_slow_creates_down() -> None:
    """Creates are let in beside it, so the limit that refused it is its own."""
    async with world({"latency": 0.05}, max_in_flight=32) as (fake, respan):
        fake.script("refuse:60", operation="list")
        keys = respan.temporary_keys
        began = now()
        batch = asyncio.create_task(finished(keys.create_many(requests(1_000))))
        await asyncio.sleep(0.5)
        listing = asyncio.create_task(finished(keys.list()))
        outcomes = await batch
        took = now() - began
        await listing

        assert len(outcomes) == 1_000
        assert respan.pace.limit is None
    async with world({"latency": 0.05}, max_in_flight=32) as (fake, respan):
        began = now()
        await respan.temporary_keys.create_many(requests(1_000))
        assert took <= 1.2 * (now() - began)


# --------------------------------------------------------------------------------------- interactive calls, and others


async def test_a_list_of_many_pages_leaves_room_for_others() -> None:
    """Its pages after the first wait behind single calls, and are spread."""
    async with world({"limit": SlidingLog(60, per=60), "page_size": 10}, pace=DOCUMENTED_LIMIT) as (fake, respan):
        fake.limit = None
        other = AsyncRespan(fake.api_key, base_url=fake.url)
        async with other:
            await other.temporary_keys.create_many(requests(1_000))
        fake.limit = SlidingLog(60, per=60)

        async def read() -> int:
            return len([key async for key in respan.temporary_keys.list(page_size=10)])

        reading = asyncio.create_task(read())
        waits = list[float]()
        for _ in range(20):
            await asyncio.sleep(2.5)
            began = now()
            await respan.temporary_keys.create()
            waits.append(now() - began)

        assert max(waits) <= 2.5
        assert await reading >= 1_000
        assert fake.counts.refused == 0


async def test_stalled_creates_of_a_batch_hold_no_single_call_up() -> None:
    """A part of what may be in the air is never a batch's."""
    async with world({"latency": 0.1}, timeout=30.0, retry=RetryPolicy(max_attempts=1)) as (fake, respan):
        fake.script(*["stall"] * 56)
        batch = asyncio.create_task(finished(respan.temporary_keys.create_many(requests(100))))
        await asyncio.sleep(5)
        began = now()

        await respan.temporary_keys.list()

        assert now() - began < 1
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)


async def test_an_outage_behind_the_limit_is_not_taken_for_a_lower_limit() -> None:
    """After refusals of all requests for many periods, the limit is as it was."""
    async with world(pace=RateLimit(60, per=6)) as (fake, respan):
        await respan.temporary_keys.create_many(requests(60))
        fake.chance("refuse:2", 1.0)
        batch = asyncio.create_task(finished(respan.temporary_keys.create_many(requests(300))))
        await asyncio.sleep(30)
        fake.chance("refuse:2", 0.0)
        began = now()

        outcomes = await batch

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert now() - began < 30 * 1.3 + 6


async def test_a_503_of_the_application_is_still_a_failure() -> None:
    """Only a proxy's own refusal is taken for one."""
    retry = RetryPolicy(max_attempts=1, refusal_statuses={503})
    async with world(retry=retry) as (fake, respan):
        fake.script("unavailable_503")

        with pytest.raises(InternalServerError):
            await respan.temporary_keys.create()
