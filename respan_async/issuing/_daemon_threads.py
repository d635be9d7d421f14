"""Threads for what may block: apart from those of the event loop's executor, which everybody's code shares.

`asyncio.to_thread` runs in that executor. A user's `deliver` may use it for a blocking client, and when the place for
secrets hangs, all of its threads do: a ledger that read there could neither read nor be closed any more. Its threads
also keep the interpreter from its end; these do not.
"""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Run functions that may block, each in a thread that begins and ends with it.

    Args:
        name: What the threads are called.
        most: How many there are at a time; who comes then waits.
    """

    def __init__(self, name: str, most: int = 1) -> None:
        self._name = name
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function, and return its result. It goes on to its end when the caller is cancelled.

        Raises:
            OSError: The system has no more threads.
        """
        free = self._free
        await free.acquire()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.add_done_callback(partial(self._over, free))
        self._running.add(done)
        try:
            threading.Thread(target=_run, args=(work, done), name=self._name, daemon=True).start()
        except RuntimeError:
            done.set_exception(OSError(errno.EAGAIN, "the system has no more threads"))
        return await asyncio.shield(done)

    async def finished(self, seconds: float) -> None:
        """Wait for what is running, but not longer than `seconds`."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def leave_loop(self) -> None:
        """Forget what runs for an event loop that is closed; it ends by itself."""
        self._running = set()
        self._free = asyncio.Semaphore(self._most)

    def _over(self, free: asyncio.Semaphore, done: asyncio.Future[Any]) -> None:
        self._running.discard(done)
        free.release()
        if not done.cancelled():
            done.exception()  # looked at, for a caller that was cancelled


def _run(work: Callable[[], T], done: "asyncio.Future[T]") -> None:
    """Run a function, in its thread, and hand over what came of it."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  raised where it is awaited
        _hand_over(done, done.set_exception, error)
    else:
        _hand_over(done, done.set_result, result)


def _hand_over(done: "asyncio.Future[Any]", settle: Callable[[Any], None], result: Any) -> None:
    def tell() -> None:
        if not done.done():
            settle(result)

    with contextlib.suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
        done.get_loop().call_soon_threadsafe(tell)
