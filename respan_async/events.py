"""The events that hooks receive: one frozen value for each thing that happened.

A hook is any callable that takes one event, such as `print`. It is called at once, on the event loop, and must not
block. If it raises, that is logged once, and does no harm.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import attrs

from respan_async.errors import Effect, Suspect

logger: Final = logging.getLogger("respan_async")


@attrs.frozen(kw_only=True)
class Event:
    """The base of all events.

    Attributes:
        at: When it happened, aware, by the local clock.
    """

    at: datetime


@attrs.frozen(kw_only=True)
class AttemptEvent(Event):
    """A request was sent, and has ended.

    Attributes:
        operation: `"create"`, `"list"`, `"retrieve"`, `"update"` or `"delete"`.
        method: The HTTP method.
        number: 1 for the first attempt of its call.
        waited: Seconds the attempt waited for its turn.
        elapsed: Seconds from sending to the end.
        status: The status of the answer, or None.
        effect: What a failure may have left; None on success.
        error: The name of the error's class; None on success.
        request_id: The server's id of the request, if it sent one.
    """

    operation: str
    method: str
    number: int
    waited: float
    elapsed: float
    status: int | None
    effect: Effect | None
    error: str | None
    request_id: str | None


@attrs.frozen(kw_only=True)
class RetryEvent(Event):
    """A call will be tried again.

    Attributes:
        operation: The operation of the call.
        reason: The name of the error's class.
        status: The status of the answer, or None.
        wait: Seconds until then, at least.
        attempts: Requests made so far.
    """

    operation: str
    reason: str
    status: int | None
    wait: float
    attempts: int


@attrs.frozen(kw_only=True)
class PauseEvent(Event):
    """Requests are held back.

    Attributes:
        reason: `"refused"` by the limit; `"outage"`: one call after the other fails; `"asked"`: the server fails, and
            asked to wait; or `"unreachable"`: the store of a shared pace.
        seconds: The length of the pause, at first.
        lower_only: Whether only batches and sweeps are held back.
        limit: The limit as currently known, as in `"60/60s"`, or None.
        problem: The last problem, in a sentence, or None.
    """

    reason: str
    seconds: float
    lower_only: bool
    limit: str | None
    problem: str | None


@attrs.frozen(kw_only=True)
class IssuedEvent(Event):
    """A key was made, and its secret has arrived.

    Attributes:
        id: The id of the key.
        name: The name of the key, if it has one.
        attempts: The number of requests it took.
        elapsed: Seconds the call took, waiting included.
    """

    id: str
    name: str | None
    attempts: int
    elapsed: float


@attrs.frozen(kw_only=True)
class SuspectEvent(Event):
    """An attempt may have left an orphaned key."""

    suspect: Suspect


@attrs.frozen(kw_only=True)
class RevokedEvent(Event):
    """An orphaned key was revoked.

    Attributes:
        id: The id of the key.
        reason: Why it was an orphan.
    """

    id: str
    reason: str


@attrs.frozen(kw_only=True)
class SweepEvent(Event):
    """A sweep ended.

    Attributes:
        revoked: The number of keys it revoked.
        left: The number of suspects left.
    """

    revoked: int
    left: int


Hook = Callable[[Any], object]


class EventDispatcher:
    """Call the hooks with events.

    Args:
        hooks: Callables that take one event.
        wall: The wall clock, aware.

    Attributes:
        listening: Whether there is a hook; without one, no event need be made.
    """

    def __init__(self, hooks: Iterable[Hook], wall: Callable[[], datetime]) -> None:
        self._hooks = tuple(hooks)
        self.listening = bool(self._hooks)
        self._wall = wall
        self._complained: set[int] = set()

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Make an event and call every hook with it."""
        if not self._hooks:
            return
        event = kind(at=self._wall(), **facts)
        for hook in self._hooks:
            try:
                hook(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  the call goes on, even if a hook fails
                # A hook awaits nothing: a cancellation that it raises comes from something it looked at, and is not the
                # call's.
                if id(hook) in self._complained:
                    continue  # once is enough, because a batch makes ten thousand events
                self._complained.add(id(hook))
                # Without a traceback, because its locals may be confidential.
                logger.error("hook %r raised %s on %s", hook, type(error).__name__, kind.__name__)  # noqa: TRY400  see above
