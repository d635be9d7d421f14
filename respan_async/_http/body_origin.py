"""Tells whether the API, a proxy or another server wrote a response body."""

import re
from collections.abc import Mapping
from typing import Final

from respan_async._http import json_text
from respan_async._http.body_excerpt import MOST_READ
from respan_async._http.redaction import printable

_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<>]{1,200})</title>", re.IGNORECASE)
_MARKUP: Final = re.compile(r"[\s\ufeff\ufffd\0]*<")  # after any byte order mark, also that of UTF-16 read as UTF-8
_PAGES: Final = ("text/html", "application/xhtml+xml")
_CLOUDFLARE: Final = re.compile(r"error code: (1[0-9]{3})\s*")
_WHOSE: Final = {403: "a firewall or proxy in front of the API", 404: "a server without this route; is base_url right?"}


def stranger(status: int, shown: str) -> str:
    """For a 403/404 not written by the API: say who probably wrote it (proxy, wrong base_url), as a sentence's end.

    Args:
        status: The status of the answer.
        shown: The excerpt of its body.
    """
    whose = _WHOSE.get(status)
    code = _CLOUDFLARE.fullmatch(shown)
    if whose is None or not (code or _MARKUP.match(shown)):
        return ""
    title = _TITLE.search(shown)
    said = f"error code {code[1]}" if code else f"{' '.join(title[1].split())!r:.120}" if title else "without a title"
    return f" with a page, not in the API's own JSON ({printable(said)}): the answer of {whose}"


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a body is an HTML page, which the API never writes."""
    if not body:
        return False
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in _PAGES or _MARKUP.match(body[:MOST_READ].decode(errors="replace")) is not None


_OWN_FIELDS: Final = frozenset({"detail", "error", "errors", "error_code"})


def is_of_the_api(body: bytes) -> bool:
    """Whether a body is the API's JSON for an error, and so not written by a proxy in front of it."""
    try:
        data = json_text.parse(body)
    except json_text.DecodeError:
        return False
    return isinstance(data, dict) and not _OWN_FIELDS.isdisjoint(data)


def is_past_the_end(shown: str) -> bool:
    """Whether the body of a 404 is the API's answer to a page after the last one (source: Django REST Framework)."""
    try:
        data = json_text.parse(shown.encode(errors="replace"))
    except json_text.DecodeError:
        return False
    detail = data.get("detail") if isinstance(data, dict) else None
    return isinstance(detail, str) and detail.startswith("Invalid page")
