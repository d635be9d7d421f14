"""Opens a ledger in Postgres for one owner, moves it from one event loop to the next, queries it, and closes it."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from respan_async._calls.owning_loop import OwningLoop
from respan_async.errors import ClientStateError, LedgerError
from respan_async.issuing._cipher_key_mark import MARK, RotationMark
from respan_async.issuing._heartbeat import LeaseKeeper
from respan_async.issuing._sql_loader import STATES
from respan_async.issuing.postgres._pool import ConnectionPool
from respan_async.issuing.postgres._schema import Schema

_LAST: Final = 2.0
"""Seconds that closing waits for running statements, and again to sign off. If that fails, the lease ends by itself."""


class Session:
    """One owner's use of a ledger in a database, from its opening to its closing.

    Args:
        dsn: The database, as for `PostgresLedger`.
        lease: Seconds after which the claims of a silent process may be taken over.
        schema: The schema of the ledger.

    Attributes:
        owner: The number of the owner; 0 while it is not registered.
        lease_keeper: Prolongs the owner's lease.
        mark: The mark of a rotation, as it was when the ledger was opened.
        patience: Seconds for which a statement is tried again after its connection broke.
        where: The name of the ledger in messages.

    Raises:
        ConfigurationError: `dsn` is not a connection string, or a setting is invalid.
    """

    def __init__(self, dsn: object, lease: float, schema: str) -> None:
        self.owner = 0
        self.lease_keeper = LeaseKeeper(lease, self._renew, self._register_owner, self._reclaim_owners)
        # Short enough for another try and another heartbeat before the lease ends.
        self.patience = patience = min(max(lease / 3, 1.0), 10.0)
        self._connect: Callable[[], ConnectionPool]
        self._connect = partial(ConnectionPool, dsn, attempt=patience / 2, patience=patience)
        self._connect()  # reports a wrong setting at once
        self._lease = lease
        self._schema = Schema(schema)
        self.where = self._schema.where
        self._sql = self._schema.statements
        self._pool: ConnectionPool | None = None
        self.mark = RotationMark()
        self._home = OwningLoop("ledger", "opened", self._park)

    async def make_schema(self) -> None:
        """Make the schema and its tables, if they are missing; see `PostgresLedger.create_schema`."""
        pool = self._connect()
        try:
            await self._schema.make(pool)
        finally:
            await pool.drain(self.patience)
            await pool.aclose()

    async def open(self, account: str, *, force: bool) -> None:
        """Open the ledger for an account, and take over what lapsed owners left; see `Ledger`."""
        if self._home.is_gone:
            await self._leave_loop()
        if self._pool is not None:
            raise ClientStateError("the ledger is open already; each issuer has a ledger of its own, and closes it")
        self._pool = pool = self._connect()
        self._home.bind()
        try:
            async with self._schema.explaining(pool):
                self.mark.seen = (await self._schema.bind(pool, account, force=force)).get(MARK)
                await (self.lease_keeper.resume() if self.owner else self.lease_keeper.start())
        except GeneratorExit:
            raise  # the loop was closed: the next loop continues from here
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Finish the writes, and close the connections; see `Ledger`."""
        if self._home.is_gone:
            await self._leave_loop()
            self._pool = self._connect()  # to sign this owner off
            self._home.bind()
        self._home.check()
        self.lease_keeper.stop()
        pool, self._pool = self._pool, None
        if pool is None:
            return
        owner, self.owner = self.owner, 0
        try:
            if await pool.drain(_LAST) and owner:
                with contextlib.suppress(LedgerError, TimeoutError):  # the lease ends by itself then
                    async with asyncio.timeout(_LAST):
                        await pool.ask(self._sql["reclaim_owners"], {**STATES, "owner": owner, "leaving": True})
        finally:
            await pool.aclose()
            self._home.unbind()

    async def _leave_loop(self) -> None:
        """Unbind, because the event loop of the connections is closed."""
        pool, self._pool = self._pool, None
        self._home.unbind()
        self.lease_keeper.leave_loop()
        if pool is not None:
            await pool.leave_loop()

    async def _park(self) -> None:
        """Finish the statements and close the connections, on an event loop that is about to end."""
        pool, self._pool = self._pool, None
        self.lease_keeper.cancel()
        if pool is not None:
            await pool.drain(_LAST)
            await pool.aclose()

    async def _renew(self) -> bool:
        return bool(self.owner) and bool(await self.ask("renew", owner=self.owner, lease=self._lease))

    async def _register_owner(self) -> None:
        ((self.owner,),) = await self.ask("register_owner", lease=self._lease)

    async def _reclaim_owners(self) -> None:
        """Take over what owners with lapsed leases left."""
        await self.ask("reclaim_owners", owner=self.owner, leaving=False)

    async def ask(
        self,
        statement: str,
        *,
        about: tuple[str, ...] = (),
        until: float | None = None,
        attempt: float | None = None,
        **values: Any,
    ) -> list[Any]:
        """Run a statement by its name; return its rows.

        Args:
            statement: The name of the statement.
            about: See `ConnectionPool.ask`.
            until: See `ConnectionPool.ask`.
            attempt: See `ConnectionPool.ask`.
            values: The parameters of the statement.

        Raises:
            LedgerError: The statement failed, or the ledger is not open.
        """
        self._home.check()
        if self._pool is None:
            raise LedgerError("the ledger is not open")
        values = {**STATES, **values}
        return await self._pool.ask(self._sql[statement], values, about=about, until=until, attempt=attempt)
