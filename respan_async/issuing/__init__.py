"""Issuing that survives crashes: tickets, an issuer, and the ledgers that remember.

async with AsyncRespan() as respan, Issuer(respan, SQLiteLedger("keys.db")) as issuer:
    issued = await issuer.issue(Ticket("tenant-42/2026-11", CreateKeyRequest(name="tenant-42")))
"""

from respan_async.errors import LedgerError, TicketConflictError
from respan_async.issuing.cipher import AESGCMCipher, Cipher
from respan_async.issuing.issuer import Issuer
from respan_async.issuing.jsonlines_sink import JSONLinesSink
from respan_async.issuing.ledger import Counts, Ledger
from respan_async.issuing.postgres import PostgresLedger
from respan_async.issuing.sqlite import SQLiteLedger
from respan_async.issuing.states import AttemptState, TicketState
from respan_async.issuing.tickets import Ticket

__all__ = [
    "AESGCMCipher",
    "AttemptState",
    "Cipher",
    "Counts",
    "Issuer",
    "JSONLinesSink",
    "Ledger",
    "LedgerError",
    "PostgresLedger",
    "SQLiteLedger",
    "Ticket",
    "TicketConflictError",
    "TicketState",
]
