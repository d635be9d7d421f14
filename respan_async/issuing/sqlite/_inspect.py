"""Reads a snapshot of a ledger's file: writes nothing, takes over nothing, and waits for no process."""

import contextlib
import os
import sqlite3
from pathlib import Path

from respan_async.errors import LedgerError
from respan_async.issuing import _posix, _rows
from respan_async.issuing._sql_loader import load
from respan_async.issuing.ledger import Snapshot
from respan_async.issuing.sqlite._connection import VERSION, check_whole, connected
from respan_async.issuing.sqlite._errors import is_locked, ledger_error
from respan_async.issuing.sqlite._liveness_lock import LivenessLock

_SQL = load("sqlite/ledger.sql")


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Read the contents of a ledger's file, even while others write to it.

    Raises:
        LedgerError: The file does not exist, or cannot be read, or is newer than this code, or its last commits are
            lost.
    """
    path = Path(path)
    if (lack := _posix.lack_of("a ledger in a file")) is not None:
        raise LedgerError(f"{path}: {lack}")
    if path.is_symlink():
        path = path.resolve()  # its log lies beside the file itself, not beside a link to it
    if not path.is_file():
        raise LedgerError(f"{path}: there is no such ledger")
    noted = LivenessLock(path).most_noted()  # before the reading: the ledger cannot have seen fewer commits since
    try:
        with contextlib.closing(_connect(path)) as connection:
            # One transaction, so that the parts fit together.
            connection.execute("BEGIN")
            return _read(connection, path, noted)
    except sqlite3.Error as error:
        if is_locked(error):
            raise ledger_error(error, "read", str(path)) from None
        raise LedgerError(f"{path}: cannot be read as a ledger: {error}") from None


def _connect(path: Path) -> sqlite3.Connection:
    # Without a log, no process has it open. It is read as immutable, because a normal reader would leave an empty log.
    at_rest = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    address = f"{path.absolute().as_uri()}?mode=ro{at_rest}"
    return connected(address)


def _read(connection: sqlite3.Connection, path: Path, noted: int) -> Snapshot:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LedgerError(f"{path}: written by a newer version of this library; upgrade it to read this file")
    check_whole(path, connection, noted)
    account = connection.execute(_SQL["get_meta"], {"name": "account"}).fetchone()
    # An older version is read as it is, because reading must not migrate the ledger.
    suspects = connection.execute(_SQL["suspects" if version == VERSION else "suspects_1"])
    waiting = connection.execute(_SQL["waiting"])
    tickets, attempts = connection.execute(_SQL["count_tickets"]), connection.execute(_SQL["count_attempts"])
    return _rows.snapshot_of(account[0] if account is not None else "", tickets, attempts, suspects, waiting)
