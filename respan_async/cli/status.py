"""`respan-keys status`: prints the contents of a ledger without disturbing processes that work with it."""

import argparse
from datetime import UTC, datetime

from respan_async._http import json_text
from respan_async.cli import exit_codes
from respan_async.cli.closed_streams import check_output
from respan_async.cli.console import ConsoleLogHandler, printable
from respan_async.cli.ledger_location import existing_location_of
from respan_async.cli.progress_display import clock
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.cli.tables import Table, show, wanted
from respan_async.errors import LedgerError
from respan_async.issuing._append_only_file import write_all
from respan_async.issuing.ledger import Snapshot


def status(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print the contents of a ledger."""
    check_output()
    location = existing_location_of(arguments)
    try:
        snapshot = location.snapshot()
    except LedgerError as error:
        raise location.wrong(error) from None
    if wanted(arguments):
        show(_tables(location.name, snapshot, datetime.now(UTC)))
    else:
        write_all(STANDARD_OUTPUT, json_text.encode_line(_as_json(location.name, snapshot)))
    return exit_codes.OK


def _as_json(path: str, snapshot: Snapshot) -> dict[str, object]:
    return {
        "ledger": printable(path),
        "tickets": {str(state): count for state, count in snapshot.counts.tickets.items()},
        "attempts": {str(state): count for state, count in snapshot.counts.attempts.items()},
        "suspects": [
            {
                "name": suspect.name,
                "id": suspect.id,
                "sent_at": suspect.sent_at.isoformat(),
                "effect": str(suspect.effect.value),
                "reason": suspect.reason,
                "taken_over_at": suspect.taken_over_at and suspect.taken_over_at.isoformat(),
            }
            for suspect in snapshot.suspects
        ],
        "undelivered": [
            {"ticket": left.ticket, "id": left.key_id, "issued_at": left.issued_at and left.issued_at.isoformat()}
            for left in snapshot.undelivered
        ],
    }


def _tables(path: str, snapshot: Snapshot, now: datetime) -> list[Table]:
    counts = [("tickets", str(state), str(count)) for state, count in snapshot.counts.tickets.items()]
    counts += [("attempts", str(state), str(count)) for state, count in snapshot.counts.attempts.items()]
    tables = [Table(path, ("what", "state", "count"), counts)]
    if snapshot.suspects:
        rows = [(each.name or "", _age(each.sent_at, now), each.reason) for each in snapshot.suspects]
        tables.append(Table("suspects: keys that may be alive and held by nobody", ("name", "age", "reason"), rows))
    if snapshot.undelivered:
        rows = [
            (each.ticket, each.key_id, _age(each.issued_at, now) if each.issued_at else "?")
            for each in snapshot.undelivered
        ]
        tables.append(Table("not delivered: secrets that are still in the ledger", ("ticket", "key", "age"), rows))
    return tables


def _age(then: datetime, now: datetime) -> str:
    return clock(max((now - then).total_seconds(), 0.0))
