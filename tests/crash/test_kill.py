"""A worker that is killed again and again, and what is left in the end: each ticket's one key, and nothing else."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from respan_async.testing import FakeRespan, SlidingLog
from tests.crash.world import POINTS, World, check, world
from tests.waiting import until

FORGETFUL = """
import asyncio, datetime, sys
from respan_async import AsyncRespan, CreateKeyRequest

async def main():
    requests = (CreateKeyRequest(expires_in=datetime.timedelta(hours=1)) for _ in range(10_000))
    async with AsyncRespan(sys.argv[2], base_url=sys.argv[1]) as respan:
        async with respan.temporary_keys.create_many(requests, max_in_flight=8) as batch:
            async for outcome in batch:
                print(outcome.key.id, flush=True)

asyncio.run(main())
"""
"""A worker that remembers nothing but what it prints."""


def in_air(fake: FakeRespan) -> int:
    """Return how many requests are neither answered nor given up."""
    counts = fake.counts
    return sum(counts.by_operation.values()) - sum(counts.by_status.values())


async def killed(world: World, lives: Iterable[Callable[[], Awaitable[bool]]]) -> None:
    """Let the worker live these lives, and another without a kill, to its end."""
    for life in lives:
        if await life():
            break
    assert await world.live()


@pytest.mark.hostile
async def test_a_worker_killed_at_every_point_ends_with_one_live_key_for_each_ticket(tmp_path: Path) -> None:
    """SIGKILL at each named point once, a fresh start each time: nothing is lost, doubled or left behind."""
    async with world(tmp_path, tickets=200, seed=1, limit=SlidingLog(60, per=0.5)) as world_:
        rng = random.Random(1)
        points = list(POINTS)
        rng.shuffle(points)

        await killed(world_, [partial(world_.live, point, rng.randint(1, 15)) for point in points])

        assert world_.kills == len(POINTS)
        await check(world_)


async def test_a_worker_killed_at_random_times_ends_with_one_live_key_for_each_ticket(tmp_path: Path) -> None:
    """SIGKILL at any moment: nothing is lost, doubled or left behind."""
    async with world(tmp_path, tickets=200, seed=2) as world_:
        rng = random.Random(2)

        await killed(world_, [lambda: world_.live_for(rng.uniform(0.0, 0.15)) for _ in range(6)])

        assert world_.kills >= 3
        await check(world_)


async def test_without_an_issuer_what_was_in_the_air_lives_on() -> None:
    """Until its expiry, and no more than was in the air: without a ledger nobody can know of it."""
    async with FakeRespan(latency=0.02) as fake:
        fake.script(*["ok"] * 50, "stall")  # so that one is in the air at any rate
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FORGETFUL, fake.url, fake.api_key, stdout=PIPE
        )
        assert worker.stdout is not None
        held = [(await worker.stdout.readline()).decode().strip() for _ in range(60)]
        worker.kill()
        held += (await worker.stdout.read()).decode().split()
        await worker.wait()
        await until(lambda: in_air(fake) == 0)  # what has arrived is still done

        unheld = fake.unheld(held)
        assert 0 < len(unheld) <= 8
        assert all(key.expiry_date is not None for key in unheld)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3, 9))
async def test_a_hundred_kills(tmp_path: Path, seed: int) -> None:
    """Twenty kills in each of six worlds, half at points and half at random times: nothing is lost or doubled."""
    async with world(tmp_path, tickets=500, seed=seed, limit=SlidingLog(60, per=0.5)) as world_:
        rng = random.Random(seed)

        def life() -> Awaitable[bool]:
            if rng.random() < 0.5:
                return world_.live(rng.choice(POINTS), rng.randint(1, 12))
            return world_.live_for(rng.uniform(0.0, 0.08))

        await killed(world_, [life] * 20)

        assert world_.kills >= 17
        await check(world_)
