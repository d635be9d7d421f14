"""Reads tickets from the lines of a CSV file: checks all of them before anything is sent, and then reads them again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import attrs

from respan_async._calls.name_tags import MAX_TAGGED_NAME
from respan_async.cli.console import MOST_LINES
from respan_async.cli.csv_reader import CSVFile, Row
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.fields import READERS, request_of
from respan_async.errors import InvalidRequestError
from respan_async.issuing import Ticket
from respan_async.issuing.jsonlines_sink import digest
from respan_async.models import MAX_NAME, CreateKeyRequest

COLUMNS: Final = ("ticket", *READERS)
KEYS: Final = ("ticket", "name")

_TURN: Final = 256
"""The number of lines read or skipped before other tasks get a turn."""


@attrs.frozen
class Tenant:
    """One line of the file.

    Attributes:
        ticket: The id of the ticket, and the key to be made.
        line: The number of its first line, from 1.
    """

    ticket: Ticket
    line: int


class BadTenants(WrongUse):
    """Some lines of the file are wrong.

    Attributes:
        complaints: The first ones, one sentence each, in the order of the file.
    """

    def __init__(self, name: str, complaints: "Complaints") -> None:
        count = complaints.count
        super().__init__(f"{name}: {count} bad line{'' if count == 1 else 's'}; nothing was sent")
        self.complaints = [f"{name}:{line}: {what}" for line, what in sorted(complaints.first)]
        if count > len(complaints.first):
            self.complaints.append(f"... and {count - len(complaints.first)} more")


class Complaints:
    """The complaints about a file: their number, and the first few in full."""

    def __init__(self) -> None:
        self.first: list[tuple[int, str]] = []
        self.count = 0

    def add(self, line: int, what: str) -> None:
        """Add a complaint about a line."""
        self.count += 1
        if len(self.first) < MOST_LINES:
            self.first.append((line, what))


def check(csv_file: CSVFile, checked: Callable[[int], None] = lambda _: None) -> set[bytes]:
    """Check all lines of a file.

    Args:
        csv_file: The file.
        checked: Called from time to time with the number of lines read so far.

    Returns:
        The digest of every ticket.

    Raises:
        BadTenants: Some lines are wrong.
    """
    complaints = Complaints()
    seen: set[bytes] = set()
    doubled: list[tuple[int, str]] = []
    for count, (row, ticket) in enumerate(_tickets(csv_file, complaints)):
        if not count % _TURN:
            checked(count)
        try:
            _ticket(row, ticket)
        except InvalidRequestError as error:
            complaints.add(row.line, str(error))
        mark = digest(ticket)
        if mark not in seen:
            seen.add(mark)
        elif len(doubled) < MOST_LINES:
            doubled.append((row.line, ticket))
        else:
            complaints.count += 1
    if doubled:
        # To save memory, first positions are not stored; on duplicates the file is read a second time to find them.
        first: dict[str, int] = {}
        wanted = {ticket for _, ticket in doubled}
        for row, ticket in _tickets(csv_file, Complaints()):
            if ticket in wanted:
                first.setdefault(ticket, row.line)
        for line, ticket in doubled:
            complaints.add(line, f"ticket: expected each only once, got {ticket!r:.100} as in line {first[ticket]}")
    if complaints.count:
        raise BadTenants(csv_file.name, complaints)
    return seen


class PendingTenants:
    """The tenants to issue keys for, one after the other, as the input of a batch.

    Args:
        csv_file: The file, checked.
        tickets: The number of its tickets.
        issued: The digests of the tickets to skip.

    Attributes:
        name: The name of the file.
        already: The number of skipped tickets.
        in_hand: The tenants taken so far, by their place in the batch; the run removes a tenant once it has its
            outcome.
    """

    def __init__(self, csv_file: CSVFile, tickets: int, issued: set[bytes]) -> None:
        self.name = csv_file.name
        self._csv_file = csv_file
        self._issued = issued
        self.already = len(issued)
        self._length = tickets - self.already
        self.in_hand: dict[int, Tenant] = {}

    def place_of(self, tenant: Tenant) -> str:
        """Describe where a tenant comes from: the file, the line and the ticket."""
        return f"{self.name}:{tenant.line}: {tenant.ticket.id}"

    def __len__(self) -> int:
        return self._length

    async def __aiter__(self) -> AsyncIterator[Ticket]:
        complaints = Complaints()
        index = skipped = 0
        for row, ticket in _tickets(self._csv_file, complaints):
            if digest(ticket) in self._issued:
                skipped += 1
                if not skipped % _TURN:
                    await asyncio.sleep(0)
                continue
            tenant = self.in_hand[index] = Tenant(_ticket(row, ticket), row.line)
            index += 1
            yield tenant.ticket
        if complaints.count:
            raise WrongUse(f"{self._csv_file.name}: the file changed while it was read")


def _tickets(csv_file: CSVFile, complaints: Complaints) -> Iterator[tuple[Row, str]]:
    """Read the lines that have a ticket."""
    for row in csv_file.rows(complaints.add):
        key = "ticket" if "ticket" in row.columns else "name"
        ticket = row.cells.get(key)
        if ticket is None:
            complaints.add(row.line, f"{key}: expected a text of its own for each line, got an empty cell")
        else:
            yield row, ticket


def _ticket(row: Row, ticket: str) -> Ticket:
    name = row.cells.get("name", "")
    if len(name) > MAX_TAGGED_NAME:
        raise InvalidRequestError(
            f"name: expected at most {MAX_TAGGED_NAME} characters, beside the {MAX_NAME - MAX_TAGGED_NAME} of the tag "
            f"that is added, got {len(name)}"
        )
    values = {column: READERS[column](text) for column, text in row.cells.items() if column != "ticket"}
    return Ticket(ticket, request_of(CreateKeyRequest, values))
