"""One attempt at a call: what it sends, and the log in which attempts are noted."""

from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import attrs

from respan_async._calls.suspects import SuspectStore, new_tag, tagged
from respan_async._http import codec, operations
from respan_async.errors import Suspect
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest

T = TypeVar("T")


@attrs.define(kw_only=True)
class PreparedRequest(Generic[T]):
    """One attempt, ready to be sent.

    Attributes:
        request: The request.
        sent_at: The time for which it was written, aware.
        fields: For a create, what is sent, in JSON types.
        tag: The tag in the name, if there is one.
    """

    request: operations.Request[T]
    sent_at: datetime
    fields: dict[str, Any] | None = None
    tag: str | None = None


def prepare_create(
    request: CreateKeyRequest, now: datetime, ahead: timedelta, *, tag_name: bool
) -> PreparedRequest[CreatedKey]:
    """Write one attempt to create a key: its expiry counts from now, and its tag is its own.

    Args:
        request: What the key should be.
        now: The wall clock, aware.
        ahead: By how much the server's is ahead of it.
        tag_name: Whether its name carries a tag.
    """
    fields = codec.fields_of(request, now + ahead)
    if request.expiry_date and request.expiry_date <= now + ahead:
        logger.warning("expiry_date %s is in the past: the key will be dead when it arrives", fields["expiry_date"])
    tag = None
    if tag_name:
        tag = new_tag()
        fields["name"] = tagged(request.name or "", tag)
    return PreparedRequest(request=operations.create(fields), sent_at=now, fields=fields, tag=tag)


class AttemptLog:
    """The attempts of calls, as far as this process's memory is to know of them: it keeps the suspects.

    A subclass may note every attempt, and so decide whether it may be sent.

    Args:
        suspects: Where suspects are kept.
        tag_names: Whether every name that is sent carries a fresh random tag.
    """

    def __init__(self, suspects: SuspectStore, *, tag_names: bool) -> None:
        self._suspects = suspects
        self.tag_names = tag_names

    async def claim_attempt(self, prepared: PreparedRequest[Any]) -> None:
        """Note an attempt, after its slot and its tag, and before any byte may leave."""

    def permits(self) -> bool:
        """Whether the attempt may still be sent, asked when its first byte is about to leave."""
        return True

    def mark_void(self, prepared: PreparedRequest[Any], *, answered: bool = False) -> None:
        """Note that an attempt is proven to have left nothing.

        Args:
            prepared: The attempt.
            answered: It used its slot of the limit all the same; without, it was refused for now, or never sent.
        """

    def mark_suspect(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key."""
        self._suspects.add(suspect)
