"""Validates the fields of a request, with the error messages of Django REST Framework."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from respan_async.testing.responses import RejectedError, ServerResponse, detail

__all__ = [
    "CREATE_FIELDS",
    "UPDATE_FIELDS",
    "Check",
    "WrongFieldError",
    "clean_fields",
    "read_object",
]

Check = Callable[[Any], Any]
"""Returns the value that a field is stored with, or raises a `WrongFieldError`."""

_NOT_NULL = "This field may not be null."
_DATE_FORMATS = "YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]"


class WrongFieldError(Exception):
    """A value is invalid for a field; the argument is the message."""


def read_object(body: bytes) -> dict[str, Any]:
    """Read the body of a request.

    Args:
        body: The bytes; an empty body counts as an object without fields.

    Raises:
        RejectedError: They are not (strict) JSON, or not an object.
    """
    if not body:
        return {}
    try:
        found = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise RejectedError(detail(400, f"JSON parse error - {error}")) from None
    if not isinstance(found, dict):
        sentence = f"Invalid data. Expected a dictionary, but got {type(found).__name__}."
        raise RejectedError(ServerResponse(400, {"non_field_errors": [sentence]}))
    return found


def clean_fields(sent: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Check the fields that have checks; others are ignored, as by the server.

    Raises:
        RejectedError: With a list of messages for every invalid field.
    """
    clean: dict[str, Any] = {}
    wrong: dict[str, list[str]] = {}
    for name, value in sent.items():
        check = checks.get(name)
        if check is None:
            continue
        try:
            clean[name] = check(value)
        except WrongFieldError as error:
            wrong[name] = [str(error)]
    if wrong:
        raise RejectedError(ServerResponse(400, wrong))
    return clean


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"Out of range float values are not JSON compliant: {text!r}")


_DECODER = json.JSONDecoder(parse_constant=_not_finite)


def _name(value: Any) -> str:
    if value is None:
        raise WrongFieldError(_NOT_NULL)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise WrongFieldError("Not a valid string.")
    text = str(value).strip()
    if not text:
        raise WrongFieldError("This field may not be blank.")
    if "\x00" in text:
        raise WrongFieldError("Null characters are not allowed.")
    if len(text) > 50:
        raise WrongFieldError("Ensure this field has no more than 50 characters.")
    return text


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise WrongFieldError("A valid integer is required.")
    try:
        return int(value)
    except ValueError:
        raise WrongFieldError("A valid integer is required.") from None


def _max_usage(value: Any) -> int:
    if value is None:
        raise WrongFieldError(_NOT_NULL)
    times = _integer(value)
    if times < -1:
        raise WrongFieldError("Ensure this value is greater than or equal to -1.")
    if times == 0:
        raise WrongFieldError("Ensure this value is -1 or greater than 0.")
    return times


def _rate_limit(value: Any) -> int | None:
    if value is None:
        return None
    calls = _integer(value)
    if calls < 0:
        raise WrongFieldError("Ensure this value is greater than or equal to 0.")
    return calls


def _spending_limit(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise WrongFieldError("A valid number is required.")
    try:
        dollars = float(value)
    except (ValueError, OverflowError):
        raise WrongFieldError("A valid number is required.") from None
    if not math.isfinite(dollars):
        raise WrongFieldError("A valid number is required.")
    if dollars < 0:
        raise WrongFieldError("Ensure this value is greater than or equal to 0.")
    return value if isinstance(value, int) else dollars


def _is_test(value: Any) -> bool:
    if value is None:
        raise WrongFieldError(_NOT_NULL)
    if value in (True, "true", "True", "1"):
        return True
    if value in (False, "false", "False", "0"):
        return False
    raise WrongFieldError("Must be a valid boolean.")


def _expiry_date(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        # The length excludes a bare date, which Django does not accept as a time.
        moment = datetime.fromisoformat(value) if len(value) > len("YYYY-MM-DD") else None
        if moment is not None:
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        moment = None
    if moment is None:
        raise WrongFieldError(f"Datetime has wrong format. Use one of these formats instead: {_DATE_FORMATS}.")
    return moment


def _limit_policies(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise WrongFieldError(f'Expected a list of items but got type "{type(value).__name__}".')
    for policy in value:
        if not isinstance(policy, dict):
            raise WrongFieldError(f"Invalid data. Expected a dictionary, but got {type(policy).__name__}.")
        for name in ("max_value", "period"):
            if policy.get(name) is None:
                raise WrongFieldError(f"{name}: This field is required.")
    return value


UPDATE_FIELDS: Mapping[str, Check] = {
    "name": _name,
    "expiry_date": _expiry_date,
    "max_usage": _max_usage,
    "rate_limit": _rate_limit,
    "spending_limit": _spending_limit,
}
CREATE_FIELDS: Mapping[str, Check] = {**UPDATE_FIELDS, "is_test": _is_test, "limit_policies": _limit_policies}
