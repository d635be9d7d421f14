"""What a server can do wrong, generated: each act with what it means for what was asked.

The meanings are this file's own table, of what the *server* did. Nothing here asks the client what it makes of it.
"""

import asyncio
import enum
import gzip
import zlib
from collections.abc import Iterator
from typing import Final

import attrs

from respan_async import Effect
from tests.integration.raw_server import API_KEY, Act, Connection, Seen, message, raw

NONE, UNKNOWN, LOST = Effect

NAME: Final = "tenant ~abcdefghijkl"
"""The name of the key in all answers: that of a suspect, so that a sweep goes on with it."""
KEY: Final = b'{"id":"key-1","name":"%s"}' % NAME.encode()
ANSWERS: Final = {
    "create": (201, b'{"id":"key-1","name":"%s","api_key":"%s"}' % (NAME.encode(), API_KEY.encode())),
    "update": (200, KEY),
    "delete": (204, b""),
    "retrieve": (200, KEY),
    "list": (200, b'{"results":[%s],"count":1,"next":null}' % KEY),
}
"""What a good server says, by operation."""


class Means(enum.Enum):
    """What the server did, as far as anybody can see from its answer: for a create, a change and a read."""

    DONE = "done", None, None, None
    ENOUGH = "enough", None, None, None
    """A key, but not the one that was asked for."""
    ENDLESS = "endless", None, None, None
    """JSON that has come whole, without the end of its framing: as good as done."""
    SILENT = "silent", UNKNOWN, UNKNOWN, NONE
    BROKEN = "broken", LOST, UNKNOWN, NONE
    """A 2xx that did not come to its end."""
    USELESS = "useless", LOST, UNKNOWN, NONE
    """A whole 2xx that says nothing."""
    PAGE = "a page", LOST, UNKNOWN, NONE
    """One for people, under 2xx: somebody else has answered."""
    TOO_LARGE = "too large", LOST, UNKNOWN, NONE
    GARBAGE = "garbage", UNKNOWN, UNKNOWN, NONE
    FAILED = "failed", UNKNOWN, UNKNOWN, NONE
    REDIRECTED = "redirected", UNKNOWN, UNKNOWN, NONE
    REFUSED = "refused", NONE, NONE, NONE
    ABSENT = "absent", NONE, NONE, NONE
    """There is no such key: an error, or what was wanted."""

    def effect(self, operation: str) -> Effect | None:
        """What must be said of it; None for a success."""
        if operation == "delete" and self is Means.USELESS:
            return None  # the status is all that counts
        effects: tuple[Effect | None, ...] = self.value[1:]
        return effects[0 if operation == "create" else 1 if operation in ("update", "delete") else 2]


@attrs.frozen
class Misbehaviour:
    """One thing that a server does wrong.

    Attributes:
        act: Does it.
        means: What it means.
    """

    act: Act
    means: Means

    def __str__(self) -> str:
        return self.act.name


def pieces(name: str, means: Means, *parts: bytes, pause: float = 0.5, then: str = "fin") -> Misbehaviour:
    """Send some bytes one after the other."""

    async def do(connection: Connection, _: Seen) -> None:
        for part in parts[:-1]:
            await connection.send(part)
            await asyncio.sleep(pause)
        await raw("", parts[-1], then=then).do(connection, _)

    return Misbehaviour(Act(name, do), means)


def endless(name: str, means: Means, first: bytes, again: bytes, pause: float = 0.7) -> Misbehaviour:
    """Send something, and then something again and again, for ever."""

    async def do(connection: Connection, _: Seen) -> None:
        await connection.send(first)
        while True:
            await asyncio.sleep(pause)
            await connection.send(again)

    return Misbehaviour(Act(name, do), means)


