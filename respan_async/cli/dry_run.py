"""`respan-keys issue --dry-run`: checks everything as a run does, and sends and delivers nothing."""

import argparse
import os
from contextlib import AsyncExitStack
from pathlib import Path

import attrs

from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async.cli import exit_codes, previous_run
from respan_async.cli.console import MOST_LINES, say
from respan_async.cli.csv_reader import CSVFile
from respan_async.cli.key_delivery import KeyDelivery, open_delivery
from respan_async.cli.ledger_location import CommandLedger, LedgerLocation
from respan_async.cli.progress_display import clock
from respan_async.cli.sandbox import SANDBOX_LIMIT
from respan_async.cli.ticket_source import PendingTenants
from respan_async.client import AsyncRespan
from respan_async.issuing import Issuer, _rows
from respan_async.issuing.jsonlines_sink import digest


@attrs.define
class _Forecast:
    """The expected results of a run.

    Attributes:
        issued: Tickets that would get a key.
        already: Tickets that have a key.
        failed: Tickets that were asked for before with other fields.
    """

    issued: int = 0
    already: int = 0
    failed: int = 0


async def dry_run(
    arguments: argparse.Namespace,
    client: AsyncRespan,
    account: str | None,
    location: LedgerLocation,
    ledger: CommandLedger,
    csv_file: CSVFile,
    tickets: set[bytes],
) -> int:
    """Say what `issue` would do now, and return the exit code: 0, or 1 if some tickets would fail.

    A missing ledger or file of keys is not made. An existing ledger is opened as a run does.

    Args:
        arguments: The command's arguments.
        client: The client of the account, or of a sandbox that does not exist.
        account: The name of the account that the ledger belongs to, or None.
        location: The location of the ledger.
        ledger: The ledger, not open.
        csv_file: The file, checked.
        tickets: The digest of each of its tickets.

    Raises:
        WrongUse: A run could not begin.
    """
    async with AsyncExitStack() as stack:
        known: CommandLedger | None = None
        elsewhere: set[bytes] = set()
        has_output = arguments.out == "-" or _is_there(arguments.out)
        if location.dsn is not None or (not location.in_memory and _is_there(location.name)):
            await stack.enter_async_context(client)
            issuer = Issuer(client, ledger, account=account, auto_sweep=False)
            await location.open_issuer(issuer)
            stack.push_async_exit(issuer)
            known = ledger
            if left := len(location.snapshot().undelivered):
                say(f"{left} keys of an earlier run, which are only in {location.name}, would be written")
        if has_output:
            output = stack.enter_context(open_delivery(arguments.out, sandbox=arguments.sandbox))
            elsewhere = await _written(known, output, tickets)
        forecast = await _foresee(known, PendingTenants(csv_file, len(tickets), elsewhere))
    if forecast.issued > MOST_LINES:
        say(f"... and {forecast.issued - MOST_LINES} more")
    say(
        f"a dry run: {forecast.issued} would be issued{_at(arguments, forecast.issued)}, "
        f"{forecast.already + len(elsewhere)} already issued, {forecast.failed} would fail; nothing was sent"
    )
    return exit_codes.FAILED if forecast.failed else exit_codes.OK


def _is_there(path: str) -> bool:
    """Whether a file exists; refuse a path where no file exists or could be made."""
    if os.path.lexists(path):
        return True
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise exit_codes.WrongUse(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise exit_codes.WrongUse(f"{path}: no file can be made in {folder}")
    return False


async def _written(ledger: CommandLedger | None, output: KeyDelivery, tickets: set[bytes]) -> set[bytes]:
    if ledger is not None:
        return await previous_run.issued_elsewhere(ledger, output, tickets)
    return set() if output.sink is None else output.sink.among(tickets)


async def _foresee(ledger: CommandLedger | None, tenants: PendingTenants) -> _Forecast:
    """Look each ticket up, and list the first ones that would be issued or fail."""
    forecast = _Forecast()
    with_keys = set[bytes]()
    after = ""
    while ledger is not None and (ids := await ledger.with_keys(after, 10_000)):
        with_keys.update(map(digest, ids))
        after = ids[-1]
    async for ticket in tenants:
        _, tenant = tenants.in_hand.popitem()
        record = await ledger.find(ticket.id) if ledger is not None and digest(ticket.id) in with_keys else None
        if record is None:
            forecast.issued += 1
            if forecast.issued <= MOST_LINES:
                say(f"{tenants.place_of(tenant)}: would be issued, with {ticket.fields}")
        elif record.fields == ticket.fields:
            forecast.already += 1
        else:
            forecast.failed += 1
            if forecast.failed <= MOST_LINES:
                say(f"{tenants.place_of(tenant)}: {_rows.conflict(ticket.id, record.fields, ticket.fields)}")
    return forecast


def _at(arguments: argparse.Namespace, count: int) -> str:
    """Say how long so many keys take at the given limit."""
    limit = arguments.rate or (SANDBOX_LIMIT if arguments.sandbox else DOCUMENTED_LIMIT)
    return f" in about {clock(count * limit.per / limit.limit)}" if isinstance(limit, RateLimit) else ""
