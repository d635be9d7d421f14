"""Calls the pacer at one time, which may be changed."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from respan_async._pacing.loop_clock import LoopClock

_TICK: Final = 1e-4
"""Seconds. A timer may ring a clock's resolution too early; the step prevents it from ringing again at once."""


class Alarm:
    """Call something at one time of a clock.

    Args:
        clock: The clock.
        ring: What to call.
    """

    def __init__(self, clock: LoopClock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._due = -math.inf

    def set(self, time: float, now: float) -> None:
        """Ring at this time; an alarm that is set for nearly the same time stays as it is."""
        if self._timer is not None:
            if 0 <= self._due - time <= _TICK:
                return
            self._timer.cancel()
        self._due = max(time, now + _TICK)
        self._timer = self._clock.call_at(self._due, self._wake)

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave_loop(self) -> None:
        """Forget the timer of an event loop that is closed."""
        self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._ring()
