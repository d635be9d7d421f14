"""Reads how long a server asks to wait: from `Retry-After`, or from `retry_after` in the body."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from respan_async._http import json_text
from respan_async._http.header_parsing import date, lines, number

# A comma that joins two values; not the comma after the name of a day, which begins a date.
_JOINT: Final = re.compile(r"(?<!mon|tue|wed|thu|fri|sat|sun|day),", re.IGNORECASE)


def retry_after(headers: Mapping[str, str], body: bytes, now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait; None if it asks for none, or for an invalid wait.

    Of several values the longest counts, because an origin and a proxy may each have set one, in separate lines or
    joined by a comma. A wait of 0 and a date in the past are ignored, because obeying them would mean to ask without a
    pause; so are negative, infinite and non-numeric values.

    Args:
        headers: The headers of the answer.
        body: The body of the answer.
        now: The wall clock, aware; used for a date if the answer has no `Date` to compare with.
    """
    asked = (*_in_headers(headers, now), *_in_body(body, now))
    return max((seconds for seconds in asked if seconds is not None), default=None)


def _in_headers(headers: Mapping[str, str], now: datetime) -> Iterator[float | None]:
    for line in lines(headers, "Retry-After"):
        # The server's own clock, if it tells it, keeps an error of the local clock out of the result.
        sent = date(headers.get("Date")) or now
        for value in _JOINT.split(line):
            yield _seconds(value, sent)


def _in_body(body: bytes, now: datetime) -> Iterator[float | None]:
    try:
        data = json_text.parse(body) if b"retry_after" in body else None
    except json_text.DecodeError:
        return
    if isinstance(data, dict):
        yield _seconds(data.get("retry_after"), now)
        inner = data.get("error")
        if isinstance(inner, dict):
            yield _seconds(inner.get("retry_after"), now)


def _seconds(value: Any, sent: datetime) -> float | None:
    if isinstance(value, str):
        seconds = number(value)
        if seconds is None:
            until = date(value)
            seconds = (until - sent).total_seconds() if until else 0.0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)  # at most 64 bits; a longer integer would have been read as a float
    else:
        return None
    return seconds if 0 < seconds < math.inf else None
