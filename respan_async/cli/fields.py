"""Parses request fields as people write them, in a cell or after an option."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

from respan_async._http.json_text import DecodeError, parse
from respan_async._pacing.rate_limit import RateLimit
from respan_async.errors import InvalidRequestError
from respan_async.models import LONGEST_LIFE

T = TypeVar("T")

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(w|d|h|m|s) ?")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_LONGEST: Final = 100
_UNITS: Final = "wdhms"
"""The units of a time, each at most once, in this order."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9}(?:\.[0-9]{1,6})?)(s|m|h)?")


def _lifetime(text: str) -> timedelta:
    parts = _PART.findall(text) if len(text) <= _LONGEST and _DURATION.fullmatch(text) else []
    units = [_UNITS.index(unit) for _, unit in parts]
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not seconds or units != sorted(set(units)):
        raise InvalidRequestError(f"expires_in: expected a time such as 90s, 30m, 1h30m or 7d, got {text!r:.100}")
    if seconds > LONGEST_LIFE.total_seconds():
        raise InvalidRequestError(f"expires_in: expected a time of up to a thousand years, got {text!r:.100}")
    return timedelta(seconds=seconds)


def _whole(text: str) -> Any:
    # A text that is not a number is left unchanged, because the request's validation then explains what it expects.
    return int(text) if _WHOLE.fullmatch(text) else text


def _number(text: str) -> Any:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _or_null(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "null" else read(text)


def request_of(model: type[T], values: Mapping[str, Any]) -> T:
    """Return a request with these values.

    Raises:
        InvalidRequestError: A value is wrong; the message uses the words of a cell, where there is no `null`.
    """
    try:
        return model(**values)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error).replace(", or None, got ", ", or null, got ", 1)) from None


def _flag(text: str) -> bool:
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise InvalidRequestError(f"is_test: expected one of {', '.join(_FLAGS)}, got {text!r:.100}")
    return flag


def _policies(text: str) -> Any:
    try:
        value = parse(text.encode())
    except (DecodeError, UnicodeEncodeError):  # not JSON, or not text, because a shell hands over any bytes
        value = None
    if not isinstance(value, list):
        raise InvalidRequestError(f"limit_policies: expected a JSON list of limit policies, got {text!r:.100}")
    return value


READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "name": str,
    "expiry_date": str,
    "expires_in": _lifetime,
    "max_usage": _whole,
    "rate_limit": _or_null(_whole),
    "spending_limit": _or_null(_number),
    "is_test": _flag,
    "limit_policies": _policies,
}
"""The function that parses each request field from text; it raises `InvalidRequestError`."""


def rate_limit(text: str) -> RateLimit:
    """Read a rate limit such as `60/60s` or `100/1s`.

    Raises:
        ValueError: The text is not a rate limit.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected requests per time, such as 60/60s or 100/1s, got {text!r:.100}")
    return RateLimit(int(match[1]), per=float(match[2]) * _SECONDS[match[3] or "s"])
