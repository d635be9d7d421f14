"""Calls a function on the event loop for each signal that asks the command to end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Ctrl-C, the signal that ends a service, and a terminal's hang-up; on Windows, Ctrl-Break instead of that."""


@contextlib.contextmanager
def interrupts(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` for each Ctrl-C, SIGTERM and hang-up, except for signals that this process was started to ignore."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as taken:
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                taken.callback(_take(loop, number, tell))
        yield


def _take(loop: asyncio.AbstractEventLoop, number: int, tell: Callable[[], None]) -> Callable[[], object]:
    """Install a handler for a signal; return the function that restores the previous one."""
    try:
        loop.add_signal_handler(number, tell)
    except NotImplementedError:  # on Windows, where Python's own handler may run between any two steps

        def handle(*_: Any) -> None:
            loop.call_soon_threadsafe(tell)

        return partial(signal.signal, number, signal.signal(number, handle) or signal.SIG_DFL)
    return partial(loop.remove_signal_handler, number)
