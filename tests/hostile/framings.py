"""A good answer in every way to frame it, ended or spoilt at each of its bytes."""

import gzip
import zlib
from collections.abc import Iterator
from typing import Final

from tests.hostile.misbehaviours import ANSWERS, Means, Misbehaviour
from tests.integration.raw_server import Act, message, raw


def framed(status: int, body: bytes, framing: str) -> tuple[bytes, int]:
    """Return a good answer in one of the ways to frame it, and the length of its head."""
    match framing:
        case "length":
            data = message(status, body)
        case "chunked":
            half = len(body) // 2
            chunks = [body[:half], body[half:], b""]
            data = message(
                status, b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks), {"Transfer-Encoding": "chunked"}
            )
        case "gzip":
            data = message(status, gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"})
        case _:
            data = message(status, body, {"Connection": "close"}).replace(b"Content-Length", b"X-Length")
    return data, data.index(b"\r\n\r\n") + 4


FRAMINGS: Final = ("length", "chunked", "gzip", "until the end")


def is_whole(sent: bytes, body: bytes, framing: str) -> bool:
    """Whether all of a body is in what was sent of it."""
    if framing == "gzip":
        return zlib.decompressobj(wbits=31).decompress(sent) == body
    end = body[-1:]  # a bracket, which no framing holds
    return sent.count(end) >= body.count(end)


def cuts(operation: str, framing: str, then: str, every: int = 1) -> Iterator[Misbehaviour]:
    """Give a good answer that ends at each of its bytes: by "fin", by "rst", or in silence ("stall")."""
    status, body = ANSWERS[operation]
    framing = framing if body else "length"
    data, head = framed(status, body, framing)
    for at in sorted({*range(0, len(data) + 1, every), head - 1, head, len(data) - 1, len(data)}):
        if at < head:
            means = Means.SILENT
        elif at == len(data) and (framing != "until the end" or then == "fin"):
            means = Means.DONE
        elif body and is_whole(data[head:at], body, framing):
            means = Means.ENDLESS
        elif framing != "until the end":
            means = Means.BROKEN
        elif then == "fin":
            means = Means.DONE if operation == "update" and at == head else Means.USELESS  # a change may have no body
        else:
            means = Means.BROKEN
        ends = "keep" if then == "stall" and at == len(data) else then
        yield Misbehaviour(raw(f"{framing}: {then} after {at} of {len(data)} bytes", data[:at], then=ends), means)


def mutants(operation: str, framing: str, every: int = 1) -> Iterator[tuple[Act, bytes]]:
    """Give a good answer with something wrong at each of its bytes, and what is sent then."""
    status, body = ANSWERS[operation]
    data, _ = framed(status, body, framing if body else "length")
    for at in range(0, len(data), every):
        for wrong in (
            b"",
            data[at : at + 1] * 2,
            b"\0",
            b"\xff",
            b"\r",
            b"\n",
            b" ",
            b"0",
            b"9",
            b"-",
            b'"',
            b"{",
            b":",
        ):
            sent = data[:at] + wrong + data[at + 1 :]
            yield raw(f"{framing}: {wrong!r} in place of byte {at}", sent), sent
