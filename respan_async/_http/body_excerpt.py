"""What an error shows of an answer: of its body, of what the server says in it, and the id of the request.

Always without secrets, and bounded. The failure table says what the answer means; it learns here who wrote the body.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from respan_async._http import json_text
from respan_async._http.redaction import printable, redacted, without_long_words
from respan_async.secret import Secret


def request_id(headers: Mapping[str, str], token: Secret | None) -> str | None:
    """Return the server's id of a request, where it sent one."""
    value = headers.get("X-Request-ID")
    return redacted(value, [] if token is None else [token])[:200] if value and value.isprintable() else None


_MOST_READ: Final = 6_000
"""Bytes of a body that are looked at."""
_MAY_BE_CUT: Final = 1_000
"""Characters at the end of those in which half a key would not be recognised as one."""


def shown(body: bytes, token: Secret | None, *, made: bool) -> str:
    """Return at most 2,000 characters of a body, without anything that is or looks like a key.

    Args:
        body: The body.
        token: The bearer token, which a server may echo.
        made: A key may be in it, of whatever form.
    """
    secrets = [] if token is None else [token]
    if made and (secret := _answered_secret(body)) is not None:
        secrets.append(secret)
    # Redacted before it is cut, or a key cut in half would no longer look like one; bounded before it is redacted.
    text = redacted(body[:_MOST_READ].decode(errors="replace"), secrets)
    text = text if len(body) <= _MOST_READ else text[:-_MAY_BE_CUT]
    return (without_long_words(text) if made else text)[:2_000]


def _answered_secret(body: bytes) -> Secret | None:
    try:
        data = json_text.parse(body[:_MOST_READ])
    except json_text.DecodeError:
        return None
    secret = data.get("api_key") if isinstance(data, dict) else None
    return Secret(secret) if isinstance(secret, str) and secret else None


def said(body: bytes, shown: str, token: Secret | None) -> str:
    """Return what the server said is wrong, as the end of a sentence, from a body already made safe to show."""
    try:
        data = json_text.parse(shown.encode()) if len(body) <= 2_000 else None
    except json_text.DecodeError:
        data = None
    # Redacted again, because JSON can write any text in escapes. In one line, which a log or a terminal shows and does
    # not obey.
    text = printable(redacted(_gather(data), [] if token is None else [token]))
    return f": {text:.500}" if text else ""


_TITLE: Final = re.compile(r"<title[^<>]{0,200}>([^<>]{1,200})</title>", re.IGNORECASE)
_MARKUP: Final = re.compile(r"[\s\ufeff\ufffd\0]*<")  # behind any byte order mark, that of UTF-16 read as UTF-8 too
_PAGES: Final = ("text/html", "application/xhtml+xml")
_CLOUDFLARE: Final = re.compile(r"error code: (1[0-9]{3})\s*")
_WHOSE: Final = {403: "a firewall or proxy in front of the API", 404: "a server without this route; is base_url right?"}


def stranger(status: int, shown: str) -> str:
    """Return whose answer a 403 or 404 is that the API itself has not written, as the end of a sentence.

    Args:
        status: The answer's.
        shown: What may be shown of its body.
    """
    whose = _WHOSE.get(status)
    code = _CLOUDFLARE.fullmatch(shown)
    if whose is None or not (code or _MARKUP.match(shown)):
        return ""
    title = _TITLE.search(shown)
    said = f"error code {code[1]}" if code else f"{' '.join(title[1].split())!r:.120}" if title else "without a title"
    return f" with a page, not in the API's own JSON ({printable(said)}): the answer of {whose}"


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a body is a page for people, which the API never writes."""
    if not body:
        return False
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in _PAGES or _MARKUP.match(body[:_MOST_READ].decode(errors="replace")) is not None


_OWN_FIELDS: Final = frozenset({"detail", "error", "errors", "error_code"})


def is_of_the_api(body: bytes) -> bool:
    """Whether a body is the API's own JSON for an error, and so not written by a proxy in front of it."""
    try:
        data = json_text.parse(body)
    except json_text.DecodeError:
        return False
    return isinstance(data, dict) and not _OWN_FIELDS.isdisjoint(data)


def is_past_the_end(shown: str) -> bool:
    """Whether a 404 is the API's own, to a page after the last one (read in Django REST Framework)."""
    try:
        data = json_text.parse(shown.encode(errors="replace"))
    except json_text.DecodeError:
        return False
    detail = data.get("detail") if isinstance(data, dict) else None
    return isinstance(detail, str) and detail.startswith("Invalid page")


_DEEPEST: Final = 5


def _gather(data: Any, depth: int = 0) -> str:
    """Collect the messages out of the shapes in which this API reports errors."""
    if depth > _DEEPEST:
        return ""
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        return " ".join(filter(None, (_gather(item, depth + 1) for item in data)))
    if not isinstance(data, dict):
        return ""
    error = data.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    parts = [data[name] for name in ("detail", "error") if isinstance(data.get(name), str)]
    fields = data.get("errors") if parts else data
    if isinstance(fields, dict):
        parts += [f"{name}: {said}" for name, value in fields.items() if (said := _gather(value, depth + 1))]
    return "; ".join(parts)
