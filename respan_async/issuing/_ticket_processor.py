"""One ticket's work: look it up, make its key if it has none, keep the key, deliver it."""

import asyncio
import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from respan_async._calls.call import Call
from respan_async._calls.operation import PreparedRequest
from respan_async._pacing.slots import Priority
from respan_async.errors import (
    ClientStateError,
    DeadlineExceededError,
    Effect,
    InvalidRequestError,
    LedgerError,
    Suspect,
)
from respan_async.events import logger
from respan_async.issuing._rows import conflict
from respan_async.issuing.ledger import Intent, TicketRecord
from respan_async.issuing.states import TicketState
from respan_async.issuing.tickets import Ticket
from respan_async.keys import TemporaryKeys
from respan_async.models import CreatedKey

if TYPE_CHECKING:
    from respan_async.issuing.issuer import Issuer

_MOST_SAID: Final = 500
"""Characters of a suspect's reason that are kept."""


class TicketProcessor:
    """One ticket's work, and the log of its attempts.

    Args:
        issuer: Whose work it is.
        ticket: The ticket.
        priority: The class in which its requests wait.
        keys: Makes them.
    """

    def __init__(self, issuer: "Issuer", ticket: Ticket, priority: Priority, keys: TemporaryKeys) -> None:
        if not isinstance(ticket, Ticket):
            raise InvalidRequestError(f"ticket: expected a Ticket, got {type(ticket).__name__}")
        self.replayed = False
        self._issuer = issuer
        self._ledger = issuer._ledger
        self.ticket = ticket
        self.keys = keys
        self._call: Call[CreatedKey] = keys._creation(ticket.request, priority, self)
        self._task: asyncio.Task[object] | None = None
        self._calling = self._keeping = self._abandoned = False
        self._epoch: int | None = None
        self._tag = ""
        self._intended_at = 0.0

    # ----------------------------------------------------- as part of a batch

    def begin(self) -> None:
        """Let the time of the whole call begin."""
        self._call.begin()

    def abandon(self) -> bool:
        """Give up whoever awaits this; return whether it goes on."""
        self._abandoned = True
        if self._keeping:
            return True
        if self._calling:
            return self._call.abandon()
        if self._task is not None:
            self._task.cancel()
        return False

    @property
    def runs_here(self) -> bool:
        """Whether whoever asks is called from within this work."""
        return self._task is asyncio.current_task()

    def abandoned_error(self) -> ClientStateError:
        """Return the error of work that was abandoned and did not go on."""
        return self._call.abandoned_error()

    def deadline_error(self) -> DeadlineExceededError:
        """Return the error of a deadline that passed while this was under way."""
        error = self._call.deadline_error()
        if self._keeping:  # there is a key, which goes on to its ticket
            error.effect = error.effect.or_worse(Effect.UNKNOWN)
        return error

    async def run(self) -> CreatedKey:
        """Give the ticket its key."""
        self._task = asyncio.current_task()
        if self._abandoned:
            raise self.abandoned_error()
        await self._issuer._begin(self)
        try:
            return await self._recorded() or await self._made()
        finally:
            self._issuer._end(self)

    async def _made(self) -> CreatedKey:
        """Make the ticket's key."""
        self._calling = True
        try:
            key = await self._call.run()
        except BaseException as error:
            self._release()
            if isinstance(error, LedgerError) and (recorded := await self._recorded()) is not None:
                return recorded  # another process was faster
            raise
        self._keeping = True
        return await self._keep(key)

    async def _recorded(self) -> CreatedKey | None:
        """Return the key that the ticket has already."""
        record = await self._ledger.find(self.ticket.id)
        if record is not None and record.fields != self.ticket.fields:
            raise conflict(self.ticket.id, record.fields, self.ticket.fields)
        if record is None or record.key is None:
            return None
        self.replayed = True
        if record.state is TicketState.ISSUED:  # whoever recorded it may be gone
            await self._deliver(record.key)
        return record.key

    async def _deliver(self, key: CreatedKey) -> None:
        if self._issuer._delivery is not None:
            await self._issuer._delivery.deliver(self.ticket.id, key)

    def _release(self) -> None:
        if self._intended_at:
            self._issuer._background_writes.add(self._let_go)

    async def _let_go(self) -> None:
        # The claim and its epoch are then another call's as well, which may want nothing any more before it uses them.
        if self._issuer._has_other_call(self):
            raise LedgerError(f"ticket {self.ticket.id!r:.100}: it is being worked on again")
        await self._ledger.release(self.ticket.id, self._epoch)

    # -------------------------------------------------------- keeping the key

    async def _keep(self, key: CreatedKey) -> CreatedKey:
        """Make a key durable before anybody is given it (rules 2 and 4)."""
        problem: LedgerError | None = None
        mine: bool | None = None
        try:
            mine = await self._ledger.record(self.ticket.id, self._epoch or 0, self._tag, key)
        except LedgerError as error:
            problem = error
            mine = await self._is_recorded(key)
        if mine:
            await self._deliver(key)
            return key
        self._release()
        if mine is None:
            reason = "the ledger failed when its key was recorded, and could not be read since"
            self.mark_suspect(self._suspect(key, reason))
            raise LedgerError(
                f"ticket {self.ticket.id!r:.100}: {problem}; whether its key was recorded is not known, "
                "so it was neither handed out nor revoked",
                effect=Effect.UNKNOWN,
                retryable=True,
            )
        # Known not to be ours: nobody will ever hold this key.
        self.mark_suspect(
            self._suspect(key, "another process had taken over its ticket" if problem is None else str(problem))
        )
        self.keys._discard(key)
        if problem is not None:
            raise LedgerError(
                f"ticket {self.ticket.id!r:.100}: {problem}; its key is being revoked",
                effect=Effect.LOST,
                retryable=True,
            )
        other = await self._recorded()
        if other is None:
            raise LedgerError(f"ticket {self.ticket.id!r:.100}: another process has taken it over", retryable=True)
        return other

    async def _is_recorded(self, key: CreatedKey) -> bool | None:
        """Read whether a key is the ticket's; None when that cannot be known."""
        try:
            record: TicketRecord | None = await self._ledger.find(self.ticket.id)
        except LedgerError:
            return None
        return record is not None and record.key is not None and record.key.id == key.id

    def _suspect(self, key: CreatedKey, reason: str) -> Suspect:
        clock = self._issuer._context.clock
        return Suspect(
            name=key.name, tag=self._tag, id=key.id, effect=Effect.LOST, sent_at=clock(), sent={}, reason=reason
        )

    # -------------------------------------------------------- the attempt log

    async def claim_attempt(self, prepared: PreparedRequest, sent_at: datetime) -> None:
        """Note an attempt, durably (rule 1)."""
        self._tag = prepared.tag or ""
        self._intended_at = time.monotonic()
        fields = prepared.fields or {}
        intent = Intent(tag=self._tag, name=fields.get("name"), sent=fields, sent_at=sent_at.timestamp())
        try:
            self._epoch = await self._ledger.claim_attempt(self.ticket, intent)
        except LedgerError:
            self.mark_void(prepared)  # it may have been noted all the same, and is never sent
            raise

    def permits(self) -> bool:
        """Whether the claim still holds, asked when the first byte is about to leave."""
        return self._ledger.lease_held_since(self._intended_at)

    def mark_void(self, prepared: PreparedRequest) -> None:
        """Note that an attempt is proven to have left nothing."""
        self._issuer._background_writes.add(partial(self._ledger.mark_void, prepared.tag or ""))

    def mark_suspect(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key. Should this not be written, the intent alone says as much."""
        self._issuer._background_writes.add(partial(self._write_suspect, suspect))
        logger.debug("ticket %r: attempt %s is a suspect", self.ticket.id, suspect.tag)

    async def _write_suspect(self, suspect: Suspect) -> None:
        reason = "".join(letter if letter.isprintable() else " " for letter in suspect.reason[:_MOST_SAID])
        await self._ledger.mark_suspect(suspect.tag or "", suspect.effect, reason, suspect.id)
        self._issuer._wake_sweeper()


class TicketOfBatch:
    """One ticket of a batch."""

    def __init__(self, issuer: "Issuer", ticket: Ticket) -> None:
        self._issuer = issuer
        self._work = TicketProcessor(issuer, ticket, Priority.BATCH, issuer._keys)

    @property
    def replayed(self) -> bool:
        return self._work.replayed

    async def run(self) -> CreatedKey:
        if self._work.keys._options.deadline is None:
            return await self._work.run()
        return await self._issuer._shielded(self._work)

    def abandon(self) -> bool:
        return self._work.abandon()

    def abandoned_error(self) -> ClientStateError:
        return self._work.abandoned_error()
