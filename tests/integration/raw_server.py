"""A server that does, request by request and byte by byte, what a script says.

    async with RawServer(answer(503), cut_body(201), key()) as server:
        ...  # a client with base_url=server.url

The last act of a script is repeated. What the server saw is in `server.requests`. On a loop whose sockets are in memory
(`tests/virtual.py`) it works as well; a reset is a plain end of stream there.
"""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, cast

import attrs

from tests.virtual import VirtualLoop

API_KEY = "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, with a time of 0: closing the socket then sends RST."""


@attrs.frozen
class Seen:
    """One request, as it arrived."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Connection:
    """One connection of one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self) -> Seen | None:
        """Read one request to its end; None at the end of the stream."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(method, target, headers, body)

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a RST."""
        if not isinstance(asyncio.get_running_loop(), VirtualLoop):
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    def finish(self) -> None:
        """End the connection with a FIN."""
        self.writer.close()


Do = Callable[[Connection, Seen], Awaitable[None]]


@attrs.frozen
class Act:
    """What happens to one request.

    Attributes:
        name: For the ids of tests.
        do: Does it; the connection stays open afterwards unless it ends it.
        unread: It happens when the connection is accepted, before a byte is read.
    """

    name: str
    do: Do
    unread: bool = False

    def __str__(self) -> str:
        return self.name


NOBODY = Seen("", "", {}, b"")


class RawServer:
    """Play a script on loopback.

    Args:
        *script: What happens to each request; the last act is repeated.
        listening: False for a port that refuses connections until `listen()`.
        aside: By method, what happens to requests that have no part in the script, and are not noted.

    Attributes:
        requests: What was read, in order.
        connections: How many were accepted.
        arrived: Set when there is a request.
    """

    def __init__(self, *script: Act, listening: bool = True, aside: Mapping[str, Act] | None = None) -> None:
        self._script = list(script) or [key()]
        self._listening = listening
        self._aside = aside or {}
        self._serving: set[asyncio.Task[Any]] = set()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._starting: asyncio.Task[None] | None = None
        self.requests: list[Seen] = []
        self.connections = 0
        self.arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        if isinstance(asyncio.get_running_loop(), VirtualLoop):
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        else:
            bound = socket.socket()
            bound.bind(("127.0.0.1", 0))
            self._server = await asyncio.start_server(self._serve, sock=bound, start_serving=self._listening)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def listen(self, *_: object) -> None:
        """Accept connections from now on."""
        if self._starting is None and self._server is not None:
            self._starting = asyncio.ensure_future(self._server.start_serving())

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._serving)

    @property
    def methods(self) -> list[str]:
        """The methods of the requests."""
        return [seen.method for seen in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self._serving.add(cast("asyncio.Task[Any]", asyncio.current_task()))
        self.connections += 1
        try:
            while not writer.is_closing():
                if self._script[0].unread:
                    await self._next().do(connection, NOBODY)
                    await reader.read()
                    break
                seen = await connection.read()
                if seen is None:
                    break
                if seen.method in self._aside:
                    await self._aside[seen.method].do(connection, seen)
                    continue
                self.requests.append(seen)
                self.arrived.set()
                await self._next().do(connection, seen)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._serving.discard(cast("asyncio.Task[Any]", asyncio.current_task()))
            writer.close()

    def _next(self) -> Act:
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


# ------------------------------------------------------------------------ acts


def message(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, reason: str = "Whatever"
) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} {reason}"]
    fields = {"Content-Type": "application/json", **(headers or {})}
    if not {name.lower() for name in fields} & {"content-length", "transfer-encoding"} and status != 204:
        fields["Content-Length"] = str(len(body))
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def raw(name: str, data: bytes, *, then: str = "keep") -> Act:
    """Write these bytes; then "keep" the connection, end it by "fin" or "rst", or "stall" until the client goes."""

    async def do(connection: Connection, _: Seen) -> None:
        if data:
            await connection.send(data)
        match then:
            case "fin":
                connection.finish()
            case "rst":
                # What was written goes out first; a RST that overtakes it would be another story.
                await asyncio.sleep(0.01 if data else 0)
                connection.reset()
            case "stall":
                await connection.reader.read()

    return Act(name, do)


def answer(
    status: int, payload: Any = None, headers: Mapping[str, str] | None = None, *, name: str | None = None
) -> Act:
    """Answer in JSON; None for an empty body, bytes as they are."""
    body = b"" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return raw(name or f"answers {status}", message(status, body, headers))


def key(**fields: Any) -> Act:
    """Do what is asked, as the server should; `fields` change the key."""
    made = 0

    async def do(connection: Connection, seen: Seen) -> None:
        nonlocal made
        made += 1
        shown: dict[str, Any] = {"id": f"key-{made}", "name": "made", **fields}
        match seen.method:
            case "POST":
                data = message(201, json.dumps({"api_key": API_KEY, **shown}).encode())
            case "DELETE":
                data = message(204)
            case "GET" if "?" in seen.target:
                data = message(200, json.dumps({"results": [shown], "count": 1, "next": None}).encode())
            case _:
                data = message(200, json.dumps(shown).encode())
        await connection.send(data)

    return Act("serves", do)


def unread(name: str, how: Callable[[Connection], None]) -> Act:
    """End a connection as soon as it is accepted, and read nothing."""

    async def do(connection: Connection, _: Seen) -> None:
        how(connection)

    return Act(name, do, unread=True)


FIN_AT_ONCE = unread("closes what it accepts", Connection.finish)
RST_AT_ONCE = unread("resets what it accepts", Connection.reset)
FIN = raw("reads, and closes", b"", then="fin")
RST = raw("reads, and resets", b"", then="rst")
STALL = raw("reads, and stays silent", b"", then="stall")

BODY = json.dumps({"id": "key-1", "api_key": API_KEY, "name": "made"}).encode()


def cut_head(status: int, then: str) -> Act:
    """Break off within the headers."""
    return raw(f"cuts the head of a {status} by {then}", message(status, BODY)[:40], then=then)


def cut_body(status: int, then: str = "fin", headers: Mapping[str, str] | None = None) -> Act:
    """Break off within the body."""
    data = message(status, BODY[:30], {"Content-Length": str(len(BODY)), **(headers or {})})
    return raw(f"cuts the body of a {status} by {then}", data, then=then)


def cut_chunk(status: int, then: str = "fin") -> Act:
    """Break off within a chunk."""
    data = message(status, b"%x\r\n" % len(BODY) + BODY[:30], {"Transfer-Encoding": "chunked"})
    return raw(f"cuts a chunk of a {status} by {then}", data, then=then)


def oversize(status: int) -> Act:
    """Answer with more than the client reads."""
    return raw(f"answers {status} with 9 MiB", message(status, b" " * (9 * 2**20)))


def gzip_bomb(status: int, mebibytes: int = 200) -> Act:
    """Answer with a small body that decompresses to a large one."""
    body = gzip.compress(b" " * (mebibytes * 2**20), 1)
    return raw(f"answers {status} with a bomb", message(status, body, {"Content-Encoding": "gzip"}))
