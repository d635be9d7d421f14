"""Prepares the request of one attempt: for a create, with a fresh tag and expiry."""

from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import attrs

from respan_async._calls.name_tags import new_tag, tagged
from respan_async._http import codec, operations
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest

T = TypeVar("T")


@attrs.define(kw_only=True)
class PreparedRequest(Generic[T]):
    """One attempt, ready to be sent.

    Attributes:
        request: The request.
        sent_at: The time for which it was written, aware.
        fields: For a create, the fields that are sent, in JSON types.
        tag: The tag in the name, if there is one.
    """

    request: operations.Request[T]
    sent_at: datetime
    fields: dict[str, Any] | None = None
    tag: str | None = None


def prepare_create(
    request: CreateKeyRequest, now: datetime, ahead: timedelta, *, tag_name: bool
) -> PreparedRequest[CreatedKey]:
    """Prepare one attempt to create a key; its expiry counts from now, and its tag is new.

    Args:
        request: The fields of the key.
        now: The wall clock, aware.
        ahead: How far the server's clock is ahead of it.
        tag_name: Whether the name carries a tag.
    """
    fields = codec.fields_of(request, now + ahead)
    if request.expiry_date and request.expiry_date <= now + ahead:
        logger.warning("expiry_date %s is in the past: the key will be dead when it arrives", fields["expiry_date"])
    tag = None
    if tag_name:
        tag = new_tag()
        fields["name"] = tagged(request.name or "", tag)
    return PreparedRequest(request=operations.create(fields), sent_at=now, fields=fields, tag=tag)
