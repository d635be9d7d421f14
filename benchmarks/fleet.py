"""Several processes on one account: how much of the limit they use, and what that takes."""

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Final

import attrs
import redis.asyncio

from benchmarks.figures import TIMES, Figure, Report
from respan_async import AsyncRespan, RateLimit
from respan_async.issuing import PostgresLedger
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan, SlidingLog
from tests.integration.fleet import fleet, made
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

_PROCESSES: Final = 4
_WORKERS: Final = 3
_COROUTINES: Final = 64
_FAST: Final = RateLimit(200, per=1)
_SLOW: Final = RateLimit(60, per=6)
_LATENCY: Final = (0.001, 0.009)


@attrs.frozen
class _Run:
    """What the server and Redis counted.

    Attributes:
        ratio: The time, as a multiple of what the limit allows.
        refused: Requests that were turned away.
        beyond: By how many the busiest period was beyond the limit.
        words: Redis calls a key.
        waits: Of interactive calls in a fifth process, in intervals of P/N.
    """

    ratio: float
    refused: int
    beyond: int
    words: float
    waits: list[float]


def run(quick: bool) -> Report:
    """Let four processes make keys for a while, and a fifth one ask for single ones."""
    rounds = 2 if quick else 5
    fast = [asyncio.run(_run(_FAST, periods=4 if quick else 10, asking=False)) for _ in range(rounds)]
    slow = [asyncio.run(_run(_SLOW, periods=2 if quick else 4, asking=True)) for _ in range(max(rounds // 2, 1))]
    durable = _with_ledger(rounds, periods=4 if quick else 10)
    waits = [wait for found in slow for wait in found.waits]
    return Report(
        name="fleet",
        title="Several processes on one account, with one RedisWindow each.",
        conditions=f"{_PROCESSES} processes of {_COROUTINES} coroutines each, on a sliding log of {_FAST}; for the "
        f"waits {_SLOW}, and a fifth process that asks for {len(waits)} single keys; round trips of 1 to 9 ms, a real "
        "Redis and Postgres on loopback, real time; counted by the server",
        figures=(
            Figure(
                name=f"time, against n{TIMES}P/N",
                unit=TIMES,
                samples=[found.ratio for found in fast],
                at_most=1 / 0.97,
                note="97 % of the limit used",
            ),
            Figure(name="requests refused", unit="requests", samples=[found.refused for found in fast], at_most=0),
            Figure(
                name="busiest period, beyond the limit",
                unit="requests",
                samples=[found.beyond for found in fast],
                at_most=0,
            ),
            Figure(name="Redis calls a key", unit="calls", samples=[found.words for found in fast], at_most=1.2),
            Figure(
                name="interactive call behind four full batches: longest", unit="P/N", samples=[max(waits)], at_most=5
            ),
            Figure(
                name="interactive call behind four full batches: median", unit="P/N", samples=[statistics.median(waits)]
            ),
            Figure(
                name=f"{_WORKERS} workers on one PostgresLedger: time, against n{TIMES}P/N",
                unit=TIMES,
                samples=[found.ratio for found in durable],
                at_most=1.05,
                note=f"{sum(found.refused for found in durable)} refused",
            ),
        ),
    )


def _with_ledger(rounds: int, periods: int) -> list[_Run]:
    with tempfile.TemporaryDirectory(prefix="respan-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.create()
        server.start()
        try:
            return [_round(server, number, periods) for number in range(rounds)]
        finally:
            server.stop()


def _round(server: PostgresServer, number: int, periods: int) -> _Run:
    server.execute(f"CREATE DATABASE round_{number}")
    database = server.dsn(f"round_{number}")
    asyncio.run(PostgresLedger(database).create_schema())
    return asyncio.run(_run(_FAST, periods, asking=False, database=database))


async def _run(limit: RateLimit, periods: int, asking: bool, database: str = "") -> _Run:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            async with FakeRespan(limit=SlidingLog(limit.limit, per=limit.per), latency=_LATENCY) as fake:
                return await _measure(fake, server.url, limit, periods, asking, database)
        finally:
            server.stop()


async def _measure(fake: FakeRespan, where: str, limit: RateLimit, periods: int, asking: bool, database: str) -> _Run:
    loop = asyncio.get_running_loop()
    number = _WORKERS if database else _PROCESSES
    async with fleet(number, fake, where, limit, coroutines=_COROUTINES, database=database) as replicas:
        await made(fake, 2 * limit.limit)  # the beginning, with a log that is empty, is over
        before, words, began = fake.counts.created, await _words(where), loop.time()
        waits = await _ask(fake, where, limit, until=began + periods * limit.per) if asking else []
        await asyncio.sleep(began + periods * limit.per - loop.time())
        keys = fake.counts.created - before
        found = _Run(
            ratio=(loop.time() - began) / (keys * limit.interval),
            refused=fake.counts.refused,
            beyond=max(fake.max_in_window(limit.per) - limit.limit, 0),
            words=(await _words(where) - words) / keys,
            waits=waits,
        )
        await replicas.stop()
    return found


async def _ask(fake: FakeRespan, where: str, limit: RateLimit, until: float) -> list[float]:
    """Ask for single keys, one after the other; tell how long each took, in intervals."""
    loop = asyncio.get_running_loop()
    waits = list[float]()
    async with AsyncRespan(fake.api_key, base_url=fake.url, pace=RedisWindow(where, limit)) as respan:
        while loop.time() < until:
            began = loop.time()
            await respan.temporary_keys.create()
            waits.append((loop.time() - began) / limit.interval)
            await asyncio.sleep(3.3 * limit.interval)
    return waits


async def _words(where: str) -> int:
    async with redis.asyncio.Redis.from_url(where) as client:
        statistics_ = await client.info("commandstats")
    return int(statistics_["cmdstat_evalsha"]["calls"])
