"""What SQLite's exceptions are here."""

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
"""What SQLite says of network shares, whose locks or shared memory are missing or do not work."""


def is_locked(error: BaseException) -> bool:
    """Whether others keep the file locked."""
    return isinstance(error, sqlite3.Error) and _code(error) & 0xFF in _LOCKED


def ledger_error(error: BaseException, what: str, name: str) -> LedgerError:
    """Return the error of a ledger that could not be used.

    Args:
        error: What was raised.
        what: What was to be done: "opened", "read" or "written".
        name: What the ledger is called; empty for one that needs no name.
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
    return getattr(error, "sqlite_errorcode", 0)  # of one that Python itself raises there is none
