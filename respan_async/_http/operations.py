"""Defines the five operations of the API, and writes the request of each; no I/O."""

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import attrs

from respan_async._arguments import plain_value, shown
from respan_async._http import json_text, key_ids
from respan_async.errors import InvalidRequestError
from respan_async.models import CreatedKey, KeyPage, TemporaryKey

T = TypeVar("T")

PATH: Final = "/api/temporary-keys/"
"""The trailing slash matters: without it Django redirects, and a redirected POST turns into a list."""


@attrs.frozen(kw_only=True, eq=False)
class Operation(Generic[T]):
    """A kind of request.

    Attributes:
        name: Its name in events and messages.
        method: The HTTP method.
        model: The model of a good answer; None if the body does not matter.
        changes: Whether a request changes the server's state.
        creates: Whether a request may leave a key.
    """

    name: str
    method: str
    model: type[T] | None
    changes: bool
    creates: bool = False


CREATE: Final = Operation(name="create", method="POST", model=CreatedKey, changes=True, creates=True)

LIST: Final = Operation(name="list", method="GET", model=KeyPage, changes=False)

RETRIEVE: Final = Operation(name="retrieve", method="GET", model=TemporaryKey, changes=False)

UPDATE: Final = Operation(name="update", method="PATCH", model=TemporaryKey, changes=True)

DELETE: Final[Operation[None]] = Operation(name="delete", method="DELETE", model=None, changes=True)


@attrs.define
class Request(Generic[T]):
    """One request of the protocol.

    Attributes:
        operation: The operation that it asks for.
        path: From the host's root, percent-encoded, with the query.
        body: JSON text, or None.
        changes: For an update, the key's id and the fields that are sent, in JSON types.
    """

    operation: Operation[T]
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    changes: Mapping[str, Any] | None = attrs.field(default=None, repr=False)


def create(fields: Mapping[str, Any]) -> Request[CreatedKey]:
    """Make a key with these fields, in JSON types."""
    return Request(CREATE, PATH, json_text.encode(fields))


def list_page(page: int, page_size: int | None) -> Request[KeyPage]:
    """Read one page of the list; pages count from 1."""
    query = {"page": plain_value(page)} | ({} if page_size is None else {"page_size": plain_value(page_size)})
    return Request(LIST, f"{PATH}?{urlencode(query)}")


def retrieve(key_id: str) -> Request[TemporaryKey]:
    """Read one key."""
    return Request(RETRIEVE, _path_of(key_id))


def update(key_id: str, fields: Mapping[str, Any]) -> Request[TemporaryKey]:
    """Change these fields of one key."""
    return Request(UPDATE, _path_of(key_id), json_text.encode(fields), {**fields, "id": plain_value(key_id)})


def delete(key_id: str) -> Request[None]:
    """Revoke one key."""
    return Request(DELETE, _path_of(key_id))


def _path_of(key_id: str) -> str:
    if not isinstance(key_id, str) or not key_id.strip():
        raise InvalidRequestError(f"id: expected a non-empty string, got {shown(key_id)}")
    if len(key_id) > key_ids.MAX_ID:
        raise InvalidRequestError(f"id: expected at most {key_ids.MAX_ID} characters, got {len(key_id)}")
    if key_ids.has_dots(key_id):
        raise InvalidRequestError(f"id: expected no '.' or '..' as a path segment, got {shown(key_id)}")
    try:
        return f"{PATH}{quote(key_id, safe='')}/"
    except UnicodeEncodeError:
        raise InvalidRequestError(f"id: expected text that UTF-8 can carry, got {shown(key_id)}") from None
