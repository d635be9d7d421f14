"""Random tags at the end of key names, by which a key can be traced to the attempt that made it."""

import secrets
from typing import Final

from respan_async.models import MAX_NAME

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_MARK: Final = " ~"
_TAG: Final = 12
MAX_TAGGED_NAME: Final = MAX_NAME - len(_MARK) - _TAG
"""The longest name that leaves room for a tag, in characters."""

_TO_ALPHABET: Final = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))


def new_tag() -> str:
    """Return 12 random base-32 characters: 60 bits, the proof that a key comes from one certain attempt.

    Each tag is read from the system's random source. Random bytes kept ready in memory would be the same in a copy of
    this process, made by a fork or by a snapshot of its machine; one copy would then revoke the keys of the other.
    """
    return secrets.token_bytes(_TAG).translate(_TO_ALPHABET).decode("ascii")


def tagged(name: str, tag: str) -> str:
    """Return a name with its tag."""
    return f"{name}{_MARK}{tag}" if name else f"{_MARK}{tag}".lstrip()


def tag_in(name: str | None) -> str:
    """Return the end of a key's name, where its tag would be; the server may have normalised the name.

    White space after the tag and the case of its letters are ignored, because they carry no information.
    """
    return (name or "").rstrip()[-_TAG:].lower()
