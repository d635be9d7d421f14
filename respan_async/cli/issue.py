"""`respan-keys issue`: a key for every line of a CSV file.

1. Nothing is sent before the whole file was found good and there is a place for the keys.
2. A key is on record before it is counted. One that cannot be put on record is revoked, and the job stops.
3. The first interrupt stops what has not been sent, and waits for what has; the second ends the process, once what
   has arrived is on record.
"""

import argparse
import asyncio
import os
import shlex
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

from respan_async.batch import Batch, Failed, Issued
from respan_async.cli import exits
from respan_async.cli.account import connect
from respan_async.cli.interrupts import interrupts
from respan_async.cli.keyfile import KeyStore, line_of, open_keys
from respan_async.cli.progress import Display, Status, clock, display
from respan_async.cli.sandbox import SANDBOX_LIMIT, report, small_sandbox
from respan_async.cli.sheet import open_sheet
from respan_async.cli.tenants import COLUMNS, KEYS, BadTenants, Remaining, Tenant, check
from respan_async.cli.terminal import MOST_LINES, LogLines, say
from respan_async.client import AsyncRespan
from respan_async.effect import Effect
from respan_async.errors import (
    AuthenticationError,
    ClientStateError,
    PermissionDeniedError,
    RespanError,
)
from respan_async.models import CreatedKey, CreateKeyRequest
from respan_async.pacing.limit import DOCUMENTED_LIMIT

_TICK: Final = 0.1
_SYNC_EVERY: Final = 1.0
_LAST_MOMENT: Final = 0.2
"""Seconds between the second interrupt and the end, for what has arrived."""


def issue(arguments: argparse.Namespace, log: LogLines) -> int:
    """Issue a key for every line; see the module."""
    with open_sheet(arguments.file, known=COLUMNS, keys=KEYS) as sheet:
        try:
            tickets = check(sheet)
        except BadTenants as bad:
            for complaint in bad.complaints:
                say(complaint)
            raise
        # Made before the file is: without an API key, nothing should be left behind.
        client = None if arguments.sandbox else _client(arguments)
        with open_keys(arguments.out, sandbox=arguments.sandbox) as store:
            if store.mended:
                say(store.mended)
            remaining = Remaining(sheet, tickets, store.issued)
            del tickets  # a hundred megabytes, of a million
            return asyncio.run(_run(arguments, log, client, store, remaining))


def _client(arguments: argparse.Namespace, **sandbox: str) -> AsyncRespan:
    rate = arguments.rate or (SANDBOX_LIMIT if sandbox else DOCUMENTED_LIMIT)
    return connect(arguments, pace=rate, max_in_flight=arguments.max_in_flight, **sandbox)


async def _run(
    arguments: argparse.Namespace, log: LogLines, client: AsyncRespan | None, store: KeyStore, tenants: Remaining
) -> int:
    shown = display(keys_on_terminal=arguments.out == "-" and sys.stdout.isatty())
    log.say = shown.say
    async with AsyncExitStack() as stack:
        fake = None
        if client is None:
            fake = await stack.enter_async_context(small_sandbox())
            client = _client(arguments, api_key=fake.api_key, base_url=fake.url)
        job = Job(arguments, client, store, tenants, shown)
        async with client:
            code = await job.run()
        log.say = say
        job.summarize()
        if fake is not None:
            report(fake, job.held)
    return code


