"""The clock of the pace, from one event loop to the next."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from unittest.mock import ANY

import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, Slot, SlotOutcome
from respan_async.testing.clock import Clock
from tests.virtual import VirtualLoop

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run something on a virtual loop of its own, whose clock begins at 0."""

    async def main() -> T:
        return await work()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def test_on_its_first_loop_it_tells_the_loops_own_time() -> None:
    """So that nothing is different for a client that stays there."""
    clock = LoopClock()

    async def work() -> None:
        await asyncio.sleep(5.0)
        loop = asyncio.get_running_loop()
        assert clock.time() == loop.time()
        assert clock.of_loop(7.0) == 7.0
        assert clock.call_at(9.0, lambda: None).when() == pytest.approx(9.0, abs=1e-5)

    run(work)


def test_on_the_next_loop_it_goes_on_from_there() -> None:
    """A virtual hour has passed on the first, and the second begins anew."""
    clock = LoopClock()

    async def first() -> float:
        await asyncio.sleep(3600.0)
        return clock.time()

    async def second() -> tuple[float, float, float]:
        came = clock.time()
        rang = asyncio.get_running_loop().create_future()
        clock.call_at(came + 60.0, lambda: rang.set_result(clock.time()))
        return came, await rang, clock.of_loop(asyncio.get_running_loop().time())

    left = run(first)
    came, rang, now = run(second)

    assert came == pytest.approx(left, abs=1.0)
    assert came >= left
    assert rang - came == pytest.approx(60.0, abs=1e-3)
    assert now - came == pytest.approx(60.0, abs=1e-3)


def test_the_time_between_two_loops_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that had nothing to do for a minute has its slots back, though no loop was there to count it."""
    passed = 0.0
    monkeypatch.setattr("respan_async._pacing.loop_clock.elapsed", lambda: passed)
    clock = LoopClock()

    async def tell() -> float:
        return clock.time()

    left = run(tell)
    passed = 60.0

    assert run(tell) == pytest.approx(left + 60.0)


def test_a_pacer_keeps_its_window_from_loop_to_loop() -> None:
    """Two of two slots were used 40 s ago: the third comes in 20 s, and no sooner."""
    pacer = Pacer(LocalWindow(RateLimit(2, per=60)), 8)

    async def use_two() -> None:
        await asyncio.sleep(1000.0)
        for _ in range(2):
            pacer.release(await pacer.acquire(Priority.INTERACTIVE), SlotOutcome.ANSWERED)
        await asyncio.sleep(40.0)
        assert pacer.window.used(pacer.clock.time()) == 2

    async def ask() -> float:
        pacer.arrive()
        loop = asyncio.get_running_loop()
        with pytest.raises(DeadlineUnreachable):
            await pacer.acquire(Priority.INTERACTIVE, loop.time() + 15.0)
        await pacer.acquire(Priority.INTERACTIVE, loop.time() + 25.0)
        return loop.time()

    run(use_two)
    pacer.leave_loop()

    assert run(ask) == pytest.approx(20.0, abs=0.5)


def test_who_waited_on_a_closed_loop_is_forgotten_and_what_was_in_the_air_counts() -> None:
    """None of them comes back; a slot that is released late is counted once."""
    pacer = Pacer(LocalWindow(RateLimit(1, per=60)), 8)

    async def leave_one_in_the_air() -> None:
        held.append(await pacer.acquire(Priority.INTERACTIVE))
        waiting.append(asyncio.ensure_future(pacer.acquire(Priority.BATCH)))
        await asyncio.sleep(0)
        assert pacer.waiting(Priority.BATCH) == 1
        waiting[0].cancel()  # or Python complains of it

    async def look() -> tuple[int, int, int]:
        pacer.arrive()
        pacer.release(held[0], SlotOutcome.UNUSED)
        return pacer.in_air, pacer.waiting(Priority.BATCH), pacer.window.used(pacer.clock.time())

    held, waiting = list[Slot](), list["asyncio.Future[Slot]"]()
    run(leave_one_in_the_air)
    pacer.leave_loop()

    assert run(look) == (0, 0, 1)


def test_who_stops_waiting_as_the_clock_is_moved_on_stays_cancelled() -> None:
    """The client's clock, and the fake server's: both are moved on by a test, at a time that it chooses."""

    async def work() -> None:
        clock, servers = LoopClock(), Clock(asyncio.get_running_loop())
        waiting = [asyncio.create_task(clock.sleep(60.0)) for clock in (clock, servers)]
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()

        clock.advance(60.0)
        servers.advance(60.0)

        assert await asyncio.gather(*waiting, return_exceptions=True) == [ANY, ANY]
        assert all(task.cancelled() for task in waiting)

    run(work)
