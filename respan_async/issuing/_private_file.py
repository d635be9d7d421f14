"""Files that hold secrets: made for their owner alone, and nobody else's by trick.

A file that is there is looked at, and never opened: closing it would take away, with the locks of the whole process,
those by which SQLite keeps other processes from a file that it has open already.
"""

import os
import stat
import threading
from pathlib import Path
from typing import Final

from respan_async.errors import LedgerError

_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite has beside a file, and would write to as it finds it."""

_making = threading.Lock()


def make_private(path: Path) -> None:
    """Create a file for its owner alone, whatever the umask, or check one that is there, and what is beside it.

    Raises:
        LedgerError: It is a link, or no plain file, or somebody else's, or others could read it.
    """
    with _making:  # whoever finds the file made may open it, and must not lose its locks to the closing here
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise LedgerError(f"{path}: cannot be opened: {error.strerror}") from None
        else:
            try:
                os.fchmod(descriptor, 0o600)  # the umask may have taken that away
            finally:
                os.close(descriptor)
    for suffix in ("", *_BESIDE):
        _check(Path(f"{path}{suffix}"))


def _check(path: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    problem = _problem(path, status)
    if problem is not None:
        raise LedgerError(f"{path}: {problem}")
    if status.st_mode & 0o077:
        if status.st_size:
            raise LedgerError(f"{path}: others can read it; make it private with: chmod 600 {path}")
        path.chmod(0o600)


def _problem(path: Path, status: os.stat_result) -> str | None:
    """Say why this is no place for secrets."""
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
    if not os.access(path, os.W_OK):
        return "cannot be written"
    return None
