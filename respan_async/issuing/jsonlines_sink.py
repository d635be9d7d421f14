"""Delivers keys into a file of JSON lines that only its owner may read.

Rules for the file:

1. Only the file's owner may read it, from its creation on, and only one process at a time uses it.
2. Lines are written whole, by one appending call. Partial lines of a failed write are removed.
3. A delivery has succeeded when its line is on the disk, because the ledger erases the secret after that.
4. A file with other content is left unchanged. Only a last line that a crash cut off is completed or removed. If it is
   removed, its ticket is not in the file, and the ledger still has the secret.
"""

import asyncio
import os
from datetime import datetime
from functools import partial
from hashlib import blake2b
from types import TracebackType
from typing import Any, Final, Self

import attrs

from respan_async._http import codec, json_text
from respan_async.errors import LedgerError
from respan_async.issuing._append_only_file import AppendOnlyFile
from respan_async.issuing._daemon_threads import DaemonThreads
from respan_async.models import CreatedKey, TemporaryKey
from respan_async.secret import SecretBytes

_PARTS: Final = 16, 4
"""The number of bytes in the digest of a ticket, and in the digest of its key's id."""


def line_of(key: TemporaryKey, ticket: str | None = None, *, sandbox: bool = False) -> bytes:
    """Return a key as one line of JSON.

    Args:
        key: The key; a new one with its secret.
        ticket: The ticket that it was issued for.
        sandbox: Whether to mark the key as make-believe.
    """
    fields: dict[str, Any] = {} if ticket is None else {"ticket": ticket}
    fields["id"] = key.id
    if isinstance(key, CreatedKey):
        fields["api_key"] = key.api_key.reveal()
    if sandbox:
        fields["sandbox"] = True
    for field in attrs.fields(TemporaryKey):
        if field.name not in ("id", "used", "request_id", "extra"):
            value = getattr(key, field.name)
            fields[field.name] = codec.instant_text(value) if isinstance(value, datetime) else value
    return json_text.encode_line(fields)


def digest(ticket: str) -> bytes:
    """Return a ticket's digest of 16 bytes, so that a million tickets take little memory."""
    return blake2b(ticket.encode(errors="surrogatepass"), digest_size=_PARTS[0]).digest()  # accepts a damaged id, too


def _short(key_id: object) -> int:
    return int.from_bytes(blake2b(str(key_id).encode(), digest_size=_PARTS[1]).digest(), "big")


@attrs.frozen(eq=False)
class _Line:
    """A line that is to be written."""

    mark: bytes
    key: int
    text: bytes
    written: "asyncio.Future[None]"


