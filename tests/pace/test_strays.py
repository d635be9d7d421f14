"""Refusals that have nothing to do with the account's limit: strays, and chance."""

import statistics

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import SlidingLog
from tests.pace.servers import Server
from tests.pace.world import CLOSE, JITTER, KNOWN, World, pacer, play

pytestmark = CLOSE

LIMIT = RateLimit(100, per=5)


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("asks", [3.0, 4.0, 5.0, 6.0, 60.0])
def test_strays_change_no_limit_and_hold_nobody_else_up(asks: float, number: int, known: bool) -> None:
    """Whatever they ask to wait: what is let in right after them shows that there are slots.

    The refused calls themselves wait as they are told.
    """
    strays = [((1.1 + 0.5 * index) * LIMIT.per, asks) for index in range(number)]
    server = Server(SlidingLog(LIMIT.limit, per=LIMIT.per), strays=strays)
    count = 4 * LIMIT.limit

    world = play(World(server, pacer(LIMIT if known else None)), lambda world: world.batch(count))

    most = 1.1 * 4 * LIMIT.per
    assert world.took_without(number) <= most
    assert world.took <= max(most, strays[-1][0] + 2 * (asks + JITTER))
    assert world.limit == LIMIT
    assert server.refused <= 0.04 * count + number


@pytest.mark.parametrize("known", KNOWN)
def test_a_minute_with_one_refusal_in_a_hundred_by_chance_costs_a_tenth(known: bool) -> None:
    """Each refused call comes a minute later; the others hardly notice."""
    ratios = list[float]()
    for seed in range(4):
        server = Server(SlidingLog(60, per=60), chance=0.01, seed=seed)
        world = play(World(server, pacer(RateLimit(60, per=60) if known else None)), lambda world: world.batch(600))
        assert world.limit == RateLimit(60, per=60)
        ratios.append(world.took / 600)

    assert statistics.median(ratios) <= 1.1
    assert max(ratios) <= 1.2


@pytest.mark.parametrize("known", KNOWN)
def test_a_fast_limit_with_one_refusal_in_a_hundred_by_chance_loses_only_what_is_told(known: bool) -> None:
    """With ten a second a refusal comes every ten seconds; the last ones refused wait for a minute, at most twice."""
    for seed in range(2):
        server = Server(SlidingLog(600, per=60), chance=0.01, seed=seed)
        world = play(World(server, pacer(RateLimit(600, per=60) if known else None)), lambda world: world.batch(1800))

        assert world.limit == RateLimit(600, per=60)
        assert world.took_without(30) <= 1.1 * 180
        assert world.took <= 1.1 * 180 + 2 * (60 + JITTER)
