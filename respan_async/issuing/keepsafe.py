"""Files that hold secrets: made for their owner alone, and nobody else's by trick."""

import os
import stat
from pathlib import Path

from respan_async.errors import LedgerError


def make_private(path: Path) -> None:
    """Create a file for its owner alone, whatever the umask, or check one that is there.

    Raises:
        LedgerError: It is a link, or no plain file, or others could read it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise LedgerError(f"{path}: cannot be opened: {reason}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LedgerError(f"{path}: expected a plain file")
        if status.st_nlink > 1:
            raise LedgerError(f"{path}: the file has another name (a hard link); expected one name only")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 and status.st_size:
            raise LedgerError(f"{path}: others can read it; make it private with: chmod 600 {path}")
        if mode != 0o600 and not status.st_size:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