class JSONLinesSink:
    """Write keys to a file, one JSON object a line: `ticket`, `id`, `api_key`, and the key's other fields.

        with JSONLinesSink("keys.jsonl") as sink:
            async with Issuer(respan, SQLiteLedger("keys.db"), deliver=sink) as issuer: ...

    The sink does not write a ticket that is already in the file, so a delivery may be repeated after any crash.
    Deliveries that come while the disk is busy share the next write and its fsync. On creation, the sink reads an
    existing file, which takes some seconds for a million lines; it then keeps about a hundred bytes a line in memory.

    Args:
        path: The file, created for its owner alone (0600) if it is missing.
        sandbox: Whether the keys come from a make-believe server. If True, each line says so, and a file with real keys
            is refused; if False, a file with make-believe keys is refused.

    Attributes:
        mended: A sentence that says how a last line that was cut off was mended; None if none was cut off.

    Raises:
        LedgerError: The path is not a safe place for secrets, the file holds something else, or another process uses
            it.
    """

    def __init__(self, path: str | os.PathLike[str], *, sandbox: bool = False) -> None:
        self.mended: str | None = None
        self._sandbox = sandbox
        self._keys: dict[bytes, int] = {}
        self._queue: list[_Line] = []
        self._under_way: dict[bytes, asyncio.Future[None]] = {}
        self._writer: asyncio.Task[None] | None = None
        self._threads = DaemonThreads("respan-keys-file")
        self._turn = object()
        # Whether the end of an event loop cut off a write, so that only the file knows its result.
        self._was_cut = False
        self._file = AppendOnlyFile(os.fspath(path))
        try:
            self._file.lock()
            self.mended = self._file.read(self._take)
        except BaseException:
            self._file.discard()
            raise

    async def __call__(self, ticket_id: str, key: CreatedKey) -> None:
        """Write a ticket's line, if it has none; return once the line survives a power cut.

        Args:
            ticket_id: The ticket.
            key: Its key, with the secret.

        Raises:
            OSError: The line could not be written, and no part of it is in the file; a later call may succeed.
            LedgerError: The file has another key for this ticket, or is closed.
        """
        mark, short = digest(ticket_id), _short(key.id)
        if self._writer is not None and self._writer.get_loop().is_closed():
            self._leave_loop()
        if self._was_cut:
            await self._threads.run(partial(self._file.read_again, self._take))
            self._was_cut = False
        while (written := self._under_way.get(mark)) is not None:
            await asyncio.wait({written})
        if (known := self._keys.get(mark)) is not None:
            if known != short:
                raise LedgerError(f"{self._file.path}: has another key for ticket {ticket_id!r:.100}, not {key.id}")
            return
        text = SecretBytes(line_of(key, ticket_id, sandbox=self._sandbox))
        written = self._under_way[mark] = asyncio.get_running_loop().create_future()
        self._queue.append(_Line(mark, short, text, written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        # Do not withdraw the line of a cancelled caller, because it may be part of a write that has begun.
        await asyncio.wait({written})
        written.result()

    def __contains__(self, ticket_id: object) -> bool:
        """Whether a ticket's line is in the file, durably."""
        return isinstance(ticket_id, str) and digest(ticket_id) in self._keys

    def __len__(self) -> int:
        """Count the tickets in the file."""
        return len(self._keys)

    def close(self) -> None:
        """Release the file for other processes, after the current write. May be called more than once."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def among(self, marks: set[bytes]) -> set[bytes]:
        """Return the digests in `marks` whose tickets are in the file."""
        return marks & self._keys.keys()

    # ----------------------------------------------------------------- inside

    def _take(self, line: bytes) -> str | None:
        """Note the ticket of a line in the file; return None, or what is wrong with the line."""
        try:
            value = json_text.parse(bytes(line))
            ticket, key_id = value["ticket"], value.get("id")
            made_up = bool(value.get("sandbox"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return "expected a JSON object with a ticket; the file was left as it is, choose another"
        if not isinstance(ticket, str):
            return "expected a text as the ticket; the file was left as it is, choose another"
        if made_up is not self._sandbox:
            kind, other = ("the sandbox's", "real") if made_up else ("real", "the sandbox's")
            return f"holds {kind} keys, which {other} ones do not go with; choose another file"
        self._keys[digest(ticket)] = _short(key_id)
        return None

    async def _write(self) -> None:
        """Write the requested lines, until none is left; lines that come meanwhile share the next write."""
        turn = self._turn
        try:
            while group := self._queue:
                self._queue = []
                try:
                    lines = SecretBytes(b"".join(line.text for line in group))
                    wanted = await self._threads.run(partial(self._file.append, lines, lambda: self._turn is turn))
                except (OSError, LedgerError) as error:
                    for line in group:
                        self._end(line, error)
                else:
                    if not wanted:  # nothing was written, because this task's event loop has ended
                        return
                    for line in group:
                        self._keys[line.mark] = line.key
                        self._end(line, None)
        finally:
            # Skip this if the coroutine is garbage-collected later: `_under_way` then belongs to a newer writer.
            if self._turn is turn:
                for written in self._under_way.values():  # some are left if this task was cancelled with its event loop
                    written.cancel()
                self._leave_loop()

    def _leave_loop(self) -> None:
        """Forget the writes under way on an event loop that has ended."""
        self._writer = None
        self._turn = object()  # so that a write that has not begun in its thread does nothing
        self._was_cut = self._was_cut or bool(self._under_way)
        self._under_way.clear()
        self._queue.clear()

    def _end(self, line: _Line, error: Exception | None) -> None:
        del self._under_way[line.mark]
        if error is None:
            line.written.set_result(None)
            return
        # Each caller gets a separate error with a separate traceback.
        line.written.set_exception(_again(error))
        line.written.exception()  # retrieved, because its caller may be gone


def _again(error: Exception) -> Exception:
    return (
        OSError(error.errno, error.strerror, error.filename) if isinstance(error, OSError) else type(error)(*error.args)
    )
