"""Runs the fake server in a thread with its own event loop, for callers that block or have no loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

__all__ = ["ServerThread"]

_T = TypeVar("_T")


class ServerThread:
    """Serve during a `with`.

    Args:
        server: The server, which serves while it is entered.
    """

    def __init__(self, server: contextlib.AbstractAsyncContextManager[object]) -> None:
        self._server = server
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stopped: Future[None] = Future()
        self._ended = asyncio.Event()
        # A daemon, so that a test run which dies within the `with` does not hang.
        self._thread = threading.Thread(target=self._run, name="FakeRespan", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread.

        Raises:
            OSError: The server cannot listen.
        """
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, and wait for its thread; raise an error of the thread here."""
        self._started.result().call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._stopped.result()

    def call(self, work: Callable[[], _T]) -> _T:
        """Call a function on the server's event loop, from any thread; return its result."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return work()
        done: Future[_T] = Future()
        self._started.result().call_soon_threadsafe(_do, work, done)
        return done.result()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the server's event loop, from another loop; return its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started.result()))

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        try:
            async with self._server:
                self._started.set_result(asyncio.get_running_loop())
                await self._ended.wait()
            self._stopped.set_result(None)
        except BaseException as error:  # noqa: BLE001  raised in the thread that started or stops it
            (self._stopped if self._started.done() else self._started).set_exception(error)


def _do(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001  the caller's own error, on its own thread
        done.set_exception(error)
