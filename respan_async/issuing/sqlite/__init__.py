"""The ledger in an SQLite file."""

from respan_async.issuing.sqlite.ledger import SQLiteLedger

__all__ = ["SQLiteLedger"]
