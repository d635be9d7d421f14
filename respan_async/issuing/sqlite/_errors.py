"""Maps SQLite's exceptions to the ledger's errors."""

import sqlite3
from typing import Final

from respan_async.errors import LedgerError

_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NEEDS_A_LOCAL_DISK: Final = {
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
"""SQLite's error codes on network shares, whose locks or shared memory are missing or do not work."""


def is_locked(error: BaseException) -> bool:
    """Whether another connection keeps the file locked."""
    return isinstance(error, sqlite3.Error) and _code(error) & 0xFF in _LOCKED


def ledger_error(error: BaseException, what: str, name: str) -> LedgerError:
    """Return the ledger's error for an exception of SQLite.

    Args:
        error: The exception.
        what: The operation that failed: "opened", "read" or "written".
        name: The name of the ledger in the message; empty to leave it out.
    """
    if isinstance(error, LedgerError):
        return error
    where = f"{name}: " if name else ""
    if is_locked(error):
        said = f"another program keeps it locked ({error})"
    elif isinstance(error, sqlite3.Error) and _code(error) in _NEEDS_A_LOCAL_DISK:
        said = f"{error}; a network share may lack what SQLite needs: give a path on a local disk"
    else:
        said = str(error)
    return LedgerError(f"{where}the ledger could not be {what}: {said}", retryable=is_locked(error))


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0)  # missing if Python's sqlite3 module itself raised it
