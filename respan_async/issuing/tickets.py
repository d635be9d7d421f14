"""What is issued: a ticket of the caller's own, and what its key should be."""

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
    """One issuance: this id gets one key, once, however often it is asked for.

    Args:
        id: The caller's own, stable id, such as `"tenant-42/2026-11"`: next month's key is next month's ticket.
        request: What the key should be. Another request under the same id is a conflict, unless nothing was made
            for the first, and nothing can have been.

    Raises:
        InvalidRequestError: One of them is not that.
    """

    id: str = attrs.field(converter=plain_value, validator=_check_id)
    request: CreateKeyRequest = attrs.field(factory=CreateKeyRequest, validator=_check_request)

    @cached_property
    def fields(self) -> str:
        """The request as text that is equal for equal requests; a relative expiry counts as it was given."""
        return codec.canonical(self.request)
