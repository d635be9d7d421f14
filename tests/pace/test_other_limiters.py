"""Limiters that are no sliding log: proxies, buckets, bounds on what is served at once, bans."""

import asyncio
import random

import pytest

from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import Bucket, SlidingLog
from respan_async.testing.limits import busiest_window
from tests.pace.servers import Banning, Concurrency, CountingRefused, Said, Server
from tests.pace.world import CLOSE, KNOWN, NEAR, USUAL, World, pacer, play

pytestmark = CLOSE

SAID = ["whole", "nothing"]


def proxy(said: Said) -> Server:
    """Make a server that lets one request through every twentieth of a second, as nginx does without a burst."""
    return Server(Bucket(20, per=1, burst=1), said=said)


@pytest.mark.parametrize("said", SAID)
def test_a_proxy_without_a_burst_near_by_is_found_out(said: Said) -> None:
    """A burst is refused, and then hardly anything: 1.4 times the best, with six refusals in a hundred."""
    world = play(World(proxy(said), pacer(RateLimit(20, per=1)), NEAR), lambda world: world.batch(200))

    assert world.took <= 1.45 * 10
    assert world.server.refused <= 0.06 * 200


@pytest.mark.parametrize("said", SAID)
def test_a_proxy_without_a_burst_farther_away_costs_double(said: Said) -> None:
    """A request drains from its answer on, so a round trip of P/N makes every second place one that nobody takes."""
    world = play(World(proxy(said), pacer(RateLimit(20, per=1)), USUAL), lambda world: world.batch(200))

    assert world.took <= 2.2 * 10
    assert world.server.refused <= 0.15 * 200


@pytest.mark.parametrize(("latency", "most"), [(NEAR, 2.3), (USUAL, 5.3)])
@pytest.mark.parametrize("said", SAID)
def test_a_proxy_without_a_burst_is_not_recognized_where_the_limit_is_learned(
    said: Said, latency: tuple[float, float], most: float
) -> None:
    """What is learned is how far apart requests came that were let in: the farther the server, the slower; 5 x here."""
    world = play(World(proxy(said), pacer(None), latency), lambda world: world.batch(200))

    assert world.took <= most * 10
    assert world.server.refused <= 0.07 * 200


async def beside_calls(world: World) -> None:
    """Run a batch of 200, and a call every half second."""
    batch = asyncio.ensure_future(world.batch(200))
    singles = list[asyncio.Task[float]]()
    while not batch.done():
        singles.append(asyncio.create_task(world.call()))
        await asyncio.sleep(0.5)
    await asyncio.gather(batch, *singles)


def test_a_proxy_without_a_burst_is_found_out_beside_calls() -> None:
    """What came just before a refused request came at once with it, though its answer has drained for a moment."""
    worlds = [
        play(World(proxy("nothing"), pacer(RateLimit(20, per=1)), NEAR, rng=random.Random(seed)), beside_calls)
        for seed in range(5)
    ]

    assert sum(world.took * 20 / len(world.done) for world in worlds) / 5 <= 1.8


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("known", KNOWN)
def test_a_proxy_without_a_burst_starves_nobody(known: bool, said: Said) -> None:
    """A call every half second beside a batch is served within seconds; both end, after up to 3.4 times the best."""
    world = play(World(proxy(said), pacer(RateLimit(20, per=1) if known else None), NEAR), beside_calls)

    assert world.took <= 3.4 * len(world.done) / 20
    assert len(world.waits) == len(world.done) - 200
    assert max(world.waits) <= 3.0


@pytest.mark.parametrize("priority", [Priority.BATCH, Priority.INTERACTIVE])
def test_a_bucket_with_a_small_burst_refuses_one_flight(priority: Priority) -> None:
    """Of thirty that come at once ten are let in, and twenty refused once; then each comes when a token is there."""
    server = Server(Bucket(60, per=60, burst=10))

    async def thirty(world: World) -> None:
        await (world.batch(30) if priority is Priority.BATCH else world.singles(30))

    world = play(World(server, pacer(RateLimit(60, per=60))), thirty)

    assert world.took <= 1.3 * 20
    assert server.refused <= 20


