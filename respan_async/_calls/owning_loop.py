"""Binds an object to the process and the event loop that own its sockets, threads and tasks."""

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
    """Remember the owning loop, and refuse any use elsewhere before anything is touched.

    If the owning loop is closed, the object may move to another loop of the same process. After a fork the child
    inherits the parent's sockets and files, but no threads.

    Args:
        what: The object's name, for messages.
        made: What was done to the object at first, for messages.
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
        """Bind to this process and to the running loop, if unbound; otherwise check, as `check` does."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._pid = os.getpid()
            # A loop closes every asynchronous generator that was started on it; so this one learns of the loop's end.
            self._is_watching = True
            watcher = self._watcher = self._watch()
            with contextlib.suppress(StopIteration):
                watcher.__anext__().send(None)  # run to its `yield`
        else:
            self.check()

    def unbind(self) -> None:
        """Unbind from the loop."""
        self._loop = None
        self.unwatch()

    def unwatch(self) -> None:
        """Stop watching for the end of the loop."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            self._is_watching = False
            with contextlib.suppress(StopIteration, RuntimeError):  # RuntimeError: the generator is running now
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
        """Whether the owning event loop is closed, and belonged to this process."""
        return self._loop is not None and self._loop.is_closed() and self._pid == os.getpid()

    @property
    def is_bound(self) -> bool:
        """Whether it is bound."""
        return self._loop is not None

    def check(self, *, living: bool = False) -> None:
        """Refuse a use elsewhere, if bound.

        Args:
            living: Allow another loop if the owning loop is closed.

        Raises:
            ClientStateError: It is bound to another event loop, or to the process before a fork; or no event loop runs
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
