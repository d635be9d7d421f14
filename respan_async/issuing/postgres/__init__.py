"""The ledger in a Postgres database."""

from respan_async.issuing.postgres.ledger import PostgresLedger

__all__ = ["PostgresLedger"]
