"""An event loop whose clock jumps to the next event instead of waiting for it."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

import async_solipsism

_TICK: Final = 1e-6
"""The resolution of its clock, in seconds."""


class VirtualLoop(async_solipsism.EventLoop):  # type: ignore[misc]  # the package has no types
    """A loop with virtual time and sockets in memory, on which no timer rings early.

    A clock of whole ticks may stand a hair before the time a timer was set for. Who then finds that it is too early and
    sets the timer again, as aiohttp's server does to close idle connections, would do so for ever.
    """

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer for a whole tick after `when`; the loop may ring it one tick before that."""
        later = (math.floor(when / _TICK) + 2) * _TICK
        handle: asyncio.TimerHandle = super().call_at(later, callback, *args, context=context)
        return handle
