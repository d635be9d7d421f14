"""Reads the fields of a key out of a JSON object, leniently, because a new key must not be lost to an odd field.

A number that comes as text is read as a number, if no precision is lost.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from respan_async._http.json_text import DecodeError
from respan_async.secret import Secret

_DECIMAL: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?").fullmatch

_BITS_64: Final = 2**63

EXACT: Final = 2**53
"""Below this, each whole number has an exact float."""

_UNREADABLE: Final = object()


def _text(raw: Any) -> Any:
    return raw if isinstance(raw, str) else _UNREADABLE


def _flag(raw: Any) -> Any:
    return raw if isinstance(raw, bool) else _UNREADABLE


def read_id(raw: Any) -> Any:
    """Return an id as text; a whole number is converted, and any other type is unreadable."""
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < EXACT:
        raw = int(raw)  # 17.0
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    return _text(raw)


def _number(raw: Any) -> Any:
    if isinstance(raw, str):
        raw = _number_in(raw)
    if isinstance(raw, float) and not math.isfinite(raw):
        return _UNREADABLE
    return raw if isinstance(raw, int | float) and not isinstance(raw, bool) else _UNREADABLE


def _number_in(text: str) -> Any:
    """Read a number that was written as text, unless that would lose precision."""
    if not _DECIMAL(text):
        return _UNREADABLE
    exact = Decimal(text)
    # Compare with the `repr` of the float, so that "0.1" is read as 0.1.
    number = int(exact) if exact == int(exact) and abs(exact) < _BITS_64 else float(exact)
    return number if Decimal(repr(number)) == exact else _UNREADABLE


def _whole(raw: Any) -> Any:
    # The server answers some integers as floats (rate_limit: 100.0).
    number = _number(raw)
    if isinstance(number, float):
        # An integer of more than 64 bits is not a count, and could not be written again, e.g. in a ledger.
        return int(number) if number.is_integer() and abs(number) < _BITS_64 else _UNREADABLE
    return number


def _instant(raw: Any) -> Any:
    try:
        instant = datetime.fromisoformat(raw)
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        if instant.tzinfo is not UTC:
            instant.astimezone(UTC)  # raises for the last evening of 9999 west of Greenwich, which is 10000 in UTC
    except (TypeError, ValueError, OverflowError):
        return _UNREADABLE
    return instant


def _last_used(raw: Any) -> Any:
    instant = _instant(raw)
    # The server writes "never" as 1970-01-01T00:00:00Z.
    return None if isinstance(instant, datetime) and instant.year <= 1970 else instant


_TEXT: Final = ((str,), _text)

_FLAG: Final = ((bool,), _flag)

_WHOLE: Final = ((int,), _whole)

_NUMBER: Final = ((int,), _number)

_INSTANT: Final = ((), _instant)

FIELDS: Final[dict[str, tuple[str, tuple[type, ...], Callable[[Any], Any]]]] = {
    name: (attribute, kind[0], kind[1])
    for name, attribute, kind in (
        ("id", "id", ((str,), read_id)),
        ("name", "name", _TEXT),
        ("prefix", "prefix", _TEXT),
        ("status", "status", _TEXT),
        ("created", "created_at", _INSTANT),
        ("created_at", "created_at", _INSTANT),
        ("expiry_date", "expiry_date", _INSTANT),
        ("revoked", "revoked", _FLAG),
        ("key_usage", "key_usage", _WHOLE),
        ("max_usage", "max_usage", _WHOLE),
        ("last_used", "last_used", ((), _last_used)),
        ("rate_limit", "rate_limit", _NUMBER),
        ("spending_limit", "spending_limit", _NUMBER),
        ("spending_in_period", "spending_in_period", _NUMBER),
        ("is_test", "is_test", _FLAG),
        ("is_temporary", "is_temporary", _FLAG),
    )
}
"""By the server's name of a field: our name, the types that need no conversion, and the reader of all other values."""

_SECRETS: Final = frozenset({"api_key", "hashed_key"})


def read_fields(data: Any, request_id: str | None) -> dict[str, Any]:
    """Convert a JSON object into the fields of `TemporaryKey`; all other fields go to `extra`."""
    if type(data) is not dict:
        raise DecodeError("expected a JSON object")
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in data.items():
        if raw is None:
            if name not in FIELDS:
                extra[name] = None
            continue
        field = FIELDS.get(name)
        if field is None:
            extra[name] = Secret(raw) if name in _SECRETS and isinstance(raw, str) and raw else raw
            continue
        attribute, as_it_is, read = field
        if type(raw) in as_it_is:
            values[attribute] = raw
        elif (value := read(raw)) is _UNREADABLE:
            extra[name] = raw
        else:
            values[attribute] = value
    if not values.get("id"):
        raise DecodeError("expected a non-empty string as id")
    values["used"] = _used(data)
    values["request_id"] = request_id
    values["extra"] = extra
    return values


def _used(data: Mapping[str, Any]) -> bool | None:
    """Tell whether a key was ever used; None if the answer leaves it open, because a missing field says nothing."""
    last = data.get("last_used", _UNREADABLE)
    last = last if last is None else _last_used(last)
    usage, spent = _whole(data.get("key_usage")), _number(data.get("spending_in_period"))
    if isinstance(last, datetime) or any(amount is not _UNREADABLE and amount != 0 for amount in (usage, spent)):
        return True
    return False if last is None and usage == 0 else None