class Job:
    """One run.

    Attributes:
        held: The ids of the keys that were put on record, in the sandbox.
    """

    def __init__(
        self, arguments: argparse.Namespace, respan: AsyncRespan, store: KeyStore, tenants: Remaining, shown: Display
    ) -> None:
        self.held: list[str] = []
        self._arguments = arguments
        self._respan = respan
        self._store = store
        self._tenants = tenants
        self._display = shown
        self._batch: Batch[CreateKeyRequest] = respan.temporary_keys.create_many(tenants)
        self._issued = self._failed = 0
        self._interrupts = 0
        self._writing = False
        self._unsynced = False
        self._synced_at = 0.0
        self._broken: OSError | None = None
        self._fatal: Exception | None = None

    async def run(self) -> int:
        """Issue what is to be issued, and return the exit code."""
        with interrupts(self._interrupt):
            ticker = asyncio.create_task(self._tick())
            try:
                async with self._batch:
                    await self._take_outcomes()
            finally:
                ticker.cancel()
                await asyncio.wait({ticker})
                self._unsynced = bool(self._issued)
                await self._sync()
                self._display.show(self._status())
                self._display.close()
        if self._fatal is not None:
            return exits.exit_code(self._fatal)
        if self._interrupts:
            return exits.INTERRUPTED
        return exits.FAILED if self._left or self._broken else exits.OK

    async def _take_outcomes(self) -> None:
        try:
            async for outcome in self._batch:
                tenant = self._tenants.in_hand.pop(outcome.index)
                if isinstance(outcome, Issued):
                    await self._record(tenant, outcome.key)
                else:
                    self._note_failure(tenant, outcome)
        except (RespanError, exits.WrongUse, OSError) as error:
            self._fatal = error

    # ------------------------------------------------------------- on record

    async def _record(self, tenant: Tenant, key: CreatedKey) -> None:
        if self._broken is None:
            line = line_of(key, tenant.ticket, sandbox=self._arguments.sandbox)
            self._writing = True
            try:
                # In a thread: whoever reads standard output may be slow, and answers have their time.
                await asyncio.to_thread(self._store.write, line)
            except OSError as error:
                self._break_off(error)
            else:
                self._issued += 1
                self._unsynced = True
                if self._arguments.sandbox:
                    self.held.append(key.id)
                return
            finally:
                self._writing = False
        what = f"{self._place(tenant)}: key {key.id} could not be put on record"
        try:
            await self._respan.temporary_keys.delete(key.id, missing_ok=True)
        except RespanError as error:
            command = f"respan-keys delete -- {shlex.quote(key.id)}"
            self._display.say(f"{what} nor revoked ({exits.sentence(error)}); it is alive, and nobody's: {command}")
        else:
            self._display.say(f"{what}, and was revoked")

    def _break_off(self, error: OSError) -> None:
        self._broken = error
        self._batch.stop()
        self._display.say(f"respan-keys: {self._store.name}: {exits.sentence(error)}; no more keys are asked for")

    async def _sync(self) -> None:
        self._synced_at = asyncio.get_running_loop().time()
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            await asyncio.to_thread(self._store.sync)
        except OSError as error:
            if self._broken is None:
                self._break_off(error)

    # --------------------------------------------------------------- failures

    def _note_failure(self, tenant: Tenant, outcome: Failed[CreateKeyRequest]) -> None:
        error = outcome.error
        stopped = self._interrupts or self._broken is not None
        if isinstance(error, ClientStateError) or (stopped and error.retryable and error.effect is Effect.NONE):
            return  # given up before it was sent, or before it was sent again
        if isinstance(error, AuthenticationError) or (isinstance(error, PermissionDeniedError) and not self._issued):
            return  # the key's failure, said once when the batch ends with it
        self._failed += 1
        if self._failed <= MOST_LINES:
            self._display.say(f"{self._place(tenant)}: {exits.sentence(error)}")

    def _place(self, tenant: Tenant) -> str:
        return f"{self._tenants.name}:{tenant.line}: {tenant.ticket}"

    # -------------------------------------------------------------- interrupts

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self._batch.stop()
            self._display.say(
                f"interrupted: waiting for {self._respan.pace.in_flight} in the air; once more to end at once"
            )
        elif self._interrupts == 2:
            asyncio.get_running_loop().call_later(_LAST_MOMENT, self._end_at_once, 5)

    def _end_at_once(self, patience: int) -> None:
        if self._writing and patience:
            asyncio.get_running_loop().call_later(_LAST_MOMENT, self._end_at_once, patience - 1)
            return
        self._display.show(self._status())
        self._display.close()
        if in_flight := self._respan.pace.in_flight:
            say(f"ended with {in_flight} in the air, whose keys may be alive and held by nobody")
        self.summarize()
        os._exit(exits.INTERRUPTED)

    # ----------------------------------------------------------------- telling

    async def _tick(self) -> None:
        while True:
            self._display.show(self._status())
            if asyncio.get_running_loop().time() - self._synced_at >= _SYNC_EVERY:
                await self._sync()
            await asyncio.sleep(_TICK)

    @property
    def _left(self) -> int:
        return len(self._tenants) - self._issued

    @property
    def _rate(self) -> float:
        elapsed = self._batch.progress.elapsed
        return (self._issued + self._failed) / elapsed if elapsed else 0.0

    def _status(self) -> Status:
        progress, pace = self._batch.progress, self._respan.pace
        held = ""
        if self._interrupts:
            held = "ending"
        elif pace.paused_until is not None:
            held = f"paused for {clock((pace.paused_until - datetime.now(UTC)).total_seconds())}"
        elif pace.outage:
            held = "paused, the server fails"
        return Status(
            total=len(self._tenants) + self._tenants.already,
            issued=self._issued + self._tenants.already,
            failed=self._failed,
            refused=progress.refused,
            rate=self._rate,
            eta=None if self._interrupts else progress.eta,
            held=held,
        )

    def summarize(self) -> None:
        """Say how it went, what may be left behind, and how to go on."""
        if self._failed > MOST_LINES:
            say(f"... and {self._failed - MOST_LINES} more failures")
        suspects = self._respan.suspects
        for suspect in suspects[:MOST_LINES]:
            known = f"; respan-keys delete -- {shlex.quote(suspect.id)}" if suspect.id else ""
            sent_at = suspect.sent_at.isoformat(timespec="seconds")
            say(f"suspect: name {suspect.name!r}, sent at {sent_at}: {suspect.reason}{known}")
        if len(suspects) > MOST_LINES:
            say(f"... and {len(suspects) - MOST_LINES} more suspects")
        progress = self._batch.progress
        say(
            f"{self._issued} issued in {progress.elapsed:.1f} s ({self._rate:.1f}/s), {self._tenants.already} already "
            f"issued, {self._failed} failed, {self._left - self._failed} not sent, {progress.refused} refused, "
            f"{len(suspects)} suspects"
        )
        if self._fatal is not None:
            say(f"respan-keys: {exits.sentence(self._fatal)}")
        if self._left and not isinstance(self._fatal, exits.WrongUse):
            self._say_how_to_go_on()

    def _say_how_to_go_on(self) -> None:
        if self._arguments.out == "-":
            say("to go on, leave out what was issued: keys that went to standard output are not remembered")
            return
        again = "give the same input to " if self._arguments.file == "-" else ""
        say(f"to go on: {again}{shlex.join(('respan-keys', *self._arguments.argv))}")
