"""Runs `respan-keys issue` once: from tenants to outcomes, with interrupts and progress on the way."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from respan_async.batch import Batch
from respan_async.cli import exit_codes
from respan_async.cli.console import MOST_LINES, say
from respan_async.cli.interrupts import interrupts
from respan_async.cli.key_delivery import KeyDelivery
from respan_async.cli.ledger_location import LedgerLocation
from respan_async.cli.progress_display import Display, ProgressState, clock
from respan_async.cli.summary import Summary
from respan_async.cli.ticket_source import PendingTenants, Tenant
from respan_async.cli.undeliverable_keys import revoke
from respan_async.client import AsyncRespan
from respan_async.errors import (
    APIConnectionError,
    AuthenticationError,
    ClientStateError,
    Effect,
    LedgerError,
    PermissionDeniedError,
    RespanError,
    Suspect,
    TicketConflictError,
)
from respan_async.issuing import Issuer, Ticket
from respan_async.issuing.ledger import DamagedRecord
from respan_async.outcomes import Failed, Issued

_TICK: Final = 0.1
_LAST_MOMENT: Final = 0.2
"""Seconds between the second interrupt and the end, for answers that have arrived."""


class IssueRun:
    """One run.

    Args:
        arguments: The command's arguments.
        respan: The client.
        issuer: The issuer.
        location: The location of its ledger.
        output: Delivers the keys.
        tenants: The tenants to issue keys for.
        shown: Shows the progress.
        suspects: A list that grows with the suspects of this run.

    Attributes:
        held: The ids of the keys that were delivered, in the sandbox.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        respan: AsyncRespan,
        issuer: Issuer,
        location: LedgerLocation,
        output: KeyDelivery,
        tenants: PendingTenants,
        shown: Display,
        suspects: Sequence[Suspect],
    ) -> None:
        self.held: list[str] = []
        self._arguments = arguments
        self._respan = respan
        self._location = location
        self._output = output
        self._tenants = tenants
        self._display = shown
        self._suspects = suspects
        self._batch: Batch[Ticket] = issuer.issue_many(tenants, spread=not arguments.burst)
        self._total = len(tenants) + tenants.already
        self._issued = self._failed = self._replayed = self._absent = 0
        self._conflicting = self._foreign = 0
        self._interrupts = 0
        self._broken: Exception | None = None
        self._fatal: Exception | None = None
        self._forbidden: list[tuple[Tenant, RespanError]] = []  # each is a failure of its own tenant, or of the API key
        output.on_broken = self._break_off

    async def run(self) -> int:
        """Issue the keys, and return the exit code."""
        with interrupts(self._interrupt):
            ticker = asyncio.create_task(self._tick())
            try:
                async with self._batch:
                    await self._take_outcomes()
            finally:
                ticker.cancel()
                await asyncio.wait({ticker})
                self._display.close(self._status())
        if self._fatal is not None:
            return exit_codes.exit_code(self._fatal)
        if self._interrupts:
            return exit_codes.INTERRUPTED
        return exit_codes.FAILED if self._left or self._broken else exit_codes.OK

    async def _take_outcomes(self) -> None:
        try:
            async for outcome in self._batch:
                tenant = self._tenants.in_hand.pop(outcome.index)
                if isinstance(outcome, Failed):
                    self._note_failure(tenant, outcome)
                elif (refusal := self._output.refused.pop(tenant.ticket.id, None)) is not None:
                    self._foreign += 1
                    self._say_failure(tenant, refusal)
                elif tenant.ticket.id in self._output.kept_back:
                    await self._note_kept_back(tenant, outcome.key.id)
                else:
                    self._note_issued(tenant, outcome)
        except (RespanError, exit_codes.WrongUse, OSError) as error:
            self._fatal = error
        if not isinstance(self._fatal, PermissionDeniedError):
            self._say_forbidden()

    def _note_issued(self, tenant: Tenant, outcome: Issued[Ticket]) -> None:
        if outcome.replayed:
            self._replayed += 1
            sink = self._output.sink
            self._absent += sink is not None and tenant.ticket.id not in sink
        else:
            self._issued += 1
            self._say_forbidden()
            if self._arguments.sandbox:
                self.held.append(outcome.key.id)

    # ------------------------------------------------- what cannot be delivered

    async def _note_kept_back(self, tenant: Tenant, key_id: str) -> None:
        """Leave a key that could not be delivered to the ledger; revoke it if the ledger is about to be forgotten."""
        if not self._location.in_memory:
            return
        del self._output.kept_back[tenant.ticket.id]
        what = f"{self._tenants.place_of(tenant)}: key {key_id} could not be put on record"
        self._display.say(await revoke(self._respan, key_id, what))

    def _break_off(self, error: Exception) -> None:
        if self._broken is None:
            self._broken = error
            self._batch.stop()
            self._display.say(f"respan-keys: {exit_codes.sentence(error)}; no more keys are asked for")

    # --------------------------------------------------------------- failures

    def _note_failure(self, tenant: Tenant, outcome: Failed[Ticket]) -> None:
        error = outcome.error
        stopped = self._interrupts or self._broken is not None
        if isinstance(error, ClientStateError) or (stopped and error.retryable and error.effect is Effect.NONE):
            return  # the item was given up before it was sent, or sent again
        if isinstance(error, AuthenticationError):
            return  # the API key's failure, reported once when the batch ends with it
        if isinstance(error, PermissionDeniedError):
            self._forbidden.append((tenant, error))
            return
        if isinstance(error, APIConnectionError) and not error.retryable and not stopped:
            return  # the connection's failure (its certificate, or a demand of the proxy), reported likewise
        of_the_ticket = isinstance(error, TicketConflictError | DamagedRecord)
        if isinstance(error, LedgerError) and not of_the_ticket and not error.retryable:
            self._break_off(error)  # the ledger's failure, which concerns all items
            if error.effect is Effect.NONE:
                return
        self._say_failure(tenant, error)

    def _say_forbidden(self) -> None:
        """Report the tenants that got a 403, once a key was made, or the batch has ended otherwise."""
        for tenant, error in self._forbidden:
            self._say_failure(tenant, error)
        self._forbidden.clear()

    def _say_failure(self, tenant: Tenant, error: RespanError) -> None:
        self._failed += 1
        self._conflicting += isinstance(error, TicketConflictError)
        if self._failed <= MOST_LINES:
            self._display.say(f"{self._tenants.place_of(tenant)}: {exit_codes.sentence(error)}")

    # -------------------------------------------------------------- interrupts

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self._batch.stop()
            self._display.say(
                f"interrupted: waiting for {self._respan.pace.in_flight} in the air; once more to end at once"
            )
        else:
            asyncio.get_running_loop().call_later(_LAST_MOMENT, self._end_at_once, 5)

    def _end_at_once(self, patience: int) -> None:
        if self._output.writing and patience:
            asyncio.get_running_loop().call_later(_LAST_MOMENT, self._end_at_once, patience - 1)
            return
        self._display.close(self._status())
        if in_flight := self._respan.pace.in_flight:
            remembered = "" if self._location.in_memory else f"; {self._location.name} remembers them"
            say(f"ended with {in_flight} in the air, whose keys may be alive and held by nobody{remembered}")
        self.summarize()
        os._exit(exit_codes.INTERRUPTED)

    # ----------------------------------------------------------------- telling

    async def _tick(self) -> None:
        while True:
            self._display.show(self._status())
            await asyncio.sleep(_TICK)

    @property
    def _already(self) -> int:
        return self._tenants.already + self._replayed

    @property
    def _left(self) -> int:
        return self._total - self._already - self._issued

    @property
    def _rate(self) -> float:
        elapsed = self._batch.progress.elapsed
        return (self._issued + self._failed) / elapsed if elapsed else 0.0

    def _status(self) -> ProgressState:
        progress, pace = self._batch.progress, self._respan.pace
        held = ""
        if self._interrupts:
            held = "ending"
        elif pace.paused_until is not None:
            held = f"paused for {clock((pace.paused_until - datetime.now(UTC)).total_seconds())}"
        elif pace.outage:
            held = f"paused, the server fails: {pace.problem}"
        return ProgressState(
            total=self._total,
            issued=self._issued + self._already,
            failed=self._failed,
            refused=progress.refused,
            rate=self._rate,
            eta=None if self._interrupts else progress.eta,
            held=held,
        )

    def summarize(self) -> None:
        """Report the results, the possible leftovers, and how to go on; called once the ledger is closed."""
        progress = self._batch.progress
        Summary(
            arguments=self._arguments,
            ledger=self._location,
            suspects=self._suspects,
            issued=self._issued,
            already=self._already,
            absent=self._absent,
            failed=self._failed,
            kept=len(self._output.kept_back),
            left=self._left,
            refused=progress.refused,
            elapsed=progress.elapsed,
            rate=self._rate,
            fatal=self._fatal,
            conflicting=self._conflicting,
            foreign=self._foreign,
        ).say()
