"""How long an answer asks to wait."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from respan_async import RateLimitError
from respan_async._http.operations import create
from respan_async._http.response import Response
from respan_async._http.response_parsing import failure
from respan_async._http.retry_after import retry_after

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
IN_30_SECONDS = "Thu, 31 Jan 2030 12:00:30 GMT"
NO_NUMBERS = ["-1", "-0.5", "+5", "", "soon", "nan", "inf", "-inf", "1e999", "1e1", "1_0", "0x5", "٣", "9" * 5000]


def in_headers(*values: str, date: str | None = None, now: datetime = NOW) -> float | None:
    """Read headers, of which each value stands in a line of its own."""
    fields = [("retry-after", value) for value in values] + ([] if date is None else [("date", date)])
    return retry_after(CIMultiDict(fields), b"", now)


def in_body(body: object, *values: str) -> float | None:
    """Read a body, and perhaps headers beside it."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return retry_after(CIMultiDict([("Retry-After", value) for value in values]), text, NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60.0),
        ("1.5", 1.5),
        ("0.001", 0.001),
        (" 7 ", 7.0),
        *((nonsense, None) for nonsense in NO_NUMBERS),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Thu, 31 Jan 2030 12:00:30 -0000", 30.0),
        ("Thu, 31 Jan 2030 13:00:30 +0100", 30.0),
        ("Thursday, 31-Jan-30 12:00:30 GMT", 30.0),
        ("Thu, 99 Jan 2030 12:00:30 GMT", None),
        ("Thu, 31 Jan 99999 12:00:30 GMT", None),
        ("Thu, 31 Jan 2030 12:00:30 +9999999", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_says_when(value: str, seconds: float | None) -> None:
    """In seconds or as a date; nonsense counts as nothing."""
    assert in_headers(value) == seconds


def test_without_a_header_nothing_is_asked() -> None:
    """Nor without a body."""
    assert in_headers() is None


@pytest.mark.parametrize("value", ["0", "0.0", "00", "Thu, 31 Jan 2030 12:00:00 GMT", "Wed, 30 Jan 2030 12:00:00 GMT"])
def test_no_time_at_all_counts_as_not_said(value: str) -> None:
    """Who obeyed it would ask again without a pause, thousands of times."""
    assert in_headers(value) is None
    assert in_body({"retry_after": value}) is None
    assert in_headers(value, "3") == 3.0


@pytest.mark.parametrize(
    "values",
    [
        ("1", "3"),
        ("3", "1"),
        ("1, 3",),
        ("3,1",),
        ("1_0, 3, soon, 0",),
        ("0", "Thu, 31 Jan 2030 12:00:03 GMT, 2"),
        ("1,Thursday, 31-Jan-30 12:00:03 GMT",),
        ("Wed, 30 Jan 2030 12:00:00 GMT, Thu, 31 Jan 2030 12:00:03 GMT",),
    ],
    ids="; ".join,
)
def test_the_longest_of_several_waits_counts(values: tuple[str, ...]) -> None:
    """An origin and a proxy may each set one: in two lines, or in one that was joined from them."""
    assert in_headers(*values) == 3.0


def test_all_lines_reach_the_error() -> None:
    """Through everything between the answer and what is raised."""
    headers = CIMultiDict([("Retry-After", "1"), ("Retry-After", "3")])

    error = failure(create({}), Response(429, headers, b""), None, NOW)

    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3.0


def test_a_date_is_compared_with_the_servers_own_clock() -> None:
    """Where the answer tells it: a wrong clock here does not matter."""
    asked = in_headers(IN_30_SECONDS, date="Thu, 31 Jan 2030 12:00:10 GMT", now=NOW - timedelta(days=1))

    assert asked == 20.0


NONSENSE: list[Any] = [None, True, False, -1, 0, 0.0, -0.0, [], {}, [60], *NO_NUMBERS]


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retry_after": 60}, 60.0),
        ({"retry_after": 0.25}, 0.25),
        ({"retry_after": "60"}, 60.0),
        ({"error": {"retry_after": 5}}, 5.0),
        ({"retry_after": 2, "error": {"retry_after": 5}}, 5.0),
        ({"retry_after": IN_30_SECONDS}, 30.0),
        *(({"retry_after": value}, None) for value in NONSENSE),
        ({"detail": "Expected available in 60 seconds."}, None),
        ({"error": "retry_after"}, None),
        (["retry_after", 60], None),
        ("retry_after", None),
        (b'{"retry_after": 60', None),
        (b'{"retry_after": NaN}', None),
        (b'{"retry_after": 1e999}', None),
        (b'{"retry_after": ' + b"9" * 5000 + b"}", None),
        (b'{"retry_after": "\xff"}', None),
        (b'{"a":' * 2000 + b'{"retry_after": 60}' + b"}" * 2000, None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_says_when(body: object, seconds: float | None) -> None:
    """As documented, and in the other shape of an error; nonsense counts as nothing."""
    assert in_body(body) == seconds


def test_the_longer_of_header_and_body_counts() -> None:
    """They disagree: never earlier than the server asked."""
    assert in_body({"retry_after": 5}, "7") == 7.0
    assert in_body({"retry_after": 9}, "7") == 9.0
    assert in_body({"retry_after": "soon"}, "7") == 7.0
    assert in_body({"retry_after": 9}, "-7") == 9.0


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?[A-Z0-9]+"), st.text())
def test_no_header_breaks_anything(value: str, date: str) -> None:
    """Whatever a proxy writes there: a finite number of seconds above 0, or None."""
    for headers in ({"Retry-After": value}, {"Retry-After": value, "Date": date}):
        asked = retry_after(headers, json.dumps({"retry_after": date}).encode(), NOW)
        assert asked is None or 0 < asked < float("inf")
