"""The five operations, as plans; and how each attempt at a create is written."""

from datetime import datetime
from typing import Any, Final

from respan_async import codec, wire
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest, KeyPage, TemporaryKey
from respan_async.plan import Draft, Plan
from respan_async.suspects import new_tag, tagged


def _draft(request: CreateKeyRequest, now: datetime) -> Draft:
    """Write one attempt: its expiry counts from now."""
    fields = _fields(request, now)
    return Draft(request=wire.create(fields), fields=fields)


def _tagged_draft(request: CreateKeyRequest, now: datetime) -> Draft:
    """Write one attempt, with a tag of its own."""
    fields = _fields(request, now)
    tag = new_tag()
    fields["name"] = tagged(request.name or "", tag)
    return Draft(request=wire.create(fields), fields=fields, tag=tag)


def _fields(request: CreateKeyRequest, now: datetime) -> dict[str, Any]:
    fields = codec.fields_of(request, now)
    if request.expiry_date and request.expiry_date <= now:
        logger.warning("expiry_date %s is in the past: the key will be dead when it arrives", fields["expiry_date"])
    return fields


CREATE: Final = Plan(operation="create", model=CreatedKey, draft=_draft)
CREATE_TAGGED: Final = Plan(operation="create", model=CreatedKey, draft=_tagged_draft)
LIST: Final = Plan(operation="list", model=KeyPage)
RETRIEVE: Final = Plan(operation="retrieve", model=TemporaryKey)
UPDATE: Final = Plan(operation="update", model=TemporaryKey)
DELETE: Final[Plan[None]] = Plan(operation="delete", model=None)
