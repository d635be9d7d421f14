"""The five operations, and how each attempt at one is written."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from respan_async._calls.suspects import new_tag, tagged
from respan_async._http import codec, protocol
from respan_async.errors import Suspect
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest, KeyPage, TemporaryKey

T = TypeVar("T")


@attrs.define(kw_only=True)
class PreparedRequest:
    """One attempt, ready to be sent.

    Attributes:
        request: The request.
        fields: For a create, what is sent, in JSON types.
        tag: The tag in the name, if there is one.
    """

    request: protocol.Request
    fields: dict[str, Any] | None = None
    tag: str | None = None


class AttemptLog(Protocol):
    """Where the attempts of a call are noted, when more than this process's memory is to know of them."""

    async def claim_attempt(self, prepared: PreparedRequest, sent_at: datetime) -> None:
        """Note an attempt, after its slot and its tag, and before any byte may leave."""
        ...

    def permits(self) -> bool:
        """Whether the attempt may still be sent, asked when its first byte is about to leave."""
        ...

    def mark_void(self, prepared: PreparedRequest) -> None:
        """Note that an attempt is proven to have left nothing."""
        ...

    def mark_suspect(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key."""
        ...


def _as_it_is(subject: Any, _: datetime) -> PreparedRequest:
    return PreparedRequest(request=subject)


@attrs.frozen(kw_only=True)
class Operation(Generic[T]):
    """A kind of call.

    Attributes:
        name: The name of the operation.
        model: What a good answer is read as; None when its body does not matter.
        prepare: Makes each attempt afresh, out of what the call is about and the time (aware).
    """

    name: str
    model: type[T] | None
    prepare: Callable[[Any, datetime], PreparedRequest] = _as_it_is

    @property
    def changes(self) -> bool:
        """Whether the server is another than before once an attempt has reached it."""
        return self.name not in ("list", "retrieve")


def _prepare_create(request: CreateKeyRequest, now: datetime) -> PreparedRequest:
    """Write one attempt: its expiry counts from now."""
    fields = _fields(request, now)
    return PreparedRequest(request=protocol.create(fields), fields=fields)


def _prepare_tagged_create(request: CreateKeyRequest, now: datetime) -> PreparedRequest:
    """Write one attempt, with a tag of its own."""
    fields = _fields(request, now)
    tag = new_tag()
    fields["name"] = tagged(request.name or "", tag)
    return PreparedRequest(request=protocol.create(fields), fields=fields, tag=tag)


def _fields(request: CreateKeyRequest, now: datetime) -> dict[str, Any]:
    fields = codec.fields_of(request, now)
    if request.expiry_date and request.expiry_date <= now:
        logger.warning("expiry_date %s is in the past: the key will be dead when it arrives", fields["expiry_date"])
    return fields


CREATE: Final = Operation(name="create", model=CreatedKey, prepare=_prepare_create)
CREATE_TAGGED: Final = Operation(name="create", model=CreatedKey, prepare=_prepare_tagged_create)
LIST: Final = Operation(name="list", model=KeyPage)
RETRIEVE: Final = Operation(name="retrieve", model=TemporaryKey)
UPDATE: Final = Operation(name="update", model=TemporaryKey)
DELETE: Final[Operation[None]] = Operation(name="delete", model=None)
