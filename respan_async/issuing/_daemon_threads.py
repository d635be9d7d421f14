"""Runs blocking functions in daemon threads, apart from the event loop's executor, which all code of a program shares.

`asyncio.to_thread` runs in that executor. A user's `deliver` may use it for a blocking client, and if the store for
secrets hangs, all threads of the executor hang. If a ledger read in the executor, it could then neither read nor be
closed. The executor's threads also keep the interpreter from ending; daemon threads do not.
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
    """Run functions that may block, each in a new thread that ends with the function.

    Args:
        name: The name of the threads.
        most: The most threads at a time; further calls of `run` wait.
    """

    def __init__(self, name: str, most: int = 1) -> None:
        self._name = name
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._running: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function, and return its result. The function runs to its end even if the caller is cancelled.

        Raises:
            OSError: The system has no more threads.
        """
        self._follow_loop()
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
        """Wait for the running functions, but not longer than `seconds`."""
        self._follow_loop()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def _follow_loop(self) -> None:
        """Forget the functions that run for another event loop: they end by themselves, and release nothing here."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._running = set()
            self._free = asyncio.Semaphore(self._most)

    def _over(self, free: asyncio.Semaphore, done: asyncio.Future[Any]) -> None:
        self._running.discard(done)
        free.release()
        done.exception()  # retrieved, because a cancelled caller does not retrieve it


def _run(work: Callable[[], T], done: "asyncio.Future[T]") -> None:
    """Run a function in its thread, and hand over its result or its exception."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  raised again in the task that awaits the function
        _hand_over(done, done.set_exception, error)
    else:
        _hand_over(done, done.set_result, result)


def _hand_over(done: "asyncio.Future[Any]", settle: Callable[[Any], None], result: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop is closed, so no task waits for the result
        done.get_loop().call_soon_threadsafe(settle, result)
