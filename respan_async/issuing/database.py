"""Opening a ledger's file: making the schema, and refusing what is none."""

import sqlite3
from pathlib import Path
from typing import Final

from respan_async.errors import LedgerError
from respan_async.issuing.statements import load

VERSION: Final = 1
APPLICATION: Final = 0x52737041
"""Marks a database as a ledger; both numbers are in the schema."""

_HEAD: Final = b"SQLite format 3\x00"


def check_head(path: Path) -> None:
    """Refuse a file that is no database before SQLite makes one of it, as it does of a very short one."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error.strerror}") from None
    if head not in (b"", _HEAD):
        raise _no_ledger(path)


def connect(path: Path) -> sqlite3.Connection:
    """Open a ledger for writing, and make it where there is none.

    Raises:
        LedgerError: It is no ledger, or one of a newer version, or cannot be opened.
    """
    connection = _connected(path)
    try:
        if _is_new(path, connection):
            _configure(connection)
            connection.execute("BEGIN EXCLUSIVE")
            # Another process may have made it meanwhile.
            if _is_new(path, connection):
                for statement in load("sqlite.sql")["schema"].split(";"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        else:
            _configure(connection)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path}: the ledger could not be opened: {error}") from None
    except LedgerError:
        connection.close()
        raise
    return connection


def _is_new(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether nothing has been made here yet; refuse what is no ledger, or one that this code cannot read."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (application or version or things):
        raise _no_ledger(path)
    if version > VERSION:
        raise LedgerError(f"{path}: written by a newer version of this library; upgrade it to read this file")
    return not things


def connect_beside(path: Path) -> sqlite3.Connection:
    """Open a ledger that is there already, for reading only."""
    connection = _connected(path)
    _configure(connection)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "busy_timeout = 10000"):
        connection.execute(f"PRAGMA {pragma}")


def _no_ledger(path: Path) -> LedgerError:
    return LedgerError(f"{path}: this is no ledger, but a file of another program; give the ledger a file of its own")
