"""Issues one key for each ticket, once, through crashes and on several machines."""

import asyncio
import contextvars
import hashlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import attrs

from respan_async._arguments import shown
from respan_async._calls import sweep, sweep_policy
from respan_async._calls.auto_sweep import AutoSweep
from respan_async._calls.call_service import service_of
from respan_async._calls.lifecycle import Move, Stage, being_cancelled, check_grace
from respan_async._calls.shielding import run_shielded
from respan_async._calls.sweep_policy import SweepPolicy, SweepReport
from respan_async._pacing.priority import Priority
from respan_async._pacing.window import GRACE
from respan_async.batch import Batch
from respan_async.client import AsyncRespan
from respan_async.errors import ClientStateError, ConfigurationError, RespanError, Suspect
from respan_async.issuing._active_tickets import ActiveTickets
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.issuing._delivery import Delivery
from respan_async.issuing._delivery_settings import DeliverySettings
from respan_async.issuing._suspect_store import LedgerSuspectStore
from respan_async.issuing._ticket_processor import IssuerContext, TicketProcessor
from respan_async.issuing.ledger import Counts, Ledger
from respan_async.issuing.tickets import Ticket
from respan_async.models import UNSET, CreatedKey, Maybe
from respan_async.outcomes import Issued

Deliver = Callable[[str, CreatedKey], Awaitable[None]]

_ROUND: Final = 10.0
"""Seconds between two looks at what other processes have left, and at writes that failed."""

_LAST_MOMENT: Final = 1.0
"""Seconds that closing waits for remaining writes after the grace."""


