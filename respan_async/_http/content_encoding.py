"""Decompresses bodies, because aiohttp loses a body whose `Content-Encoding` is wrong."""

import zlib
from collections.abc import Mapping
from typing import Final

_GZIP: Final = 16 + zlib.MAX_WBITS
_FORMS: Final = {
    "gzip": (_GZIP,),
    "x-gzip": (_GZIP,),
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),  # with the header that the standard demands, or without
}

GZIP_MAGIC: Final = b"\x1f\x8b"
"""The first two bytes of gzip's output; no JSON text begins with them."""

_MOST_LAYERS: Final = 3
_MOST_MEMBERS: Final = 100
"""The most members of one stream, because each of them copies the rest of the body; a server sends one."""


def decoded(headers: Mapping[str, str], body: bytes, limit: int) -> bytes:
    """Return a body decompressed; or unchanged, if it does not have the encoding that its header names.

    A gzip body is also decompressed if no header names it, or if it is left after the named encodings were undone.

    Args:
        headers: The headers of the answer.
        body: The body as received.
        limit: The most bytes; a longer body is cut after `limit + 1` bytes.
    """
    plain = _without_label(headers.get("Content-Encoding", ""), body, limit)
    for _ in range(_MOST_LAYERS):
        if not plain.startswith(GZIP_MAGIC) or (inflated := _inflated(plain, (_GZIP,), limit)) is None:
            break
        plain = inflated
    return plain


def _without_label(label: str, body: bytes, limit: int) -> bytes:
    plain = body
    for name in reversed(label.lower().split(",")):
        if (name := name.strip()) and name != "identity":
            inflated = _inflated(plain, _FORMS.get(name, ()), limit)
            if inflated is None:
                return body
            plain = inflated
    return plain


def _inflated(body: bytes, forms: tuple[int, ...], limit: int) -> bytes | None:
    for form in forms:
        try:
            return _members(body, form, limit)
        except zlib.error:
            continue
    return None


def _members(body: bytes, form: int, limit: int) -> bytes:
    """Decompress all members of a stream, one after the other.

    Bytes after the last member are padding. If a member lacks its end, return what could be decompressed, because
    complete JSON needs no checksum.
    """
    parts: list[bytes] = []
    size = 0
    while body and size <= limit and len(parts) < _MOST_MEMBERS:
        stream = zlib.decompressobj(form)
        try:
            parts.append(stream.decompress(body, limit + 1 - size))
        except zlib.error:
            if not parts:
                raise
            break
        size += len(parts[-1])
        if form < 0 and not stream.eof and size <= limit:
            raise zlib.error("cut short")  # without a header, any bytes may look like the start of a stream
        body = stream.unused_data
    return b"".join(parts)
