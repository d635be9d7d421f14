"""A file of secret lines: owned by this user, locked by one process, and written in whole lines."""

import contextlib
import errno
import os
import re
import select
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from respan_async._http import json_text
from respan_async.errors import LedgerError
from respan_async.issuing import _posix
from respan_async.issuing._private_file import cannot_be_locked, problem_at_birth, readable_by_others
from respan_async.secret import SecretBytes

_BEGINNING: Final = b'{"ticket":'
_TORN: Final = re.compile(rb'\{"ticket":("(?:[^"\\]|\\.)*")')
_CANNOT_SYNC: Final = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""The errors by which network shares say that they manage directories themselves; they are harmless."""

_LONGEST: Final = 4 * 1024 * 1024


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, in as many calls as the system needs.

    Raises:
        OSError: Not all of it could be written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # the caller's pipe is non-blocking
            select.select([], [fd], [])


class AppendOnlyFile:
    """A file of lines, open for appending.

    Args:
        path: The file, created if it is missing.

    Attributes:
        path: The path as given.

    Raises:
        LedgerError: It is not a plain file that only this user owns and can read.
    """

    def __init__(self, path: str) -> None:
        if (lack := _posix.lack_of("a file of keys")) is not None:
            raise LedgerError(f"{path}: {lack}; keys can go to standard output, or to a deliver function")
        self.path = path
        self._place = Path(path).absolute()  # independent of later changes of the working directory
        self._writing = threading.Lock()
        self._whole_until: int | None = None
        try:
            self._fd, self._new = _opened(path)
        except OSError as error:
            link = error.errno == errno.ELOOP
            reason = "expected a file, not a symbolic link; give the path it leads to" if link else error.strerror
            raise LedgerError(f"{path}: {reason}") from None
        except ValueError:
            raise LedgerError(f"{path!r}: no file can have this name") from None
        problem = problem_at_birth(self._fd) if self._new else None
        if problem is not None:
            os.unlink(path)  # noqa: PTH108  by the same text as it was created
        elif (problem := self._problem()) is None:
            return
        os.close(self._fd)
        raise LedgerError(f"{path}: {problem}")

    def _problem(self) -> str | None:
        """Say why this path is not a safe place for secrets."""
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            return "expected a regular file"
        if status.st_nlink > 1:
            return f"expected a file with one name; this one has {status.st_nlink} (hard links)"
        if status.st_uid != os.geteuid():
            return "expected a file of your own; its owner could read the keys"
        if status.st_mode & 0o077:
            return readable_by_others(Path(self.path))
        return None

    def lock(self) -> None:
        """Lock the file against other processes, until it is closed.

        Raises:
            LedgerError: Another process holds the lock, or the file system has no locks.
        """
        try:
            _posix.lock(self._fd, wait=False)
        except BlockingIOError:
            self._new = False  # the file belongs to the other run, even if this process created it
            raise LedgerError(f"{self.path}: another run is writing to it") from None
        except OSError as error:
            raise cannot_be_locked(self.path, error) from None

    def discard(self) -> None:
        """Close an unused file; remove it if this process created it for nothing."""
        with contextlib.suppress(OSError):
            if self._new and not self._in_place().st_size:
                self._place.unlink()
        self.close()

    def close(self) -> None:
        """Close the file after the current write. May be called more than once."""
        with self._writing:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def append(self, data: bytes, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Append whole lines, all or nothing, and sync them to the disk; return whether they were wanted.

        Args:
            data: The lines.
            wanted: Called when no other write is under way; if it returns False, nothing is written.

        Raises:
            OSError: They could not be written.
            LedgerError: The file is closed.
        """
        with self._writing:
            if self._fd < 0:
                raise LedgerError(f"{self.path}: is closed")
            if not wanted():
                return False
            try:
                if self._whole_until is not None:
                    self._take_back(self._whole_until)
                self._whole_until = self._in_place().st_size
                write_all(self._fd, data)
                _posix.sync(self._fd)
                self._whole_until = None
                return True
            except OSError as error:
                if self._whole_until is not None:
                    # Also after a failed fsync, because a second fsync would not write the same bytes again.
                    with contextlib.suppress(OSError):
                        self._take_back(self._whole_until)
                raise OSError(error.errno, error.strerror, self.path) from None

    def _in_place(self) -> os.stat_result:
        """Return the status of the file, if its path still leads to it, because keys elsewhere would not be found."""
        status = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(status, os.stat(self._place)):  # noqa: PTH116  for each write
                return status
        raise FileNotFoundError(errno.ENOENT, "the file was removed, or moved away, while it was being written")

    def _take_back(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._whole_until = None

    def read(self, take: Callable[[bytes], str | None]) -> str | None:
        """Pass every line to `take`, mend the end, and sync all of it to the disk.

        Args:
            take: Takes a line, and returns what is wrong with it.

        Returns:
            What was mended, in one sentence; None if nothing was.

        Raises:
            LedgerError: A line is wrong, and the file was left as it is; or the file cannot be read.
        """
        mended = None
        try:
            with os.fdopen(os.dup(self._fd), "rb") as file:
                size = number = 0
                while line := SecretBytes(file.readline(_LONGEST)):
                    number += 1
                    if not line.endswith(b"\n"):
                        mended = self._mend(line, number, size, take, more=bool(file.read(1)))
                        break
                    size += len(line)
                    if line.strip():
                        self._hand_over(line, number, take)
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._sync()
        return mended

    def read_again(self, take: Callable[[bytes], str | None]) -> str | None:
        """Do as `read` does, after the current write."""
        with self._writing:
            if self._fd < 0:
                raise LedgerError(f"{self.path}: is closed")
            os.lseek(self._fd, 0, os.SEEK_SET)
            return self.read(take)

    def _sync(self) -> None:
        """Sync to the disk: the lines of a run that was killed, and the file's entry in its directory."""
        try:
            _posix.sync(self._fd)
            _sync_directory(self._place.parent)
        except OSError as error:
            raise LedgerError(
                f"{self.path}: {error.strerror}: keys in it might not survive a power cut; give a path on a local disk"
            ) from None

    def _hand_over(self, line: bytes, number: int, take: Callable[[bytes], str | None]) -> None:
        if (problem := take(line)) is not None:
            raise LedgerError(f"{self.path}:{number}: {problem}")

    def _mend(self, torn: bytes, number: int, size: int, take: Callable[[bytes], str | None], *, more: bool) -> str:
        """Complete or cut off the last line of a run that was killed."""
        begun = SecretBytes(torn.strip(b"\0"))  # a power cut may leave NULs in place of a line
        if not more and not (begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)):
            more = True
        try:
            json_text.parse(bytes(torn))
            whole = True
        except ValueError:
            whole = False
        if whole or more:
            self._hand_over(torn, number, take)
            write_all(self._fd, b"\n")
            return f"{self.path}:{number}: the last line lacked its end, which was added"
        os.ftruncate(self._fd, size)
        match = _TORN.match(begun)
        ticket = f", of ticket {match[1].decode(errors='replace'):.100}," if match else ""
        return f"{self.path}:{number}: the last line{ticket} had been cut off by a crash, and was removed"


def _opened(path: str) -> tuple[int, bool]:
    """Open a file for more lines; return its descriptor, and whether it is new."""
    # O_NONBLOCK, because a named pipe without a reader would block before it can be refused.
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        # The file may have been removed meanwhile; a dangling link raises ELOOP instead.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags), False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _posix.sync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
