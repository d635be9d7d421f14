"""Writes delivered keys to standard output, in which earlier keys cannot be looked up."""

import asyncio
import os
import stat
from typing import Final

from respan_async.issuing._append_only_file import write_all
from respan_async.issuing._posix import sync
from respan_async.issuing.jsonlines_sink import digest, line_of
from respan_async.models import CreatedKey
from respan_async.secret import SecretBytes

STANDARD_OUTPUT: Final = 1


class StdoutSink:
    """Standard output as a sink for delivered keys.

    Args:
        sandbox: Whether each line says that the key is make-believe.
    """

    def __init__(self, *, sandbox: bool) -> None:
        self._sandbox = sandbox
        self._turn = asyncio.Lock()
        self._written: set[bytes] = set()

    async def __call__(self, ticket_id: str, key: CreatedKey) -> None:
        """Write a ticket's line, once in this run; if standard output is a file, the line survives a power cut."""
        async with self._turn:
            mark = digest(ticket_id)
            if mark not in self._written:
                # In a thread, because the reader may be slow, and answers must be read in time.
                await asyncio.to_thread(_write, SecretBytes(line_of(key, ticket_id, sandbox=self._sandbox)))
                self._written.add(mark)


def _write(line: bytes) -> None:
    write_all(STANDARD_OUTPUT, line)
    if stat.S_ISREG(os.fstat(STANDARD_OUTPUT).st_mode):
        sync(STANDARD_OUTPUT)
