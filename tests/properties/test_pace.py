"""The pace, simulated: the real pacer in virtual time, against the fake's own limits, over worlds drawn at random."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import Priority, SlotOutcome
from respan_async.testing import Bucket, FixedWindow, Limit, SlidingLog
from respan_async.testing.limits import busiest_window
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.filterwarnings("ignore:delta is less than resolution")

Said = Literal["whole", "exact", "nothing"]


@attrs.define
class World:
    """A pacer, callers that obey it, and a server with a limit, all on one clock.

    Attributes:
        limit: The server's limit.
        pacer: What is being tested.
        latency: Seconds of a round trip, from and to; half passes before the server decides, half after.
        said: What a refusal tells of the time to wait.
        rng: What latencies and jitter are drawn from.
        loss: How often an answer is lost, from 0 to 1.
        admissions: When the server let requests in.
        refused: How many it turned away.
    """

    limit: Limit
    pacer: Pacer
    latency: tuple[float, float] = (0.05, 0.05)
    said: Said = "whole"
    rng: random.Random = attrs.field(factory=lambda: random.Random(1))
    loss: float = 0.0
    admissions: list[float] = attrs.field(factory=list)
    refused: int = 0

    async def call(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """Make one call, as often as it takes; return how long it waited for its first slot."""
        loop = asyncio.get_running_loop()
        caller, began, waited = object(), loop.time(), None
        while True:
            slot = await self.pacer.acquire(priority)
            waited = loop.time() - began if waited is None else waited
            lag = self.rng.uniform(*self.latency)
            # A packet may be late on one way and early on the other.
            there = lag * self.rng.random()
            await asyncio.sleep(there)
            wait = self.limit.admit(loop.time())
            if wait is None:
                self.admissions.append(loop.time())
            await asyncio.sleep(lag - there)
            if self.loss and self.rng.random() < self.loss:
                self.pacer.release(slot, SlotOutcome.LOST, caller=caller)
                if wait is None:
                    return waited
                continue
            if wait is None:
                self.pacer.release(slot, SlotOutcome.ANSWERED, caller=caller)
                return waited
            self.refused += 1
            asked = {"whole": float(max(math.ceil(wait), 1)), "exact": wait, "nothing": None}[self.said]
            self.pacer.release(slot, SlotOutcome.REFUSED, caller=caller, retry_after=asked)
            await asyncio.sleep((0.5 if asked is None else asked) + self.rng.uniform(0, 0.5))

    async def batch(self, number: int, width: int | None = None) -> None:
        """Make so many calls of the batch class, as the batch engine does."""
        left = iter(range(number))
        pending = self.pacer.announce()
        pending.more = number

        async def work() -> None:
            for index in left:
                pending.more = number - index - 1
                await self.call(Priority.BATCH)

        await asyncio.gather(*(work() for _ in range(width or self.pacer.max_in_flight)))
        self.pacer.withdraw(pending)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run something in virtual time."""

    async def wrapped() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(wrapped())


def pacer(given: RateLimit | None, max_in_flight: int = 64) -> Pacer:
    """Make a pacer with a local window."""
    return Pacer(LocalWindow(given), max_in_flight)


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
    seed=st.integers(0, 2**32),
)
def test_a_limit_that_is_known_is_never_overstepped_as_the_server_counts(
    number: int,
    per: float,
    latency: tuple[float, float],
    max_in_flight: int,
    calls: list[tuple[float, Priority]],
    batch: int,
    seed: int,
) -> None:
    """Whatever the network does and whoever calls: nothing is refused, and no period has more than the limit in it."""
    server = SlidingLog(number, per=per)

    async def main() -> World:
        world = World(server, pacer(RateLimit(number, per=per), max_in_flight), latency, rng=random.Random(seed))

        async def singles() -> None:
            async with asyncio.TaskGroup() as group:
                for gap, priority in calls:
                    await asyncio.sleep(gap * per / number)
                    group.create_task(world.call(priority))

        await asyncio.gather(singles(), world.batch(batch))
        return world

    world: World = run(main)

    assert world.refused == 0
    assert len(world.admissions) == len(calls) + batch
    assert busiest_window(world.admissions, per) <= number
    assert world.pacer.in_air == 0


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

    async def main() -> World:
        server = SlidingLog(number, per=per)
        world = World(server, pacer(RateLimit(number, per=per)), (0, latency), rng=random.Random(seed), loss=loss)
        await world.batch(3 * number)
        return world

    world: World = run(main)

    assert world.refused == 0


