"""The clock of the server: the event loop's, and as far ahead of it as a test has moved it."""

import asyncio

import attrs

__all__ = ["Clock"]


@attrs.define(eq=False)
class _Sleeper:
    """Somebody who waits for a time."""

    due: float
    woken: asyncio.Future[None]
    alarm: asyncio.TimerHandle


class Clock:
    """Seconds that pass with an event loop's, and that can be moved on.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._sleepers: set[_Sleeper] = set()

    def time(self) -> float:
        """Tell the time, in seconds; it does not go back."""
        return self._loop.time() + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds have passed on this clock."""
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
        """Move the clock on; those whose time has come go on in the next turn of the event loop, in their order."""
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
