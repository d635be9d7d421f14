"""Reads JSON that the strict reader refuses, because a new key must not be lost to an unimportant field.

It takes a byte order mark, UTF-16 and UTF-32, another declared character set, `NaN` and `Infinity`, control characters
within a text, and half a surrogate. What stands for no character comes out as U+FFFD, so that everything which was read
can be written again as UTF-8. Before an object it takes NULs, and after it anything that is not another one, such as
the comment of a cache: of two objects nobody knows which is meant. A whole number as an `id` keeps its digits.
"""

import codecs
import json
from typing import Any, Final

NO_CHARACTER: Final = "\ufffd"
"""The character that replaces undecodable bytes."""

_CHARSETS: Final = frozenset({"ascii", "cp1252", "iso8859-1", "iso8859-15", "utf-8"})
"""Those that are decoded where they are declared. Python knows more, some of which are programs of their own. A text in
UTF-16 or UTF-32 shows it, and one that does not is in neither."""

_DIGITS: Final = 60
"""Digits of a whole number that is read as one: an id may have 39, which is 128 bits."""
_WHOLE: Final = range(-(2**63), 2**64)
"""Those that the strict reader has; as anything but an id, another becomes a float, as it has it."""

_BLANK: Final = " \t\r\n\0"


def loads(text: bytes, charset: str | None = None) -> Any:
    """Read JSON text.

    Args:
        text: The text.
        charset: Its character set, as declared, or None.

    Raises:
        ValueError: The text is not JSON, even leniently.
    """
    try:
        return _encodable(_first(_decoded(text, charset).strip(_BLANK)))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _first(text: str) -> Any:
    """Read an object before something that is none, or else all there is."""
    if not text.startswith("{"):
        return _READER.decode(text)
    value, end = _READER.raw_decode(text)
    rest = text[end:].lstrip(_BLANK)
    if rest.startswith("{") and _READER.raw_decode(rest)[0] != value:
        raise ValueError("two objects")
    return value


def _decoded(text: bytes, charset: str | None) -> str:
    bare = text.lstrip(b"\0")
    if bare[1:2] != b"\0":  # or they are the halves of letters
        text = bare
    encoding: str = json.detect_encoding(text)
    if encoding.startswith("utf-8"):
        try:
            return text.decode(encoding)
        except UnicodeDecodeError:
            encoding = _known(charset) or encoding
    return text.decode(encoding, "replace")


def _known(charset: str | None) -> str | None:
    try:
        name = codecs.lookup(charset or "").name
    except (LookupError, ValueError):  # ValueError: the name holds a NUL
        return None
    return name if name in _CHARSETS else None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


_READER: Final = json.JSONDecoder(strict=False, parse_int=_whole)


def _encodable(value: Any, name: str = "") -> Any:
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_encodable(name): _encodable(one, name) for name, one in value.items()}
        case list():
            return [_encodable(one) for one in value]
        case int() if value not in _WHOLE and name != "id":
            return float(value)
    return value
