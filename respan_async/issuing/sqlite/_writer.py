"""Runs writes in one thread, and commits many of them at once.

A durable commit waits for the disk. So all operations that come during a commit share the next one. Each operation gets
a separate result, and if one fails, only its own changes are undone.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

from respan_async.errors import LedgerError
from respan_async.issuing.sqlite._errors import is_locked, ledger_error

T = TypeVar("T")

Seal: TypeAlias = Callable[[sqlite3.Connection], Callable[[], None]]

_GROUP: Final = 1_000
"""The most operations in one commit."""

PATIENCE: Final = 60.0
"""Seconds to wait for a file that another process keeps locked; meanwhile, no process but that one can write to it."""


class WriteRequest(Generic[T]):
    """An operation to run within a transaction, and the future for its result."""

    __slots__ = ("error", "future", "value", "withdrawn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T], future: "asyncio.Future[T]") -> None:
        self.work = work
        self.future = future
        self.withdrawn = False
        self.value: T | None = None
        self.error: BaseException | None = None


class AmbiguousCommitError(LedgerError):
    """The commit failed, which does not prove that nothing was written."""


class Writer:
    """Run operations in a thread, in the order in which they were requested.

    Args:
        connect: Opens the connection, in that thread.
        idle: Called in that thread if no operation is left after a commit.
        loop: The event loop that gets the results.
        name: The name of the ledger in errors; empty to leave it out.
        patience: Seconds to wait for a file that others keep locked.
        seal: Called in that thread before a commit that changes something; the function that it returns is called after
            the commit, and a `LedgerError` that it raises undoes everything.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        idle: Callable[[sqlite3.Connection], None],
        loop: asyncio.AbstractEventLoop,
        seal: Seal | None = None,
        *,
        name: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self._connect = connect
        self._idle = idle
        self._seal = seal
        self._loop = loop
        self._name = name
        self._patience = patience
        self._queue: queue.SimpleQueue[WriteRequest[Any] | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="respan-ledger", daemon=True)
        self._ended = False

    async def start(self) -> None:
        """Open the connection.

        Raises:
            LedgerError: The connection cannot be opened.
        """
        try:
            self._thread.start()
        except RuntimeError as error:  # the system cannot start another thread
            self._ended = True
            self._closed.set_result(None)
            raise ledger_error(error, "opened", self._name) from None
        await asyncio.shield(self._opened)

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation, and return its result once it is durable.

        If the caller is cancelled before the operation has begun, the operation is withdrawn.

        Raises:
            LedgerError: The operation failed.
        """
        if self._ended:
            raise LedgerError("the ledger is closed")
        operation: WriteRequest[T] = WriteRequest(work, self._loop.create_future())
        self._queue.put(operation)
        try:
            return await operation.future
        except asyncio.CancelledError:
            operation.withdrawn = True
            raise

    def move(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give results to another event loop from now on, because the previous one is closed."""
        self._loop = loop
        self._closed = loop.create_future()

    def abandon(self) -> None:
        """Let the thread end by itself, after the requested operations."""
        self.hasten()
        self._ended = True
        self._queue.put(None)

    def hasten(self) -> None:
        """Wait for a locked file no longer than SQLite itself does."""
        self._patience = 0.0

    async def stop(self) -> None:
        """Finish the requested operations, and close the connection."""
        self.hasten()
        if not self._ended:
            self._ended = True
            self._queue.put(None)
        await asyncio.shield(self._closed)

    def _end(self) -> None:
        self._closed.set_result(None)

    # ------------------------------------------------------------- in the thread

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001  raised in the task that opens the ledger
            self._tell(self._opened.set_exception, ledger_error(error, "opened", self._name))
            self._tell(self._end)
            return
        self._tell(self._opened.set_result, None)
        ended = False
        while not ended:
            group = [self._queue.get()]
            while len(group) < _GROUP and not self._queue.empty():
                group.append(self._queue.get())
            ended = None in group
            operations = [operation for operation in group if operation is not None and not operation.withdrawn]
            if operations:
                self._commit(connection, operations)
                self._tell(_hand_out, operations)
            if ended or self._queue.empty():
                self._tidy_up(connection)
        try:
            connection.close()
        finally:
            self._tell(self._end)

    def _commit(self, connection: sqlite3.Connection, operations: list[WriteRequest[Any]]) -> None:
        """Run all operations in one transaction; if one fails, rerun each in its own savepoint."""
        changes, sealed = connection.total_changes, None
        try:
            self._begin(connection)
            if not _do_all(connection, operations):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._begin(connection)
                self._do_each(connection, operations)
            if self._seal is not None and connection.total_changes != changes:
                sealed = self._seal(connection)
        except (sqlite3.Error, LedgerError) as error:
            _fail(connection, operations, ledger_error(error, "written", self._name))
            return
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            told = ledger_error(error, "written", self._name)
            _fail(connection, operations, AmbiguousCommitError(str(told), retryable=told.retryable))
            return
        if sealed is not None:
            sealed()

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a write transaction; a backup or a tool may keep the file locked for longer than SQLite waits."""
        began = time.monotonic()
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                if not is_locked(error) or time.monotonic() > began + self._patience:
                    raise

    def _do_each(self, connection: sqlite3.Connection, operations: list[WriteRequest[Any]]) -> None:
        for operation in operations:
            connection.execute("SAVEPOINT one")
            try:
                operation.value = operation.work(connection)
            except Exception as error:
                operation.error = ledger_error(error, "written", self._name)
                if not connection.in_transaction:
                    raise  # SQLite has rolled back by itself: the disk is full, or broken
                connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")

    def _tidy_up(self, connection: sqlite3.Connection) -> None:
        # The callback may fail, e.g. because the disk is full; it is called again after the next commit.
        with contextlib.suppress(sqlite3.Error):
            self._idle(connection)

    def _tell(self, what: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, and has no waiters
            self._loop.call_soon_threadsafe(what, *arguments)


def _do_all(connection: sqlite3.Connection, operations: list[WriteRequest[Any]]) -> bool:
    try:
        for operation in operations:
            operation.value = operation.work(connection)
    except Exception:  # noqa: BLE001  the caller reruns each operation in its own savepoint, which shows which one failed
        return False
    return True


def _fail(connection: sqlite3.Connection, operations: list[WriteRequest[Any]], error: LedgerError) -> None:
    for operation in operations:
        operation.error = operation.error or error
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")


def _hand_out(operations: list[WriteRequest[Any]]) -> None:
    """Give every operation its result, on the event loop."""
    for operation in operations:
        future = operation.future
        if future.done() or future.get_loop().is_closed():
            continue  # its caller is gone
        if operation.error is not None:
            future.set_exception(operation.error)
        else:
            future.set_result(operation.value)
