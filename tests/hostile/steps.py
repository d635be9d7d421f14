"""One operation, one thing that happens in a certain turn of the event loop, and what must be true afterwards.

An operation is played over and over in a world that is the same each time; in the first game something happens in turn
1, in the second in turn 2, until one game is over before anything happened. After each, what the *server* saw and has
is compared with what the caller holds, the client knows, and the loop still has to do.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from respan_async import AsyncRespan, CreateKeyRequest, Issued, RateLimit, RespanError, RetryPolicy
from respan_async._calls.lifecycle import Stage
from respan_async.testing import FakeRespan, SlidingLog
from tests.stepped import Place, Stepped

LIMIT: Final = RateLimit(8, per=30)
LATENCY: Final = 0.2
GRACE: Final = 2.0
"""Seconds for which a request without an answer holds its slot longer."""
SWEPT: Final = 180.0
"""Seconds after which the automatic sweep is over: it waits by two clocks, of which one stands still here."""


@attrs.define
class World:
    """A server and a client, and what the caller has got so far.

    Attributes:
        fake: The server.
        respan: The client.
        loop: The loop both live on.
        earlier: The id of a key that was made before, and belongs to somebody else.
        held: The ids of the keys that the caller has.
        others: Tasks that were there before.
    """

    fake: FakeRespan
    respan: AsyncRespan
    loop: Stepped
    earlier: str = ""
    held: list[str] = attrs.field(factory=list)
    others: frozenset[asyncio.Task[Any]] = frozenset()

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Give the tasks that are the client's or the caller's, not the server's and not the test's."""
        running = asyncio.all_tasks() - self.others
        return {task for task in running if not any(name in repr(task) for name in ("RequestHandler", "FakeRespan"))}

    @property
    def connections(self) -> int:
        """Count the connections that are in use."""
        session = self.respan._service.context.transport._sessions._session
        connector: Any = session.connector if session is not None else None
        return len(connector._acquired) if connector is not None else 0


Operation = Callable[[World], Awaitable[object]]
# --------------------------------------------------------------------------------------------------------- operations


async def create(world: World) -> None:
    """Make one key."""
    world.held.append((await world.respan.temporary_keys.create(name="wanted")).id)


async def create_in_time(world: World) -> None:
    """Make one key, within a deadline, which makes the call one that is carried."""
    world.held.append((await world.respan.with_options(deadline=200).temporary_keys.create(name="wanted")).id)


async def list_page(world: World) -> None:
    """Read one page of the list."""
    await world.respan.temporary_keys.list(page_size=1)


async def list_all(world: World) -> None:
    """Read the whole list, page by page."""
    async for _ in world.respan.temporary_keys.list(page_size=1):
        pass


async def retrieve(world: World) -> None:
    """Read one key."""
    await world.respan.temporary_keys.retrieve(world.earlier)


async def retrieve_in_time(world: World) -> None:
    """Read one key within a deadline."""
    await world.respan.with_options(deadline=200).temporary_keys.retrieve(world.earlier)


async def update(world: World) -> None:
    """Change one key."""
    await world.respan.temporary_keys.update(world.earlier, max_usage=5)


async def delete(world: World) -> None:
    """Revoke one key."""
    await world.respan.temporary_keys.delete(world.earlier)


async def sweep(world: World) -> None:
    """Revoke what lost answers have left."""
    await world.respan.temporary_keys.sweep(grace=1)


def _requests() -> list[CreateKeyRequest]:
    return [CreateKeyRequest(name=f"tenant-{number}") for number in range(4)]


async def batch_streamed(world: World) -> None:
    """Make some keys, and take them as they come."""
    async with world.respan.temporary_keys.create_many(_requests(), max_in_flight=2) as batch:
        async for outcome in batch:
            if isinstance(outcome, Issued):
                world.held.append(outcome.key.id)


async def batch_left(world: World) -> None:
    """Make some keys, take one, and leave."""
    async with world.respan.temporary_keys.create_many(_requests(), max_in_flight=3, ordered=True) as batch:
        async for outcome in batch:
            if isinstance(outcome, Issued):
                world.held.append(outcome.key.id)
                break


async def batch_awaited(world: World) -> None:
    """Make some keys, and take them all together."""
    outcomes = await world.respan.temporary_keys.create_many(_requests(), max_in_flight=2)
    world.held.extend(outcome.key.id for outcome in outcomes if isinstance(outcome, Issued))


async def batch_in_time(world: World) -> None:
    """Make some keys out of an asynchronous input, each within a deadline."""

    async def source() -> AsyncIterator[CreateKeyRequest]:
        for request in _requests():
            await asyncio.sleep(0.05)
            yield request

    respan = world.respan.with_options(deadline=200)
    async with respan.temporary_keys.create_many(source(), max_in_flight=2) as batch:
        async for outcome in batch:
            if isinstance(outcome, Issued):
                world.held.append(outcome.key.id)


async def batch_of_source(world: World) -> None:
    """Make some keys out of an asynchronous input that holds something open, and take them all together."""

    async def source() -> AsyncIterator[CreateKeyRequest]:
        async with asyncio.timeout(3600):
            for request in _requests():
                await asyncio.sleep(0.05)
                yield request

    outcomes = await world.respan.temporary_keys.create_many(source(), max_in_flight=2)
    world.held.extend(outcome.key.id for outcome in outcomes if isinstance(outcome, Issued))


async def group(world: World) -> None:
    """Make several keys side by side, of which the last fails and cancels the others."""

    async def one(number: int) -> None:
        key = await world.respan.temporary_keys.create(name=f"tenant-{number}")
        world.held.append(key.id)

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(one(number))


OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.__name__: operation
    for operation in (
        create,
        create_in_time,
        list_page,
        list_all,
        retrieve,
        retrieve_in_time,
        update,
        delete,
        sweep,
        batch_streamed,
        batch_left,
        batch_awaited,
        batch_in_time,
        batch_of_source,
        group,
    )
}


# ---------------------------------------------------------------------------------------------------------- the world


@contextlib.asynccontextmanager
async def world_of(
    script: Sequence[str] = (), *, suspect: bool = False, client: Mapping[str, Any] | None = None
) -> AsyncIterator[World]:
    """Run a server whose next requests meet these faults, and a client; in the end look for what either has left."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Stepped)
    random.seed(6)  # the same back-offs in every game
    async with FakeRespan(limit=SlidingLog(LIMIT.limit, per=LIMIT.per), latency=LATENCY) as fake:
        settings = {"pace": LIMIT, "tag_names": True, "timeout": 6.0, "retry": RetryPolicy(initial=0.1, maximum=1.0)}
        respan = AsyncRespan(fake.api_key, base_url=fake.url, **{**settings, **(client or {})})
        world = World(fake, respan, loop, others=frozenset(asyncio.all_tasks()))
        if suspect:
            fake.script("lose_answer_after_create")  # which leaves a key that nobody holds
        for name in ("first", "earlier"):
            world.held.append((await respan.temporary_keys.create(name=name)).id)
        world.earlier = world.held[-1]
        await asyncio.sleep(LIMIT.per + GRACE)
        fake.script(*script, operation="any")
        try:
            yield world
        finally:
            await respan.aclose()
            await asyncio.sleep(0)
            assert world.tasks() == set(), world.tasks()


class Blow(Protocol):
    """What happens in the middle of an operation."""

    closes: bool

    async def play(self, world: World, operation: Operation) -> None:
        """Be the caller of the operation."""
        ...

    def strike(self, world: World, task: asyncio.Task[Any]) -> None:
        """Do it."""
        ...

    async def judge(self, world: World, task: asyncio.Task[Any]) -> None:
        """See how the caller fared, who is done by now."""
        ...


async def strike(
    world: World, operation: Operation, blow: Blow, turn: int, place: Place, *, hangs_after: float
) -> bool:
    """Play an operation, strike in a turn, and see how the caller fared; tell whether it was not over before."""
    task = asyncio.create_task(blow.play(world, operation))
    struck = over = False

    def act() -> None:
        nonlocal struck
        if not over:
            struck = True
            blow.strike(world, task)

    world.loop.interrupt(turn, place, act)
    done, _ = await asyncio.wait({task}, timeout=hangs_after)
    over = True
    world.loop.leave_alone()
    assert done, "it hangs"
    if struck:
        await blow.judge(world, task)
    elif not task.cancelled() and (error := task.exception()) is not None:
        assert isinstance(error, RespanError | ExceptionGroup)
    return struck


async def game(operation: Operation, blow: Blow, turn: int, place: Place, script: Sequence[str] = ()) -> bool:
    """Play an operation, strike in a turn, and check what is left; tell whether it was over before."""
    async with world_of(script, suspect=operation is sweep) as world:
        struck = await strike(world, operation, blow, turn, place, hangs_after=3600)
        await (check_closed(world) if struck and blow.closes else check_open(world, script))
    return not struck


async def check_open(world: World, script: Sequence[str]) -> None:
    """Check what is left once all that goes on has come to its end, and see the client go on."""
    fake, respan = world.fake, world.respan
    await asyncio.sleep(SWEPT)
    await fake.settle()
    check_idle(world)
    assert fake.counts.refused <= sum(name.startswith("refuse") for name in script)
    check_keys(world)
    # Let the faults that nothing met be met by calls that do not matter, and a pace that was warned trust again.
    for _ in (*script, *range(LIMIT.limit if "refuse" in str(script) else 0)):
        with contextlib.suppress(RespanError):
            await respan.with_options(retry=RetryPolicy(max_attempts=1)).temporary_keys.retrieve(world.earlier)
    await respan.temporary_keys.sweep(grace=0)
    assert fake.unheld(world.held) == [], "a key is alive that nobody holds, and no sweep finds it"
    await asyncio.sleep(LIMIT.per + GRACE)

    assert respan.pace.used == 0
    began, refused = asyncio.get_running_loop().time(), fake.counts.refused
    limit = respan.pace.limit
    assert limit is not None
    await asyncio.gather(*(respan.temporary_keys.list() for _ in range(limit.limit)))
    assert asyncio.get_running_loop().time() - began < 2 * LATENCY, "a slot was lost"
    assert fake.counts.refused == refused


async def check_closed(world: World) -> None:
    """Check what is left when the client was closed meanwhile."""
    check_keys(world)
    await asyncio.sleep(SWEPT)
    await world.fake.settle()
    check_idle(world)
    check_keys(world)
    session = world.respan._service.context.transport._sessions._session
    assert session is None or session.closed


def check_idle(world: World) -> None:
    """See that nothing is held, waited for, or under way."""
    context = world.respan._service.context
    pace = world.respan.pace
    assert pace.in_flight == 0
    assert not any(pace.waiting.values())
    assert world.connections == 0
    assert context.pacer._pending == set()
    assert len(context.lifecycle.tasks._tasks) <= (len(context.suspects) > 0)  # the sweep that waits for its time
    assert len(context.lifecycle._steps[Stage.STOP]) == 1


def check_keys(world: World) -> None:
    """See that every key that works is held, or reported."""
    suspects = world.respan.suspects
    reported = {suspect.id for suspect in suspects} | {suspect.name for suspect in suspects}
    for record in world.fake.unheld(world.held):
        assert record.id in reported or record.name in reported, f"{record.name} is alive, and nobody knows"
