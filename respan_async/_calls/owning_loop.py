"""The process and the event loop to which something belongs: sockets, threads and tasks work nowhere else."""

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from respan_async.errors import ClientStateError

_WAYS_OUT: Final = (
    "give each loop one of its own, or let all threads use one loop, such as that of anyio's start_blocking_portal"
)

_FROM_OUTSIDE: Final = "hand the call to the loop of the client, by its `call_soon_threadsafe` for one"


class OwningLoop:
    """Know where something is used, and refuse its use elsewhere, before anything of it is touched.

    A loop that is closed holds nothing any more: what belonged to it may go on on another one, of the same process.
    After a fork the child has the parent's sockets and files in its hands, and the threads of neither.

    Args:
        what: Its name, for messages.
        made: What was done to it at first.
        ends: A method that is called and awaited on a loop that ends in order, as `asyncio.run` and its like do, before
            it is closed.
    """

    def __init__(self, what: str, made: str, ends: Callable[[], Awaitable[None]] | None = None) -> None:
        self._what = what
        self._made = made
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._ends = None if ends is None else weakref.WeakMethod(ends)
        self._watcher: AsyncGenerator[None] | None = None
        self._is_watching = False

    def bind(self) -> None:
        """Let it belong to this process and to the running loop, if it belongs nowhere yet; else see `check`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._pid = os.getpid()
            # A loop closes every asynchronous generator that was begun on it; this one then tells that it ends.
            self._is_watching = True
            watcher = self._watcher = self._watch()
            with contextlib.suppress(StopIteration):
                watcher.__anext__().send(None)  # up to its `yield`
        else:
            self.check()

    def unbind(self) -> None:
        """Let it belong nowhere."""
        self._loop = None
        self.unwatch()

    def unwatch(self) -> None:
        """Hear no more of the end of its loop."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            self._is_watching = False
            with contextlib.suppress(StopIteration, RuntimeError):  # or it is what runs now
                watcher.aclose().send(None)

    async def _watch(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            ends = self._ends() if self._ends is not None and self._is_watching else None
            if ends is not None:
                await ends()

    @property
    def is_gone(self) -> bool:
        """Whether the event loop it belongs to is closed, and was one of this process."""
        return self._loop is not None and self._loop.is_closed() and self._pid == os.getpid()

    @property
    def is_bound(self) -> bool:
        """Whether it belongs anywhere."""
        return self._loop is not None

    def check(self, *, living: bool = False) -> None:
        """Refuse a use elsewhere, if it belongs anywhere.

        Args:
            living: Let it be used on another loop where its own is closed.

        Raises:
            ClientStateError: It belongs to another event loop, or to the process before a fork; or no event loop runs
                here.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            raise ClientStateError(f"no event loop runs in this thread; {_FROM_OUTSIDE}") from None
        if self._loop is None:
            return
        if os.getpid() != self._pid:
            raise ClientStateError(f"the {self._what} was {self._made} before a fork; make one in each process")
        if running is not self._loop and not (living and self._loop.is_closed()):
            raise ClientStateError(f"the {self._what} belongs to another event loop, which is still open; {_WAYS_OUT}")
