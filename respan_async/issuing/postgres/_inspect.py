"""A look into a ledger in Postgres from outside: nothing is written, taken over or bound."""

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
"""Seconds that the server may take for one row, and to go through all there are."""


async def read_snapshot(dsn: object, *, schema: str = SCHEMA) -> Snapshot:
    """Read what is in a ledger, also while others write to it; each part of it at a moment of its own.

    Args:
        dsn: Where the database is, as of `PostgresLedger`.
        schema: The schema of the ledger.

    Raises:
        ConfigurationError: `dsn` is no connection string.
        LedgerError: The database cannot be reached or read, or there is no such ledger.
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
        return Snapshot(
            account=meta.get("account", ""),
            counts=_rows.counts_of(tickets, attempts),
            suspects=tuple(sorted(_rows.suspects_of(suspects), key=lambda suspect: suspect.sent_at)),
            undelivered=_rows.undelivered_of(waiting),
        )
    finally:
        await pool.aclose()
