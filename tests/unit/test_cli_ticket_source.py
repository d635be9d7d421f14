"""The CSV file of `respan-keys issue`: what is read, and what is said of what cannot be."""

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from respan_async.cli.csv_reader import CSVFile, can_be_read_again, open_csv
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.fields import READERS
from respan_async.cli.ticket_source import COLUMNS, KEYS, BadTenants, PendingTenants, check
from respan_async.errors import InvalidRequestError
from respan_async.issuing.jsonlines_sink import digest
from respan_async.models import UNSET, CreateKeyRequest, LimitPolicy

KNOWN = ", ".join(COLUMNS)
SAMPLE = Path(__file__).parent.parent / "samples" / "tenants.csv"


def sheet(content: bytes) -> CSVFile:
    return CSVFile(io.BytesIO(content), "t.csv", known=COLUMNS, keys=KEYS)


def complaints(content: bytes) -> list[str]:
    with pytest.raises(BadTenants) as caught:
        check(sheet(content))
    return caught.value.complaints


async def requests(content: bytes, *issued: str) -> list[tuple[str, int, CreateKeyRequest]]:
    file = sheet(content)
    remaining = PendingTenants(file, len(check(file)), {digest(ticket) for ticket in issued})
    taken = [ticket async for ticket in remaining]
    assert len(remaining) == len(taken)
    assert [tenant.ticket for tenant in remaining.in_hand.values()] == taken
    return [(tenant.ticket.id, tenant.line, tenant.ticket.request) for tenant in remaining.in_hand.values()]


async def test_every_field() -> None:
    """Every column becomes the field of its name, and an empty cell a field that is not given."""
    content = (
        b"ticket,name,expiry_date,expires_in,max_usage,rate_limit,spending_limit,is_test,limit_policies\n"
        b'a,Acme,,30m,-1,60,2.5,yes,"[{""max_value"": 5, ""period"": ""day""}]"\n'
        b"b,,2030-01-31T12:00:00+01:00,,7,null,null,0,\n"
        b" c ,,,,,,,,\n"
    )

    first, second, third = await requests(content)

    assert first == (
        "a",
        2,
        CreateKeyRequest(
            name="Acme",
            expires_in=timedelta(minutes=30),
            max_usage=-1,
            rate_limit=60,
            spending_limit=2.5,
            is_test=True,
            limit_policies=(LimitPolicy(max_value=5, period="day"),),
        ),
    )
    assert second[2] == CreateKeyRequest(
        expiry_date=datetime(2030, 1, 31, 11, tzinfo=UTC),
        max_usage=7,
        rate_limit=None,
        spending_limit=None,
        is_test=False,
    )
    assert third == ("c", 4, CreateKeyRequest())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("1.5h", timedelta(hours=1.5)),
    ],
)
async def test_lifetimes(text: str, expected: timedelta) -> None:
    """A lifetime is a number and a unit."""
    ((_, _, request),) = await requests(f"name,expires_in\na,{text}\n".encode())

    assert request.expires_in == expected


async def test_name_as_the_ticket() -> None:
    """Without a column `ticket`, the name tells the lines apart, and is sent as well."""
    ((ticket, _, request),) = await requests(b"name\nacme\n")

    assert (ticket, request.name) == ("acme", "acme")


async def test_a_ticket_is_not_sent() -> None:
    """The ticket is the caller's own, and no field of the request."""
    ((_, _, request),) = await requests(b"ticket\nacme\n")

    assert request.name is UNSET


async def test_lines_and_where_they_begin() -> None:
    """Blank lines do not count, a quoted cell may hold lines, and a byte order mark and CRLF are no matter."""
    content = b'\xef\xbb\xbfticket,name\r\n\r\na,"two\r\nlines"\r\n   \r\n"b",x\r\nd,"un, deux"'

    found = await requests(content)

    assert [(ticket, line) for ticket, line, _ in found] == [("a", 3), ("b", 6), ("d", 7)]
    assert found[2][2].name == "un, deux"


async def test_what_a_spreadsheet_leaves_below_its_table_is_no_line() -> None:
    """Rows of commas, or of empty cells in quotes, however many; before the header too."""
    found = await requests(b',,\r\nname,expires_in,max_usage\r\na,1h,5\r\n,,\r\n"",""\r\n , ,\t,,\r\nb,,\r\n')

    assert [(ticket, line) for ticket, line, _ in found] == [("a", 3), ("b", 7)]


async def test_what_has_its_key_is_skipped() -> None:
    """Tickets that are to be skipped are not given."""
    found = await requests(b"ticket\na\nb\nc\n", "b")

    assert [(ticket, line) for ticket, line, _ in found] == [("a", 2), ("c", 4)]


