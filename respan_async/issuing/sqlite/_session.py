"""Opens a ledger's file for one owner, moves it from one event loop to the next, reads and writes it, and closes it."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from respan_async._calls.owning_loop import OwningLoop
from respan_async.errors import ClientStateError, LedgerError
from respan_async.issuing import _rows
from respan_async.issuing._cipher_key_mark import MARK, RotationMark
from respan_async.issuing._daemon_threads import DaemonThreads
from respan_async.issuing._private_file import make_private
from respan_async.issuing._sql_loader import STATES, load
from respan_async.issuing.sqlite._connection import (
    BUSY_TIMEOUT,
    check_log,
    check_size,
    check_whole,
    open_connection,
    read_beside,
)
from respan_async.issuing.sqlite._file_identity import FileIdentity, check_not_inherited, has_log
from respan_async.issuing.sqlite._mount_points import check_not_mounted_alone
from respan_async.issuing.sqlite._owner import Owner
from respan_async.issuing.sqlite._writer import Writer

_MOMENT: Final = 100
"""Milliseconds to wait for other processes before the log is emptied. After that, the next commit tries again."""

_READERS: Final = 2
"""The most readers beside the writer at a time, each with a separate connection."""

_LAST: Final = 2.0
"""Seconds that closing waits for readers. If they take longer, e.g. on a disk that hangs, SQLite leaves the log."""

T = TypeVar("T")

_SQL: Final = load("sqlite/ledger.sql")


class Session:
    """One owner's use of a ledger's file, from its opening to its closing.

    Args:
        path: The file; `:memory:` for a ledger that no other process can see.
        lease: Seconds after which the claims of a process that is stopped may be taken over.

    Attributes:
        path: The file; an absolute path if the working directory has changed since the ledger was first opened.
        owner: The owner.
        mark: The mark of a rotation, as it was when the ledger was opened.

    Raises:
        ConfigurationError: `lease` is not above 0 and finite.
    """

    def __init__(self, path: Path, lease: float) -> None:
        self.path = path
        self._in_memory = str(path) == ":memory:"
        self._lease = lease
        self._place = path
        self.owner = self._new_owner()
        self.mark = RotationMark()
        self._writer: Writer | None = None
        self._files = FileIdentity(path)
        self._threads = DaemonThreads("respan-ledger-reader", _READERS)
        self._erased = False
        self._open = False
        self._is_whole = False  # whether the file is open and checked
        self._is_resting = False  # bound to no event loop, because the loop that it was opened on is closed
        self._home = OwningLoop("ledger", "opened")

    async def open(self, account: str, *, force: bool) -> None:
        """Open the file for an account, and take over what dead owners left; see `Ledger`."""
        if self._home.is_gone:
            self._come()
        if self._open and self._is_resting:
            await self._go_on(account, force=force)
            return
        if self._open:
            raise ClientStateError("the ledger is open already; each issuer has a ledger of its own, and closes it")
        self._open = True
        self._home.bind()
        try:
            if not self._in_memory:
                await self._prepare()
            self._files = FileIdentity(self.path)
            noted = self.owner.lock.most_noted()  # before the ledger is read, which then has at least as many commits
            writer = Writer(
                partial(open_connection, self.path, self._files),
                self._truncate,
                asyncio.get_running_loop(),
                self._seal,
                name=str(self.path),
            )
            self._writer = writer  # before the start, so that a cancellation here ends its thread
            await writer.start()
            await writer.do(lambda connection: check_whole(self.path, connection, noted))
            await writer.do(lambda connection: self._check_account(connection, account, force))
            await self.owner.lease_keeper.start()
            self._is_whole = True
        except GeneratorExit:
            raise  # the loop was closed: the next loop continues from here
        except BaseException:
            await self.aclose()
            raise

    async def _prepare(self) -> None:
        """Check that the file may be opened; create it if it is missing."""
        self._stay()
        check_not_mounted_alone(self.path)
        make_private(self.path)
        check_size(self.path)
        check_not_inherited(self.path)
        if has_log(self.path) and not self.owner.lock.is_anybody_alive():
            await self._beside("opened", partial(check_log, self.path))

    def _stay(self) -> None:
        """Stay at the path where the ledger was first opened, even if the working directory has changed since."""
        if self.path is self._place:
            self._place = self.path.absolute()
        elif self.path.absolute() != self._place:
            self.path = self._place
        self.owner = self._new_owner()

    def _new_owner(self) -> Owner:
        return Owner(None if self._in_memory else self._place, self._lease, self.write)

    async def aclose(self) -> None:
        """Finish the writes, and close the file; see `Ledger`."""
        if self._home.is_gone:
            self._come()
        self._home.check()
        self.owner.lease_keeper.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.hasten()
        # Even if this is cancelled, the thread must end, and the lock must say that this owner is gone.
        try:
            try:
                await self._threads.finished(_LAST)  # SQLite removes the log only when the last connection is closed
                if writer is not None and self.owner.id:
                    with contextlib.suppress(LedgerError):
                        await writer.do(self.owner.leave)
            finally:
                if writer is not None:
                    await writer.stop()
        finally:
            self.owner.lock.release()
            self._files.closed()
            self._open = self._is_whole = self._is_resting = False
            self._home.unbind()

    def _come(self) -> None:
        """Bind to the running event loop, because the previous one is closed; the writer's thread serves any loop."""
        self._home.unbind()
        self._home.bind()
        self.owner.lease_keeper.leave_loop()
        if self._writer is not None and self._is_whole:
            self._writer.move(asyncio.get_running_loop())
            self._is_resting = True
            return
        # The loop was closed before the file was open, or while it was being closed.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
        self.owner.lock.release()
        self._open = self._is_whole = False
        self.owner.id = 0

    async def _go_on(self, account: str, *, force: bool) -> None:
        try:
            await self.write(lambda connection: self._check_account(connection, account, force))
            await self.owner.lease_keeper.resume()
        except GeneratorExit:
            raise  # the loop was closed: the next loop continues from here
        except BaseException:
            await self.aclose()
            raise
        self._is_resting = False

    # ------------------------------------------------------------- reading, writing

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation in the writing thread; return its result, once its changes are durable."""
        self._home.check()
        if self._writer is None:
            raise LedgerError("the ledger is not open")
        return await self._writer.do(work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read on a separate connection, because it may take long."""
        self._home.check()
        if self._in_memory or self._writer is None:
            return await self.write(work)
        return await self._beside("read", partial(read_beside, self._place, self._files, work))

    async def _beside(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except OSError as error:
            message = f"{self.path}: the ledger could not be {what}: {error.strerror}"
            raise LedgerError(message, retryable=True) from None

    async def select(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement that reads, beside the writer; return its rows."""
        return await self.read(lambda connection: connection.execute(_SQL[statement], {**STATES, **values}).fetchall())

    async def execute(self, statement: str, **values: Any) -> int:
        """Run a writing statement; return the number of changed rows."""
        return await self.write(lambda connection: connection.execute(_SQL[statement], {**STATES, **values}).rowcount)

    # ------------------------------------------------------- in the writing thread

    def note_erased(self) -> None:
        """Have the log emptied soon, because it still holds the erased secrets."""
        self._erased = True

    @staticmethod
    def meta(connection: sqlite3.Connection, name: str) -> str | None:
        """Return the ledger's metadata with this name; None if it has none."""
        found = connection.execute(_SQL["get_meta"], {"name": name}).fetchone()
        return None if found is None else found[0]

    def _truncate(self, connection: sqlite3.Connection) -> None:
        """Empty the log after secrets were erased, because it still holds them."""
        if self._erased and not self._in_memory:
            # Use a short timeout: a suspended reader would otherwise block all writers for the full busy_timeout.
            connection.execute(f"PRAGMA busy_timeout = {_MOMENT}")
            try:
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._erased = bool(busy)
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")

    def _seal(self, connection: sqlite3.Connection) -> Callable[[], None]:
        self._files.check("written")
        (commits,) = connection.execute(_SQL["count_commit"]).fetchone()
        return partial(self.owner.lock.note, commits)

    def _check_account(self, connection: sqlite3.Connection, account: str, force: bool) -> None:
        known = self.meta(connection, "account")
        bound = _rows.bound(known, account, force=force, where=str(self.path), place="a file")
        if bound != known:
            connection.execute(_SQL["set_meta"], {"name": "account", "value": bound})
        self.mark.seen = self.meta(connection, MARK)
