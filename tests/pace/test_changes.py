"""Limits that change while a batch goes on, or are not what was given."""

import asyncio

import pytest

from respan_async import RetryPolicy
from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import SlidingLog
from respan_async.testing.limits import busiest_window
from tests.pace.servers import Changing, Said, Server
from tests.pace.world import CLOSE, FAR, KNOWN, LIMITS, World, pacer, play

pytestmark = CLOSE


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_that_is_halved_is_found_out(limit: RateLimit, known: bool) -> None:
    """It looks like others who take half, and is treated so: four refusals in a hundred; five where it was learned."""
    half = SlidingLog(limit.limit // 2, per=limit.per)
    server = Server(Changing(SlidingLog(limit.limit, per=limit.per), half, 4 * limit.per))
    count = 8 * limit.limit

    world = play(World(server, pacer(limit if known else None)), lambda world: world.batch(count))

    assert world.took <= 1.1 * 12 * limit.per
    assert server.refused <= (0.04 if known else 0.055) * count
    if known:
        assert world.limit == limit


@pytest.mark.parametrize("said", ["whole", "exact", "nothing"])
@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("limit", [RateLimit(120, per=60), RateLimit(60, per=60)], ids=str)
def test_a_server_that_counts_more_than_it_allows_is_probed_more_and_more_seldom(
    limit: RateLimit, known: bool, said: Said
) -> None:
    """A limit that is halved in a full log lets nothing in for half a period, and speaks of a moment each time.

    No call is refused so often meanwhile that the client would give it up: four refusals in a hundred altogether, and
    eight where the limit has to be learned.
    """
    log = SlidingLog(limit.limit, per=limit.per)
    server = Server(log, said=said)
    count = 8 * limit.limit

    async def halved(world: World) -> None:
        asyncio.get_running_loop().call_later(4 * limit.per, setattr, log, "limit", limit.limit // 2)
        await world.batch(count)

    world = play(World(server, pacer(limit if known else None), FAR), halved)

    assert world.took <= 1.15 * 12 * limit.per
    assert server.refused <= (0.04 if known else 0.08) * count
    assert world.hopeless <= 0.75 * RetryPolicy().max_refusals


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_that_was_given_twice_too_high_costs_little(limit: RateLimit) -> None:
    """The half that is not there is left to others, who do not exist."""
    server = Server(SlidingLog(limit.limit // 2, per=limit.per))
    count = 5 * limit.limit

    world = play(World(server, pacer(limit)), lambda world: world.batch(count))

    assert world.took <= 1.1 * 10 * limit.per
    assert server.refused <= 0.04 * count


@pytest.mark.parametrize("known", KNOWN)
def test_a_limit_that_comes_back_is_used_again_before_long(known: bool) -> None:
    """Of a half that was missing for ten periods, half is tried within eight, and so on: 1.3 times the best.

    A limit that was given is never exceeded.
    """
    minute = RateLimit(60, per=60)
    server = Server(Changing(SlidingLog(30, per=60), SlidingLog(600, per=60), 600.0))

    world = play(World(server, pacer(minute if known else None)), lambda world: world.batch(900))

    assert world.took <= 1.35 * 1200
    assert server.refused <= 0.02 * 900
    if known:
        assert busiest_window(server.admissions, 60) <= 60
        assert busiest_window(server.admissions[-130:], 60) >= 50
