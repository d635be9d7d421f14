"""The maintenance commands of a ledger: `sweep`, `ledger rotate` and `ledger schema`."""

import argparse
import asyncio

from respan_async.cli import exit_codes
from respan_async.cli.cipher_from_env import KEY, cipher_from_env
from respan_async.cli.client_factory import make_client
from respan_async.cli.closed_streams import check_output
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.ledger_location import CommandLedger, LedgerLocation, existing_location_of
from respan_async.cli.pace_source import pace_of
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.cli.summary import how_they_end, say_suspects
from respan_async.errors import LedgerError
from respan_async.events import Event, RevokedEvent
from respan_async.issuing import Issuer
from respan_async.issuing._append_only_file import write_all
from respan_async.issuing.postgres._admin_script import migration, script


def sweep(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Revoke the keys that lost answers and crashes have left behind."""
    location = existing_location_of(arguments)
    return asyncio.run(_sweep(arguments, location, location.ledger(cipher_from_env())))


async def _sweep(arguments: argparse.Namespace, location: LedgerLocation, ledger: CommandLedger) -> int:
    def tell(event: Event) -> None:
        if isinstance(event, RevokedEvent):
            say(f"key {event.id} is revoked: {event.reason}")

    async with make_client(arguments, pace=pace_of(arguments, "auto"), hooks=(tell,)) as respan:
        issuer = Issuer(respan, ledger, force=arguments.force_ledger, account=arguments.account, auto_sweep=False)
        await location.open_issuer(issuer)
        if suspects := len(await ledger.suspects()):
            say(f"{suspects} suspects; the list is read {arguments.grace:g} s after the last of them was sent")
        report = await issuer.sweep(grace=arguments.grace, taken_over=arguments.taken_over, dry_run=arguments.dry_run)
    would = ""
    if report.dry_run:
        would = "a dry run: would be "
        for key_id in report.revoked:
            say(f"key {key_id} would be revoked")
    say_suspects(report.left)
    say(
        f"{would}{len(report.revoked)} revoked, {len(report.expired)} expired by themselves, "
        f"{len(report.left)} suspects left"
    )
    if report.left:
        say(how_they_end(report.left))
    if not arguments.taken_over and (taken_over := sum(each.taken_over_at is not None for each in report.left)):
        say(
            f"{taken_over} of them are those of runs that were killed, and left alone; see --taken-over in sweep --help"
        )
    return exit_codes.OK


def rotate(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Encrypt the kept secrets with the current key."""
    location = existing_location_of(arguments)
    cipher = cipher_from_env()
    if cipher is None:
        raise exit_codes.WrongUse(f"{KEY}: expected the key to encrypt with, got none")
    say(f"{asyncio.run(_rotate(location, location.ledger(cipher)))} secrets are encrypted anew")
    return exit_codes.OK


def schema(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print the SQL that makes a ledger in Postgres, or migrates one."""
    check_output()
    write = migration if arguments.migrate else script
    write_all(STANDARD_OUTPUT, write(arguments.schema).encode())
    return exit_codes.OK


async def _rotate(location: LedgerLocation, ledger: CommandLedger) -> int:
    try:
        account = location.snapshot().account
        if not account:
            raise LedgerError(
                f"{location.name}: nothing was issued with this ledger yet, so there is nothing to encrypt"
            )
        await ledger.open(account)
        try:
            return await ledger.rotate()
        finally:
            await ledger.aclose()
    except LedgerError as error:
        raise location.wrong(error) from None
