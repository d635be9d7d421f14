"""Opens a ledger's SQLite file: creates or migrates the schema, and refuses other files."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from respan_async.errors import LedgerError
from respan_async.issuing import _rows
from respan_async.issuing._sql_loader import load
from respan_async.issuing.sqlite._errors import is_locked, ledger_error
from respan_async.issuing.sqlite._file_identity import FileIdentity
from respan_async.issuing.sqlite._liveness_lock import LivenessLock

T = TypeVar("T")

VERSION: Final = 2
APPLICATION: Final = 0x52737041
"""The application id that marks a database as a ledger; the schema in `ledger.sql` sets it, too."""

BUSY_TIMEOUT: Final = 10_000
"""Milliseconds for which an operation waits for operations of other processes."""

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.02
"""Seconds to wait for a ledger that another process is creating, and between two tries."""

_SIGNS: Final = """
SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
    (SELECT count(*) FROM sqlite_master), (SELECT count(*) FROM sqlite_master WHERE name = 'tickets_undelivered')
"""

_LEAST: Final = 512
"""The smallest page size of SQLite, in bytes."""


def check_size(path: Path) -> None:
    """Refuse a file that is too short for a database, because SQLite would overwrite it with a new database.

    Raises:
        LedgerError: The file is too short, or does not exist.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read: {error.strerror}") from None
    if 0 < size < _LEAST:
        raise _no_ledger(path)


