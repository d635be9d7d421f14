"""What a call is made of, before it is made: its kind, its options, and what all calls share."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import attrs

from respan_async import wire
from respan_async.bearer import TokenSource
from respan_async.effect import Suspect
from respan_async.events import Hub, PauseEvent, logger
from respan_async.lifetime import Lifetime
from respan_async.pacing.pacer import Pacer
from respan_async.pacing.slots import Priority
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret
from respan_async.suspects import SuspectBook
from respan_async.transport import Timeout, Transport

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Options:
    """What may differ from call to call.

    Attributes:
        timeout: For one attempt.
        deadline: Seconds for the whole call, or None.
        retry: When a failed attempt is made again.
        priority: The class in which the call waits, or None for the one its kind has by itself.
        extra_headers: Sent besides; an empty value is a text.
    """

    timeout: Timeout
    deadline: float | None
    retry: RetryPolicy
    priority: Priority | None = None
    extra_headers: tuple[tuple[str, Secret | str], ...] = ()


@attrs.define(kw_only=True)
class Draft:
    """One attempt, ready to be sent.

    Attributes:
        request: The request.
        fields: For a create, what is sent, in JSON types.
        tag: The tag in the name, if there is one.
    """

    request: wire.Request
    fields: dict[str, Any] | None = None
    tag: str | None = None


class Journal(Protocol):
    """Where the attempts of a call are noted, when more than this process's memory is to know of them."""

    async def intend(self, draft: Draft, sent_at: datetime) -> None:
        """Note an attempt, after its slot and its tag, and before any byte may leave."""
        ...

    def permits(self) -> bool:
        """Whether the attempt may still be sent, asked when its first byte is about to leave."""
        ...

    def void(self, draft: Draft) -> None:
        """Note that an attempt is proven to have left nothing."""
        ...

    def doubt(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key."""
        ...


def _as_it_is(subject: Any, _: datetime) -> Draft:
    return Draft(request=subject)


@attrs.frozen(kw_only=True)
class Plan(Generic[T]):
    """A kind of call.

    Attributes:
        operation: The name of the operation.
        model: What a good answer is read as; None when its body does not matter.
        draft: Makes each attempt afresh, out of what the call is about and the time (aware).
    """

    operation: str
    model: type[T] | None
    draft: Callable[[Any, datetime], Draft] = _as_it_is

    @property
    def changes(self) -> bool:
        """Whether the server is another than before once an attempt has reached it."""
        return self.operation not in ("list", "retrieve")


@attrs.frozen
class Desk:
    """What all calls of a client share.

    Attributes:
        transport: Sends.
        pacer: Says when.
        hub: Tells the hooks.
        token: Gives the bearer token for each request.
        book: Where suspects are remembered.
        wall: The wall clock, aware.
    """

    transport: Transport
    pacer: Pacer
    hub: Hub
    token: Secret | TokenSource
    book: SuspectBook
    wall: Callable[[], datetime]

    def paused(self, reason: str, seconds: float, lower_only: bool) -> None:
        """Tell that requests are held back."""
        limit = self.pacer.window.limit
        said = str(limit) if limit else None
        logger.info("requests are held back for %.1f s: %s; the limit is %s", seconds, reason, said or "unknown")
        self.hub.tell(PauseEvent, reason=reason, seconds=seconds, lower_only=lower_only, limit=said)


@attrs.frozen
class Core:
    """What a client and all views of it share.

    Attributes:
        desk: What all calls share.
        lifetime: Where and until when the client may be used.
        tag_names: Every name that is sent carries a fresh random tag.
    """

    desk: Desk
    lifetime: Lifetime
    tag_names: bool
