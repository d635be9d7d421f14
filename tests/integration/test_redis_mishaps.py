"""What befalls a Redis that holds the pace, against the real one; more of it in `test_shared_pace_recovery.py`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import redis.asyncio

from respan_async import AsyncRespan, CreateKeyRequest, RateLimit
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan, SlidingLog
from tests.integration.fleet import batches, made
from tests.servers.redis import RedisServer


@contextlib.asynccontextmanager
async def calls_beside(client: AsyncRespan, pause: float) -> AsyncIterator[list[float]]:
    """Make single keys meanwhile, a while after one another; give how long each took."""
    waits = list[float]()

    async def call() -> None:
        while True:
            await asyncio.sleep(pause)
            began = asyncio.get_running_loop().time()
            await client.temporary_keys.create()
            waits.append(asyncio.get_running_loop().time() - began)

    task = asyncio.create_task(call())
    yield waits
    task.cancel()
    await asyncio.wait({task})


async def timed(work: Awaitable[object]) -> float:
    """Tell how long the work took."""
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(30):
        await work
    return asyncio.get_running_loop().time() - began


def requests(number: int) -> list[CreateKeyRequest]:
    """Give requests for so many keys."""
    return [CreateKeyRequest() for _ in range(number)]


async def test_a_batch_beside_interactive_calls_gets_all_that_they_leave(redis_url: str) -> None:
    """The log is full at first, by a burst. A machine under load takes longer; in virtual time the bound is 1.1."""
    limit = RateLimit(40, per=2)
    async with (
        FakeRespan(limit=SlidingLog(40, per=2), latency=(0.001, 0.01)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RedisWindow(redis_url, limit)) as client,
    ):
        await client.temporary_keys.create_many(requests(40))
        async with calls_beside(client, 0.2) as waits:
            seconds = await timed(client.temporary_keys.create_many(requests(80)))

        assert seconds <= 1.5 * (80 + len(waits)) * limit.interval + limit.per
        assert fake.counts.refused == 0


async def mishap(server: RedisServer, name: str) -> None:
    """Let something happen to Redis that it recovers from."""
    async with redis.asyncio.Redis.from_url(server.url) as connection:
        match name:
            case "restarted":
                server.stop()
                server.start()
            case "away":
                server.freeze()
                await asyncio.sleep(1.5)
                server.thaw()
            case "a replica at first":
                await connection.replicaof("127.0.0.1", "1")
                await asyncio.sleep(1.5)
                await connection.replicaof("NO", "ONE")
            case "evicted":
                await connection.config_set("maxmemory-policy", "allkeys-lru")
                await connection.config_set("maxmemory", 1)
                await connection.config_set("maxmemory", 0)
            case _:
                await set_back(server.url, 20)


@pytest.mark.parametrize(
    "name",
    [
        "restarted",
        *(pytest.param(n, marks=pytest.mark.hostile) for n in ("away", "a replica at first", "evicted", "set back")),
    ],
)
async def test_a_mishap_of_redis_costs_a_period_at_most(redis_server: RedisServer, name: str) -> None:
    """A batch and the calls beside it go on by themselves, and within the limit."""
    limit = RateLimit(40, per=2)
    window = RedisWindow(redis_server.url, limit, timeout=0.3)
    async with (
        FakeRespan(limit=SlidingLog(40, per=2), latency=(0.001, 0.01)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=window) as client,
    ):
        async with calls_beside(client, 0.3) as waits:
            work = asyncio.create_task(timed(client.temporary_keys.create_many(requests(80))))
            await made(fake, 20)
            await mishap(redis_server, name)
            seconds = await work

        assert seconds <= 1.3 * (80 + len(waits)) * limit.interval + limit.per
        assert fake.counts.refused == 0
        assert fake.max_in_window(limit.per) <= limit.limit


async def test_a_redis_that_is_full_and_evicts_the_log_again_and_again_is_as_good_as_away(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The process goes on with its share, and one warning names the setting that may be the cause."""
    limit = RateLimit(40, per=0.5)
    async with FakeRespan(limit=SlidingLog(40, per=0.5), latency=(0.001, 0.01)) as fake:
        async with (
            batches(1, fake, redis_server.url, limit, fallback_share=0.5),
            redis.asyncio.Redis.from_url(redis_server.url) as connection,
        ):
            await made(fake, 30)
            await connection.config_set("maxmemory-policy", "allkeys-lru")
            await connection.config_set("maxmemory", 1)  # each request to the log evicts it first
            await made(fake, 120)

        assert fake.counts.refused == 0
        assert fake.max_in_window(0.5) <= 40
        (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert "maxmemory-policy" in warning


async def test_after_a_replica_has_answered_a_client_connects_anew(
    redis_server: RedisServer, fake_respan: FakeRespan
) -> None:
    """Its address may lead to another server by now, and the connection that it has stays with the demoted one."""
    window = RedisWindow(redis_server.url, RateLimit(100, per=5))
    async with (
        redis.asyncio.Redis.from_url(redis_server.url) as connection,
        AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, pace=window) as client,
    ):
        await client.temporary_keys.create()
        before = (await connection.info("stats"))["total_connections_received"]
        await connection.replicaof("127.0.0.1", "1")
        waiting = asyncio.create_task(client.temporary_keys.create())
        await asyncio.sleep(0.5)
        await connection.replicaof("NO", "ONE")

        assert (await waiting).id
        assert (await connection.info("stats"))["total_connections_received"] > before


async def set_back(url: str, seconds: float) -> None:
    """Make the log look as if the server's clock had been set back: all its times lie so much further ahead."""
    async with redis.asyncio.Redis.from_url(url) as connection:
        members: Any = await connection.zrange("respan_async:pace", 0, -1, withscores=True)
        for name, score in members:
            if abs(score) > 1000:  # a time, which is negative where it is no slot's
                await connection.zincrby("respan_async:pace", seconds * (1e6 if score > 0 else -1e6), name)


@pytest.mark.parametrize("seconds", [3.0, 3600.0])
async def test_a_clock_that_is_set_back_sets_the_log_back(
    redis_url: str, fake_respan: FakeRespan, seconds: float
) -> None:
    """A slot comes back a period after its answer all the same, and what counts still counts."""
    window = RedisWindow(redis_url, RateLimit(1, per=0.7))
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, pace=window) as client:
        await client.temporary_keys.create()
        await asyncio.sleep(0.5)  # which tells what was answered
        await set_back(redis_url, seconds)

        async with asyncio.timeout(3):
            await client.temporary_keys.create()

    assert fake_respan.admissions[1] - fake_respan.admissions[0] >= 0.7
