"""Detects an owner's death at once, by a file lock that dies with its process.

The lock's file also holds how many commits the ledger had when its owner last looked. A ledger with fewer commits has
lost some, e.g. because its log was removed, which SQLite itself does not report.
"""

import contextlib
import glob
import os
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

from respan_async.errors import LedgerError
from respan_async.issuing import _posix
from respan_async.issuing._private_file import cannot_be_locked


class LivenessLock:
    """A file lock that an owner holds as long as its process lives, however it ends.

    Args:
        ledger: The ledger's file, beside which the locks are; None for a ledger in memory.

    Attributes:
        token: The name of the owner.
    """

    def __init__(self, ledger: Path | None) -> None:
        self.token = ""
        self._ledger = ledger
        self._descriptor = -1
        self._noting = threading.Lock()  # otherwise a note could go to another file that has the descriptor by then

    def acquire(self) -> None:
        """Take a new token, and its lock.

        Raises:
            LedgerError: The file cannot be created.
        """
        self.release()
        self.token = secrets.token_hex(16)
        if self._ledger is not None:
            path = self._path(self.token)
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.fchmod(self._descriptor, 0o600)  # the umask may have removed these bits
            except OSError as error:
                raise LedgerError(f"{path}: cannot be made: {error.strerror}") from None
            try:
                _posix.lock(self._descriptor, wait=True)
            except OSError as error:
                self.release()
                raise cannot_be_locked(path, error) from None

    def release(self) -> None:
        """Release the lock, if it is held."""
        with self._noting:
            if self._descriptor >= 0:
                self.forget(self.token)
                os.close(self._descriptor)
                self._descriptor = -1

    def note(self, commits: int) -> None:
        """Note how many durable commits the ledger has. Not synced, because a lower number does no harm."""
        with self._noting, contextlib.suppress(OSError):
            if self._descriptor >= 0:
                os.pwrite(self._descriptor, b"%020d" % commits, 0)

    def most_noted(self) -> int:
        """Return the most commits noted by any owner that is alive, or has not been removed yet."""
        if self._ledger is None:
            return 0
        return max(map(_note_in, self._owners()), default=0)

    def is_anybody_alive(self) -> bool:
        """Whether any owner's process lives, as far as it can be known."""
        return any(not self.is_dead(path.name.rpartition("-")[2]) for path in self._owners())

    def _owners(self) -> Iterable[Path]:
        assert self._ledger is not None  # see `_path`
        return self._ledger.parent.glob(f"{glob.escape(self._ledger.name)}-owner-*")

    def forget(self, token: str) -> None:
        """Remove an owner's lock file; if that is not allowed, a file without a lock means the same."""
        with contextlib.suppress(OSError, ValueError):
            self._path(token).unlink(missing_ok=True)

    def is_dead(self, token: str) -> bool:
        """Whether an owner's process has certainly ended."""
        try:
            descriptor = os.open(self._path(token), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except (OSError, ValueError):  # a token that is damaged may be no file's name
            return False  # unknown: its lease will decide
        try:
            _posix.lock(descriptor, wait=False)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _path(self, token: str) -> Path:
        assert self._ledger is not None  # a ledger in memory has one owner, and no others to look for
        return self._ledger.with_name(f"{self._ledger.name}-owner-{token}")


def _note_in(path: Path) -> int:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            note = os.read(descriptor, 20)
        finally:
            os.close(descriptor)
        if len(note) == 20 and note.isdigit():
            return int(note)
    return 0
