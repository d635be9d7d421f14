"""Calls the user's `deliver`: a bounded number at a time, each with a timeout, and first calls before repeated ones."""

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
"""Of so many places that become free, one goes to a repeated call, even if first calls wait."""


@attrs.frozen
class Failure:
    """The failure of a call of the user's function.

    Attributes:
        reason: The reason in a few words, without the secret.
        final: Whether the user's function refuses this key for good, so that calling again would not help.
    """

    reason: str
    final: bool = False


class Places:
    """Bound the calls at a time, and let first calls go before repeated ones.

    Otherwise repeated calls would take all places for ever while the store for secrets hangs.

    Args:
        count: The number of places.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._given = 0
        self._first: deque[asyncio.Future[None]] = deque()
        self._repeated: deque[asyncio.Future[None]] = deque()

    async def take(self, *, first: bool) -> None:
        """Wait for a place.

        Args:
            first: Whether this is the first call for its ticket, which goes before repeated ones.
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
        """Pass a place on to the next waiting call; if none waits, the place is free."""
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
    """One call of the user's function, which holds a place and has a timeout.

    Args:
        task: The task that runs the call.
        places: The places of which the call holds one.
        timeout: Seconds that the call may take; None for no limit.
    """

    def __init__(self, task: "asyncio.Task[Failure | None]", places: Places, timeout: float | None) -> None:
        self.task = task
        self._places: Places | None = places
        self._timeout = timeout
        self._until = None if timeout is None else asyncio.get_running_loop().time() + timeout

    @property
    def is_over(self) -> bool:
        """Whether the call has ended, or its time is up."""
        return self.task.done() or self._seconds_left == 0.0

    @property
    def _seconds_left(self) -> float | None:
        return None if self._until is None else max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def wait(self) -> None:
        """Wait until the call has ended, or its time is up."""
        await asyncio.wait({self.task}, timeout=self._seconds_left)

    async def end(self) -> Failure | None:
        """Wait for the call, or cancel it when its time is up, and give its place back; return its failure or None."""
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
        """Cancel the call, and give its place back, unless the place was given back before."""
        if self._places is not None:
            with contextlib.suppress(RuntimeError):  # the event loop may be closed
                self.task.cancel()
            self._leave()

    def _leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            with contextlib.suppress(RuntimeError):  # the event loop may be closed; then no call waits for a place
                places.give_back()


class DeliverCalls:
    """Call the user's function.

    Each call runs in a separate task, because it may ignore its timeout and its cancellation. Its waiter then goes on,
    and the function is not called again for the ticket until that call has ended.

    Args:
        deliver: The user's function, idempotent by ticket.
        lifecycle: The lifecycle of the client, which runs the tasks.
        most: The most calls at a time.
        timeout: Seconds that one call may take; None for no limit.
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
            first: Whether this is the first call for the ticket, which goes before repeated ones.
        """
        places = self._places
        await places.take(first=first)
        task = self._tasks.get(ticket_id)
        if task is None:  # otherwise the previous call still runs, because it ignores its cancellation
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
            elif result is not None:  # e.g. a generator or a thread's future, whose work is not done
                return Failure(f"it returned a {type(result).__name__}")
        except LedgerError as error:  # from this library, e.g. a sink; its text holds no secret
            return Failure(str(error), final=not error.retryable)
        except Exception as error:  # noqa: BLE001  of the user's function, which is called again
            return Failure(_named(error))
        return None


def _named(error: Exception) -> str:
    """Name an error without its text, which may hold the secret, unless the text is the system's for an errno."""
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        known = os.strerror(error.errno)
        return f"{name}: {known}" if error.strerror == known else name
    return name
