"""Operations struck in every turn, on real sockets, with a pace that lives in a real Redis."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest
import redis

from respan_async import AsyncRespan, RateLimit, RetryPolicy
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan, SlidingLog
from tests.hostile.interruptions import Cancelled, Closed, TimedOut
from tests.hostile.steps import OPERATIONS, Blow, World, check_keys, strike
from tests.stepped import SteppedRealLoop, run, turns_until

SHARED: Final = RateLimit(4, per=0.1)
BLOWS: Final[dict[str, Callable[[], Blow]]] = {
    "cancelled": Cancelled,
    "cancelled in every turn from then on": lambda: Cancelled(again=-1),
    "timed out twice": lambda: TimedOut("both"),
    "closed": lambda: Closed(grace=2.0, slack=2.0),
    "closed without grace": lambda: Closed(grace=0.0, slack=2.0),
    "closed, then cancelled": lambda: Closed(grace=0.0, cancels=1, slack=2.0),
    "closing cut short": lambda: Closed(grace=2.0, cut=3, slack=2.0),
    "closing cut short again and again": lambda: Closed(grace=2.0, cut=-1, slack=2.0),
}


@pytest.fixture
def inspector(redis_url: str) -> Iterator[redis.Redis]:
    """Give a look into Redis."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


async def idle(world: World) -> None:
    """Wait until what goes on is over."""
    async with asyncio.timeout(5):
        while world.respan.pace.in_flight or any(world.respan.pace.waiting.values()) or world.connections:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)


async def game(operation: str, blow: Blow, turn: int, url: str) -> bool:
    """Play an operation, strike in a turn, and check what is left; tell whether it was over before."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedRealLoop)
    async with FakeRespan(limit=SlidingLog(SHARED.limit, per=SHARED.per)) as fake:
        pace = RedisWindow(url, SHARED)
        retry = RetryPolicy(initial=0.001, maximum=0.002)
        respan = AsyncRespan(fake.api_key, base_url=fake.url, pace=pace, retry=retry, tag_names=True)
        world = World(fake, respan, loop, others=frozenset(asyncio.all_tasks()))
        world.held.append((await respan.temporary_keys.create(name="earlier")).id)
        world.earlier = world.held[0]
        struck = await strike(world, OPERATIONS[operation], blow, turn, "before", hangs_after=30)
        await idle(world)
        if not (struck and blow.closes):
            began = time.monotonic()
            await asyncio.gather(*(respan.temporary_keys.list() for _ in range(SHARED.limit)))
            assert time.monotonic() - began < 4, "a slot was lost: it comes back with its lease, after 10 s"
            await idle(world)
            await respan.aclose()
        assert fake.counts.refused == 0
        check_keys(world)
        if tasks := world.tasks():  # of a closing that was cut short, the last words may still be on their way
            await asyncio.wait(tasks, timeout=3)
            assert world.tasks() == set(), tasks
    return not struck


def check_redis(inspector: redis.Redis) -> None:
    """See that the client has left no connection, and no slot of which nobody will speak again."""
    until = time.monotonic() + 2
    while len(inspector.client_list()) > 1 and time.monotonic() < until:
        time.sleep(0.001)
    assert len(inspector.client_list()) == 1, "a connection to Redis was left open"
    assert b"flight" not in b" ".join(inspector.zrange("respan_async:pace", 0, -1))  # type: ignore[arg-type]  # names


def strike_in_every_turn(operation: str, blow: str, url: str, inspector: redis.Redis, every: int = 1) -> int:
    """Play an operation, struck in one turn after the other; give the number of turns it has."""

    def is_over(step: int) -> bool:
        over: bool = run(game(operation, BLOWS[blow](), 1 + every * (step - 1), url), SteppedRealLoop)
        check_redis(inspector)
        inspector.flushall()
        return over

    return every * turns_until(is_over)


def test_a_create_in_a_shared_pace_can_be_cancelled_now_and_then(redis_url: str, inspector: redis.Redis) -> None:
    """No slot is lost, no connection is left open, and nobody is refused."""
    assert strike_in_every_turn("create", "cancelled", redis_url, inspector, every=4) > 5


@pytest.mark.hostile
@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("operation", ["create", "list_all", "batch_left", "group"])
def test_in_a_shared_pace_a_blow_in_every_turn_leaves_nothing_behind(
    operation: str, blow: str, redis_url: str, inspector: redis.Redis
) -> None:
    """The same for other operations, and whatever happens to them or to the client."""
    assert strike_in_every_turn(operation, blow, redis_url, inspector) > 5
