"""Carrying a call to its end, whatever happens to whoever awaits it.

A key that is made and then held by nobody lives on, and its secret is gone. So a call runs in a task of its own. When
the caller is cancelled, or its deadline passes, an attempt whose bytes may have left goes on, and the key that then
arrives is discarded: revoked by its id. Calls that make no key run so too: nothing but a future then stands between
a caller and its cancellation, where aiohttp, whose own timeout fires in the same turn of the loop, would swallow it.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from respan_async._calls.lifecycle import Lifecycle
from respan_async.errors import RespanError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Carried(Protocol[T_co]):
    """A call, or something built around one."""

    def begin(self) -> None:
        """Let the time of the whole call begin."""
        ...

    async def run(self) -> T_co:
        """Make the call."""
        ...

    def abandon(self) -> bool:
        """Give up whoever awaits it; return whether it goes on, because something may have left already."""
        ...

    def abandoned_error(self) -> RespanError:
        """Return the error of a call that was abandoned, or cut, and did not go on."""
        ...

    def deadline_error(self) -> RespanError:
        """Return the error of a call whose time ran out while it was in the air."""
        ...


async def run_shielded(
    call: Carried[T],
    deadline: float | None,
    lifecycle: Lifecycle,
    discard: Callable[[T], None],
    *,
    needed: bool = True,
) -> T:
    """Make a call, and see it through.

    Args:
        call: The call.
        deadline: Seconds for all of it, or None.
        lifecycle: Where its task belongs.
        discard: Given a result that nobody is left to take.
        needed: Whether closing the client waits for a call whose caller is gone. Without, it goes on until then, for
            the pace, which counts a request rightly when it knows when the answer came.

    Raises:
        ClientStateError: The client was closed, and did not wait for the call.
        DeadlineExceededError: The deadline passed while an attempt was in the air.
        RespanError: The call did not succeed.
    """
    # Begun here, so that a deadline which passes while the call waits is told by the call, which knows why.
    call.begin()
    results: list[T] = []

    async def run() -> None:
        # Kept here: a hook may have cancelled the task it runs in, which then ends as cancelled although there is one.
        results.append(await call.run())

    def leave() -> None:
        call.abandon()
        if task.done():
            over(task)  # at once: a client that is being closed waits for what it knows of
        else:
            task.add_done_callback(over)
            if not needed:
                lifecycle.release(task)

    def over(_: asyncio.Task[None]) -> None:
        for result in results:
            discard(result)

    task = lifecycle.spawn(run())
    try:
        await asyncio.wait({task}, timeout=deadline)
    except asyncio.CancelledError:
        leave()
        raise
    if not task.done():
        error = call.deadline_error()
        leave()
        raise error
    if task.cancelled() and not results:
        # Cut, when the client was closed and its grace was over. Nobody cancelled whoever awaits this.
        raise call.abandoned_error()
    if not results:
        task.result()  # raises
    return results[0]


class Timed(Generic[T]):
    """One item of a batch whose calls have a deadline, and are carried to their end beyond it.

    Args:
        call: The call.
        deadline: As for `run_shielded`.
        lifecycle: As for `run_shielded`.
        discard: As for `run_shielded`.
    """

    replayed = False

    def __init__(self, call: Carried[T], deadline: float, lifecycle: Lifecycle, discard: Callable[[T], None]) -> None:
        self._call = call
        self._deadline = deadline
        self._lifecycle = lifecycle
        self._discard = discard

    async def run(self) -> T:
        """See the call through."""
        return await run_shielded(self._call, self._deadline, self._lifecycle, self._discard)

    def abandon(self) -> bool:
        """Give up whoever awaits it; return whether it goes on."""
        return self._call.abandon()

    def abandoned_error(self) -> RespanError:
        """Return the error of a call that was abandoned."""
        return self._call.abandoned_error()
