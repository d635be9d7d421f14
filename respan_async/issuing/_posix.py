"""POSIX features that a file of secrets needs: locks, owner and mode, and syncing to the disk.

Linux and macOS have them. Windows has none of them in this form: there, a function that needs them says so before it
changes anything.
"""

import importlib.util
import os
from typing import Final

_NEEDED: Final = ("fchmod", "geteuid", "pwrite", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK")


def lack_of(what: str) -> str | None:
    """Say that something cannot be done on this system; None if it can.

    Args:
        what: The name of the thing, as the beginning of a sentence.
    """
    if all(hasattr(os, name) for name in _NEEDED) and importlib.util.find_spec("fcntl") is not None:
        return None
    return f"{what} needs the file locks and permissions of POSIX, which this system does not have"


def lock(descriptor: int, *, wait: bool) -> None:
    """Lock a file against other processes, until it is closed.

    Args:
        descriptor: The open file.
        wait: Whether to wait for the lock.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is False.
        OSError: The file system has no locks.
    """
    import fcntl  # missing on Windows

    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync(descriptor: int) -> None:
    """Sync a file to the disk, so that it survives a power cut.

    On macOS, fsync alone leaves the data in the drive's cache (fsync(2) there).

    Raises:
        OSError: The file cannot be synced.
    """
    try:
        from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined,unused-ignore]  # only macOS has it
    except ImportError:
        os.fsync(descriptor)
        return
    try:
        fcntl(descriptor, F_FULLFSYNC)
    except OSError:  # network shares lack it; fsync reports any other problem
        os.fsync(descriptor)
