"""`respan-keys issue`: issues a key for every line of a CSV file.

1. Nothing is sent before the whole file was checked, the output is open, the ledger can be read, and the keys that an
   earlier run has left in it are delivered.
2. A key is in the ledger before it is delivered, and on the disk before it is counted.
3. The first interrupt gives up what has not been sent, and waits for requests in flight; the second ends the process.
"""

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Final

from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT
from respan_async.cli import exit_codes, previous_run
from respan_async.cli.cipher_from_env import cipher_from_env
from respan_async.cli.client_factory import make_client
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.csv_reader import CSVFile, open_csv
from respan_async.cli.dry_run import dry_run
from respan_async.cli.issue_run import IssueRun
from respan_async.cli.key_delivery import KeyDelivery, open_delivery
from respan_async.cli.ledger_location import CommandLedger, LedgerLocation, location_of
from respan_async.cli.pace_source import pace_of
from respan_async.cli.progress_display import CheckProgress, display
from respan_async.cli.sandbox import SANDBOX_LIMIT, report, small_sandbox
from respan_async.cli.ticket_source import COLUMNS, KEYS, BadTenants, PendingTenants, check
from respan_async.client import AsyncRespan
from respan_async.errors import Suspect
from respan_async.events import Event, SuspectEvent
from respan_async.issuing import AttemptState, Issuer

_SANDBOX_ACCOUNT: Final = "respan-keys:sandbox"  # not a name that a person would choose


def issue(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Issue a key for every line; see the module."""
    if arguments.sandbox and arguments.redis:
        raise exit_codes.WrongUse("--redis: expected a run that is no --sandbox, which shares no limit")
    if arguments.dry_run and arguments.force_ledger:
        raise exit_codes.WrongUse("--dry-run: expected no --force-ledger, which gives the ledger to another account")
    if arguments.sandbox and arguments.force_ledger:
        # The suspects of a real account would be forgotten with those of the sandbox.
        raise exit_codes.WrongUse("--force-ledger: expected a run that is no --sandbox, which has a ledger of its own")
    with open_csv(arguments.file, known=COLUMNS, keys=KEYS, delimiter=arguments.delimiter) as csv_file:
        try:
            tickets = check(csv_file, CheckProgress(csv_file.name))
        except BadTenants as bad:
            for complaint in bad.complaints:
                say(complaint)
            raise
        # The client is made before any file, because nothing should be left behind if there is no API key.
        suspects: list[Suspect] = []
        client = None if arguments.sandbox else _client(arguments, suspects)
        location = location_of(arguments)
        ledger = location.ledger(cipher_from_env())
        if arguments.dry_run:
            nowhere = {"api_key": "make-believe", "base_url": "http://127.0.0.1", "proxy": None}
            account = _SANDBOX_ACCOUNT if client is None else arguments.account
            client = client or _client(arguments, suspects, **nowhere)
            return asyncio.run(dry_run(arguments, client, account, location, ledger, csv_file, tickets))
        with open_delivery(arguments.out, sandbox=arguments.sandbox) as output:
            if output.sink is not None and output.sink.mended:
                say(output.sink.mended)
            return asyncio.run(_run(arguments, log, client, ledger, location, output, csv_file, tickets, suspects))


def _client(arguments: argparse.Namespace, suspects: list[Suspect], **sandbox: str | None) -> AsyncRespan:
    def note(event: Event) -> None:
        if isinstance(event, SuspectEvent):
            suspects.append(event.suspect)

    rate = (arguments.rate or SANDBOX_LIMIT) if sandbox else pace_of(arguments, DOCUMENTED_LIMIT)
    return make_client(arguments, pace=rate, max_in_flight=arguments.max_in_flight, hooks=(note,), **sandbox)


async def _run(
    arguments: argparse.Namespace,
    log: ConsoleLogHandler,
    client: AsyncRespan | None,
    ledger: CommandLedger,
    location: LedgerLocation,
    output: KeyDelivery,
    csv_file: CSVFile,
    tickets: set[bytes],
    suspects: list[Suspect],
) -> int:
    async with AsyncExitStack() as stack:
        fake = None
        if client is None:
            fake = await stack.enter_async_context(small_sandbox())
            client = _client(arguments, suspects, api_key=fake.api_key, base_url=fake.url, proxy=None)
        account = arguments.account if fake is None else _SANDBOX_ACCOUNT
        # A reader may be slow, and a key that the file refuses is a failure of its line only.
        issuer = Issuer(
            client,
            ledger,
            deliver=output,
            force=arguments.force_ledger,
            account=account,
            max_deliveries=arguments.max_in_flight,
            deliver_timeout=None,
            max_undelivered=None,
        )
        async with client:
            await location.open_issuer(issuer)
            if fake is not None:
                await _forget_suspects(ledger)
            if count := await previous_run.deliver_left(ledger, location.name, output):
                place = location.name
                say(f"{count} keys of an earlier run, which were only in {place}, were written to {output.name}")
            skipped = await previous_run.issued_elsewhere(ledger, output, tickets)
            tenants = PendingTenants(csv_file, len(tickets), skipped)
            tickets.clear()  # frees a hundred megabytes, for a million tickets
            shown = display(keys_on_terminal=arguments.out == "-" and sys.stdout.isatty())
            log.say = shown.say
            job = IssueRun(arguments, client, issuer, location, output, tenants, shown, suspects)
            code = await job.run()
        log.say = say
        job.summarize()
        if fake is not None:
            report(fake, job.held)
    return code


async def _forget_suspects(ledger: CommandLedger) -> None:
    """Close the suspects of the sandbox's earlier runs, because their keys died with their server."""
    for suspect in await ledger.suspects():
        await ledger.close_suspect(suspect.tag or "", AttemptState.EXPIRED)
