"""Calling the user's `deliver`: so many at a time, each within its time, and first calls before repeated ones."""

import asyncio
import contextlib
import errno
import inspect
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from respan_async._calls.lifecycle import Lifecycle
from respan_async.errors import LedgerError
from respan_async.models import CreatedKey

LAST_MOMENT: Final = 1.0
"""Seconds that a cancelled call may take to end."""

_SHARE: Final = 8
"""Of so many places that become free, one goes to a repeated call, though first calls wait."""


@attrs.frozen
class Failure:
    """The failure of a call of the user's function.

    Attributes:
        reason: The reason in a few words, without the secret.
        final: Whether the place refuses this key for good, so that calling again would not help.
    """

    reason: str
    final: bool = False


class Places:
    """So many calls at a time. While the place for secrets hangs, repeated calls would take all of them, for ever.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._given = 0
        self._first: deque[asyncio.Future[None]] = deque()
        self._repeated: deque[asyncio.Future[None]] = deque()

    async def take(self, *, first: bool) -> None:
        """Wait for a place.

        Args:
            first: Before those who have had one for the same ticket.
        """
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._first if first else self._repeated).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one have a place."""
        self._given += 1
        lines = (self._first, self._repeated) if self._given % _SHARE else (self._repeated, self._first)
        for line in lines:
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


class DeliverCall:
    """One call of the user's function, in its place and within its time.

    Args:
        task: Runs it.
        places: Where its place comes from.
        timeout: Seconds that it may take; None for any number.
    """

    def __init__(self, task: "asyncio.Task[Failure | None]", places: Places, timeout: float | None) -> None:
        self.task = task
        self._places: Places | None = places
        self._timeout = timeout
        self._until = None if timeout is None else asyncio.get_running_loop().time() + timeout

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its time has."""
        return self.task.done() or self._seconds_left == 0.0

    @property
    def _seconds_left(self) -> float | None:
        return None if self._until is None else max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def wait(self) -> None:
        """Wait until it is over."""
        await asyncio.wait({self.task}, timeout=self._seconds_left)

    async def end(self) -> Failure | None:
        """Wait until it is over, and give its place back; return None, or why it has failed."""
        late = False
        try:
            await self.wait()
            if late := not self.task.done():
                self.task.cancel()
                await asyncio.wait({self.task}, timeout=LAST_MOMENT)
        except asyncio.CancelledError:
            self.task.cancel()
            raise
        finally:
            self._leave()
        if not self.task.done() or (late and self.task.cancelled()):
            return Failure(f"no end within {self._timeout:g} s")
        if self.task.cancelled():
            return Failure("CancelledError")
        return self.task.result()

    def drop(self) -> None:
        """Cancel it, and give its place back, unless that was done."""
        if self._places is not None:
            with contextlib.suppress(RuntimeError):  # of an event loop that is closed
                self.task.cancel()
            self._leave()

    def _leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            with contextlib.suppress(RuntimeError):  # as above: nobody waits there any more
                places.give_back()


class DeliverCalls:
    """Call the user's function.

    Each call runs in a task of its own, because it may heed neither its time nor its cancellation. What waits for it
    goes on then, and the ticket is left alone until it has ended.

    Args:
        deliver: The user's function, idempotent by ticket.
        lifecycle: Where the calls belong.
        most: Calls at a time.
        timeout: Seconds that one may take; None for any number.
    """

    def __init__(
        self,
        deliver: Callable[[str, CreatedKey], Awaitable[None]],
        lifecycle: Lifecycle,
        most: int,
        timeout: float | None,
    ) -> None:
        self._deliver = deliver
        self._lifecycle = lifecycle
        self._most = most
        self._timeout = timeout
        self._places = Places(most)
        self._tasks: dict[str, asyncio.Task[Failure | None]] = {}  # by ticket

    @property
    def tasks(self) -> set["asyncio.Task[Failure | None]"]:
        """The calls that run now."""
        return set(self._tasks.values())

    async def begin(self, ticket_id: str, key: CreatedKey, *, first: bool) -> DeliverCall:
        """Wait for a place, and call the function.

        Args:
            ticket_id: The ticket.
            key: Its key.
            first: Before the calls that are repeated.
        """
        places = self._places
        await places.take(first=first)
        task = self._tasks.get(ticket_id)
        if task is None:  # or the one before, which did not heed its cancellation
            task = self._tasks[ticket_id] = self._lifecycle.tasks.delegate(self._invoke(ticket_id, key))
            task.add_done_callback(lambda _: self._tasks.pop(ticket_id, None))
        return DeliverCall(task, places, self._timeout)

    def arrive(self) -> None:
        """Begin anew on the next event loop."""
        self._tasks = {}
        self._places = Places(self._most)

    async def _invoke(self, ticket_id: str, key: CreatedKey) -> Failure | None:
        """Call the function; return its failure, because asyncio would log the text of an exception with the task."""
        try:
            result: object = self._deliver(ticket_id, key)
            if inspect.isawaitable(result):
                await result
            elif result is not None:  # a generator, or a future of a thread, has not done the work
                return Failure(f"it returned a {type(result).__name__}")
        except LedgerError as error:  # this library's own error, which shows no secret
            return Failure(str(error), final=not error.retryable)
        except Exception as error:  # noqa: BLE001  the user's function; it is called again
            return Failure(_named(error))
        return None


def _named(error: Exception) -> str:
    """Name an error without its text, which may hold the secret, unless it is the system's text for its number."""
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        known = os.strerror(error.errno)
        return f"{name}: {known}" if error.strerror == known else name
    return name