@settings(max_examples=15, deadline=None)
@given(number=st.integers(20, 60), per=periods, share=st.floats(0.0, 0.04), seed=st.integers(0, 2**32))
def test_a_known_limit_is_used_to_the_full(number: int, per: float, share: float, seed: int) -> None:
    """A batch takes hardly longer than the limit demands, when the network is fast beside the period."""

    async def main() -> float:
        latency = (0.2 * share * per, share * per)
        server = SlidingLog(number, per=per)
        world = World(server, pacer(RateLimit(number, per=per), 2 * number), latency, rng=random.Random(seed))
        began = asyncio.get_running_loop().time()
        await world.batch(6 * number)
        return asyncio.get_running_loop().time() - began

    took: float = run(main)

    # A slot comes back one period after its answer: half a round trip a period is what that costs.
    assert took <= 6 * per * (1.03 + share)


@pytest.mark.parametrize("offset", [0.0, 0.37, 0.95])
@pytest.mark.parametrize(("number", "per"), [(60, 60.0), (20, 2.0), (500, 5.0)])
def test_a_known_limit_meets_no_refusal_from_fixed_windows_either(number: int, per: float, offset: float) -> None:
    """Fixed windows let at least as much in as a sliding log."""

    async def main() -> World:
        server = FixedWindow(number, per=per, offset=offset * per)
        world = World(server, pacer(RateLimit(number, per=per)), (0.01, 0.1))
        await world.batch(5 * number)
        return world

    assert run(main).refused == 0


# ---------------------------------------------------------------------------------------------------- a limit learned

SERVERS: dict[str, Callable[[int, float], Limit]] = {
    "sliding": lambda number, per: SlidingLog(number, per=per),
    "fixed": lambda number, per: FixedWindow(number, per=per),
    "fixed, soon over": lambda number, per: FixedWindow(number, per=per, offset=0.1 * per),
    "fixed, just begun": lambda number, per: FixedWindow(number, per=per, offset=0.37 * per),
    "fixed, half over": lambda number, per: FixedWindow(number, per=per, offset=0.51 * per),
    "fixed, over at once": lambda number, per: FixedWindow(number, per=per, offset=0.95 * per),
}


async def learn(limit: Limit, count: int, latency: float, said: Said, seed: int = 1) -> tuple[World, float]:
    """Run a batch without knowing the limit; return the world and how long it took."""
    rng = random.Random(seed)
    world = World(limit, pacer(None), (0.5 * latency, 1.5 * latency), said, rng)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(rng.random())
    began = loop.time()
    await world.batch(count)
    return world, loop.time() - began


