"""Reads and writes JSON text, with orjson or else with a lenient reader, and bounds the number of objects."""

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

from respan_async._http import lenient_json

MAX_OBJECTS: Final = 100_000
"""The most objects and arrays in one text.

A page of ten thousand real keys has about as many. The bytes of that page could hold millions of objects, which would
take seconds and some hundred MiB."""


class DecodeError(ValueError):
    """The text is not what was expected; the message holds no part of it."""


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return JSON text."""
    return orjson.dumps(fields)


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return JSON text as one line of printable ASCII.

    All other characters, e.g. in a key's name, are escaped: a terminal would obey control characters, and some readers
    take U+0085 and U+2028 for the end of a line.
    """
    text = encode(fields).decode()
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return f"{text}\n".encode()


def parse(text: bytes, charset: str | None = None) -> Any:
    """Read JSON: strictly, or else leniently; never more than `MAX_OBJECTS` objects.

    Args:
        text: The text.
        charset: Its character set, as declared, or None.

    Raises:
        DecodeError: The text is not JSON, or has too many objects.
    """
    if len(text) > MAX_OBJECTS and text.count(b"{") + text.count(b"[") > MAX_OBJECTS:
        raise DecodeError(f"expected at most {MAX_OBJECTS} objects")
    data: Any = _NOTHING
    try:
        data = orjson.loads(text)
    except ValueError:
        pass
    else:
        if not _has_float_as_id(data):
            return data
    try:
        return lenient_json.loads(text, charset)
    except ValueError:
        if data is not _NOTHING:
            return data
        raise DecodeError("expected JSON") from None


_NOTHING: Final = object()


def _has_float_as_id(data: Any) -> bool:
    """Whether the id of a key, alone or on a page, may have lost digits, because orjson reads longer ones as floats."""
    if type(data) is dict:
        if type(data.get("id")) is float:
            return True
        data = data.get("results")
    return type(data) is list and any(type(row) is dict and type(row.get("id")) is float for row in data)
