"""The pace, proven: the real pacer in virtual time, over worlds drawn at random. Single worlds are in `tests/pace`."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import FixedWindow, Limit, SlidingLog
from respan_async.testing.limits import busiest_window
from tests.pace.servers import Said, Server
from tests.pace.world import CLOSE, World, pacer, play

pytestmark = CLOSE

# ------------------------------------------------------------------------------------------------------ a limit given

limits = st.integers(1, 80)
periods = st.sampled_from([0.1, 0.5, 1.0, 2.5, 10.0, 60.0, 61.7, 3600.0])
latencies = st.tuples(st.floats(0, 5), st.floats(0, 30)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=40, deadline=None)
@given(
    number=limits,
    per=periods,
    latency=latencies,
    max_in_flight=st.integers(1, 100),
    calls=st.lists(st.tuples(st.floats(0, 3), st.sampled_from(list(Priority))), min_size=1, max_size=120),
    batch=st.integers(0, 150),
    spread=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_limit_that_is_known_is_never_overstepped_as_the_server_counts(
    number: int,
    per: float,
    latency: tuple[float, float],
    max_in_flight: int,
    calls: list[tuple[float, Priority]],
    batch: int,
    spread: bool,
    seed: int,
) -> None:
    """Whatever the network does and whoever calls: nothing is refused, and no period has more than the limit in it."""
    server = Server(SlidingLog(number, per=per))
    paced = pacer(RateLimit(number, per=per), max_in_flight)

    async def singles(world: World) -> None:
        async with asyncio.TaskGroup() as group:
            for gap, priority in calls:
                await asyncio.sleep(gap * per / number)
                group.create_task(world.call(priority))

    async def work(world: World) -> None:
        await asyncio.gather(singles(world), world.batch(batch, spread=spread))

    play(World(server, paced, latency, random.Random(seed), skew=1.0), work)

    assert server.refused == 0
    assert len(server.admissions) == len(calls) + batch
    assert busiest_window(server.admissions, per) <= number
    assert paced.in_air == 0


@settings(max_examples=20, deadline=None)
@given(
    number=st.integers(1, 40),
    per=periods,
    latency=st.floats(0, 1.9),
    loss=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**32),
)
def test_answers_that_are_lost_do_not_make_the_limit_be_overstepped(
    number: int, per: float, latency: float, loss: float, seed: int
) -> None:
    """A request without an answer counts as let in until its period and a grace are over."""
    server = Server(SlidingLog(number, per=per))
    paced = pacer(RateLimit(number, per=per))

    play(
        World(server, paced, (0, latency), random.Random(seed), skew=1.0, loss=loss),
        lambda world: world.batch(3 * number),
    )

    assert server.refused == 0
    assert busiest_window(server.admissions, per) <= number


@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(5, 40),
    per=st.sampled_from([1.0, 10.0, 60.0]),
    used=st.floats(0, 1),
    refusals=st.lists(st.tuples(st.floats(0, 4), st.floats(0, 100)), max_size=5),
    latency=st.floats(0, 0.02),
    seed=st.integers(0, 2**32),
)
def test_whatever_refusals_say_a_given_limit_stays_and_is_never_overstepped_by_us(
    number: int, per: float, used: float, refusals: list[tuple[float, float]], latency: float, seed: int
) -> None:
    """An account that was used before, and strays at any time that ask for any wait: the batch comes to its end."""
    before = [-0.01 * per] * int(used * number)
    server = Server(SlidingLog(number, per=per), before, "exact", [(at * per, asks) for at, asks in refusals])
    limit = RateLimit(number, per=per)

    world = play(
        World(server, pacer(limit), (0.5 * latency * per, latency * per), random.Random(seed), skew=1.0),
        lambda world: world.batch(3 * number),
    )

    assert world.limit == limit
    assert len(server.admissions) == 3 * number
    assert busiest_window(server.admissions, per) <= number
    assert world.pacer.window.used(world.done[-1] + per) == 0


@settings(max_examples=15, deadline=None)
@given(number=st.integers(20, 60), per=periods, share=st.floats(0.0, 0.04), seed=st.integers(0, 2**32))
def test_a_known_limit_is_used_to_the_full(number: int, per: float, share: float, seed: int) -> None:
    """A batch takes hardly longer than the limit demands, when the network is fast beside the period."""
    server = Server(SlidingLog(number, per=per))
    # An eighth of what may be in the air is not a batch's.
    paced = pacer(RateLimit(number, per=per), 3 * number)

    world = play(
        World(server, paced, (0.2 * share * per, share * per), random.Random(seed), skew=1.0),
        lambda world: world.batch(6 * number),
    )

    # A slot comes back one period after its answer: half a round trip a period is what that costs.
    assert world.took <= 6 * per * (1.03 + share)


@pytest.mark.parametrize("offset", [0.0, 0.37, 0.95])
@pytest.mark.parametrize(("number", "per"), [(60, 60.0), (20, 2.0), (200, 2.0)])
def test_a_known_limit_meets_no_refusal_from_fixed_windows_either(number: int, per: float, offset: float) -> None:
    """Fixed windows let at least as much in as a sliding log."""
    server = Server(FixedWindow(number, per=per, offset=offset * per))

    play(World(server, pacer(RateLimit(number, per=per)), (0.01, 0.1), skew=1.0), lambda world: world.batch(5 * number))

    assert server.refused == 0


# ---------------------------------------------------------------------------------------------------- a limit learned


@settings(max_examples=15, deadline=None)
@given(
    number=st.integers(20, 150),
    per=st.sampled_from([10.0, 30.0, 60.0]),
    offset=st.floats(0, 1),
    latency=st.floats(0.0005, 0.01),
    said=st.sampled_from(["whole", "exact"]),
    sliding=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_server_is_stormed_or_left_idle(
    number: int, per: float, offset: float, latency: float, said: Said, sliding: bool, seed: int
) -> None:
    """Wherever a window begins, learning neither storms a server nor wastes its limit.

    A round trip is a hundredth of the period here. Where it is four times as long, a limit that is too high may be
    learned, and a third of the requests be refused.
    """
    limit: Limit = SlidingLog(number, per=per) if sliding else FixedWindow(number, per=per, offset=offset * per)
    server = Server(limit, said=said)
    trip = (0.5 * latency * per, 1.5 * latency * per)

    world = play(World(server, pacer(None), trip, random.Random(seed), skew=1.0), lambda w: w.batch(10 * number))

    assert world.took <= 1.5 * 10 * per
    assert server.refused <= 0.1 * 10 * number + 5


# ------------------------------------------------------------------------------------------------- whoever goes first


async def singles_beside(world: World, burst: int, gap: float, rng: random.Random) -> None:
    """Let sixty single calls or more come in small bursts beside a huge batch, which is cancelled at the end."""
    batch = asyncio.create_task(world.batch(10_000))
    await asyncio.sleep(3 * gap)
    while len(world.waits) < 60:
        await asyncio.sleep(rng.uniform(0.5, 1.5) * gap)
        await world.singles(rng.randint(1, burst))
    batch.cancel()
    await asyncio.gather(batch, return_exceptions=True)


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize(("number", "per"), [(60, 60.0), (20, 10.0), (200, 60.0)])
def test_a_web_request_hardly_waits_behind_a_batch_of_ten_thousand(number: int, per: float, burst: int) -> None:
    """The next slot is never more than two intervals away, for the first of a small burst and its followers."""
    interval = per / number
    server = Server(SlidingLog(number, per=per))
    world = World(server, pacer(RateLimit(number, per=per)), (0.001 * per, 0.003 * per), skew=1.0)

    waits = play(world, lambda world: singles_beside(world, burst, 12 * interval, random.Random(5))).waits

    assert max(waits) <= (burst + 1) * interval + 0.01 * per
    assert sorted(waits)[len(waits) // 2] <= 2 * interval
    assert server.refused == 0


def test_a_web_request_hardly_waits_once_the_limit_is_learned() -> None:
    """The same with a limit that nobody told."""
    world = World(Server(SlidingLog(60, per=60)), pacer(None), (0.06, 0.18), skew=1.0)

    waits = play(world, lambda world: singles_beside(world, 1, 12.0, random.Random(5))).waits

    assert sorted(waits)[int(0.9 * len(waits))] <= 2.5
    assert max(waits) <= 11


def test_a_batch_is_not_starved_by_interactive_calls() -> None:
    """However many single calls there are, the batch still gets every twentieth slot."""
    server = Server(SlidingLog(60, per=60))

    async def work(world: World) -> None:
        batch = asyncio.create_task(world.batch(10_000))
        await world.singles(600)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)

    play(World(server, pacer(RateLimit(60, per=60)), (0.05, 0.1), skew=1.0), work)

    assert 25 <= len(server.admissions) - 600 <= 40
