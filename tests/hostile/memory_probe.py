"""How much memory and time it takes to meet a server that sends 200 MB: a program, which tells it as JSON lines.

Each line is an object: `case`, `grown` (MiB of resident memory at most, beyond what there was before), `seconds` (of
the processor, the server's among them), `ended` (how the operation ended, by the name of its result's class).
"""

import asyncio
import gc
import json
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from respan_async import AsyncRespan, RespanError
from tests.hostile.scenarios import ONCE, OPERATIONS
from tests.integration.raw_server import Act, Connection, RawServer, Seen, message

MUCH = 200 * 2**20
PIECE = b" " * 2**16
OK = b"HTTP/1.1 201 Whatever\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def over_and_over(piece: bytes, total: int = MUCH) -> Iterator[bytes]:
    """Give a piece as often as it takes."""
    return (piece for _ in range(total // len(piece)))


def compressed(bits: int) -> bytes:
    """Give 200 MB of spaces, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return b"".join([*map(packer.compress, over_and_over(PIECE)), packer.flush()])


def answered(status: int, body: bytes, **headers: str) -> list[bytes]:
    """Give a whole answer."""
    return [message(status, body, {name.replace("_", "-"): value for name, value in headers.items()})]


def listed(*parts: bytes) -> list[bytes]:
    """Give a page of a list."""
    return answered(200, b'{"next":null,"results":[%s]}' % b"".join(parts))


def streams(status: int) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Give answers whose body is 200 MB."""
    line = b"HTTP/1.1 %d Whatever\r\n" % status
    yield "with a length", [line + b"Content-Length: %d\r\n\r\n" % MUCH, *over_and_over(PIECE)]
    yield "until the end", [line + b"\r\n", *over_and_over(PIECE)]
    yield "in chunks", [line + CHUNKED, *over_and_over(b"10000\r\n" + PIECE + b"\r\n")]
    yield "in one chunk", [line + CHUNKED + b"%x\r\n" % MUCH, *over_and_over(PIECE)]
    yield "out of gzip", answered(status, compressed(31), Content_Encoding="gzip")
    yield "out of deflate", answered(status, compressed(15), Content_Encoding="deflate")
    yield "out of raw deflate", answered(status, compressed(-15), Content_Encoding="deflate")


def cases() -> Iterator[tuple[str, str, Iterable[bytes]]]:
    """Give the name of each case, the operation, and what the server sends."""
    for operation, status in (("create", 201), ("create", 400), ("update", 500), ("list", 200), ("delete", 404)):
        for name, parts in streams(status):
            yield f"{operation}: {status} with 200 MB {name}", operation, parts
    for name, parts in {
        "a first line": [b"HTTP/1.1 201 ", *over_and_over(b"x" * 2**16)],
        "one header": [OK + b"X: ", *over_and_over(b"x" * 2**16)],
        "headers": [OK, *over_and_over(b"X: y\r\n" * 10_000)],
        "trailers": [OK + CHUNKED + b"0\r\n", *over_and_over(b"X: y\r\n" * 10_000)],
        "an extension of a chunk": [OK + CHUNKED + b"1;", *over_and_over(b"x" * 2**16)],
        "no HTTP": over_and_over(b"\0" * 2**16),
    }.items():
        yield f"create: 200 MB of {name}", "create", parts
    yield "create: 5 MB of interim answers", "create", over_and_over(b"HTTP/1.1 100 Go\r\n\r\n" * 1000, 5 * 2**20)
    chunks = over_and_over(b"1\r\n \r\n" * 1000, 5 * 2**20)
    yield "create: 5 MB of chunks of one byte", "create", [OK + CHUNKED, *chunks]
    room = 8 * 2**20 - 100
    for name, item in {
        "keys": b'{"id":"a"},',
        "empty keys": b"{},",
        "lists": b"[],",
        "numbers": b"0.5,",
        "texts": b'"ab",',
    }.items():
        yield f"list: 8 MiB of {name}", "list", listed(item * (room // len(item)), item[:-1])
    yield "create: a text of 8 MiB", "create", answered(201, b'{"id":"%s"}' % (b"x" * room))
    yield "create: a refusal that says 8 MiB", "create", answered(400, b'{"retry_after":"%s"}' % (b"1 " * (room // 2)))
    for name, query in {
        "8 MiB": b"page=2&x=" + b"x" * (room - 100),
        "two million fields": b"a=1&" * (room // 4),
    }.items():
        yield f"list: a link of {name}", "list", answered(200, b'{"results":[],"next":"?%s"}' % query)


def peak() -> float:
    """Return the most resident memory since the last call, in MiB, and begin anew."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


async def main() -> None:
    """Meet them all, one after the other."""
    for case, operation, parts in cases():

        async def do(connection: Connection, _: Seen, parts: Iterable[bytes] = parts) -> None:
            for part in parts:
                await connection.send(part)
            connection.finish()

        gc.collect()
        peak()
        before, began = peak(), time.process_time()
        async with (
            RawServer(Act(case, do)) as server,
            AsyncRespan("token", base_url=server.url, retry=ONCE, timeout=20.0) as respan,
        ):
            try:
                ended = type(await OPERATIONS[operation].run(respan.temporary_keys)).__name__
            except RespanError as error:
                ended = type(error).__name__
        seconds = time.process_time() - began
        print(json.dumps({"case": case, "grown": peak() - before, "seconds": seconds, "ended": ended}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit()
