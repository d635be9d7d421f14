"""A worker that is killed again and again, and what is left in the end: each ticket's one key, and nothing else."""

import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from respan_async.testing import SlidingLog
from tests.crash.world import POINTS, World, check, world


async def killed(world: World, lives: Iterable[Callable[[], Awaitable[bool]]]) -> None:
    """Let the worker live these lives, and another without a kill, to its end."""
    for life in lives:
        if await life():
            break
    assert await world.live()


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
