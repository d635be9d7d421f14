"""From a client's first call to its closing: one event loop, one process, and what goes on in the background."""

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from respan_async.errors import ClientStateError

T = TypeVar("T")


def being_cancelled() -> bool:
    """Whether the running task was cancelled itself, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Lifecycle:
    """Know where a client may be used, and what it still has under way by itself."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._released: set[asyncio.Task[Any]] = set()
        self.closing = False
        self.closed = asyncio.Event()
        self.closers: set[Callable[[], object]] = set()
        self.finishers: set[Callable[[], Awaitable[None]]] = set()

    def close(self) -> bool:
        """Refuse what is new, and end what would go on by itself; return whether this is the first time."""
        if self.closing:
            return False
        self.closing = True
        for closer in list(self.closers):
            closer()
        for task in self._released:
            task.cancel()
        return True

    def check(self) -> None:
        """Refuse a call that could not work.

        Raises:
            ClientStateError: The client is closed, belongs to another event loop, or to the process before a fork.
        """
        if self.closing:
            raise ClientStateError("the client is closed")
        self.check_place()

    def check_place(self) -> None:
        """Refuse another event loop and another process.

        Raises:
            ClientStateError: It is one of them.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._pid = os.getpid()
        elif os.getpid() != self._pid:
            raise ClientStateError("the client was made before a fork; make one in each process")
        elif loop is not self._loop:
            raise ClientStateError("the client belongs to another event loop; make one for each loop")

    def spawn(self, work: Coroutine[Any, Any, T], context: contextvars.Context | None = None) -> asyncio.Task[T]:
        """Run something in the background, until it ends or the client has waited for it long enough.

        Args:
            work: What to run.
            context: Where, when it is not part of what its starter does, such as a request that is traced.
        """
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def release(self, task: asyncio.Task[Any]) -> None:
        """Let something in the background end when the client is closed, which is not to wait for it."""
        if self.closing:
            task.cancel()
        else:
            self._released.add(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._released.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: whoever awaits the task sees it too, and nobody else needs to

    async def finish(self, seconds: float) -> None:
        """Wait for what is in the background, and for what that starts in turn, but not longer than `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (tasks := self._others()) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)

    @property
    def within(self) -> bool:
        """Whether whoever asks runs in the background of this client itself."""
        return asyncio.current_task() in self._tasks

    async def cut(self) -> None:
        """Cancel what is still in the background, and what that starts in turn."""
        while tasks := self._others():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def finish_others(self) -> None:
        """Let those who use the client end what they have under way."""
        for finish in list(self.finishers):
            await finish()

    def _others(self) -> set[asyncio.Task[Any]]:
        # A hook may close the client from within one of these tasks, which cannot wait for itself.
        return self._tasks - {asyncio.current_task()}
