"""The attempt log of one ticket, which notes attempts in the ledger."""

import time
from functools import partial
from typing import Any

from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.prepared_request import PreparedRequest
from respan_async._calls.suspect_store import SuspectStore
from respan_async.errors import LedgerError, Suspect
from respan_async.events import logger
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.issuing.ledger import Intent, Ledger
from respan_async.issuing.tickets import Ticket


class TicketAttemptLog(AttemptLog):
    """Note every attempt of a ticket before it is sent (rule 1), and its result afterwards.

    Args:
        ticket: The ticket.
        ledger: The ledger.
        writes: Writes in the background.
        suspects: The ledger's suspects.

    Attributes:
        tag: The tag of the last attempt.
        epoch: The epoch of the claim, once there is one.
        used: Whether an attempt may have been noted.
    """

    def __init__(self, ticket: Ticket, ledger: Ledger, writes: BackgroundWrites, suspects: SuspectStore) -> None:
        super().__init__(suspects, tag_names=True)
        self._ticket = ticket
        self._ledger = ledger
        self._writes = writes
        self._intended_at = 0.0
        self.tag = ""
        self.epoch: int | None = None
        self.used = False

    async def claim_attempt(self, prepared: PreparedRequest[Any]) -> None:
        """Claim the ticket and note an attempt, durably."""
        self.used = True
        self.tag = prepared.tag or ""
        self._intended_at = time.monotonic()
        fields = prepared.fields or {}
        intent = Intent(tag=self.tag, name=fields.get("name"), sent=fields, sent_at=prepared.sent_at.timestamp())
        try:
            self.epoch = await self._ledger.claim_attempt(self._ticket, intent)
        except LedgerError:
            self.mark_void(prepared)  # the intent may have been noted all the same; the attempt is never sent
            raise

    def permits(self) -> bool:
        """Whether the claim still holds, asked when the first byte is about to leave."""
        return self._ledger.lease_held_since(self._intended_at)

    def mark_void(self, prepared: PreparedRequest[Any], *, answered: bool = False) -> None:
        """Note that an attempt is proven to have left nothing; forget it if it used no slot of the limit either."""
        note = self._ledger.mark_void if answered else self._ledger.forget_attempt
        self._writes.add(partial(note, prepared.tag or ""))

    def mark_suspect(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key."""
        super().mark_suspect(suspect)
        logger.debug("ticket %r: attempt %s is a suspect", self._ticket.id, suspect.tag)
