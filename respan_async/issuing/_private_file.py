"""Creates and checks files that hold secrets, which only their owner may read.

This module inspects an existing file, but never opens it, because closing a file releases all locks of the process on
it, including those by which SQLite protects an open ledger.
"""

import contextlib
import os
import secrets
import shlex
import stat
import threading
from pathlib import Path
from typing import Final

from respan_async.errors import LedgerError

_BESIDE: Final = ("-wal", "-shm", "-journal")
"""The files that SQLite keeps beside a ledger. If they exist, SQLite writes to them without changing their modes."""

_OTHERS: Final = 0o077
_NO_MODES: Final = (
    "this file system does not keep who may read a file, as those of Windows in WSL, network shares (CIFS) and some "
    "mounts of containers do not, so that others could read the secrets in it; give a path on another file system, or "
    "mount this one so that its files have the mode 0600"
)
_NOT_OWN: Final = (
    "this file system gives a new file to another user, as some network shares do, who could read the secrets in it; "
    "give a path on another file system, or mount this one so that its files are your own"
)

_making = threading.Lock()


def make_private(path: Path) -> None:
    """Create a file that only its owner may read, with any umask; or check an existing file, and SQLite's beside it.

    Raises:
        LedgerError: A file is a link, or not a plain file, or another user owns it or can read it.
    """
    with _making:  # another thread may open the new file at once, and would lose its locks when this one closes it
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise LedgerError(f"{path}: cannot be opened: {error.strerror}") from None
        else:
            try:
                problem = problem_at_birth(descriptor)
                if problem is not None:
                    path.unlink()  # otherwise later calls would refuse the file, for a reason that the user cannot mend
                    raise LedgerError(f"{path}: {problem}")
            finally:
                os.close(descriptor)
    for suffix in ("", *_BESIDE):
        _check(Path(f"{path}{suffix}"))


def problem_at_birth(descriptor: int) -> str | None:
    """Restrict a new file to its owner; return None, or the reason why that cannot be done."""
    try:
        os.fchmod(descriptor, 0o600)  # the umask may have removed these bits
    except OSError:
        return _NO_MODES
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        return _NOT_OWN
    return _NO_MODES if stat.S_IMODE(status.st_mode) & _OTHERS else None


def cannot_be_locked(path: str | Path, error: OSError) -> LedgerError:
    """Return the error for a file that cannot be locked against other processes."""
    return LedgerError(
        f"{path}: cannot be locked: {error.strerror}; some network shares have no locks: give a path on a local disk"
    )


def readable_by_others(path: Path) -> str:
    """Say what to do about a file that others can read, which depends on its file system."""
    probe = path.with_name(f".{secrets.token_hex(8)}.probe")
    try:
        descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # e.g. a full disk, which says nothing about the file system
        problem = None
    else:
        try:
            problem = problem_at_birth(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink()
    return problem or f"others can read it; make it private with: chmod 600 {shlex.quote(str(path))}"


def _check(path: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    problem = _problem(path, status)
    if problem is not None:
        raise LedgerError(f"{path}: {problem}")
    if status.st_mode & _OTHERS and not status.st_size:
        _make_private(path)
        status = os.lstat(path)
    if status.st_mode & _OTHERS:
        raise LedgerError(f"{path}: {readable_by_others(path)}")


def _make_private(path: Path) -> None:
    # A file system without modes may refuse this, or do nothing; the mode is checked afterwards.
    with contextlib.suppress(OSError):
        path.chmod(0o600)


def _problem(path: Path, status: os.stat_result) -> str | None:
    """Return the reason why this file is not a safe place for secrets; None if it is safe."""
    if stat.S_ISLNK(status.st_mode):
        return "cannot be opened: it is a symbolic link"
    if stat.S_ISDIR(status.st_mode):
        return "cannot be opened: it is a directory"
    if not stat.S_ISREG(status.st_mode):
        return "expected a plain file"
    if status.st_nlink > 1:
        return "the file has another name (a hard link); expected one name only"
    if status.st_uid != os.geteuid():
        return "belongs to another user, who could read the secrets in it; expected a file of one's own"
    if not os.access(path, os.W_OK) and os.path.lexists(path):  # SQLite may have removed its journal meanwhile
        return "cannot be written"
    return None
