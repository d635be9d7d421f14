"""A batch beside interactive calls on a shared pace, and what befalls its store: how long it takes, against the best.

In virtual time: the real client, a fake server that counts, and the real script on a store in memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest

from respan_async import AsyncRespan, CreateKeyRequest, RateLimit
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan, SlidingLog
from tests.servers.virtual_redis import VirtualRedis
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

FAST, MINUTE = RateLimit(100, per=5), RateLimit(60, per=60)
Mishap = Callable[[VirtualRedis], Awaitable[None]]


@attrs.define
class World:
    """Clients that share a pace.

    Attributes:
        limit: What the server allows.
        fake: The server.
        store: Where the pace is.
        waits: How long each interactive call took.
    """

    limit: RateLimit
    fake: FakeRespan
    store: VirtualRedis = attrs.field(factory=VirtualRedis)
    waits: list[float] = attrs.field(factory=list)
    _stack: contextlib.AsyncExitStack = attrs.field(factory=contextlib.AsyncExitStack)

    async def client(self, share: float = 0.2) -> AsyncRespan:
        """Make a client, as another process has one."""
        window = RedisWindow(self.store, self.limit, fallback_share=share)
        client = AsyncRespan(self.fake.api_key, base_url=self.fake.url, pace=window)
        return await self._stack.enter_async_context(client)

    async def batch(self, client: AsyncRespan, number: int) -> None:
        """Make so many keys."""
        assert len(await client.temporary_keys.create_many(CreateKeyRequest() for _ in range(number))) == number

    async def call_every(self, client: AsyncRespan, pause: float) -> None:
        """Make single keys, a while after one another, without an end."""
        while True:
            await asyncio.sleep(pause)
            began = now()
            await client.temporary_keys.create()
            self.waits.append(now() - began)

    async def duration(self, work: Awaitable[object], *beside: Awaitable[object]) -> float:
        """Tell how long the work took, as a number of seconds beyond which it is not waited for."""
        began = now()
        tasks = [asyncio.ensure_future(each) for each in beside]
        try:
            async with asyncio.timeout(1000):
                await work
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return now() - began

    def best(self, batch: int) -> float:
        """Return the least seconds for a batch and the interactive calls that were made."""
        return (batch + len(self.waits)) * self.limit.interval

    def kept(self) -> bool:
        """Tell whether nothing was refused, and no period had more than the limit."""
        return self.fake.counts.refused == 0 and self.fake.max_in_window(self.limit.per) <= self.limit.limit

    async def aclose(self) -> None:
        """Close the clients."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def world(limit: RateLimit) -> AsyncIterator[World]:
    """Give a world with such a limit."""
    async with FakeRespan(limit=SlidingLog(limit.limit, per=limit.per), latency=(0.001, 0.01)) as fake:
        found = World(limit, fake)
        try:
            yield found
        finally:
            await found.aclose()


def at(seconds: float, *steps: Callable[[VirtualRedis], None] | float) -> Mishap:
    """Let something happen to the store after a while, and more later."""

    async def happen(store: VirtualRedis) -> None:
        for step in (seconds, *steps):
            if callable(step):
                step(store)
            else:
                await asyncio.sleep(step)

    return happen


def vanish(store: VirtualRedis) -> None:
    store.vanish()


def away(store: VirtualRedis) -> None:
    store.away = True


def back(store: VirtualRedis) -> None:
    store.away = store.read_only = False


def read_only(store: VirtualRedis) -> None:
    store.read_only = True


def set_back(seconds: float) -> Callable[[VirtualRedis], None]:
    def step(store: VirtualRedis) -> None:
        store.clock -= seconds

    return step


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what was warned of, but that the wall clock here does not go as fast as the server's, which is virtual."""
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in texts if "this machine's clock" not in text]


# ------------------------------------------------------------------------------------------------------ the log is full


@pytest.mark.parametrize("where", ["the same process", "another process"])
@pytest.mark.parametrize(
    ("limit", "pause"),
    [
        (FAST, 0.5),
        pytest.param(MINUTE, 2.0, marks=pytest.mark.hostile),
        pytest.param(MINUTE, 5.0, marks=pytest.mark.hostile),
    ],
)
async def test_a_batch_beside_interactive_calls_gets_all_that_they_leave(
    limit: RateLimit, pause: float, where: str
) -> None:
    """The log is full at first, by a burst. What the calls take delays the batch by as much, and not by more."""
    async with world(limit) as found:
        batching = await found.client()
        serving = batching if where == "the same process" else await found.client()
        await found.batch(batching, limit.limit)

        seconds = await found.duration(found.batch(batching, 200), found.call_every(serving, pause))

        assert seconds <= 1.1 * found.best(200) + limit.per
        assert found.kept()


@pytest.mark.hostile
async def test_interactive_calls_that_take_all_there_is_leave_a_batch_every_twentieth_slot() -> None:
    """One call comes half a second after the other, which is more than the limit allows: no slot is lost."""
    async with world(MINUTE) as found:
        client = await found.client()
        await found.batch(client, 60)
        before = found.fake.counts.created

        with pytest.raises(TimeoutError):
            await found.duration(found.batch(client, 200), found.call_every(client, 0.5))

        made = found.fake.counts.created - before
        assert made >= 0.98 * (1000 - 60)
        assert made - len(found.waits) >= made / 20
        assert found.kept()


