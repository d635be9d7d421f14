"""Processes one ticket: looks it up, makes its key if it has none, records the key, delivers it."""

import asyncio
from functools import partial

import attrs

from respan_async._calls.call import Call
from respan_async._calls.call_service import CallService
from respan_async._calls.suspect_store import SuspectStore
from respan_async._pacing.priority import Priority
from respan_async.errors import (
    ClientStateError,
    DeadlineExceededError,
    Effect,
    InvalidRequestError,
    LedgerError,
    Suspect,
)
from respan_async.issuing._active_tickets import ActiveTickets
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.issuing._delivery import Delivery
from respan_async.issuing._rows import conflict
from respan_async.issuing._ticket_attempt_log import TicketAttemptLog
from respan_async.issuing.ledger import Ledger, TicketRecord
from respan_async.issuing.states import TicketState
from respan_async.issuing.tickets import Ticket
from respan_async.models import CreatedKey


@attrs.frozen(kw_only=True)
class IssuerContext:
    """The state that the work on all tickets of an issuer shares.

    Attributes:
        ledger: The ledger of tickets, attempts and keys.
        writes: Writes in the background.
        suspects: The ledger's suspects.
        active: The tickets that are being worked on.
        delivery: Delivers secrets; with None, they stay in the ledger.
    """

    ledger: Ledger
    writes: BackgroundWrites
    suspects: SuspectStore
    active: ActiveTickets
    delivery: Delivery | None