@pytest.mark.parametrize(
    ("rate", "known", "latency", "most", "refused"),
    [
        (50, True, NEAR, 1.05, 0.0),
        (50, True, (0.02, 0.04), 1.05, 0.0),
        (50, False, NEAR, 1.5, 0.16),
        (50, False, (0.02, 0.04), 1.5, 0.12),
        (500, True, NEAR, 1.05, 0.01),
        (500, True, (0.02, 0.04), 1.1, 0.01),
        (500, False, NEAR, 2.1, 0.015),
        (500, False, (0.02, 0.04), 1.6, 0.015),
    ],
)
def test_a_fast_bucket_with_a_small_burst_is_kept_busy(
    rate: int, known: bool, latency: tuple[float, float], most: float, refused: float
) -> None:
    """A rate that is given is used to the full; at 500 a second and 30 ms away, it costs a twentieth more.

    A rate that has to be learned costs double over three seconds, and up to fifteen refusals in a hundred.
    """
    count = 3 * rate
    server = Server(Bucket(rate, per=1, burst=10))

    world = play(World(server, pacer(RateLimit(rate, per=1) if known else None), latency), lambda w: w.batch(count))

    assert world.took <= most * count / rate
    assert server.refused <= refused * count


@pytest.mark.parametrize("said", ["whole", "exact", "nothing"])
@pytest.mark.parametrize(("rate", "burst"), [(50, 10), (10, 5), (1, 1), (1, 60)])
def test_a_bucket_that_has_to_be_learned_is_used_to_the_full_at_one_refusal_a_request(
    rate: int, burst: int, said: Said
) -> None:
    """No time is lost beyond the first seconds, but the limit learned may be far too high, and is not corrected.

    Then each request is refused once before it is let in, where a bucket near by lets one in at a time.
    """
    server = Server(Bucket(rate, per=1, burst=burst), said=said)

    world = play(World(server, pacer(None), (0.0025, 0.0075), skew=1.0), lambda world: world.batch(300))

    assert world.took <= 1.2 * (300 - burst) / rate + 2.0
    assert server.refused <= 1.3 * 300
    assert busiest_window(server.refusals, 1.0) <= 80


def test_a_limit_that_is_given_meets_no_ban() -> None:
    """Nothing is refused, so nothing is punished."""
    for limit in (Banning(SlidingLog(40, per=2), 4.0), CountingRefused(40, 2.0)):
        world = play(World(Server(limit), pacer(RateLimit(40, per=2))), lambda world: world.batch(400))

        assert world.took <= 1.05 * 20
        assert world.server.refused == 0


def test_a_ban_looks_like_a_longer_period_where_the_limit_is_learned() -> None:
    """Each refusal costs two periods more, so that the whole costs double."""
    world = play(World(Server(Banning(SlidingLog(40, per=2), 4.0)), pacer(None)), lambda world: world.batch(400))

    assert world.took <= 2.2 * 20
    assert world.server.refused <= 0.07 * 400


def test_a_limit_that_counts_refused_requests_is_learned() -> None:
    """One probe goes where ten would keep the window full: 1.4 times the best."""
    world = play(World(Server(CountingRefused(40, 2.0)), pacer(None)), lambda world: world.batch(400))

    assert world.took <= 1.4 * 20
    assert world.server.refused <= 0.055 * 400


@pytest.mark.parametrize(
    ("known", "latency", "serves_in", "most"),
    [
        (True, (0.02, 0.03), 0.025, 1.2),
        (False, (0.02, 0.03), 0.025, 1.9),
        (True, NEAR, 0.05, 1.7),
        (False, NEAR, 0.05, 1.8),
    ],
)
def test_a_bound_on_what_is_served_at_once_is_found_out(
    known: bool, latency: tuple[float, float], serves_in: float, most: float
) -> None:
    """Where half of a round trip is the server's, nearly all of the eight places are kept busy: 1.2 times the best.

    Where all of it is the server's, the cap comes down by one a second, and so it takes 1.7 times the best in eight
    seconds. Where the limit has to be learned, the batch begins anew with two in the air: 1.9 times.
    """
    server = Server(Concurrency(8), serves_in=serves_in)
    best = 1200 / 8 * (sum(latency) / 2 + serves_in)

    world = play(World(server, pacer(RateLimit(300, per=1) if known else None), latency), lambda w: w.batch(1200))

    assert world.took <= most * best
    assert server.refused <= 0.05 * 1200


@pytest.mark.parametrize("known", KNOWN)
def test_a_wait_of_no_seconds_is_as_if_nothing_were_said(known: bool) -> None:
    """A server that refuses with `Retry-After: 0` is asked again later and later: a period is lost, nothing stormed."""

    class AtOnce(SlidingLog):
        def admit(self, now: float) -> float | None:
            return None if super().admit(now) is None else 0.0

    limit = RateLimit(60, per=60)
    server = Server(AtOnce(60, per=60), others=[-0.05] * 50, said="exact")

    world = play(World(server, pacer(limit if known else None)), lambda world: world.batch(120))

    assert world.took <= 240
    assert server.refused <= 0.1 * 120
