"""Reads JSON that the strict reader refuses, because a new key must not be lost to an unimportant field.

It takes a byte order mark, UTF-16 and UTF-32, another declared character set, `NaN` and `Infinity`, control characters
within a text, and half a surrogate. Undecodable bytes become U+FFFD, so that everything which was read can be written
again as UTF-8.
"""

import codecs
import json
from typing import Any, Final

NO_CHARACTER: Final = "\ufffd"
"""The character that replaces undecodable bytes."""

_CHARSETS: Final = frozenset({"ascii", "cp1252", "iso8859-1", "iso8859-15", "utf-8", "utf-16", "utf-32"})
"""The declared character sets that are decoded. Python knows more, some of which run programs of their own."""

_DIGITS: Final = 18
"""The most digits of an integer that surely fits into 64 bits; longer ones become floats, as in the strict reader."""


def loads(text: bytes, charset: str | None = None) -> Any:
    """Read JSON text.

    Args:
        text: The text.
        charset: Its character set, as declared, or None.

    Raises:
        ValueError: The text is not JSON, even leniently.
    """
    try:
        return _encodable(json.loads(_decoded(text, charset), strict=False, parse_int=_whole))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decoded(text: bytes, charset: str | None) -> str:
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


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_encodable(name): _encodable(one) for name, one in value.items()}
        case list():
            return [_encodable(one) for one in value]
    return value
