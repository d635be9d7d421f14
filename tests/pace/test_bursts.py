"""Batches that are spread, and those that are not to be."""

import asyncio
import itertools

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import SlidingLog
from respan_async.testing.limits import busiest_window
from tests.pace.servers import Server
from tests.pace.world import CLOSE, USUAL, World, pacer, play

pytestmark = CLOSE

LIMIT = RateLimit(60, per=10)


def account() -> World:
    """Make a world of its own, with a limit that is known."""
    return World(Server(SlidingLog(LIMIT.limit, per=LIMIT.per)), pacer(LIMIT))


def at_once(world: World) -> int:
    """Count what was let in during the first tenth of a second."""
    return sum(time <= 0.1 for time in world.server.admissions)


def test_a_batch_that_is_not_spread_takes_the_shortest_time_there_is() -> None:
    """A hundred where sixty may go at once: one period, and the round trips."""
    world = play(account(), lambda world: world.batch(100, spread=False))

    assert world.took <= 1.05 * (LIMIT.per + 2 * USUAL[1])
    assert world.server.refused == 0


def test_a_batch_is_spread_by_default() -> None:
    """A hundred take the time that they need at an even pace, less what they may take at the end."""
    world = play(account(), lambda world: world.batch(100))

    assert world.took <= 1.05 * 100 * LIMIT.interval
    assert at_once(world) <= 2
    assert busiest_window(world.server.admissions, 1.0) <= LIMIT.limit / 2


@pytest.mark.parametrize(("number", "expected"), [(30, 30), (36, 1)])
def test_a_batch_takes_at_most_half_of_what_is_free_at_once(number: int, expected: int) -> None:
    """With more it is spread, until what is left fits."""
    world = play(account(), lambda world: world.batch(number))

    assert at_once(world) in range(expected, expected + 2)


def test_an_interactive_call_ends_a_burst() -> None:
    """It is served before the batch goes on, and the batch then goes on one slot after another."""

    async def beside(world: World) -> None:
        batch = asyncio.create_task(world.batch(180, spread=False))
        await asyncio.sleep(LIMIT.per - 1)
        await world.call()
        await batch

    world = play(account(), beside)

    assert at_once(world) == LIMIT.limit
    assert world.waits[0] <= 1.1
    second = [time for time in world.server.admissions if LIMIT.per <= time < LIMIT.per + 2]
    assert len(second) <= 2 * 2 / LIMIT.interval
    gaps = [later - earlier for earlier, later in itertools.pairwise(second)]
    assert sum(gap > 0.5 * LIMIT.interval for gap in gaps) >= 8
    assert world.server.refused == 0


def test_a_batch_that_is_spread_keeps_another_one_from_bursting() -> None:
    """Where both are under way, everything is spread."""

    async def beside(world: World) -> None:
        await asyncio.gather(world.batch(100, 20), world.batch(100, 20, spread=False))

    world = play(account(), beside)

    assert at_once(world) <= 2


def test_a_burst_after_an_interactive_call_waits_for_a_period() -> None:
    """Where a call has just come, another one may come soon."""

    async def after(world: World) -> None:
        await world.call()
        await world.batch(100, spread=False)

    world = play(account(), after)

    first = [time for time in world.server.admissions if time <= 5]
    assert len(first) <= 5 / LIMIT.interval + 3
    assert world.took <= 1.05 * 100 * LIMIT.interval