def heads(operation: str) -> Iterator[Misbehaviour]:
    """Give answers that are no HTTP, or lie about their length."""
    status, body = ANSWERS[operation]
    body = body or b"{}"
    line = b"HTTP/1.1 %d Whatever\r\n" % status
    size = b"Content-Length: %d\r\n" % len(body)
    for name, first in {
        "an empty line": b"\r\n\r\n\r\n",
        "a NUL": b"\0",
        "TLS": b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
        "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\r\n\r\n",
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "SMTP": b"220 mail ESMTP\r\n",
        "HTML alone": b"<html>201</html>\r\n\r\n",
        "the body alone": body,
        "HTTP/9": b"HTTP/9 201 Created\r\n\r\n",
        "HTTP/1.1 of a request": b"POST / HTTP/1.1\r\n\r\n",
        "no number": b"HTTP/1.1 OK OK\r\n\r\n",
        "a negative number": b"HTTP/1.1 -201 OK\r\n\r\n",
        "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
        "four digits": b"HTTP/1.1 2010 OK\r\n\r\n",
        "hex": b"HTTP/1.1 0xC9 OK\r\n\r\n",
        "digits of another script": "HTTP/1.1 ٢٠١ OK\r\n\r\n".encode(),
        "a header without a colon": line + b"nonsense\r\n\r\n",
        "a header that is folded": line + b"X: a\r\n b\0\r\n\r\n",
        "a header with a NUL": line + b"X: a\0b\r\n" + size + b"\r\n" + body,
        "two lengths": line + b"Content-Length: 2\r\n" + size + b"\r\n" + body,
        "the same length twice": line + size + size + b"\r\n" + body,
        "a negative length": line + b"Content-Length: -1\r\n\r\n" + body,
        "a length in hex": line + b"Content-Length: 0x2\r\n\r\n" + body,
        "a length of words": line + b"Content-Length: many\r\n\r\n" + body,
        "a length of 25 digits": line + b"Content-Length: " + b"9" * 25 + b"\r\n\r\n" + body,
        "a length and chunks": line + size + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "a header of 100 kB": line + b"X: " + b"x" * 100_000 + b"\r\n\r\n" + body,
        "a name of 100 kB": line + b"x" * 100_000 + b": x\r\n\r\n" + body,
        "a reason of 100 kB": b"HTTP/1.1 201 " + b"x" * 100_000 + b"\r\n\r\n" + body,
        "ten thousand headers": line + b"X: y\r\n" * 10_000 + size + b"\r\n" + body,
        "a key for old websockets": line + b"Sec-WebSocket-Key1: 5\r\n" + size + b"\r\n" + body,
    }.items():
        yield Misbehaviour(raw(f"begins with {name}", first, then="fin"), Means.GARBAGE)
    if operation != "delete":
        yield Misbehaviour(raw("a length too short", line + b"Content-Length: 5\r\n\r\n" + body), Means.GARBAGE)
        for coding in ("br", "zstd", "gzip", "deflate"):
            answer = message(status, body, {"Content-Encoding": coding})
            yield Misbehaviour(raw(f"says {coding} and is not", answer), Means.DONE)
    chunked = line + b"Transfer-Encoding: chunked\r\n\r\n"
    begun = Means.BROKEN if operation != "delete" else Means.DONE
    if operation != "delete":
        yield pieces("a length too long", Means.ENDLESS, line + b"Content-Length: 999\r\n\r\n" + body, b"")
    for name, chunk in {
        "not hex": b"zz\r\n{}\r\n",
        "negative": b"-5\r\n{}\r\n",
        "of 128 bits": b"F" * 32 + b"\r\n{}",
        "with an endless extension": b"2;" + b"x" * 100_000,
        "longer than it says": b"1\r\n{}\r\n0\r\n\r\n",
        "without an end": b"2\r\n{}",
    }.items():
        # A change that is answered `{}` was made, though the answer has no end.
        means = Means.ENDLESS if operation == "update" and name == "without an end" else begun
        yield pieces(f"a chunk {name}", means, chunked, chunk)
    yield pieces("trailers without end", begun, chunked, b"0\r\n" + b"X: y\r\n" * 10_000)


