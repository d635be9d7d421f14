"""How the death of an owner is known at once: by a lock that dies with its process."""

import fcntl
import os
import secrets
from pathlib import Path

from respan_async.errors import LedgerError


class OwnerLock:
    """A lock on a file of its own, which an owner holds for as long as its process lives, however that ends.

    Args:
        ledger: The ledger's file, beside which the locks are; None for a ledger that no other process can see.

    Attributes:
        token: The name under which the owner is known.
    """

    def __init__(self, ledger: Path | None) -> None:
        self.token = ""
        self._ledger = ledger
        self._descriptor = -1

    def acquire(self) -> None:
        """Take another token, and its lock.

        Raises:
            LedgerError: The file cannot be made.
        """
        self.release()
        self.token = secrets.token_hex(16)
        if self._ledger is not None:
            path = self._path(self.token)
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.fchmod(self._descriptor, 0o600)  # the umask may have taken that away
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise LedgerError(f"{path}: cannot be made: {error.strerror}") from None

    def release(self) -> None:
        """Give the lock up, if there is one."""
        if self._descriptor >= 0:
            self.forget(self.token)
            os.close(self._descriptor)
            self._descriptor = -1

    def forget(self, token: str) -> None:
        """Remove what an owner has left of its lock."""
        self._path(token).unlink(missing_ok=True)

    def is_dead(self, token: str) -> bool:
        """Whether it is certain that an owner's process has ended."""
        try:
            descriptor = os.open(self._path(token), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # nobody can tell: its lease will
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _path(self, token: str) -> Path:
        assert self._ledger is not None  # one in memory has one owner, and no other to look for
        return self._ledger.with_name(f"{self._ledger.name}-owner-{token}")