@pytest.mark.parametrize("said", ["whole", "exact"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("number", "per", "latency"),
    [
        (60, 60.0, 0.05),
        (60, 60.0, 0.5),
        (30, 60.0, 0.1),
        (20, 60.0, 0.1),
        (100, 60.0, 0.2),
        (150, 60.0, 0.2),
        (20, 10.0, 0.05),
        (60, 10.0, 0.1),
        (200, 5.0, 0.02),
    ],
)
def test_an_unknown_limit_is_learned_and_kept(number: int, per: float, latency: float, server: str, said: Said) -> None:
    """Ten periods' worth take at most 1.15 times as long as they must, with at most one refusal in twenty."""
    world, took = run(lambda: learn(SERVERS[server](number, per), 10 * number, latency, said))

    assert took <= 1.15 * 10 * per
    assert world.refused <= 0.05 * 10 * number
    assert len(world.admissions) == 10 * number
    assert world.pacer.window.learned


@pytest.mark.parametrize("server", SERVERS)
def test_a_limit_is_learned_even_where_seconds_are_coarse(server: str) -> None:
    """A limit of a few seconds, told in whole ones, is a guess at first; the guess is mended."""
    world, took = run(lambda: learn(SERVERS[server](20, 2.0), 400, 0.01, "whole"))

    assert took <= 1.3 * 40
    assert world.refused <= 0.07 * 400


def test_a_limit_is_learned_from_refusals_that_tell_nothing() -> None:
    """Without `retry_after` the first success after a pause tells how long the period is."""
    world, took = run(lambda: learn(SlidingLog(60, per=60), 600, 0.1, "nothing"))

    assert took <= 1.15 * 600
    assert world.refused <= 0.05 * 600
    assert world.pacer.window.limit == RateLimit(60, per=60)


@pytest.mark.parametrize("server", SERVERS)
def test_refusals_that_tell_nothing_make_nobody_storm_the_server(server: str) -> None:
    """A window's period cannot always be found out then: time may be lost, but the server is left in peace."""
    world, took = run(lambda: learn(SERVERS[server](60, 60.0), 600, 0.1, "nothing"))

    assert took <= 7 * 600
    assert world.refused <= 0.1 * 600


@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(20, 200),
    per=st.sampled_from([10.0, 30.0, 60.0]),
    offset=st.floats(0, 1),
    latency=st.floats(0.005, 0.5),
    said=st.sampled_from(["whole", "exact"]),
    sliding=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_server_is_stormed_or_left_idle(
    number: int, per: float, offset: float, latency: float, said: Said, sliding: bool, seed: int
) -> None:
    """Wherever a window begins and however far the server is, learning neither storms it nor wastes its limit."""

    def server() -> Limit:
        return SlidingLog(number, per=per) if sliding else FixedWindow(number, per=per, offset=offset * per)

    world, took = run(lambda: learn(server(), 10 * number, latency, said, seed))

    assert took <= 1.5 * 10 * per
    assert world.refused <= 0.1 * 10 * number + 5


@pytest.mark.parametrize("said", ["whole", "exact", "nothing"])
@pytest.mark.parametrize(("rate", "burst"), [(50, 10), (10, 5), (1, 1), (1, 60)])
def test_a_bucket_is_lived_with(rate: int, burst: int, said: Said) -> None:
    """A bucket is no window, and what is learned of it is not the truth; it is neither stormed nor abandoned."""
    world, took = run(lambda: learn(Bucket(rate, per=1, burst=burst), 600, 0.005, said))

    assert took <= 4 * (600 - burst) / rate
    assert world.refused <= 0.15 * 600


def test_a_fast_limit_far_away_is_explored() -> None:
    """Where a round trip takes as long as many slots, what is in the air counts as well."""
    world, took = run(lambda: learn(Bucket(500, per=1, burst=100), 5000, 0.04, "whole"))

    assert took <= 1.48 * (5000 - 100) / 500
    assert world.refused <= 0.02 * 5000


async def halved(given: RateLimit | None) -> World:
    """Let the limit become half of what it was after five of its periods."""
    world = World(SlidingLog(60, per=60), pacer(given), (0.05, 0.2))

    async def halve() -> None:
        await asyncio.sleep(300)
        world.limit = SlidingLog(30, per=60)

    await asyncio.gather(world.batch(600), halve())
    return world


@pytest.mark.parametrize("known", [RateLimit(60, per=60), None])
def test_a_limit_that_is_halved_is_found_out(known: RateLimit | None) -> None:
    """Refusals lower the limit to the new one, and few are needed."""
    world: World = run(lambda: halved(known))

    assert world.admissions[-1] <= 1.1 * (300 + 300 / 30 * 60)
    assert world.refused <= 30
    limit = world.pacer.window.limit
    assert limit is not None
    assert limit.limit / limit.per == pytest.approx(0.5, rel=0.15)


def test_a_limit_given_twice_too_high_is_corrected() -> None:
    """What the settings say is only where it begins."""

    async def main() -> World:
        world = World(SlidingLog(30, per=60), pacer(RateLimit(60, per=60)), (0.05, 0.2))
        await world.batch(300)
        return world

    world: World = run(main)

    assert world.admissions[-1] <= 1.1 * 600
    assert world.refused <= 15
    assert world.pacer.window.learned


def test_a_limit_that_recovers_is_used_again() -> None:
    """A limit that had to be lowered is tried again by single scouts, up to what was given and not beyond."""

    async def main() -> tuple[World, int]:
        world = World(SlidingLog(30, per=60), pacer(RateLimit(60, per=60)), (0.05, 0.2))
        await world.batch(200)
        lowered = world.pacer.window.limit
        world.limit = SlidingLog(120, per=60)
        await world.batch(2000)
        assert lowered is not None
        return world, lowered.limit

    world, lowered = run(main)

    assert 25 <= lowered <= 33
    assert world.pacer.window.limit == RateLimit(60, per=60)
    assert busiest_window(world.admissions, 60) <= 61


@pytest.mark.parametrize("known", [RateLimit(60, per=60), None])
def test_an_account_can_be_shared_with_somebody_who_does_not_share(known: RateLimit | None) -> None:
    """Somebody else takes half of the account's slots: ours get the other half, without a storm of refusals."""

    async def main() -> tuple[World, int]:
        world = World(SlidingLog(60, per=60), pacer(known), (0.05, 0.2))
        others = 0

        async def somebody_else() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(2)
                others += world.limit.admit(asyncio.get_running_loop().time()) is None

        task = asyncio.create_task(somebody_else())
        await world.batch(450)
        task.cancel()
        return world, others

    world, others = run(main)

    assert others > 250
    assert world.admissions[-1] <= 1.5 * 900
    assert world.refused <= 0.15 * 450


# ------------------------------------------------------------------------------------------------- whoever goes first


def batch_beside_singles(
    number: int, per: float, burst: int, seed: int, known: bool, gap: float, count: int = 60
) -> tuple[World, list[float]]:
    """Let single calls come in small bursts beside a huge batch; return how long each waited for its slot."""

    async def main() -> tuple[World, list[float]]:
        rng = random.Random(seed)
        given = RateLimit(number, per=per) if known else None
        world = World(SlidingLog(number, per=per), pacer(given), (0.001 * per, 0.003 * per), rng=rng)
        batch = asyncio.create_task(world.batch(10_000))
        await asyncio.sleep(3 * per)
        waits = list[float]()
        for _ in range(count):
            await asyncio.sleep(rng.uniform(0.5, 1.5) * gap)
            waits += await asyncio.gather(*(world.call() for _ in range(rng.randint(1, burst))))
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        return world, waits

    world, waits = run(main)
    return world, waits


@pytest.mark.parametrize("burst", [1, 3])
@pytest.mark.parametrize(("number", "per"), [(60, 60.0), (20, 10.0), (200, 60.0)])
def test_a_web_request_hardly_waits_behind_a_batch_of_ten_thousand(number: int, per: float, burst: int) -> None:
    """The next slot is never more than two intervals away, for the first of a small burst and its followers."""
    world, waits = batch_beside_singles(number, per, burst, seed=5, known=True, gap=12 * per / number)

    assert len(waits) >= 60
    interval = per / number
    assert max(waits) <= (burst + 1) * interval + 0.01 * per
    assert sorted(waits)[len(waits) // 2] <= 2 * interval
    assert world.refused == 0


def test_a_web_request_hardly_waits_once_the_limit_is_learned() -> None:
    """The same with a limit that nobody told."""
    _, waits = batch_beside_singles(60, 60.0, 1, seed=5, known=False, gap=12.0)

    assert sorted(waits)[int(0.9 * len(waits))] <= 2.5
    assert max(waits) <= 10


def test_a_batch_is_not_starved_by_interactive_calls() -> None:
    """However many single calls there are, the batch still gets every twentieth slot."""

    async def main() -> tuple[World, int]:
        world = World(SlidingLog(60, per=60), pacer(RateLimit(60, per=60)), (0.05, 0.1))
        batch = asyncio.create_task(world.batch(10_000))
        singles = [asyncio.create_task(world.call()) for _ in range(600)]
        await asyncio.gather(*singles)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        return world, len(world.admissions) - 600

    _, through = run(main)

    assert 25 <= through <= 40
