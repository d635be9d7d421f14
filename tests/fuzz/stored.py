"""Targets: what may be found in a file or a database. Read, mended, or a sentence of ours; nothing is lost."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from respan_async.cli.console import MOST_LINES
from respan_async.cli.csv_reader import CSVFile
from respan_async.cli.ticket_source import COLUMNS, KEYS, BadTenants, PendingTenants, check
from respan_async.errors import LedgerError
from respan_async.issuing import JSONLinesSink, Ticket, _rows
from respan_async.issuing.jsonlines_sink import digest, line_of
from respan_async.models import CreatedKey
from respan_async.secret import Secret
from tests.fuzz.promises import told

_IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
_NEW: Final = line_of(CreatedKey(id="new", api_key=Secret("vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Z")), "the new ticket")


def tenants(data: bytes) -> None:
    """A CSV file of tenants: all of them tickets, each once, or complaints that name the line."""
    sheet = CSVFile(BytesIO(data), "tenants.csv", known=COLUMNS, keys=KEYS)
    try:
        seen = check(sheet)
    except BadTenants as error:
        _check_complaints(error.complaints, data)
        return
    tickets = list(_all(PendingTenants(sheet, len(seen), set())))
    assert {digest(ticket.id) for ticket in tickets} == seen
    assert len(tickets) == len(seen)
    for ticket in tickets[:20]:
        assert ticket.fields


def _check_complaints(complaints: list[str], data: bytes) -> None:
    assert 1 <= len(complaints) <= MOST_LINES + 1
    lines = data.count(b"\n") + data.count(b"\r") + 1
    for complaint in complaints[:MOST_LINES]:
        name, number, what = complaint.split(":", 2)
        assert (name, 1 <= int(number) <= lines) == ("tenants.csv", True)
        assert what.strip()
        assert len(what) < 1_000


def _all(remaining: PendingTenants) -> Iterator[Ticket]:
    """Give what an asynchronous iterator has that never waits."""
    tickets = remaining.__aiter__()
    while True:
        try:
            tickets.__anext__().__await__().__next__()
        except StopIteration as ready:
            yield ready.value
        except StopAsyncIteration:
            return


def lines(data: bytes) -> None:
    """A file of delivered keys, whole or torn: refused and left as it is, or opened with every whole line there."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as directory:
        path = Path(directory) / "keys.jsonl"
        path.touch(0o600)
        path.write_bytes(data)
        try:
            with JSONLinesSink(path) as sink:
                count, known = len(sink), "the new ticket" in sink
        except LedgerError as error:
            told(error, most=1_000)
            assert path.read_bytes() == data
            return
        kept = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        assert kept == whole or kept in (data, data + b"\n")
        assert not kept or kept.endswith(b"\n")
        # What is appended is a line of its own, and the next to open the file finds nothing to mend.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, _NEW)
        os.close(descriptor)
        with contextlib.suppress(LedgerError), JSONLinesSink(path) as sink:
            assert sink.mended is None
            assert len(sink) == count + (not known)
            return
        raise AssertionError("what could be opened cannot be opened again")


def row(data: bytes) -> None:
    """A ledger's row whose columns are not what they were: the key, or a `LedgerError`, and never its secret."""
    fields, state, key, secret = [*data.split(b"\0", 3), b"", b"", b""][:4]
    columns = (_text(fields), _text(state), _text(key) or None, secret or None)
    for read in (
        lambda: _rows.record_of(columns, "tenant-42", None),
        lambda: _rows.kept(("tenant-42", columns[2] or "", columns[3]), None),
        lambda: _rows.suspects_of(
            [("tag", None, "name", columns[0], _number(state), columns[1], "reason", None, _number(state))]
        ),
        lambda: _rows.conflict("tenant-42", columns[0], '{"name":"other"}'),
        lambda: _rows.not_claimed((columns[0], columns[1]), "tenant-42", '{"name":"other"}'),
    ):
        _ours(read, columns[3])


def _ours(read: Any, secret: bytes | None) -> None:
    try:
        read()
    except LedgerError as error:
        told(error, hides=(secret or b"").decode(errors="replace"))


def _text(column: bytes) -> str:
    return column.decode(errors="replace")


def _number(column: bytes) -> Any:
    try:
        return float(column)
    except ValueError:
        return _text(column)
