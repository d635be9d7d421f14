"""Reads header fields: every line of one, and the numbers and dates in them."""

import email.utils
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

# Stricter than float() and int(), which take signs, exponents, underscores, and the digits of other scripts.
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?")


def lines(headers: Mapping[str, str], name: str) -> Sequence[str]:
    """Return every line of a header, because an origin and a proxy may each have written one."""
    if name not in headers:
        return ()
    getall = getattr(headers, "getall", None)  # a multidict, as aiohttp gives it; a plain mapping holds one line
    return (headers[name],) if getall is None else getall(name)


_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]{1,40})", re.IGNORECASE)


def charset(headers: Mapping[str, str]) -> str | None:
    """Return the character set that an answer's Content-Type declares; None if it declares none."""
    found = _CHARSET.search(headers.get("Content-Type", ""))
    return found[1] if found else None


def number(text: str) -> float | None:
    """Read a decimal number, 0 or more; None if the text is not one."""
    text = text.strip(" \t")
    return float(text) if _NUMBER.fullmatch(text) else None


def date(text: Any) -> datetime | None:
    """Read a date in HTTP's format, aware; None if the text is not one."""
    try:
        read = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
