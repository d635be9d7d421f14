"""Reads JSON that the strict reader refuses, because a new key must not be lost to an unimportant field.

It accepts a byte order mark, UTF-16 and UTF-32, another declared character set, `NaN` and `Infinity`, control
characters within a text, and a lone surrogate. It replaces what is not a character by U+FFFD, so that all texts can be
written again as UTF-8. It accepts NULs before an object, and anything but another object after it, such as the comment
of a cache. It refuses two different objects, because it cannot know which of them is meant. A whole number as an `id`
keeps its digits.
"""

import codecs
import json
from typing import Any, Final

NO_CHARACTER: Final = "\ufffd"
"""The character that replaces undecodable bytes."""

_CHARSETS: Final = frozenset({"ascii", "cp1252", "iso8859-1", "iso8859-15", "utf-8"})
"""The character sets that are decoded if a header declares them.

Python has more codecs, but some of them, such as decompressors, run more than a table of characters. UTF-16 and UTF-32
are missing, because the first bytes of a JSON text show them."""

_DIGITS: Final = 60
"""The most digits of a number that is read as an `int`: an id of 128 bits has 39."""
_WHOLE: Final = range(-(2**63), 2**64)
"""The whole numbers that the strict reader returns as `int`. Others become floats, as with that reader, but for ids."""

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
    """Read the object at the beginning of a text, and ignore what follows, but no other object; or read all of it."""
    if not text.startswith("{"):
        return _READER.decode(text)
    value, end = _READER.raw_decode(text)
    rest = text[end:].lstrip(_BLANK)
    if rest.startswith("{") and _object_in(rest, otherwise=value) != value:
        raise ValueError("two objects")
    return value


def _object_in(text: str, *, otherwise: Any) -> Any:
    try:
        return _READER.raw_decode(text)[0]
    except ValueError:
        return otherwise  # a brace that begins no object, or one that is cut


def _decoded(text: bytes, charset: str | None) -> str:
    bare = text.lstrip(b"\0")
    if bare[1:2] != b"\0":  # otherwise the NULs are halves of UTF-16 or UTF-32 characters
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
