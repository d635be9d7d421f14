"""The answers of the fake server: status, headers and body, in the words of Django REST Framework or of a proxy."""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from aiohttp import web

from respan_async.testing.limits import GRAIN

__all__ = ["NO_RESPONSE", "RejectedError", "RetryAfter", "ServerResponse", "detail", "html", "refusal", "rounded_up"]

RetryAfter = Literal["body", "header", "both", "none"]

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@attrs.frozen
class ServerResponse:
    """One answer.

    Attributes:
        status: The HTTP status; 0 for no answer.
        payload: The JSON data; None for an empty body.
        text: HTML, instead of the payload.
        headers: Headers besides Content-Type and Content-Length.
    """

    status: int
    payload: Any = None
    text: str | None = None
    headers: Mapping[str, str] | None = None

    def body(self) -> bytes:
        """Return the bytes of the body."""
        if self.text is not None:
            return self.text.encode()
        return b"" if self.payload is None else _ENCODER.encode(self.payload).encode()

    def response(self) -> web.Response:
        """Return the answer as aiohttp's response."""
        headers = {} if self.headers is None else dict(self.headers)
        if self.status != 204:
            headers["Content-Type"] = "application/json" if self.text is None else "text/html; charset=utf-8"
        return web.Response(status=self.status or 200, body=self.body(), headers=headers)


class RejectedError(Exception):
    """A request is rejected; `answer` says why."""

    def __init__(self, answer: ServerResponse) -> None:
        super().__init__(answer)
        self.answer = answer


NO_RESPONSE = ServerResponse(0)
"""The answer for a connection on which nothing more is written."""


def detail(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> ServerResponse:
    """Return an error in one sentence, as Django REST Framework does."""
    return ServerResponse(status, {"detail": sentence}, headers=headers)


def html(status: int, title: str) -> ServerResponse:
    """Return an HTML page, as proxies and Django's router do."""
    page = f'<!doctype html>\n<html lang="en"><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n'
    return ServerResponse(status, text=page)


def refusal(seconds: float, where: RetryAfter) -> ServerResponse:
    """Return a refusal.

    Args:
        seconds: Until the next one would be let in; written as given.
        where: The place in the answer that states them.
    """
    headers = {"Retry-After": str(seconds)} if where in ("header", "both") else None
    if where == "header":
        unit = "second" if seconds == 1 else "seconds"
        return detail(429, f"Request was throttled. Expected available in {seconds} {unit}.", headers)
    payload: dict[str, Any] = {"detail": "Rate limit exceeded"}
    if where != "none":
        payload["retry_after"] = seconds
    return ServerResponse(429, payload, headers=headers)


def rounded_up(seconds: float, digits: int) -> float:
    """Round as Django REST Framework does, up, so that a client that waits that long is let in.

    Args:
        seconds: The number to round.
        digits: Decimal places to keep; with 0 the result is an integer.
    """
    scale = 10.0**digits
    ticks = max(0, math.ceil((seconds - GRAIN) * scale))
    return ticks if digits == 0 else ticks / scale
