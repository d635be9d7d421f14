"""Converts callers' arguments to plain values, checks numbers, and shows arguments in messages."""

from typing import Any, Final, TypeGuard

_PLAIN: Final = frozenset({str, int, float, bool})


def plain_value(value: Any) -> Any:
    """Return a text or a number of a subclass as a plain `str`, `int` or `float`; return other values unchanged.

    A member of an enum with texts would be sent as its text, but formatted in another way.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value


def shown(value: object) -> str:
    """Return at most 100 characters that show any value."""
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001  of the value's `__repr__`; a whole number of 5,000 digits raises a ValueError
        return f"something of type {type(value).__name__}"


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of at most 64 bits; `True` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that can be computed with as a float; a bool is not."""
    return is_whole(value) or isinstance(value, float)
