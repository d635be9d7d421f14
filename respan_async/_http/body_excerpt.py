"""Excerpts for an error: the start of a response body, the server's message, and the request id.

They never hold a secret, and their length is bounded.
"""

from collections.abc import Mapping
from typing import Any, Final

from respan_async._http import json_text
from respan_async._http.redaction import printable, redacted, without_long_words
from respan_async.secret import Secret


def request_id(headers: Mapping[str, str], token: Secret | None) -> str | None:
    """Return the server's id of a request, if it sent one."""
    value = headers.get("X-Request-ID")
    return redacted(value, [] if token is None else [token])[:200] if value and value.isprintable() else None


MOST_READ: Final = 6_000
"""Bytes of a body that are read for an excerpt."""
_MAY_BE_CUT: Final = 1_000
"""Characters at their end that are dropped, because half a key would not be recognised as a key."""


def shown(body: bytes, token: Secret | None, *, made: bool) -> str:
    """Return at most 2,000 characters of a body, without anything that is or looks like a key.

    Args:
        body: The body.
        token: The bearer token, which a server may echo.
        made: Whether the body may hold a key, which can have any form.
    """
    secrets = [] if token is None else [token]
    if made and (secret := _answered_secret(body)) is not None:
        secrets.append(secret)
    # Redacted before it is cut, because half a key does not look like a key; bounded first, to limit the work.
    text = redacted(body[:MOST_READ].decode(errors="replace"), secrets)
    text = text if len(body) <= MOST_READ else text[:-_MAY_BE_CUT]
    return (without_long_words(text) if made else text)[:2_000]


def _answered_secret(body: bytes) -> Secret | None:
    try:
        data = json_text.parse(body[:MOST_READ])
    except json_text.DecodeError:
        return None
    secret = data.get("api_key") if isinstance(data, dict) else None
    return Secret(secret) if isinstance(secret, str) and secret else None


def said(body: bytes, shown: str, token: Secret | None) -> str:
    """Return the server's message, as the end of a sentence, from a body that is safe to show."""
    try:
        data = json_text.parse(shown.encode()) if len(body) <= 2_000 else None
    except json_text.DecodeError:
        data = None
    # Redacted again, because JSON can write any text in escapes. Made printable, because a log or a terminal must not
    # obey control characters.
    text = printable(redacted(_gather(data), [] if token is None else [token]))
    return f": {text:.500}" if text else ""


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
