"""Clocks that jump: the wall clock set by hand or by NTP, and a machine that was asleep."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import attrs
import pytest

from respan_async import (
    AsyncRespan,
    CreateKeyRequest,
    DeadlineExceededError,
    Issued,
    RateLimit,
    RateLimitError,
    RetryPolicy,
)
from respan_async._calls.call_service import CallService
from respan_async._http import operations, response_parsing
from respan_async._http.response import Response
from respan_async.keys import TemporaryKeys
from respan_async.testing import FakeRespan, SlidingLog
from tests.virtual import VirtualLoop
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

JUMPS: Final = [
    timedelta(days=-3650),
    timedelta(days=-1),
    timedelta(hours=-1),  # the end of summer time, for a clock that keeps local time
    timedelta(seconds=-0.5),
    timedelta(seconds=0.5),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=3650),
]


@attrs.define
class Wall:
    """A wall clock that somebody sets, and that may run fast or slow."""

    offset: timedelta = timedelta(0)
    rate: float = 1.0
    began: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    began_at: float = attrs.field(factory=now)

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.began + self.rate * timedelta(seconds=now() - self.began_at) + self.offset


@attrs.define
class World:
    """A server, a client, and the client's wall clock."""

    fake: FakeRespan
    respan: AsyncRespan
    wall: Wall

    def keys(self, **options: Any) -> TemporaryKeys:
        """Give the operations by that wall clock."""
        respan = self.respan.with_options(**options)
        context = respan._service.context
        return TemporaryKeys(CallService(attrs.evolve(context, clock=self.wall), respan._service.options))


@contextlib.asynccontextmanager
async def world_of(**settings: Any) -> AsyncIterator[World]:
    """Run a server that lets in two a minute, a fifth of a second away, and a client that knows it."""
    client = {"pace": RateLimit(2, per=60), "retry": RetryPolicy(initial=0.1, maximum=1.0), **settings}
    async with (
        FakeRespan(limit=SlidingLog(2, per=60), latency=0.2) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, **client) as respan,
    ):
        yield World(fake, respan, Wall())


def at(seconds: float, act: Any) -> None:
    """Do something so many seconds from now."""
    asyncio.get_running_loop().call_later(seconds, act)


@pytest.mark.parametrize("rate", [1.0, 0.995, 1.005])
async def test_waiting_goes_by_the_monotonic_clock(rate: float) -> None:
    """However the wall clock is set while calls wait, slots come as the server has them, and deadlines hold."""
    for jump in JUMPS:
        began = now()
        async with world_of() as world:
            world.wall.rate = rate

            def set_clock(world: World = world, jump: timedelta = jump) -> None:
                world.wall.offset += jump

            at(20, set_clock)
            await asyncio.gather(*(world.keys().create() for _ in range(2)))
            patient = asyncio.create_task(world.keys(deadline=65.0).create())
            hasty = asyncio.create_task(world.keys(deadline=30.0).create())

            with pytest.raises(DeadlineExceededError) as caught:
                await hasty
            assert caught.value.retry_at is not None
            told = (caught.value.retry_at - world.wall()).total_seconds()
            await patient

            assert world.fake.counts.refused == 0
            assert now() - began == pytest.approx(60.4, abs=0.05)
            assert told == pytest.approx(60.2, abs=0.6)  # told at once, before the clock was set


async def test_a_key_lives_as_long_as_asked_by_the_clock_of_its_attempt() -> None:
    """`expires_in` counts from when the attempt leaves, not from when the call began.

    Where our clock was set back meanwhile by so much that the key is dead when it is made, it is made once more, by the
    server's clock.
    """
    for jump in JUMPS:
        async with world_of() as world:

            def set_clock(world: World = world, jump: timedelta = jump) -> None:
                world.wall.offset += jump

            await asyncio.gather(*(world.keys().create() for _ in range(2)))
            at(30, set_clock)
            is_dead_at_first = jump <= timedelta(hours=-1)
            left_at = world.wall() + timedelta(seconds=60) + (timedelta() if is_dead_at_first else jump)

            await world.keys().create(expires_in=timedelta(minutes=30))

            *_, record = world.fake.keys.values()
            assert record.expiry_date is not None
            assert abs(record.expiry_date - left_at - timedelta(minutes=30)) < timedelta(seconds=2)
            assert world.fake.counts.created == (4 if is_dead_at_first else 3)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_retry_after_date_goes_by_the_server_s_clock_where_it_tells_it(jump: timedelta) -> None:
    """With a Date beside it, a wrong clock here changes nothing; without one, the wait is never below nothing."""
    right = datetime(2026, 11, 22, 12, tzinfo=UTC)
    until = {"Retry-After": format_datetime(right + timedelta(seconds=30), usegmt=True)}
    request = operations.retrieve("id")

    with_date = response_parsing.failure(
        request,
        Response(429, {**until, "Date": format_datetime(right, usegmt=True)}, b""),
        None,
        right + jump,
    )
    without = response_parsing.failure(request, Response(429, until, b""), None, right + jump)

    assert isinstance(with_date, RateLimitError)
    assert isinstance(without, RateLimitError)
    assert with_date.retry_after == 30.0
    assert without.retry_after == (30.0 - jump.total_seconds() if jump < timedelta(seconds=30) else None)


async def test_a_refusal_until_a_date_far_off_by_a_wrong_clock_fails_the_call_and_holds_nobody_for_long() -> None:
    """A wait of ten years, by a clock ten years slow, is told at once; two minutes later others are let through."""
    async with world_of() as world:
        world.fake.script("refuse:315360000")
        with pytest.raises(RateLimitError):
            await world.keys().create()
        assert now() < 1

        await world.keys().create()

        assert now() < 122


@pytest.mark.parametrize("wall_too", [False, True])
async def test_a_machine_that_was_asleep_goes_on_where_it_was(wall_too: bool) -> None:
    """Eight hours asleep in a batch: connections are gone and slots are back, and every tenant gets one key."""
    async with world_of(tag_names=True, timeout=20.0) as world:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        def sleep() -> None:
            world.wall.offset += timedelta(hours=8)
            if wall_too:  # and the monotonic clock went on as well, as on some systems it does
                world.wall.offset -= timedelta(hours=8)
                loop._selector.clock.advance(8 * 3600)
            world.fake.down = True
            world.fake.down = False
            world.fake.limit = SlidingLog(2, per=60)

        for moment in (0.1, 60.3, 90.0):  # in the air, in the air again, and while everybody waits
            at(moment, sleep)
        outcomes = await world.keys().create_many([CreateKeyRequest(name=f"tenant-{number}") for number in range(6)])

        held = [outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)]
        assert len(held) == 6
        assert world.fake.counts.refused == 0
        names = {suspect.name for suspect in world.respan.suspects}
        assert {record.name for record in world.fake.unheld(held)} <= names
        await asyncio.sleep(200)
        await world.keys().sweep(grace=0)
        assert world.fake.unheld(held) == []


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_sweep_waits_no_longer_than_its_grace_whatever_the_wall_clock_says(jump: timedelta) -> None:
    """Set back, the clock does not make it wait for days; set forward, what it overlooks is found the next time."""
    async with world_of(tag_names=True, pace=RateLimit(50, per=60)) as world:
        world.fake.limit = None
        world.fake.script("late_create:5")
        key = await world.keys().create(name="wanted")
        began = now()
        world.wall.offset += jump

        await world.keys().sweep(grace=10)

        assert now() - began < 11
        await asyncio.sleep(10)
        await world.keys().sweep(grace=10)
        assert world.fake.unheld([key.id]) == []
        assert world.respan.suspects == ()
