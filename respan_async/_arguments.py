"""Arguments as callers give them: without their classes, and as a message shows them."""

from typing import Any, Final, TypeGuard

_PLAIN: Final = frozenset({str, int, float, bool})


def plain_value(value: Any) -> Any:
    """Return a text or a number without its subclass, anything else as it is.

    A member of an enum that is a text as well is sent as that text, and formatted as something else.
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
    """Return at most 100 characters that show a value, whatever it is."""
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001  its own; or a ValueError, of a whole number of thousands of digits
        return f"something of type {type(value).__name__}"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that can be computed with as a float; `True` is none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float)
