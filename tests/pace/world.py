"""The real pacer and its local window in virtual time, and callers that wait, send and retry as the client does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import SlotOutcome
from tests.pace.servers import Server
from tests.virtual import VirtualLoop

CLOSE = pytest.mark.filterwarnings("ignore:delta is less than resolution")
"""The virtual clock has ticks of a microsecond."""

LIMITS = (RateLimit(60, per=60), RateLimit(60, per=6), RateLimit(100, per=5))
"""The documented limit, and two that are not documented."""
KNOWN = [pytest.param(True, id="given"), pytest.param(False, id="auto")]
"""Whether the pacer is given the limit, or has to learn it."""

NEAR = (0.0005, 0.002)
USUAL = (0.04, 0.06)
FAR = (0.05, 0.2)

JITTER = 0.5
"""Seconds: a call that was refused comes again up to so much later than it was told to."""
_LONGEST_PAUSE = 30.0
"""Seconds of the client's pauses where nothing was told, by default."""

_T = TypeVar("_T")


def pacer(given: RateLimit | None, max_in_flight: int = 64) -> Pacer:
    """Make a pacer with a local window."""
    return Pacer(LocalWindow(given), max_in_flight)


def window(paced: Pacer) -> LocalWindow:
    """Return the local window of a pacer."""
    assert isinstance(paced.window, LocalWindow)
    return paced.window


@attrs.define
class World:
    """A server, a pacer, and callers that obey it.

    Attributes:
        server: What decides.
        pacer: What is tested.
        latency: Seconds of a round trip, from and to.
        rng: What latencies and jitter are drawn from.
        skew: How unequal the two ways of a round trip may be: 0 not at all, 1 all of it on one way.
        loss: How often an answer is lost, from 0 to 1.
        began: When the world began.
        waits: How long each interactive call waited for its first slot.
        done: When each call was done.
        hopeless: How often one call was refused, at most, while nothing was let in since its first refusal: beyond
            `max_refusals` the client gives such a call up.
    """

    server: Server
    pacer: Pacer
    latency: tuple[float, float] = USUAL
    rng: random.Random = attrs.field(factory=lambda: random.Random(3))
    skew: float = 0.0
    loss: float = 0.0
    began: float = 0.0
    waits: list[float] = attrs.field(factory=list)
    done: list[float] = attrs.field(factory=list)
    hopeless: int = 0

    @property
    def limit(self) -> RateLimit | None:
        """What the pacer believes."""
        return self.pacer.window.limit

    @property
    def took(self) -> float:
        """Seconds until the last call was done."""
        return self.done[-1] - self.began

    def took_without(self, number: int) -> float:
        """Return the seconds until all calls were done but the last so many."""
        return self.done[-1 - number] - self.began

    async def call(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """Make one call, with as many requests as it takes; return how long it waited for its first slot."""
        loop = asyncio.get_running_loop()
        caller, began = object(), loop.time()
        waited: float | None = None
        refused, refused_at = 0, loop.time()
        while True:
            slot = await self.pacer.acquire(priority, since=None if waited is None else began, caller=caller)
            if waited is None:
                waited = loop.time() - began
            let_in, asked = await self._send()
            if self.loss and self.rng.random() < self.loss:
                self.pacer.release(slot, SlotOutcome.LOST, caller=caller)
                if let_in:
                    break
            elif let_in:
                self.pacer.release(slot, SlotOutcome.ANSWERED, caller=caller)
                break
            else:
                self.pacer.release(slot, SlotOutcome.REFUSED, caller=caller, retry_after=asked)
                refused_at = refused_at if refused else loop.time()
                refused += 1
                if not self.pacer.let_in_since(refused_at, None):
                    self.hopeless = max(self.hopeless, refused)
                await asyncio.sleep(self._pause(asked, refused))
        if priority is Priority.INTERACTIVE:
            self.waits.append(waited)
        self.done.append(loop.time())
        return waited

    async def batch(self, number: int, width: int | None = None, *, spread: bool = True) -> None:
        """Make so many calls of the batch class, as the batch engine does."""
        pending = self.pacer.announce(spread=spread)
        pending.more = number
        left = iter(range(number))

        async def work() -> None:
            for index in left:
                pending.more = number - index - 1
                await self.call(Priority.BATCH)

        workers = min(width or self.pacer.max_in_flight, number)
        await asyncio.gather(*(work() for _ in range(workers)))
        self.pacer.withdraw(pending)

    async def singles(self, number: int) -> None:
        """Make so many interactive calls at once."""
        await asyncio.gather(*(self.call() for _ in range(number)))

    async def _send(self) -> tuple[bool, float | None]:
        lag = self.rng.uniform(*self.latency)
        there = lag * (0.5 + self.skew * (self.rng.random() - 0.5))
        await asyncio.sleep(there)
        let_in, asked = self.server.arrive(asyncio.get_running_loop().time())
        if let_in and self.server.serves_in:
            await asyncio.sleep(self.server.serves_in)
            self.server.finish()
        await asyncio.sleep(lag - there)
        return let_in, asked

    def _pause(self, asked: float | None, refused: int) -> float:
        if asked is not None:
            return asked + self.rng.uniform(0, JITTER)
        return self.rng.uniform(0, min(_LONGEST_PAUSE, JITTER * 2.0 ** (refused - 1)))


Work = Callable[[World], Awaitable[object]]


def run(main: Callable[[], Awaitable[_T]], within: float = 1e7) -> _T:
    """Run something in virtual time; fail where it does not end."""

    async def wrapped() -> _T:
        async with asyncio.timeout(within):
            return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(wrapped())


def play(world: World, work: Work) -> World:
    """Let a world do its work; return it."""

    async def main() -> World:
        world.began = asyncio.get_running_loop().time()
        await work(world)
        return world

    return run(main)
