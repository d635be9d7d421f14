"""Reads a snapshot of a ledger in Postgres: writes, takes over and binds nothing."""

import time
from typing import Final

from respan_async.issuing import _rows
from respan_async.issuing._sql_loader import STATES
from respan_async.issuing.ledger import Snapshot
from respan_async.issuing.postgres._pool import ConnectionPool
from respan_async.issuing.postgres._schema import Schema
from respan_async.issuing.postgres._statements import SCHEMA

_PATIENCE: Final = 10.0
_LONG: Final = 60.0
"""Seconds that the server may take for one row, and for all rows."""


async def read_snapshot(dsn: object, *, schema: str = SCHEMA) -> Snapshot:
    """Read the contents of a ledger, even while others write to it; each part at a slightly different moment.

    Args:
        dsn: The connection string, as of `PostgresLedger`.
        schema: The schema of the ledger.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
        LedgerError: The database cannot be reached or read, or the ledger does not exist.
    """
    at = Schema(schema)
    pool = ConnectionPool(dsn, attempt=_PATIENCE / 2, patience=_PATIENCE)
    try:
        async with at.explaining(pool):
            meta = await at.meta(pool)
            values = {**STATES, "now": time.time()}
            tickets, attempts, suspects, waiting = [
                await pool.ask(at.statements[name], values, attempt=_LONG)
                for name in ("count_tickets", "count_attempts", "suspects", "waiting")
            ]
        return _rows.snapshot_of(meta.get("account", ""), tickets, attempts, suspects, waiting)
    finally:
        await pool.aclose()
