"""Which ids of keys can be kept, shown, and sent back as a part of a path."""

import re
from typing import Final
from urllib.parse import unquote

from respan_async._http.lenient_json import NO_CHARACTER

MAX_ID: Final = 512
"""Characters of a key's id; that of any key that was ever seen has some 40."""

# Begun with what is rare, so that it is found fast: every new key's id is looked at.
_DOTS: Final = re.compile(r"\.(?<![^/\\]\.)\.?(?![^/\\;])").search


def is_usable_id(key_id: str) -> bool:
    """Whether a key's id can be kept, shown and sent back as a part of a path."""
    return (
        key_id.isprintable()
        and 0 < len(key_id) <= MAX_ID
        and not key_id.isspace()
        and not has_dots(key_id)
        and NO_CHARACTER not in key_id
    )


def has_dots(key_id: str) -> bool:
    """Whether an id has a `.` or `..` as a path segment.

    What is percent-encoded is decoded by some proxies before they resolve dots, even twice; and some take what follows
    a semicolon for no part of a segment.
    """
    return _DOTS(unquote(key_id)) is not None
