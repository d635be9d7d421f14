"""A ticket: the caller's id for one issuance, and the fields of its key."""

from functools import cached_property
from typing import Any

import attrs

from respan_async._arguments import plain_value, shown
from respan_async._http import codec
from respan_async.errors import InvalidRequestError
from respan_async.models import CreateKeyRequest

MAX_ID = 500


def _check_id(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not value.isprintable():
        raise InvalidRequestError(
            f"ticket {attribute.name}: expected 1 to {MAX_ID} printable characters, got {shown(value)}"
        )


def _check_request(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, CreateKeyRequest):
        raise InvalidRequestError(f"ticket {attribute.name}: expected a CreateKeyRequest, got {type(value).__name__}")


@attrs.frozen
class Ticket:
    """One issuance: this id gets one key, once, even if it is asked for many times.

    Args:
        id: The caller's stable id, such as `"tenant-42/2026-11"`: next month's key is next month's ticket.
        request: The fields of the key. Another request under the same id is a conflict, unless no key was made for the
            first request, and none can have been.

    Raises:
        InvalidRequestError: `id` or `request` is invalid.
    """

    id: str = attrs.field(converter=plain_value, validator=_check_id)
    request: CreateKeyRequest = attrs.field(factory=CreateKeyRequest, validator=_check_request)

    @cached_property
    def fields(self) -> str:
        """The request as text that is equal for equal requests; a relative expiry counts as given."""
        return codec.canonical(self.request)
