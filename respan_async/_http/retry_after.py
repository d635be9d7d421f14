"""How long a server asks to wait: in `Retry-After`, or in the body as `retry_after`."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from respan_async._http import json_text
from respan_async._http.header_parsing import date, lines, number

# A comma that joins two values, and not the one behind the name of a day, with which a date begins.
_JOINT: Final = re.compile(r"(?<!mon|tue|wed|thu|fri|sat|sun|day),", re.IGNORECASE)


def retry_after(headers: Mapping[str, str], body: bytes, now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait; None when it does not ask, or what it asks cannot be obeyed.

    Of several values the longest counts: an origin and a proxy before it may each have set one, in a line of its own
    or joined by a comma. A wait of 0 and a date that has passed count as not said: who obeyed them would ask without a
    pause. So does what is negative, endless or no number.

    Args:
        headers: Those of the answer.
        body: That of the answer.
        now: The wall clock, aware; it is used for a date when the answer has none of its own to compare with.
    """
    asked = (*_in_headers(headers, now), *_in_body(body, now))
    return max((seconds for seconds in asked if seconds is not None), default=None)


def _in_headers(headers: Mapping[str, str], now: datetime) -> Iterator[float | None]:
    for line in lines(headers, "Retry-After"):
        # The server's own clock, where it tells it, keeps a wrong clock here out of the sum.
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
        seconds = float(value)  # no longer than 64 bits, or it would have been read as a float
    else:
        return None
    return seconds if 0 < seconds < math.inf else None
