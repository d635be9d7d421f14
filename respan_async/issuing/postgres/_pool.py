"""Runs statements on a few connections to Postgres, made on demand, and runs them again when a connection breaks.

psycopg's pool would connect in the background, with growing pauses, and hide the reason of a failure. Here each
statement connects by itself, within its timeout, and reports why that failed. psycopg's exceptions do not leave this
file.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import psycopg

from respan_async._calls.lifecycle import being_cancelled
from respan_async.errors import ConfigurationError, LedgerError
from respan_async.issuing.postgres._connection import Connection, Row, abort, connect
from respan_async.issuing.postgres._dsn import Settings, settings_of
from respan_async.issuing.postgres._errors import ConnectionLost, ledger_error, message_of
from respan_async.secret import as_secret

_OPEN: Final = 4
"""The most connections. A statement takes about a millisecond, so four connections run thousands of them a second."""

_CLOSED: Final = "the ledger was closed before its server answered"

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""Seconds between tries, doubled up to the longest."""

_Run: TypeAlias = Callable[[], Awaitable[list[Row]]]


class ConnectionPool:
    """Run statements, each in its own transaction.

    Args:
        dsn: The connection string of libpq; a text or a `Secret`.
        attempt: Seconds after which a silent connection is given up.
        patience: Seconds for which a statement is tried again after its connection broke.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
    """

    def __init__(self, dsn: object, *, attempt: float, patience: float) -> None:
        dsn = as_secret(dsn)
        given = settings_of(dsn)
        if isinstance(given, str):
            raise ConfigurationError(f"dsn: {given}")
        self.attempt = attempt
        self.patience = patience
        self._settings = Settings(
            {
                "application_name": "respan-async",
                "connect_timeout": max(2, round(attempt)),
                "keepalives_idle": max(1, round(attempt)),
                "keepalives_interval": max(1, round(attempt / 3)),
                "keepalives_count": 3,
                "tcp_user_timeout": round(1000 * attempt),
                **given,
                # psycopg would use the database encoding, which may lack a ticket's characters; SQL_ASCII has no codec.
                "client_encoding": "utf8",
            }
        )
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(_OPEN)
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[list[Row]]] = set()
        self._executing: dict[asyncio.Task[Any] | None, Connection] = {}
        self._given_up: dict[Connection, str] = {}
        self._closed = False

    async def ask(
        self,
        statement: str,
        values: Mapping[str, Any],
        *,
        about: Iterable[str] = (),
        until: float | None = None,
        attempt: float | None = None,
    ) -> list[Row]:
        """Run a statement and return its rows. The statement runs to its end even if the caller is cancelled.

        The statement must be idempotent, because after a broken connection the client cannot know whether it ran.

        Args:
            statement: The statement; or, without parameters, several statements, run as one transaction.
            values: The parameters.
            about: Keys of the statement; statements with a common key run in the order in which they were asked for.
            until: The time of `time.monotonic()` until which the statement is tried again; None to use `patience`.
            attempt: Seconds that the server may take for the statement; None to use the pool's `attempt`.

        Raises:
            LedgerError: The statement failed.
        """
        until = time.monotonic() + self.patience if until is None else until
        run = partial(self._once, statement, values, until, self.attempt if attempt is None else attempt)
        task = asyncio.get_running_loop().create_task(self._in_turn(run, tuple(about), until))
        self._tasks.add(task)
        task.add_done_callback(self._over)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not being_cancelled():
                raise ConnectionLost(_CLOSED, retryable=True) from None
            raise

    async def drain(self, seconds: float) -> bool:
        """Wait for the running statements, but not longer than `seconds`; return whether all are done."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return not self._tasks

    async def leave_loop(self) -> None:
        """Close the connections of a closed event loop."""
        self._closed = True
        for connection in (*self._idle, *self._executing.values()):
            with contextlib.suppress(Exception):  # closing may touch the closed loop
                await connection.close()
        self._idle.clear()

    async def aclose(self) -> None:
        """Give up the running statements, and close every connection."""
        self._closed = True
        for task in self._tasks:
            if (connection := self._executing.get(task)) is not None:
                self._give_up(connection, _CLOSED)
            else:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._close_idle()

    # ----------------------------------------------------------------- inside

    def _over(self, task: asyncio.Task[list[Row]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, because a cancelled caller does not

    async def _in_turn(self, run: _Run, about: Iterable[str], until: float) -> list[Row]:
        """Run a statement after the earlier statements with a common key."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = {self._turns[name] for name in about if name in self._turns}
        self._turns.update(dict.fromkeys(about, done))
        try:
            if before:
                await asyncio.wait(before)
            return await self._retry(run, until)
        finally:
            done.set_result(None)
            for name in about:
                if self._turns[name] is done:
                    del self._turns[name]

    async def _retry(self, run: _Run, until: float) -> list[Row]:
        """Run a statement; run it again as long as connections break."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await run()
            except ConnectionLost:
                # The cause has probably broken the idle connections, too.
                await self._close_idle()
                if self._closed or time.monotonic() + pause >= until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _once(self, statement: str, values: Mapping[str, Any], until: float, attempt: float) -> list[Row]:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._free.acquire()
        except TimeoutError:
            raise ConnectionLost("the ledger could not be reached: no connection became free", retryable=True) from None
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            return await self._execute(connection, statement, values, attempt)
        finally:
            self._free.release()

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self.attempt):
                return await connect(self._settings)
        except TimeoutError:
            told = f"no answer within {self.attempt:g} s"
        except psycopg.Error as error:
            told = message_of(error)
        # Raise outside of the handlers, because psycopg's exception holds the password, and would become the context.
        raise ConnectionLost(f"the ledger could not be reached: {told}", retryable=True)

    async def _execute(
        self, connection: Connection, statement: str, values: Mapping[str, Any], attempt: float
    ) -> list[Row]:
        late = f"the ledger's server gave no answer within {attempt:g} s"
        # Do not cancel the task, because psycopg would then ask the silent server to cancel, and wait for its answer.
        timer = asyncio.get_running_loop().call_later(attempt, self._give_up, connection, late)
        task = asyncio.current_task()
        self._executing[task] = connection
        sound = False
        try:
            # This package wrote the statements; they are bytes, because the type checker accepts only literal texts.
            cursor = await connection.execute(statement.encode(), values or None)
            found = await cursor.fetchall() if cursor.description else []
            sound = True
            return found
        except psycopg.Error as error:
            failure = ledger_error(error, self._given_up.pop(connection, None))
            sound = not isinstance(failure, ConnectionLost)
        except UnicodeError as error:  # a damaged text could not be encoded, so nothing was sent
            failure = LedgerError(f"the ledger could not be used: {error}")
        finally:
            timer.cancel()
            self._given_up.pop(connection, None)
            del self._executing[task]
            if sound and not connection.closed:
                self._idle.append(connection)
            else:
                await connection.close()
        raise failure

    def _give_up(self, connection: Connection, reason: str) -> None:
        """Break a connection, and remember why, because psycopg reports it as if the server had closed it."""
        self._given_up[connection] = reason
        abort(connection)

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