class TicketProcessor:
    """The job that gives one ticket its key.

    Args:
        context: The state that the work on all tickets shares.
        ticket: The ticket.
        service: Makes the call.
        priority: The class in which its requests wait.

    Raises:
        InvalidRequestError: `ticket` is not a `Ticket`.
    """

    def __init__(self, context: IssuerContext, ticket: Ticket, service: CallService, priority: Priority) -> None:
        if not isinstance(ticket, Ticket):
            raise InvalidRequestError(f"ticket: expected a Ticket, got {type(ticket).__name__}")
        self.replayed = self.delivered = False
        self._context = context
        self._ledger = context.ledger
        self._ticket = ticket
        self._service = service
        self._priority = priority
        self._log = TicketAttemptLog(ticket, context.ledger, context.writes, context.suspects)
        self._call: Call[CreatedKey] = service.creation(ticket.request, priority, self._log)
        self._task: asyncio.Task[object] | None = None
        self._calling = self._keeping = self._abandoned = False

    # ----------------------------------------------------------------- a job

    @property
    def deadline(self) -> float | None:
        """Seconds for the whole job, or None."""
        return self._call.deadline

    @property
    def quota_exhausted(self) -> bool:
        """Whether the limit refused its call for so long that no other call would succeed."""
        return self._call.quota_exhausted

    def begin(self) -> None:
        """Start the deadline of the whole job."""
        self._call.begin()

    def promote(self, priority: Priority) -> None:
        """Wait in a higher class from now on."""
        self._call.promote(priority)

    def abandon(self, *, wanted: bool = False) -> bool:  # a key is always wanted, because it belongs to its ticket
        """Send nothing more; return whether the job goes on."""
        self._abandoned = True
        if self._keeping:
            return True
        if self._calling:
            return self._call.abandon(wanted=True)
        if self._task is not None:
            self._task.cancel()
        return False

    def abandoned_error(self) -> ClientStateError:
        """Return the error of a job that was abandoned and has ended."""
        return self._call.abandoned_error()

    def deadline_error(self) -> DeadlineExceededError:
        """Return the error of a deadline that passed while the job was under way."""
        error = self._call.deadline_error()
        if self._keeping:  # the key exists, and is being recorded for its ticket
            error.effect = error.effect.or_worse(Effect.UNKNOWN)
        return error

    async def run(self) -> CreatedKey:
        """Give the ticket its key."""
        self._task = asyncio.current_task()
        if self._abandoned:
            raise self.abandoned_error()
        if self._context.delivery is not None and self._priority is Priority.BATCH:
            # Wait for room *before* beginning the ticket, so that an interactive call for it is not blocked.
            await self._context.delivery.room()
        await self._context.active.begin(self._ticket.id, self, self._priority)
        try:
            return await self._recorded() or await self._made()
        finally:
            self._context.active.end(self._ticket.id, self)

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
        """Return the key that the ticket already has."""
        record = await self._ledger.find(self._ticket.id)
        if record is not None and record.fields != self._ticket.fields and record.state is not TicketState.OPEN:
            raise conflict(self._ticket.id, record.fields, self._ticket.fields)
        if record is None or record.key is None:
            return None
        self.replayed = True
        self.delivered = record.state is TicketState.DELIVERED
        if record.state is TicketState.ISSUED:  # the process that recorded the key may have died before delivering it
            await self._deliver(record.key)
        return record.key

    async def _deliver(self, key: CreatedKey) -> None:
        if self._context.delivery is not None:
            patient = self._priority is Priority.BATCH  # a user, e.g. of a web request, may wait for a single call
            self.delivered = await self._context.delivery.deliver(self._ticket.id, key, patient=patient)

    def _release(self) -> None:
        if self._log.used:
            self._context.writes.add(self._let_go)

    async def _let_go(self) -> None:
        # Another call shares this claim and may not have used it yet: do not release it; retry later.
        if self._context.active.has_other(self._ticket.id, self):
            raise LedgerError(f"ticket {self._ticket.id!r:.100}: it is being worked on again")
        await self._ledger.release(self._ticket.id, self._log.epoch)

    # -------------------------------------------------------- keeping the key

    async def _keep(self, key: CreatedKey) -> CreatedKey:
        """Make a key durable before any caller gets it (rules 2 and 4)."""
        problem: LedgerError | None = None
        mine: bool | None = None
        try:
            mine = await self._ledger.record(self._ticket.id, self._log.epoch or 0, self._log.tag, key)
        except LedgerError as error:
            problem = error
            mine = await self._is_recorded(key)
        if mine:
            await self._deliver(key)
            return key
        self._release()
        if mine is None:
            reason = "the ledger failed when its key was recorded, and could not be read since"
            self._log.mark_suspect(self._suspect(key, reason))
            raise LedgerError(
                f"ticket {self._ticket.id!r:.100}: {problem}; whether its key was recorded is not known, "
                "so it was neither handed out nor revoked",
                effect=Effect.UNKNOWN,
                retryable=True,
            )
        # The record is known not to be ours, so no caller will ever get this key.
        suspect = self._suspect(key, "another process had taken over its ticket" if problem is None else str(problem))
        self._log.mark_suspect(suspect)
        close = partial(self._context.suspects.close_suspect, suspect, revoked=True)
        self._service.discard(key, partial(self._context.writes.add, close))
        if problem is not None:
            raise LedgerError(
                f"ticket {self._ticket.id!r:.100}: {problem}; its key is being revoked",
                effect=Effect.LOST,
                retryable=True,
            )
        other = await self._recorded()
        if other is None:
            raise LedgerError(f"ticket {self._ticket.id!r:.100}: another process has taken it over", retryable=True)
        return other

    async def _is_recorded(self, key: CreatedKey) -> bool | None:
        """Read whether a key belongs to the ticket; None if that cannot be known."""
        try:
            record: TicketRecord | None = await self._ledger.find(self._ticket.id)
        except LedgerError:
            return None
        return record is not None and record.key is not None and record.key.id == key.id

    def _suspect(self, key: CreatedKey, reason: str) -> Suspect:
        clock = self._service.context.clock
        return Suspect(
            name=key.name, tag=self._log.tag, id=key.id, effect=Effect.LOST, sent_at=clock(), sent={}, reason=reason
        )
