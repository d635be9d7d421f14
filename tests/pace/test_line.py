"""The line before the pacer, in a world with a server: who goes when."""

import asyncio

import pytest

from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import Slot, SlotOutcome
from respan_async.testing import SlidingLog
from tests.pace.servers import Server, used_up
from tests.pace.world import CLOSE, World, pacer, play, run

pytestmark = CLOSE


def test_a_call_that_was_refused_keeps_its_place() -> None:
    """While it waits as it was told, newcomers may go; once it is back, it goes before all of them."""
    order = list[str]()

    async def work(world: World) -> None:
        async def call(name: str) -> None:
            await world.call()
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for index in range(5):
                group.create_task(call(f"early {index}"))
            await asyncio.sleep(0.2)
            for index in range(10):
                group.create_task(call(f"late {index}"))

    server = Server(SlidingLog(5, per=10), others=used_up(5))
    play(World(server, pacer(RateLimit(5, per=10))), work)

    assert server.refused == 5
    assert set(order[5:10]) == {f"early {index}" for index in range(5)}


def test_a_call_of_a_batch_that_somebody_waits_for_rises_to_the_front() -> None:
    """With its place in the batch it would have waited for minutes."""

    async def work() -> tuple[float, float]:
        paced = pacer(RateLimit(60, per=60))
        caller = object()
        served: dict[object, float] = {}

        async def call(caller: object) -> None:
            slot = await paced.acquire(Priority.BATCH, caller=caller)
            served[caller] = asyncio.get_running_loop().time()
            paced.release(slot, SlotOutcome.ANSWERED, caller=caller)

        paced.announce()
        tasks = [asyncio.create_task(call(object())) for _ in range(300)]
        tasks.append(asyncio.create_task(call(caller)))
        await asyncio.sleep(10)
        asked = asyncio.get_running_loop().time()
        paced.promote(caller, Priority.INTERACTIVE)
        await asyncio.sleep(3)
        for task in tasks:
            task.cancel()
        return asked, served[caller]

    asked, served = run(work)

    assert served - asked <= 1.01


@pytest.mark.parametrize(("max_in_flight", "reserved"), [(64, 8), (16, 2), (9, 1), (2, 1), (1, 0)])
def test_an_eighth_of_what_may_be_in_the_air_is_never_a_batchs(max_in_flight: int, reserved: int) -> None:
    """A batch whose requests all stall holds no interactive call up; where only one may be in the air, it does."""

    async def work() -> tuple[int, int]:
        paced = pacer(RateLimit(1000, per=1), max_in_flight)
        paced.announce(spread=False)
        held = list[Slot]()

        async def stall(priority: Priority) -> None:
            held.append(await paced.acquire(priority))

        batch = [asyncio.create_task(stall(Priority.BATCH)) for _ in range(2 * max_in_flight)]
        await asyncio.sleep(5)
        stalled = len(held)
        singles = [asyncio.create_task(stall(Priority.INTERACTIVE)) for _ in range(max_in_flight)]
        await asyncio.sleep(5)
        for task in batch + singles:
            task.cancel()
        return stalled, len(held) - stalled

    assert run(work) == (max_in_flight - reserved, reserved)