def check_log(path: Path) -> None:
    """Refuse a file whose log was written for another file. This reads the whole file, and changes nothing.

    The log of a killed process stays beside its file. If that file is then replaced, e.g. by a restored backup, SQLite
    would write the log into the other file, and so mix the two.

    Raises:
        LedgerError: The file and the log do not belong together.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=10.0, uri=True)
        ) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
            return  # the opening of the file reports this error
        found = str(error)
    if found != "ok":
        said = found.splitlines()[-1]
        raise LedgerError(
            f"{path}: damaged, or not the file that its log, {path.name}-wal, was written for ({said:.200}). Was a "
            f"backup put in its place? Then put it there once more, and remove {path.name}-wal and {path.name}-shm "
            "before it is opened: what was issued since the backup is gone then"
        )


def open_connection(path: Path, files: FileIdentity | None = None) -> sqlite3.Connection:
    """Open a ledger for writing, and create it if it is missing. This may block, so call it in a thread.

    Args:
        path: The file.
        files: Records the open files.

    Raises:
        LedgerError: The file is not a ledger, or was written by a newer version, or cannot be opened.
    """
    files = FileIdentity(path) if files is None else files
    until = time.monotonic() + _PATIENCE
    while True:
        before = files.found()
        connection = connected(path)
        try:
            _make_ready(path, connection)
            files.note()
            if files.noted == before or time.monotonic() > until:
                return connection
            # Open it again, because the file was replaced just now, or its inode has changed since it was opened, as in
            # an overlay file system.
            connection.close()
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise _no_ledger(path) from None
            # SQLite does not wait while several processes turn on the log of a new file at the same time.
            if not is_locked(error) or time.monotonic() > until:
                raise ledger_error(error, "opened", str(path)) from None
        except LedgerError:
            connection.close()
            raise
        time.sleep(_PAUSE)


def check_whole(path: Path, connection: sqlite3.Connection, noted: int) -> None:
    """Refuse a ledger with fewer commits than an owner noted before the ledger was read; see `LivenessLock`.

    Raises:
        LedgerError: The last commits are lost.
    """
    made = noted and connection.execute("PRAGMA user_version").fetchone()[0]  # 0 for an empty database, without tables
    found = connection.execute(load("sqlite/ledger.sql")["get_meta"], {"name": "commits"}).fetchone() if made else None
    if noted > _number(found):
        raise LedgerError(
            f"{path}: what was written last is gone: its log, {path.name}-wal, was removed, or the file was "
            f"replaced by an older one. Put it back; or remove {path.name}-owner-* to go on without what is gone"
        )


def _number(found: tuple[str] | None) -> int:
    """Return the number in a row; 0 if there is no row, or if the number is damaged."""
    with contextlib.suppress(ValueError):
        return 0 if found is None else int(found[0])
    return 0


def _make_ready(path: Path, connection: sqlite3.Connection) -> None:
    version = _version_of(path, connection)
    _configure(connection)
    if version == VERSION:
        return
    buried: list[str] = []
    connection.execute("BEGIN EXCLUSIVE")
    # Ask again, because another process may have created or migrated the ledger meanwhile.
    match _version_of(path, connection):
        case 0:
            _run(connection, "schema")
        case 1:
            buried = _dead_owners(path, connection)
            _run(connection, "migrate_1")
    connection.execute("COMMIT")
    for token in buried:
        LivenessLock(path).forget(token)


def _run(connection: sqlite3.Connection, name: str) -> None:
    """Run several statements within the current transaction."""
    for statement in load("sqlite/ledger.sql")[name].split(";"):
        connection.execute(statement)


def _version_of(path: Path, connection: sqlite3.Connection) -> int:
    """Return the version of a ledger, 0 if it is empty; refuse what this code cannot read."""
    # Read all signs in one statement, because another process may be creating the ledger at this moment.
    application, version, things, ours = connection.execute(_SIGNS).fetchone()
    if ours and not application and not version:
        raise LedgerError(
            f"{path}: this is a ledger that was restored from a dump in SQL, which leaves out the file's "
            f"application_id and user_version; restore a copy that SQLite's .backup or VACUUM INTO made"
        )
    if application != APPLICATION and (application or version or things):
        raise _no_ledger(path)
    if version > VERSION:
        raise LedgerError(f"{path}: written by a newer version of this library; upgrade it to read this file")
    return int(version) if things else 0


def _dead_owners(path: Path, connection: sqlite3.Connection) -> list[str]:
    """Return the owners of a ledger of an older version, if all are dead; otherwise refuse to migrate it.

    Raises:
        LedgerError: A process of that version has it open, or the last commits are lost.
    """
    lock = LivenessLock(path)
    check_whole(path, connection, lock.most_noted())
    tokens = [token for (token,) in connection.execute(load("sqlite/ledger.sql")["owner_tokens"])]
    if not all(map(lock.is_dead, tokens)):
        raise LedgerError(
            f"{path}: a process with an older version of this library has this ledger open; end it first, and the next "
            "one that opens the ledger migrates it"
        )
    return tokens


def read_beside(path: Path, files: FileIdentity, work: Callable[[sqlite3.Connection], T]) -> T:
    """Read from an existing ledger, with a separate connection.

    Raises:
        LedgerError: The ledger cannot be read, or its path no longer leads to the open file.
    """
    try:
        # Mode `rw`, because a reader may have to write the log's index; it does not create a file that was removed.
        with contextlib.closing(connected(f"{path.absolute().as_uri()}?mode=rw")) as connection:
            _configure(connection)
            connection.execute("PRAGMA query_only = ON")
            return work(connection)
    except Exception as error:  # noqa: BLE001  a damaged value may raise any error of Python
        raise ledger_error(error, "read", str(path)) from None
    finally:
        files.check("read")  # after the read, so that data from another file is never returned


def connected(place: Path | str) -> sqlite3.Connection:
    """Connect to a file by its path, or by a URI."""
    is_uri = isinstance(place, str)
    if isinstance(place, Path) and str(place) != ":memory:":
        # Some builds of SQLite take a relative path that begins with `file:` as a URI, which would be another file.
        place = place.absolute()
    connection = sqlite3.connect(place, timeout=10.0, isolation_level=None, check_same_thread=False, uri=is_uri)
    connection.row_factory = lambda _, row: _rows.mask_bytes(row)
    connection.text_factory = _rows.text
    return connection


_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "fullfsync = ON",  # on macOS, where fsync alone leaves the data in the drive's cache
    "secure_delete = ON",
    f"busy_timeout = {BUSY_TIMEOUT}",
)


def _configure(connection: sqlite3.Connection) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _no_ledger(path: Path) -> LedgerError:
    return LedgerError(f"{path}: this is no ledger, but a file of another program; give the ledger a file of its own")
