"""A ledger's pages, read one row at a time, so that each row is the one after which the next page begins."""

from typing import Any

from respan_async import CreatedKey
from respan_async.issuing import LedgerError


async def in_pages_of_one(ledger: Any) -> tuple[dict[str, CreatedKey | LedgerError], list[str]]:
    """Return what is undelivered, by its ticket, and the tickets that have keys."""
    left: dict[str, CreatedKey | LedgerError] = {}
    after = ""
    while page := await ledger.undelivered(after, 1):
        left.update(page)
        after = page[-1][0]
    known: list[str] = []
    while ids := await ledger.with_keys(known[-1] if known else "", 1):
        known += ids
    return left, known