async def test_many_skipped_lines() -> None:
    """A million lines that have their keys do not keep the event loop from anything else."""
    lines = [f"t{number}" for number in range(1000)]

    found = await requests("\n".join(["ticket", *lines]).encode(), *lines[:-1])

    assert [ticket for ticket, _, _ in found] == ["t999"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1: expected a header line, such as ticket,name, got none"),
        (b"\n\n", "1: expected a header line, such as ticket,name, got none"),
        (b"ticket,\na,b\n", "1: expected a name for column 2 in the header line"),
        (b"ticket,max_use\na,1\n", f"1: unknown column 'max_use' in the header line; known are {KNOWN}"),
        (b"tenant-1,acme\n", f"1: unknown column 'tenant-1' in the header line; known are {KNOWN}"),
        (
            b"ticket;name\na;b\n",
            (
                f"1: unknown column 'ticket;name' in the header line; known are {KNOWN}; "
                "cells are separated by ',', or give --delimiter ';'"
            ),
        ),
        (b"ticket,name,name\n", "1: column 'name' is there twice in the header line"),
        (b"max_usage\n1\n", "1: expected a column ticket or name in the header line"),
        (b"t\0i\0c\0k\0e\0t\0\n", "1: expected text, got a NUL byte; is this UTF-8?"),
        (b"\xff\xfet\0\n\0", "1: expected UTF-8, got the byte 0xff"),
        (b"ticket\na\nb\xe9\n", "3: expected UTF-8, got the byte 0xe9"),
        (b"ticket\na\0\n", "2: expected text, got a NUL byte; is this UTF-8?"),
        (b"ticket,name\na\n", "2: expected 2 cells, as the header has, got 1"),
        (b"ticket,name\na,b,c\n", "2: expected 2 cells, as the header has, got 3"),
        (b"ticket,name\n,b\n", "2: ticket: expected a text of its own for each line, got an empty cell"),
        (b"name,max_usage\n ,1\n", "2: name: expected a text of its own for each line, got an empty cell"),
        (b"ticket\na\n\nb\na \n", "5: ticket: expected each only once, got 'a' as in line 2"),
        (b'ticket,name\n"a","x\nz"\na,"y\n\n', "4: a quoted cell in this line has no end; what follows was not read"),
        (b'ticket\n"a"b\n', "2: ',' expected after '\"'; what follows was not read"),
        (
            b"ticket\n" + b"a" * 200_000,
            "2: a cell is too long; perhaps a quoted cell has no end; what follows was not read",
        ),
        (b"ticket\n" + b"a" * 2_000_000, "2: expected lines of at most 1048576 characters; what follows was not read"),
        (
            b"name\n" + b"a" * 37,
            "2: name: expected at most 36 characters, beside the 14 of the tag that is added, got 37",
        ),
        (b'ticket\n"a\nb"\n', "2: ticket id: expected 1 to 500 printable characters, got 'a\\nb'"),
        (b"name,expires_in\na,1y\n", "2: expires_in: expected a time such as 90s, 30m, 1h30m or 7d, got '1y'"),
        (b"name,expires_in\na,0s\n", "2: expires_in: expected a time such as 90s, 30m, 1h30m or 7d, got '0s'"),
        (
            b"name,expires_in\na,999999999999w\n",
            "2: expires_in: expected a time of up to a thousand years, got '999999999999w'",
        ),
        (b"name,expires_in\na,365001d\n", "2: expires_in: expected a time of up to a thousand years, got '365001d'"),
        (b"name,max_usage\na,x\n", "2: max_usage: expected a positive whole number, or -1 for no limit, got 'x'"),
        (b"name,max_usage\na,1_0\n", "2: max_usage: expected a positive whole number, or -1 for no limit, got '1_0'"),
        (b"name,max_usage\na,0\n", "2: max_usage: expected a positive whole number, or -1 for no limit, got 0"),
        (b"name,max_usage\na,null\n", "2: max_usage: expected a positive whole number, or -1 for no limit, got 'null'"),
        (
            b"name,rate_limit\na,1.5\n",
            "2: rate_limit: expected a whole number of requests a minute, 0 or more, or null, got '1.5'",
        ),
        (
            b"name,spending_limit\na,nan\n",
            "2: spending_limit: expected a number of US dollars, 0 or more, or null, got 'nan'",
        ),
        (
            b"name,spending_limit\na,None\n",
            "2: spending_limit: expected a number of US dollars, 0 or more, or null, got 'None'",
        ),
        (
            b"name,rate_limit\na,-1\n",
            "2: rate_limit: expected a whole number of requests a minute, 0 or more, or null, got -1",
        ),
        (b'ticket,name\nt1, "Acme"\n', """2: expected no white space before a quoted cell, got ' "Acme"'"""),
        (b'ticket,name\nt1,\t"Acme, Inc."\n', """2: expected no white space before a quoted cell, got '\\t"Acme'"""),
        (b'ticket, "name"\nt1,Acme\n', """1: expected no white space before a quoted cell, got ' "name"'"""),
        (b"name,is_test\na,maybe\n", "2: is_test: expected one of true, yes, 1, false, no, 0, got 'maybe'"),
        (b"name,limit_policies\na,{}\n", "2: limit_policies: expected a JSON list of limit policies, got '{}'"),
        (b"name,limit_policies\na,[\n", "2: limit_policies: expected a JSON list of limit policies, got '['"),
        (
            b"name,expiry_date\na,2030-01-31T12:00\n",
            "2: expiry_date: expected a date and time with a time zone, got '2030-01-31T12:00'",
        ),
        (
            b"name,expires_in,expiry_date\na,1h,2030-01-31T12:00Z\n",
            "2: expires_in: expected either expires_in or expiry_date, got both",
        ),
    ],
)
def test_one_sentence_for_each_bad_line(content: bytes, expected: str) -> None:
    """Whatever is wrong with a line is said in one sentence, with the file and the line's number."""
    assert complaints(content) == [f"t.csv:{expected}"]


