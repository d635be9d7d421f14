"""The clock of the fake server: the event loop's clock, plus what a test has advanced it by."""

import asyncio

import attrs

__all__ = ["Clock"]


@attrs.define(eq=False)
class _Sleeper:
    """A task that sleeps until a time."""

    due: float
    woken: asyncio.Future[None]
    alarm: asyncio.TimerHandle


class Clock:
    """A clock in seconds that runs with an event loop's, and can be advanced.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._sleepers: set[_Sleeper] = set()

    def time(self) -> float:
        """Return the time in seconds; it never goes back."""
        return self._loop.time() + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Wait until the seconds have passed on this clock."""
        due = self.time() + seconds
        woken: asyncio.Future[None] = self._loop.create_future()
        sleeper = _Sleeper(due, woken, self._alarm(due, woken))
        self._sleepers.add(sleeper)
        try:
            await woken
        finally:
            sleeper.alarm.cancel()
            self._sleepers.discard(sleeper)

    def advance(self, seconds: float) -> None:
        """Advance the clock; sleepers whose time has come wake in the next turn of the event loop, in their order."""
        self._ahead += seconds
        now = self.time()
        for sleeper in sorted(self._sleepers, key=lambda sleeper: sleeper.due):
            sleeper.alarm.cancel()
            if sleeper.due <= now:
                _wake(sleeper.woken)
            else:
                sleeper.alarm = self._alarm(sleeper.due, sleeper.woken)

    def _alarm(self, due: float, woken: asyncio.Future[None]) -> asyncio.TimerHandle:
        return self._loop.call_at(due - self._ahead, _wake, woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
