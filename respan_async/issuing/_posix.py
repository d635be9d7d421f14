"""What a file of secrets needs of the system: locks, an owner and a mode, and bytes that survive a power cut.

Linux and macOS have them. Windows has none of them in this form: there, what needs them says so before it touches
anything.
"""

import importlib.util
import os
from typing import Final

_NEEDED: Final = ("fchmod", "geteuid", "pwrite", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK")


def lack_of(what: str) -> str | None:
    """Say that something cannot be done on this system; None where it can.

    Args:
        what: What it is, as the beginning of a sentence.
    """
    if all(hasattr(os, name) for name in _NEEDED) and importlib.util.find_spec("fcntl") is not None:
        return None
    return f"{what} needs the file locks and permissions of POSIX, which this system does not have"


def lock(descriptor: int, *, wait: bool) -> None:
    """Keep other processes from a file, until it is closed.

    Args:
        descriptor: The open file.
        wait: Wait until they are gone.

    Raises:
        BlockingIOError: Another has it, and is not waited for.
        OSError: Its file system has no locks.
    """
    import fcntl  # not there on Windows

    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync(descriptor: int) -> None:
    """Have what was written survive a power cut.

    On macOS, fsync alone leaves it in the drive's own cache (fsync(2) there).

    Raises:
        OSError: It cannot be.
    """
    try:
        from fcntl import F_FULLFSYNC, fcntl  # type: ignore[attr-defined,unused-ignore]  # macOS alone has it
    except ImportError:
        os.fsync(descriptor)
        return
    try:
        fcntl(descriptor, F_FULLFSYNC)
    except OSError:  # a file system without it, as network shares are; fsync says whether more is wrong
        os.fsync(descriptor)