def test_an_option_that_is_no_text_is_a_wrong_value() -> None:
    """The shell hands over any bytes; Python makes lone surrogates of those that are no UTF-8."""
    with pytest.raises(InvalidRequestError, match="limit_policies: expected a JSON list"):
        READERS["limit_policies"]('[{"max_value":5,"period":"\udcff"}]')


def test_all_bad_lines_are_found() -> None:
    """Complaints come in the order of the file, doubled tickets among them."""
    found = complaints(b"ticket,max_usage\na,x\nb,1\na,1\nc\n\xffd,1\ne,0\n")

    assert [text.split(":")[1] for text in found] == ["2", "4", "5", "6", "7"]


def test_the_first_twenty_and_a_count() -> None:
    """A file that is wrong throughout does not fill the screen."""
    found = complaints(b"ticket,max_usage\n" + b"".join(b"t%d,x\n" % number for number in range(100)))

    assert len(found) == 21
    assert found[-1] == "... and 80 more"


def test_many_doubled_tickets_are_counted() -> None:
    """A file of one ticket is counted as well."""
    found = complaints(b"ticket\n" + b"a\n" * 100)

    assert len(found) == 21
    assert found[-1] == "... and 79 more"


async def test_a_file_that_changes_meanwhile() -> None:
    """A line that was good and is not any more ends the input."""
    file = io.BytesIO(b"ticket\na\nb\n")
    source = CSVFile(file, "t.csv", known=COLUMNS, keys=KEYS)
    remaining = PendingTenants(source, len(check(source)), set())
    file.seek(0)
    file.write(b"ticket\na\n\xff\n")

    with pytest.raises(WrongUse, match="changed while it was read"):
        [request async for request in remaining]


def test_no_such_file(tmp_path: Path) -> None:
    """A file that is not there, or is a directory, is told by its name."""
    for path, reason in ((tmp_path / "none.csv", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WrongUse, match=rf"{path}: {reason}"), open_csv(str(path), known=COLUMNS, keys=KEYS):
            pass


def test_what_another_process_can_read_again(tmp_path: Path) -> None:
    """A file, by its name; no pipe, nothing that is this process's own, and nothing that is gone."""
    path, pipe = tmp_path / "t.csv", tmp_path / "pipe"
    path.touch()
    os.mkfifo(pipe)

    assert can_be_read_again(str(path))
    for name in (
        "-",
        "/dev/fd/0",
        "/dev/stdin",
        "/proc/self/fd/0",
        str(pipe),
        str(tmp_path / "no"),
        "a\0b",
        "x" * 5000,
    ):
        assert not can_be_read_again(name)


def test_the_sample() -> None:
    """The file of 300 tenants is good."""
    with open_csv(str(SAMPLE), known=COLUMNS, keys=KEYS) as source:
        assert len(check(source)) == 300


def test_a_check_tells_how_far_it_has_come() -> None:
    """From time to time, for a sign of life."""
    told = list[int]()
    check(sheet(b"ticket\n" + b"".join(b"t%d\n" % number for number in range(600))), told.append)

    assert told == [0, 256, 512]
