"""Keys on standard output."""

import contextlib
import json
import os
from collections.abc import Iterator

from respan_async.cli.stdout_sink import STANDARD_OUTPUT, StdoutSink
from respan_async.models import CreatedKey
from respan_async.secret import Secret


@contextlib.contextmanager
def piped() -> Iterator[int]:
    """Let standard output go into a pipe; give the end to read from."""
    before = os.dup(STANDARD_OUTPUT)
    reading, writing = os.pipe()
    os.dup2(writing, STANDARD_OUTPUT)
    os.close(writing)
    yield reading
    os.dup2(before, STANDARD_OUTPUT)
    for descriptor in (before, reading):
        os.close(descriptor)


async def test_a_key_that_is_delivered_twice_is_one_line() -> None:
    """What could not be noted as delivered comes again, and whoever reads the stream gets it once."""
    stream = StdoutSink(sandbox=False)
    key = CreatedKey(id="id", api_key=Secret("prefix.secret"))

    with piped() as reader:
        for ticket in ("t1", "t1", "t2"):
            await stream(ticket, key)
        written = os.read(reader, 2**16)

    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["ticket"], line["api_key"]) for line in lines] == [("t1", "prefix.secret"), ("t2", "prefix.secret")]
