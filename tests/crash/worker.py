"""The process that gets killed: issues tickets until every one has its key and every key is delivered.

It says "ready" when it begins, and ends with 0 when nothing is left to do.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Issued, RetryPolicy
from respan_async.issuing import Issuer, Ledger, LedgerError, PostgresLedger, SQLiteLedger, Ticket, TicketState

POINTS = (
    "before claim_attempt",
    "after claim_attempt",
    "before record",
    "after record",
    "before deliver",
    "in deliver",
    "after deliver",
    "before erase",
    "after erase",
    "before commit",
    "in commit",
    "after commit",
)
"""Where this process can be told to kill itself."""


def die() -> NoReturn:
    """End without a chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Fate:
    """Kill the process when it comes to a point for the so-many-th time.

    Args:
        point: One of `POINTS`; empty for none.
        time: 1 for the first.
    """

    def __init__(self, point: str, time: int) -> None:
        self._point = point
        self._left = time

    def reached(self, point: str) -> bool:
        """Count a point; tell whether it is the one."""
        if point != self._point:
            return False
        self._left -= 1
        return self._left == 0

    def at(self, point: str) -> None:
        """Pass a point, or do not."""
        if self.reached(point):
            die()


class DoomedLedger:
    """A ledger whose process may die before or after each step.

    Args:
        ledger: The real one.
        fate: Says when.
    """

    def __init__(self, ledger: Ledger, fate: Fate) -> None:
        self._ledger = ledger
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        return partial(self._step, name, method) if name in ("claim_attempt", "record", "erase") else method

    async def _step(self, name: str, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self._fate.at(f"before {name}")
        result = await method(*arguments)
        self._fate.at(f"after {name}")
        return result


def doom_commits(fate: Fate) -> None:
    """Let the process die around a commit of SQLite's, or in its midst."""

    class DoomedConnection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *arguments)
            fate.at("before commit")
            if fate.reached("in commit"):
                # SQLite lets go of the interpreter while it writes and waits for the disk.
                threading.Thread(target=die).start()
            cursor = super().execute(sql)
            fate.at("after commit")
            return cursor

    sqlite3.connect = partial(sqlite3.connect, factory=DoomedConnection)  # type: ignore[assignment]


class Lines:
    """A file with a line for each ticket, added to once however often it is asked for.

    Args:
        path: The file; a line that a kill has cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        whole = path.read_bytes().rpartition(b"\n")
        content = whole[0] + whole[1]
        os.ftruncate(self._file, len(content))
        os.lseek(self._file, 0, os.SEEK_END)
        self._written = {json.loads(line)["ticket"] for line in content.splitlines()}

    def add(self, ticket: str, **fields: str) -> None:
        """Add a line, if the ticket has none."""
        if ticket in self._written:
            return
        self._written.add(ticket)
        line = json.dumps({"ticket": ticket, **fields}).encode() + b"\n"
        # In two pieces, so that a kill may fall between.
        os.write(self._file, line[:20])
        os.write(self._file, line[20:])
        os.fsync(self._file)


def ticket(number: int) -> Ticket:
    """Give the ticket of a number; every third lives for a day only."""
    request = CreateKeyRequest(name=f"tenant {number}", max_usage=1 + number % 7)
    if number % 3 == 0:
        request = CreateKeyRequest(name=f"tenant {number}", expires_in=timedelta(days=1))
    return Ticket(f"tenant-{number}", request)


def ledger_at(place: str, **settings: Any) -> PostgresLedger | SQLiteLedger:
    """Give the ledger of a database or a file."""
    return (PostgresLedger if place.startswith("postgresql:") else SQLiteLedger)(place, **settings)


async def nothing_left(issuer: Issuer) -> bool:
    """Tell whether every key is delivered; its store may be away for a moment."""
    try:
        return not (await issuer.counts()).tickets[TicketState.ISSUED]
    except LedgerError:
        return False


async def work(options: argparse.Namespace) -> None:
    """Issue until nothing is left to do."""
    fate = Fate(options.point, options.time)
    doom_commits(fate)
    out = Lines(options.out)
    handed_out = os.open(options.handed_out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    failures = itertools.count(1)

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        fate.at("before deliver")
        await asyncio.sleep(0)
        if next(failures) % 29 == 0:
            raise OSError("the place for secrets is away for a moment")
        fate.at("in deliver")
        out.add(ticket_id, id=key.id, api_key=key.api_key.reveal())
        fate.at("after deliver")

    retry = RetryPolicy(initial=0.01, maximum=0.05)
    ledger = DoomedLedger(ledger_at(options.ledger, lease=options.lease), fate)
    async with (
        AsyncRespan("test-key", base_url=options.url, retry=retry, max_in_flight=16) as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver) as issuer,
    ):
        print("ready", flush=True)
        tickets = [ticket(number) for number in range(options.tickets)]
        while tickets:
            left = []
            async with issuer.issue_many(tickets) as batch:
                async for outcome in batch:
                    if isinstance(outcome, Issued):
                        os.write(handed_out, f"{outcome.item.id} {outcome.key.id}\n".encode())
                    else:
                        left.append(outcome.item)
            tickets = left
            if tickets:
                await asyncio.sleep(0.02)  # another process may be at work on them
        while not await nothing_left(issuer):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.02)


def main() -> None:
    """Read the command line, and work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--handed-out", type=Path, required=True)
    parser.add_argument("--tickets", type=int, required=True)
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--point", choices=("", *POINTS), default="")
    parser.add_argument("--time", type=int, default=1)
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