@pytest.mark.parametrize("pause", [None, 0.33])
@pytest.mark.parametrize("processes", [4, pytest.param(20, marks=pytest.mark.hostile)])
async def test_batches_of_many_processes_use_the_whole_limit_with_about_one_request_a_key(
    processes: int, pause: float | None
) -> None:
    """Each process learns how late to ask, also where the log is full of a burst at first."""
    limit = RateLimit(60, per=6)
    async with world(limit) as found:
        batching = [await found.client() for _ in range(processes)]
        serving = await found.client()
        beside = [] if pause is None else [found.call_every(serving, pause)]
        await found.batch(serving, 60)
        before = found.store.calls

        work = asyncio.gather(*(found.batch(client, 100) for client in batching))
        seconds = await found.duration(work, *beside)

        assert seconds <= 1.05 * found.best(100 * processes) + limit.per
        assert found.store.calls - before <= 1.2 * (100 * processes + len(found.waits))
        assert max(found.waits[10:], default=0.0) <= (processes + 1) * limit.interval
        assert found.kept()


# ------------------------------------------------------------------------------------------- the store is away, or new


@pytest.mark.parametrize("where", ["the same process", "another process"])
@pytest.mark.parametrize(
    ("limit", "pause", "mishap"),
    [
        pytest.param(FAST, 0.5, at(3, vanish), id="restarted"),
        pytest.param(FAST, 0.5, at(3, away, 3, back), id="away"),
        pytest.param(FAST, 0.5, at(3, away, vanish, 3, back), id="away and restarted"),
        pytest.param(FAST, 0.5, at(3, read_only, 3, back), id="a replica at first"),
        pytest.param(FAST, 0.5, at(3, set_back(3600)), id="clock an hour back"),
        pytest.param(FAST, 0.5, at(3, set_back(20)), id="clock 20 s back"),
        pytest.param(FAST, 0.5, at(3, read_only, set_back(2), 3, back), id="a replica with another clock"),
        pytest.param(MINUTE, 3.0, at(30, vanish), id="restarted, minute"),
        pytest.param(MINUTE, 3.0, at(30, away, 3, back), id="away, minute"),
        pytest.param(MINUTE, 3.0, at(30, set_back(30)), id="clock 30 s back, minute"),
    ],
)
async def test_a_mishap_of_the_store_costs_a_period_at_most(
    limit: RateLimit, pause: float, mishap: Mishap, where: str
) -> None:
    """The batch and the calls beside it go on by themselves, and within the limit."""
    async with world(limit) as found:
        batching = await found.client()
        serving = batching if where == "the same process" else await found.client()

        work = found.batch(batching, 200)
        seconds = await found.duration(work, found.call_every(serving, pause), mishap(found.store))

        assert seconds <= 1.3 * found.best(200) + limit.per
        assert found.kept()


@pytest.mark.hostile
async def test_after_a_long_outage_the_shares_go_on_until_the_store_is_to_be_relied_upon() -> None:
    """It comes back empty, so it counts as full for a period; nobody waits for that who had a share already."""
    async with world(FAST) as found:
        clients = [await found.client() for _ in range(4)]
        outage = at(3, away, vanish, 20, back)

        work = asyncio.gather(*(found.batch(client, 200) for client in clients))
        await found.duration(work, outage(found.store))

        pauses = [
            later - earlier for earlier, later in zip(found.fake.admissions, found.fake.admissions[1:], strict=False)
        ]
        assert sum(1 for pause in pauses if pause > 4.5) == 1  # before the shares
        assert found.kept()


# ------------------------------------------------------------------------------------ the log vanishes again and again


@pytest.mark.parametrize(
    ("limit", "every", "processes"),
    [
        (FAST, 3.0, 1),
        *(
            pytest.param(*world, marks=pytest.mark.hostile)
            for world in ((FAST, 5.5, 1), (FAST, 3.0, 4), (MINUTE, 7.0, 1), (MINUTE, 90.0, 2))
        ),
    ],
)
async def test_where_the_log_vanishes_again_and_again_each_process_goes_on_with_its_share(
    limit: RateLimit, every: float, processes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the store were away. One warning of each process says what may be the cause."""
    async with world(limit) as found:
        clients = [await found.client() for _ in range(processes)]
        seconds = 20 * limit.per

        async def lose() -> None:
            while True:
                await asyncio.sleep(every)
                found.store.vanish()

        batches = [asyncio.ensure_future(found.batch(client, 10_000)) for client in clients]
        losing = asyncio.ensure_future(lose())
        await asyncio.sleep(seconds / 2)
        before = found.fake.counts.created
        await asyncio.sleep(seconds / 2)
        made = found.fake.counts.created - before
        for task in (losing, *batches):
            task.cancel()
        await asyncio.gather(losing, *batches, return_exceptions=True)

        share = 0.2 * processes * limit.limit * seconds / 2 / limit.per
        assert 0.9 * share <= made <= 1.1 * share
        assert found.kept()
        assert len(warnings(caplog)) == processes
        assert all("maxmemory-policy" in warning for warning in warnings(caplog))


@pytest.mark.hostile
async def test_a_log_that_stays_is_used_again(caplog: pytest.LogCaptureFixture) -> None:
    """After three periods without a loss: the whole limit, and a word that it is back."""
    caplog.set_level(logging.INFO, "respan_async")
    async with world(FAST) as found:
        client = await found.client()
        losses = at(2, vanish, 3, vanish, 3, vanish)

        work = found.batch(client, 1000)
        seconds = await found.duration(work, losses(found.store))

        assert seconds <= 8 + 3 * 5 + 1000 / 20 + 5
        assert caplog.text.count("is back") == 1
        assert found.kept()


@pytest.mark.hostile
async def test_without_a_share_a_log_that_vanishes_is_used_for_as_long_as_it_is_there() -> None:
    """`fallback_share=0` has nothing to go on with: what the log grants between two losses is better than nothing."""
    async with world(FAST) as found:
        client = await found.client(share=0)

        async def lose() -> None:
            while True:
                await asyncio.sleep(8)
                found.store.vanish()

        await found.duration(found.batch(client, 400), lose())

        assert found.kept()
