"""Checks whether a ledger's path still leads to the files that its connection has open.

A process keeps a removed or replaced file open: SQLite would go on writing to it, durably but uselessly, while another
process finds no ledger, or an older one, and issues the same tickets again.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Final, TypeAlias

from respan_async.errors import LedgerError

_PARTS: Final = ("", "-wal", "-shm")
"""A ledger's file, its log, and the log's index, through which processes find each other's commits."""

_Identity: TypeAlias = tuple[int, int]

_open: Counter[tuple[_Identity, int]] = Counter()
"""How often each file is open, by process: a forked child finds its parent's files here."""


def check_not_inherited(path: Path) -> None:
    """Refuse a ledger that was open in this process before it was forked.

    SQLite keeps its locks in the memory of a process, so that a forked child would rely on the locks of its parent.

    Raises:
        LedgerError: It was open.
    """
    identity = _identity(str(path))
    if any(opened == identity and process != os.getpid() for opened, process in +_open):
        raise LedgerError(
            f"{path}: it was open in this process before a fork, and SQLite cannot use it in the child; start the "
            'child anew (multiprocessing\'s "spawn" or "forkserver"), or fork before the ledger is opened'
        )


def has_log(path: Path) -> bool:
    """Whether a ledger's log holds commits that may not be in its file yet."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


class FileIdentity:
    """The files of one ledger, as they were when its connection was opened.

    Args:
        path: The path of the ledger.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [f"{path.absolute()}{part}" for part in _PARTS]
        self._path = path
        self._opened: list[_Identity | None] = []
        self._counted: tuple[_Identity, int] | None = None

    def note(self) -> None:
        """Remember the files, which are open now."""
        self.closed()
        self._opened = [_identity(path) for path in self._paths]
        if self._opened[0] is not None:
            self._counted = self._opened[0], os.getpid()
            _open[self._counted] += 1

    def closed(self) -> None:
        """Note that the files were closed."""
        if self._counted is not None:
            _open[self._counted] -= 1
            self._counted = None

    @property
    def noted(self) -> _Identity | None:
        """The remembered identity of the ledger's file; None for a ledger in memory."""
        return self._opened[0]

    def found(self) -> _Identity | None:
        """Return the current identity of the ledger's file."""
        return _identity(self._paths[0])

    def check(self, what: str) -> None:
        """Check that the path still leads to the files.

        Args:
            what: The intended operation, "read" or "written".

        Raises:
            LedgerError: A file was removed or replaced.
        """
        for path, opened in zip(self._paths, self._opened, strict=False):
            if opened is not None and _identity(path) != opened:
                raise LedgerError(
                    f"{self._path}: the ledger could not be {what}: {Path(path).name} was removed, or replaced by "
                    "another file, while it was open here; put it back before the tickets are asked for again"
                )


def _identity(path: str) -> _Identity | None:
    try:
        status = os.stat(path)  # noqa: PTH116  called before each commit, where a Path costs more than the call
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"{path}: cannot be looked at: {error.strerror}", retryable=True) from None
    return status.st_dev, status.st_ino
