"""The clock of the pace: the event loop's clock, continued when the client moves to another loop."""

import asyncio
import math
from collections.abc import Callable

from respan_async._suspend_clock import elapsed


class LoopClock:
    """Tell the time of the running event loop, in seconds; recorded times keep their age on the next loop.

    Each loop may count from another origin. So on another loop, the clock continues from the later of two times: the
    last time that it told, or its time on the previous loop plus what has passed since, by a clock that runs through
    sleep. On its first loop it tells that loop's own time.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._offset = 0.0
        self._told = -math.inf
        self._came_at = self._came_elapsed = 0.0
        self._sleepers: dict[asyncio.Future[None], float] = {}

    def time(self) -> float:
        """Return the time."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._follow(loop)
        self._told = now = loop.time() + self._offset
        return now

    def of_loop(self, time: float) -> float:
        """Return this clock's time when the running loop's own clock tells `time`."""
        self.time()
        return time + self._offset

    def call_at(self, when: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        """Call a function at a time of this clock."""
        self.time()
        return asyncio.get_running_loop().call_at(when - self._offset, callback, *arguments)

    async def sleep(self, seconds: float) -> None:
        """Wait until the seconds have passed on this clock."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._sleepers[woken] = self.time() + seconds
        alarm = loop.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            alarm.cancel()
            del self._sleepers[woken]

    def advance(self, seconds: float) -> None:
        """Advance the clock, and wake the sleepers whose time has come; timers of `call_at` do not move."""
        now = self.time() + seconds
        self._offset += seconds
        self._came_at += seconds
        for woken, due in self._sleepers.items():
            if due <= now:
                _wake(woken)
            else:
                asyncio.get_running_loop().call_later(due - now, _wake, woken)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        here, passed = loop.time(), elapsed()
        if self._loop is not None:
            self._offset = max(self._told, self._came_at + passed - self._came_elapsed) - here
        self._loop = loop
        self._came_at, self._came_elapsed = here + self._offset, passed


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
