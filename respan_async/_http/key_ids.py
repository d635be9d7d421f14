"""Tells which ids of keys can be kept, shown, and sent back as part of a path."""

import re
from typing import Final
from urllib.parse import unquote

from respan_async._http.lenient_json import NO_CHARACTER

MAX_ID: Final = 512
"""The longest id of a key, in characters; real ids have about 40."""

# The pattern begins with a rare character, so that the search is fast: it runs over every new key's id.
_DOTS: Final = re.compile(r"\.(?<![^/\\]\.)\.?(?![^/\\;])").search


def is_usable_id(key_id: str) -> bool:
    """Whether a key's id can be kept, shown and sent back as part of a path."""
    return (
        key_id.isprintable()
        and 0 < len(key_id) <= MAX_ID
        and not key_id.isspace()
        and not has_dots(key_id)
        and NO_CHARACTER not in key_id
    )


def has_dots(key_id: str) -> bool:
    """Whether an id has a `.` or `..` as a path segment.

    Some proxies decode percent-encoding before they resolve dots, even twice; and some ignore what follows a semicolon
    in a segment.
    """
    return _DOTS(unquote(key_id)) is not None