class Issuer:
    """Issue keys for tickets, with a ledger as the durable memory.

    Enter it with `async with`, or use it as it is and close it with `aclose()`. Closing the client closes it as well.

    Args:
        respan: The client; its settings apply here, but names are always tagged.
        ledger: The ledger of tickets, attempts and keys. It belongs to this issuer from now on.
        deliver: An async function of a ticket's id and its key that delivers the secret. It is called until it
            succeeds, so it must be idempotent by ticket; then the secret is erased from the ledger. None: the secret
            stays.
        force: Use a ledger that belongs to another account or base URL.
        account: A name to which the ledger is bound instead of the API key and the base URL, both of which may then
            change: a rotated key opens the ledger as the old one does. A ledger that is bound otherwise is bound to
            this name once it has been opened with `force=True`.
        auto_sweep: Sweep automatically while there are suspects: one of the processes that share the ledger does so,
            every ten minutes at first, and ever more rarely while nothing is found.
        takeover_age: How long a suspect is left alone that this copy of the ledger has taken over from a process that
            is gone; then its key is revoked, if the server states that it was never used. If the ledger is a copy, such
            as a restored backup, the key may be in use: a key that was delivered and lay idle for so long would be
            lost. None prevents that: then only `sweep(taken_over=True)` revokes it.
        max_deliveries: The most concurrent calls of `deliver`.
        deliver_timeout: Seconds after which a call is cancelled, to be tried again later; None for no limit.
        max_undelivered: The number of undeliverable keys at which batches stop making more until some are delivered;
            None for no limit.

    Raises:
        ConfigurationError: An argument is invalid; the message names it.
    """

    def __init__(
        self,
        respan: AsyncRespan,
        ledger: Ledger,
        *,
        deliver: Deliver | None = None,
        force: bool = False,
        account: str | None = None,
        auto_sweep: bool = True,
        takeover_age: timedelta | None = sweep_policy.TAKEOVER_AGE,
        max_deliveries: int = 16,
        deliver_timeout: float | None = 30.0,
        max_undelivered: int | None = 1_000,
    ) -> None:
        if not isinstance(respan, AsyncRespan):
            raise ConfigurationError(f"respan: expected an AsyncRespan, got {type(respan).__name__}")
        if not callable(getattr(ledger, "claim_attempt", None)):
            raise ConfigurationError(f"ledger: expected a ledger, such as a SQLiteLedger, got {type(ledger).__name__}")
        if deliver is not None and not callable(deliver):
            raise ConfigurationError(f"deliver: expected an async function, got {type(deliver).__name__}")
        if account is not None and not (isinstance(account, str) and account.split() == [account]):
            raise ConfigurationError(f"account: expected one word, got {shown(account)}")
        if takeover_age is not None and not (isinstance(takeover_age, timedelta) and takeover_age >= timedelta(0)):
            raise ConfigurationError(
                f"takeover_age: expected a timedelta, 0 or more, or None, got {shown(takeover_age)}"
            )
        self._respan = respan
        self._service = service_of(respan)
        self._ledger = ledger
        lifecycle, clock = self._service.context.lifecycle, self._service.context.clock
        loop_clock = self._service.context.pacer.clock
        self._lifecycle = lifecycle
        delivering = DeliverySettings(
            max_deliveries=max_deliveries, deliver_timeout=deliver_timeout, max_undelivered=max_undelivered
        )
        self._delivery = Delivery(deliver, ledger, lifecycle, clock, delivering) if deliver is not None else None
        self._force = force
        self._active = ActiveTickets()
        self._background_writes = BackgroundWrites(lifecycle)
        suspects = LedgerSuspectStore(ledger, self._background_writes, self._suspect_added)
        self._suspects = suspects
        self._context = IssuerContext(
            ledger=ledger,
            writes=self._background_writes,
            suspects=suspects,
            active=self._active,
            delivery=self._delivery,
        )
        self._maintenance: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._opened = self._closed = self._is_ledger_away = False
        self._over = asyncio.Event()
        lifecycle.register(Move.LEAVE, self._leave_loop)
        lifecycle.register(Move.ARRIVE, self._arrive)
        self._place = account
        self._policy = SweepPolicy(takeover_age=takeover_age)
        self._auto_sweep: AutoSweep | None = None
        if auto_sweep:
            self._auto_sweep = AutoSweep(self._sweep_in_turn, suspects, self._policy, lifecycle, clock, loop_clock)

    async def issue(self, ticket: Ticket, *, deadline: Maybe[float | None] = UNSET) -> Issued[Ticket]:
        """Issue the key of a ticket: return the recorded one, or make a new one.

        A ticket that already has a key returns it with `replayed=True`, and sends nothing; `key.expired` tells whether
        the key is still valid, and `key.api_key.is_erased` whether its secret was delivered and is no longer kept.

        Args:
            ticket: The ticket.
            deadline: Seconds for the whole call, or None; by default the client's. A request that is in flight when it
                passes is finished, and its key belongs to the ticket the next time that is asked for.

        Raises:
            TicketConflictError: The ticket was issued before with other fields.
            LedgerError: The ledger cannot be used, or another process is working on this ticket.
            RespanError: No key was made; see `AsyncRespan.temporary_keys.create`.
        """
        await self._open()
        self._lifecycle.check()
        service = self._service if deadline is UNSET else service_of(self._respan.with_options(deadline=deadline))
        job = TicketProcessor(self._context, ticket, service, Priority.INTERACTIVE)
        return Issued(ticket, 0, await run_shielded(job, self._lifecycle, _keep), job.replayed, job.delivered)

    def issue_many(
        self,
        tickets: Iterable[Ticket] | AsyncIterable[Ticket],
        *,
        max_in_flight: int | None = None,
        ordered: bool = False,
        spread: bool = True,
    ) -> Batch[Ticket]:
        """Issue the keys of many tickets, with bounded parallelism; see `TemporaryKeys.create_many` for batches.

        Leaving it early revokes nothing: every key is recorded, and belongs to its ticket the next time that is asked
        for.
        """
        return Batch(
            tickets,
            lambda ticket: TicketProcessor(self._context, ticket, self._service, Priority.BATCH),
            _keep,
            self._service.context,
            max_in_flight=max_in_flight,
            ordered=ordered,
            spread=spread,
            prepare=self._open,
        )

    async def sweep(
        self, *, grace: float = sweep_policy.GRACE, taken_over: bool = False, dry_run: bool = False
    ) -> SweepReport:
        """Revoke the keys that lost answers and crashes left behind, if they are proven to be this ledger's.

        Suspects that were taken over from a process that is gone are left alone for `takeover_age`.

        Args:
            grace: Seconds to let pass after the last such attempt before looking, because the server may make the key
                late.
            taken_over: Treat suspects that were taken over as any other. Only a person may state this who knows that no
                other copy of this ledger is or was in use, such as the original of a backup.
            dry_run: Look, but revoke nothing.

        Returns:
            What was revoked, or would have been, and the suspects that are left.
        """
        await self._open()
        policy = attrs.evolve(self._policy, grace=grace, taken_over=taken_over, dry_run=dry_run)
        return await sweep.sweep(self._service, self._suspects, policy)

    async def counts(self) -> Counts:
        """Count tickets and attempts by their states."""
        await self._open()
        return await self._ledger.counts()

    async def aclose(self, grace: float = 10.0) -> None:
        """Finish and record the requests in flight, and close the ledger. May be called more than once.

        Args:
            grace: Seconds for requests in flight. A request that is cut off then is a suspect when the ledger is opened
                again.

        Raises:
            InvalidRequestError: `grace` is not a number of seconds, 0 or more; nothing was closed.
            ClientStateError: It was called in a forked process, or on another event loop while the client's own loop is
                open; nothing was closed.
        """
        check_grace(grace)
        self._lifecycle.check_home()
        if self._closed:
            if not self._lifecycle.tasks.within:
                await self._over.wait()
            return
        self._closed = True
        self._active.close()
        try:
            await self._close(grace)
        finally:
            self._over.set()

    async def _close(self, grace: float) -> None:
        try:
            if self._opening is not None and not self._opening.done():
                # Otherwise it would open a ledger that is never closed.
                await asyncio.wait({self._opening}, timeout=grace)
            self._lifecycle.unregister(Stage.DEPENDENTS, self.aclose)
            if self._maintenance is not None:
                self._maintenance.cancel()
            self._active.abandon(self._lifecycle.tasks.acting_task())
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    if self._is_ledger_away:
                        # An attempt that cannot be written is a suspect when the ledger is opened again.
                        with suppress(RespanError):
                            await self._open_ledger()
                    await self._active.finished()
                    await self._background_writes.written()
        finally:
            self._lifecycle.unregister(Move.LEAVE, self._leave_loop)
            self._lifecycle.unregister(Move.ARRIVE, self._arrive)
            # Also if the closing task is cancelled, because the ledger would otherwise keep prolonging its lease.
            try:
                if self._delivery is not None:
                    await self._delivery.aclose()
            finally:
                if self._opened:  # otherwise the ledger belongs to another issuer
                    await self._close_ledger()

    async def _close_ledger(self) -> None:
        try:
            # Last chance to write what this process knows about cut-off attempts; it is lost on exit.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_MOMENT):
                    await self._background_writes.repeat()
        finally:
            await self._ledger.aclose()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ----------------------------------------------------------------- inside

    async def _open(self) -> None:
        self._lifecycle.check_home()
        if self._closed:
            raise ClientStateError("the issuer is closed")
        if self._opening is None:
            self._lifecycle.check()  # otherwise the ledger would never be closed again
            self._opening = self._lifecycle.tasks.spawn(self._open_once(), awaited=True)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled() and not being_cancelled():
                raise ClientStateError("the client was closed before the ledger was open") from None
            raise
        except Exception:
            if self._opening is opening:  # unless another call has begun anew
                self._opening = None
            raise

    async def _open_ledger(self) -> None:
        await self._ledger.open(self._account(), force=self._force)
        if self._is_ledger_away:
            self._is_ledger_away = False
            await self._background_writes.resume()

    async def _open_once(self) -> None:
        is_first = not self._is_ledger_away
        await self._open_ledger()
        try:
            if is_first:  # later the pace knows by itself
                await self._preload_pace()
            if self._over.is_set():  # `aclose` did not wait for the opening
                raise ClientStateError("the issuer is closed")
        except GeneratorExit:
            raise  # the loop was closed: the next loop continues from here
        except BaseException:
            await self._ledger.aclose()
            raise
        self._opened = True
        self._lifecycle.register(Stage.DEPENDENTS, self.aclose)
        if self._lifecycle.closing:
            return  # the client would wait for the maintenance task
        self._run_maintenance()
        self._maintenance = self._lifecycle.tasks.spawn(self._maintenance_loop(), contextvars.Context())
        self._lifecycle.release(self._maintenance)

    def _leave_loop(self) -> None:
        """Forget the tasks of a closed event loop. The ledger is opened again when it is needed."""
        self._maintenance = self._opening = None
        self._is_ledger_away = self._opened
        self._active.leave_loop()
        self._background_writes.leave_loop()

    def _arrive(self) -> None:
        self._active.arrive()
        if self._delivery is not None:
            self._delivery.arrive()
        if not self._over.is_set():
            self._closed = False  # a closing that was cut short with its loop begins anew
            self._over = asyncio.Event()

    async def _preload_pace(self) -> None:
        """Tell the pace what the last run has used up of the limit."""
        pacer = self._service.context.pacer
        limit = pacer.window.limit
        # The ledger noted when each request was sent; the server may have let it in later, and its slot then comes back
        # later.
        per, late = (limit.per, GRACE) if limit else (60.0, 0.0)
        ages = await self._ledger.recent(per + late)
        pacer.window.preload(pacer.clock.time(), [max(age - late, 0.0) for age in ages])

    async def _maintenance_loop(self) -> None:
        """Check regularly what other processes have left in this ledger, because they do not notify this one."""
        while True:
            await asyncio.sleep(_ROUND)
            await self._background_writes.repeat()
            self._run_maintenance()

    def _run_maintenance(self) -> None:
        """Start a sweep if there are suspects, and deliveries if there are undelivered secrets."""
        self._wake_sweeper()
        if self._delivery is not None:
            self._delivery.deliver_left()

    async def _sweep_in_turn(self, pause: float) -> SweepReport | None:
        return await self.sweep() if await self._ledger.acquire_sweep_turn(pause) else None

    def _account(self) -> str:
        if self._place is not None:
            return f"{self._place} ?"
        token = self._service.context.tokens.fixed
        known = "?" if token is None else hashlib.sha256(token.reveal().encode()).hexdigest()[:16]
        return f"{self._service.context.base_url} {known}"

    def _suspect_added(self, suspect: Suspect) -> None:
        if self._auto_sweep is not None:
            self._auto_sweep.added(suspect)

    def _wake_sweeper(self) -> None:
        if self._auto_sweep is not None:
            self._auto_sweep.wake()


def _keep(_: CreatedKey) -> None:
    """Discard nothing, because an arriving key belongs to its ticket."""
