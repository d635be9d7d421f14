"""Executes the five operations on the keys, and makes their answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

import attrs

from respan_async.testing.fields import CREATE_FIELDS, UPDATE_FIELDS, clean_fields, read_object
from respan_async.testing.responses import RejectedError, ServerResponse, detail
from respan_async.testing.store import KeyRecord, Keyring
from respan_async.testing.url_resolver import ROOT, Target

__all__ = ["ListShape", "Operations", "ParsedRequest"]

ListShape = Literal["page", "array"]

_NO_KEY = detail(404, "Not found.")
_NO_PAGE = detail(404, "Invalid page.")
_REVOKED = ServerResponse(204)


@attrs.frozen
class ParsedRequest:
    """A request that was let in.

    Attributes:
        target: The target of the request.
        query: The parameters after the question mark.
        body: The body.
        media_type: The declared media type of the body; empty if none was declared.
        origin: The scheme and host that it was sent to.
    """

    target: Target
    query: Mapping[str, str]
    body: bytes
    media_type: str
    origin: str


@attrs.frozen
class Operations:
    """Execute the operations.

    Args:
        keyring: The keys.
        list_shape: Pages, or one bare array of all keys.
        page_size: Keys on a page if the request does not say.
    """

    keyring: Keyring
    list_shape: ListShape
    page_size: int

    def run(self, call: ParsedRequest, now: datetime, *, late: bool = False) -> tuple[ServerResponse, KeyRecord | None]:
        """Do one operation.

        Args:
            call: The request.
            now: The time.
            late: Whether the client no longer waits for the answer.

        Returns:
            The answer, and the key if one was made.
        """
        try:
            if call.target.wrong_method is not None:
                raise RejectedError(call.target.wrong_method)
            match call.target.operation:
                case "create":
                    return self._create(call, now, late=late)
                case "list":
                    return self._list(call), None
                case "retrieve":
                    return ServerResponse(200, self.keyring.public(self._find(call))), None
                case "update":
                    return self._update(call), None
                case _:
                    self.keyring.revoke(self._find(call))
                    return _REVOKED, None
        except RejectedError as error:
            return error.answer, None

    def _create(self, call: ParsedRequest, now: datetime, *, late: bool) -> tuple[ServerResponse, KeyRecord]:
        body = _sent(call)
        record = self.keyring.create(clean_fields(body, CREATE_FIELDS), body, now=now, late=late)
        return ServerResponse(201, self.keyring.created(record)), record

    def _update(self, call: ParsedRequest) -> ServerResponse:
        record = self._find(call)
        self.keyring.update(record, clean_fields(_sent(call), UPDATE_FIELDS))
        return ServerResponse(200, self.keyring.public(record))

    def _find(self, call: ParsedRequest) -> KeyRecord:
        record = self.keyring.find(call.target.key_id)
        if record is None:
            raise RejectedError(_NO_KEY)
        return record

    def _list(self, call: ParsedRequest) -> ServerResponse:
        keyring = self.keyring
        if self.list_shape == "array":
            return ServerResponse(200, [keyring.public(r) for r in keyring.newest(0, None)])
        size = _number(call.query.get("page_size")) or self.page_size
        page = _number(call.query.get("page", "1"))
        if page is None or (page > 1 and (page - 1) * size >= len(keyring)):
            return _NO_PAGE
        shown = [keyring.public(r) for r in keyring.newest((page - 1) * size, page * size)]
        payload: dict[str, Any] = {
            "results": shown,
            "count": len(shown),
            "previous": _page_url(call, page - 1) if page > 1 else None,
            "next": _page_url(call, page + 1) if page * size < len(keyring) else None,
            "current_filters": {},
        }
        return ServerResponse(200, payload)


def _sent(call: ParsedRequest) -> dict[str, Any]:
    if call.body and call.media_type != "application/json":
        raise RejectedError(detail(415, f'Unsupported media type "{call.media_type}" in request.'))
    return read_object(call.body)


def _number(text: str | None) -> int | None:
    """Read an integer above 0; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else None


def _page_url(call: ParsedRequest, page: int) -> str:
    """Return the absolute URL of another page; the first page's has no number, as in Django REST Framework."""
    query = {name: value for name, value in call.query.items() if name != "page"}
    if page > 1:
        query["page"] = str(page)
    return f"{call.origin}{ROOT}?{urlencode(query)}" if query else f"{call.origin}{ROOT}"