def statuses() -> Iterator[Misbehaviour]:
    """Give whole answers of every kind of status that is no success."""
    others = (*range(500, 512), *range(520, 528), 530, 598, 599, 600, 777, 999)
    none = (501, 505, 511, 521, 523, 525, 526, 530)
    for status in (*range(300, 309), *range(400, 432), 451, 499, *others):
        # A 304 has no body, so that what comes after its head is no HTTP.
        odd = {304: Means.GARBAGE, 404: Means.ABSENT, 408: Means.FAILED, **dict.fromkeys(none, Means.REFUSED)}
        usual = {3: Means.REDIRECTED, 4: Means.REFUSED}.get(status // 100, Means.FAILED)
        means = odd.get(status, usual)
        headers = {"Location": "http://elsewhere.invalid/api/temporary-keys/", "Retry-After": "-1"}
        yield Misbehaviour(raw(f"answers {status}", message(status, b'{"detail":"no"}', headers)), means)
    upgrade = b"Upgrade: x\r\nConnection: Upgrade\r\n\r\n"
    for status in (0, 99, 101, 199):
        means = Means.SILENT if status == 199 else Means.GARBAGE
        yield Misbehaviour(raw(f"answers {status}", b"HTTP/1.1 %03d Odd\r\n" % status + upgrade, then="fin"), means)


def slow(operation: str) -> Iterator[Misbehaviour]:
    """Give answers that come for ever, a little at a time."""
    line = b"HTTP/1.1 %d Whatever\r\n" % ANSWERS[operation][0]
    begun = Means.BROKEN if operation != "delete" else Means.DONE
    yield endless("nothing but 100 Continue", Means.SILENT, b"", b"HTTP/1.1 100 Continue\r\n\r\n")
    yield endless("nothing but 103 Early Hints", Means.SILENT, b"", b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n")
    yield endless("a header a moment", Means.SILENT, line, b"X: y\r\n")
    yield endless("a byte of a header a moment", Means.SILENT, line + b"X: ", b"y")
    yield endless("a byte of the first line a moment", Means.SILENT, b"HTTP/1.1 201 ", b"y")
    if operation == "delete":
        return  # a 204 has no body; and any other 2xx is done, whatever its body does not come to
    yield endless("a byte of a body a moment", begun, line + b"Content-Length: 100000\r\n\r\n", b" ")
    yield endless("a byte of an endless body a moment", begun, line + b"\r\n", b" ")
    yield endless("a chunk a moment", begun, line + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")
    yield endless("a byte of a chunk's extension", begun, line + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x")
    yield endless("a trailer a moment", begun, line + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n")


def odd_and_good(operation: str) -> Iterator[Misbehaviour]:
    """Give answers that are odd, and must count all the same: what came whole is not to be lost."""
    status, body = ANSWERS[operation]
    if not body:
        return
    line = b"HTTP/1.1 %d Whatever\r\n" % status
    size = b"Content-Length: %d\r\n" % len(body)
    good = line + size + b"\r\n" + body
    interim = b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n"
    deflated = zlib.compress(body)
    for name, data in {
        "a hundred interim answers first": interim * 100 + good,
        "ends of lines first": b"\r\n\r\n" + good,
        "lines that end in LF alone": good.replace(b"\r\n", b"\n"),
        "no reason": good.replace(b" Whatever", b""),
        "a type of HTML": message(status, body, {"Content-Type": "text/html; charset=nonsense"}),
        "a hundred headers": line + b"X: y\r\n" * 100 + size + b"\r\n" + body,
        "headers of no known alphabet": line + b"X-Request-ID: \xff\xfe\r\n" + size + b"\r\n" + body,
        "white space around it": message(status, b" \r\n\t" + body + b"\n" * 1000),
        "chunks of one byte": message(
            status,
            b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nX: y\r\n\r\n",
            {"Transfer-Encoding": "chunked"},
        ),
        "gzip nobody asked for": message(status, gzip.compress(body), {"Content-Encoding": "gzip"}),
        "deflate nobody asked for": message(status, deflated, {"Content-Encoding": "deflate"}),
        "raw deflate": message(status, deflated[2:-4], {"Content-Encoding": "deflate"}),
        "200 for a 201": good.replace(b" 201 ", b" 200 "),
        "299": message(299, body),
    }.items():
        yield Misbehaviour(raw(name, data), Means.DONE)
    yield pieces("a byte at a time", Means.DONE, *(good[at : at + 1] for at in range(len(good))), pause=0.001)


READABLE = frozenset(
    {
        *("UTF-16", "UTF-32", "a byte order mark"),
        *("it twice", "it and a NUL", "a NUL and it", "it and a comment"),
        *("gzip that is not said to be", "nested gzip"),
    }
)
"""Bodies that a second reader makes sense of."""
_HAS_ID = frozenset({"Infinity", "no UTF-8", "half a surrogate"})
ENOUGH = {
    "retrieve": _HAS_ID,
    "update": _HAS_ID
    | {"nothing", "null", "an empty object", "NaN"}
    | {"a thousand brackets", "a number of a million digits", "a number beyond all"},
}
"""Those that say enough to be one: an id, or, of a change, that it was made."""


def bodies(operation: str) -> Iterator[Misbehaviour]:
    """Give whole 2xx answers with a body that is not what was asked for."""
    status, body = ANSWERS[operation]
    status, body = (200, b"{}") if operation == "delete" else (status, body)
    for name, text in {
        "nothing": b"",
        "null": b"null",
        "true": b"true",
        "a number": b"5",
        "a text": b'"' + API_KEY.encode() + b'"',
        "an empty object": b"{}",
        "a list of numbers": b"[1, 2]",
        "HTML": b"<!doctype html><title>Welcome</title>",
        "half of it": body[: len(body) // 2] or b"{",
        "it twice": body + body,
        "it and another": body + b'{"id": "key-9", "api_key": "x", "results": [7]}',
        "it and a NUL": body + b"\0",
        "a NUL and it": b"\0" + body,
        "it and a comment": body + b"<!-- of a cache -->",
        "NaN": b'{"id": NaN, "api_key": NaN, "results": NaN}',
        "Infinity": b'{"id": "key-1", "api_key": Infinity, "results": -Infinity}',
        "no UTF-8": b'{"id": "\xff", "api_key": "x", "results": "\xc0\xaf"}',
        "half a surrogate": b'{"id": "\\ud800", "api_key": "\\udfff", "results": ["\\ud800"]}',
        "UTF-16": body.decode().encode("utf-16"),
        "UTF-32": body.decode().encode("utf-32"),
        "a byte order mark": b"\xef\xbb\xbf" + body,
        "gzip that is not said to be": gzip.compress(body),
        "brackets without end": b"[" * 100_000,
        "objects without end": b'{"id":' * 100_000,
        "a thousand brackets": b'{"id":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "a million brackets": b'{"id":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        "half a million objects": b"[" + b"{}," * 500_000 + b"{}]",
        "a number of a million digits": b'{"id": ' + b"9" * 1_000_000 + b"}",
        "a number beyond all": b'{"id": 1e999999, "api_key": -1e999999}',
        "a comment": b"/* ok */" + body,
        "single quotes": body.replace(b'"', b"'") or b"'",
        "nested gzip": gzip.compress(gzip.compress(body)),
    }.items():
        headers = {"Content-Encoding": "gzip"} if name == "nested gzip" else {}
        means = Means.DONE if name in READABLE else Means.PAGE if name == "HTML" else Means.USELESS
        if name in ENOUGH.get(operation, frozenset()):
            means = Means.ENOUGH
        yield Misbehaviour(raw(f"a body of {name}", message(status, text, headers)), means)


def bombs(operation: str) -> Iterator[Misbehaviour]:
    """Give whole 2xx answers beyond the size that is read."""
    status = 200 if operation == "delete" else ANSWERS[operation][0]
    much = b" " * (9 * 2**20)
    deflate = {"Content-Encoding": "deflate"}
    for name, data in {
        "9 MiB": message(status, much),
        "9 MiB until the end": message(status, much, {"Connection": "close"}).replace(b"Content-Length", b"X-Length"),
        "9 MiB in one chunk": message(
            status, b"%x\r\n%s\r\n0\r\n\r\n" % (len(much), much), {"Transfer-Encoding": "chunked"}
        ),
        "9 MiB out of gzip": message(status, gzip.compress(much, 1), {"Content-Encoding": "gzip"}),
        "9 MiB out of deflate": message(status, zlib.compress(much, 1), deflate),
    }.items():
        yield Misbehaviour(raw(name, data, then="fin" if "end" in name else "keep"), Means.TOO_LARGE)


def everything(operation: str) -> Iterator[Misbehaviour]:
    """Give all but the cuts."""
    for kind in (heads, slow, odd_and_good, bodies, bombs):
        yield from kind(operation)
    yield from statuses()
