"""What hooks are told: one frozen value for each thing that happened.

A hook is any callable that takes one event, such as `print`. It is called at once, on the event loop, and must not
block. One that raises is logged, once, and harms nothing.
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
    """Something happened.

    Attributes:
        at: When, aware, by the local clock.
    """

    at: datetime


@attrs.frozen(kw_only=True)
class AttemptEvent(Event):
    """A request was sent, and is over.

    Attributes:
        operation: `"create"`, `"list"`, `"retrieve"`, `"update"` or `"delete"`.
        method: The HTTP method.
        number: 1 for the first attempt of its call.
        waited: Seconds the attempt waited for its turn.
        elapsed: Seconds from sending to the end.
        status: Of the answer, or None.
        effect: What a failure may have left; None on success.
        error: The name of the error's class; None on success.
        request_id: The server's, where it sent one.
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
        operation: The call's.
        reason: The name of the error's class.
        status: Of the answer, or None.
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
            asked to wait; or `"unreachable"`: the pace that processes share.
        seconds: For how long, at first.
        lower_only: Whether only batches and sweeps are held back.
        limit: The limit as it is known by now, as in `"60/60s"`, or None.
        problem: What went wrong last, in a sentence, or None.
    """

    reason: str
    seconds: float
    lower_only: bool
    limit: str | None
    problem: str | None


@attrs.frozen(kw_only=True)
class IssuedEvent(Event):
    """A key was made, and its secret is here.

    Attributes:
        id: The key's.
        name: The key's, if it has one.
        attempts: Requests it took.
        elapsed: Seconds the call took, waiting included.
    """

    id: str
    name: str | None
    attempts: int
    elapsed: float


@attrs.frozen(kw_only=True)
class SuspectEvent(Event):
    """An attempt may have left a key that nobody holds."""

    suspect: Suspect


@attrs.frozen(kw_only=True)
class RevokedEvent(Event):
    """A key that nobody holds was revoked.

    Attributes:
        id: The key's.
        reason: Why nobody held it.
    """

    id: str
    reason: str


@attrs.frozen(kw_only=True)
class SweepEvent(Event):
    """A sweep ended.

    Attributes:
        revoked: How many keys it revoked.
        left: How many suspects are left.
    """

    revoked: int
    left: int


Hook = Callable[[Any], object]


class EventDispatcher:
    """Hand events to hooks.

    Args:
        hooks: Callables that take one event.
        wall: The wall clock, aware.

    Attributes:
        listening: Whether anybody hears; what nobody hears need not be made.
    """

    def __init__(self, hooks: Iterable[Hook], wall: Callable[[], datetime]) -> None:
        self._hooks = tuple(hooks)
        self.listening = bool(self._hooks)
        self._wall = wall
        self._complained: set[int] = set()

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Make an event and hand it to every hook."""
        if not self._hooks:
            return
        event = kind(at=self._wall(), **facts)
        for hook in self._hooks:
            try:
                hook(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  whatever a hook does, the call goes on
                # A hook awaits nothing: a cancellation out of it is that of something it looked at, not the call's.
                if id(hook) in self._complained:
                    continue  # once is enough: a batch makes ten thousand events
                self._complained.add(id(hook))
                # Without a traceback: its locals are not ours to know.
                logger.error("hook %r raised %s on %s", hook, type(error).__name__, kind.__name__)  # noqa: TRY400  see above
