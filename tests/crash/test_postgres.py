"""Three workers on one ledger in Postgres, all of them killed again and again, and the server's own processes, too."""

import asyncio
import contextlib
import itertools
import random
from pathlib import Path

import attrs
import psycopg
import pytest

from respan_async.issuing import PostgresLedger
from tests.crash.world import AT_DELIVERY, AT_LEDGER, SERVER_SIDE, World, final_sweep, world
from tests.servers.postgres import PostgresServer

POINTS = (*AT_LEDGER, *AT_DELIVERY, *SERVER_SIDE)


async def harass(server: PostgresServer, database: str, rng: random.Random) -> None:
    """Kill connections, by turns as an administrator does and with SIGKILL, upon which Postgres restarts all."""
    for turn in itertools.count():
        await asyncio.sleep(rng.uniform(0.3, 0.7))
        kill = server.kill_backend if turn % 3 == 1 else server.disconnect
        with contextlib.suppress(psycopg.OperationalError):  # it is about to restart
            await asyncio.to_thread(kill, database)


async def lives(worker: World, points: list[str], rng: random.Random) -> None:
    """Let a worker be killed at these points and at random times between, and live to its end after that."""
    for point in points:
        if await worker.live(point, rng.randint(1, 8)) or await worker.live_for(rng.uniform(0.1, 0.5)):
            return
    assert await worker.live()


async def survive(
    folder: Path, server: PostgresServer, database: str, *, tickets: int, seed: int, points: list[str]
) -> None:
    """Run three workers through all that, and see that each ticket has its one live key, and nothing else lives."""
    rng = random.Random(seed)
    rng.shuffle(points)
    async with world(folder, tickets=tickets, seed=seed) as first:
        first.dsn, first.lease = server.dsn(database), 1.0
        await PostgresLedger(first.dsn).create_schema()
        workers = [attrs.evolve(first, out=folder / f"{number}.jsonl") for number in range(3)]
        trouble = asyncio.create_task(harass(server, database, rng))

        await asyncio.gather(*(lives(worker, points[n::3], rng) for n, worker in enumerate(workers)))
        trouble.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trouble
        await asyncio.to_thread(server.wait)
        await asyncio.sleep(first.lease)  # until then, nobody knows that those that were killed last are dead

        recorded = await final_sweep(first)
        delivered = [line for worker in workers for line in worker.lines()]
        assert sum(worker.kills for worker in workers) >= len(points) // 2
        assert {line["ticket"]: line["id"] for line in delivered} == recorded
        assert all(recorded[line["ticket"]] == line["id"] for line in delivered), "a ticket was delivered with two keys"
        assert all(first.fake.keys[line["id"]].api_key == line["api_key"] for line in delivered), "a secret was lost"
        assert len(recorded) == len(first.fake.alive()) == tickets
        assert {record.id for record in first.fake.alive()} == set(recorded.values())
        assert first.handed_out() <= set(recorded.values()), "a key that was handed out is not its ticket's"


async def test_three_workers_and_their_connections_are_killed_and_each_ticket_has_one_live_key(
    tmp_path: Path, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """SIGKILL at named points and random times, on both sides of the connection: nothing is lost or doubled."""
    await survive(tmp_path, postgres_server, postgres_database, tickets=100, seed=31, points=list(POINTS[::4]))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(32, 38))
async def test_three_workers_and_their_connections_are_killed_many_times(
    tmp_path: Path, postgres_server: PostgresServer, postgres_database: str, seed: int
) -> None:
    """At every point, twice: nothing is lost or doubled."""
    points = [*POINTS, *POINTS]
    await survive(tmp_path, postgres_server, postgres_database, tickets=600, seed=seed, points=points)
