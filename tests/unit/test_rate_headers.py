"""The headers that state a limit, in every form that servers and proxies send them."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from respan_async._http.rate_headers import rate_hint
from respan_async._pacing.rate_hint import RateHint

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def hint(*fields: tuple[str, str], now: datetime = NOW) -> RateHint | None:
    """Read the headers of an answer."""
    return rate_hint(CIMultiDict(fields), now)


# --------------------------------------------------------------- every form


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            (
                ("RateLimit-Policy", "10;w=60"),
                ("RateLimit-Limit", "10"),
                ("RateLimit-Remaining", "9"),
                ("RateLimit-Reset", "50"),
            ),
            RateHint(limit=10, per=60, remaining=9, reset=50),
        ),
        (
            (("RateLimit-Policy", "10;w=60"), ("RateLimit", "limit=10, remaining=9, reset=50")),
            RateHint(limit=10, per=60, remaining=9, reset=50),
        ),
        (
            (("RateLimit-Policy", '"a"; q=10; w=60'), ("RateLimit", '"a"; r=9; t=50')),
            RateHint(limit=10, per=60, remaining=9, reset=50),
        ),
        (
            (("X-RateLimit-Limit", "10"), ("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "50")),
            RateHint(limit=10, remaining=9, reset=50),
        ),
    ],
    ids=["draft 6", "draft 7", "draft 8", "older"],
)
def test_each_form_says_the_same(fields: tuple[tuple[str, str], ...], expected: RateHint) -> None:
    """Only the older three cannot tell the period."""
    assert hint(*fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (  # express-rate-limit, draft 8
            (
                ("RateLimit-Policy", '"10-in-1min"; q=10; w=60; pk=:MGQxYjJhM2M0ZDVl:'),
                ("RateLimit", '"10-in-1min"; r=9; t=60'),
            ),
            RateHint(limit=10, per=60, remaining=9, reset=60),
        ),
        (  # slowapi, whose times have decimals with a moving window
            (
                ("X-RateLimit-Limit", "10"),
                ("X-RateLimit-Remaining", "0"),
                ("X-RateLimit-Reset", f"{EPOCH + 30}.5"),
            ),
            RateHint(limit=10, remaining=0, reset=30.5),
        ),
        (  # GitHub
            (
                ("X-RateLimit-Limit", "5000"),
                ("X-RateLimit-Remaining", "4999"),
                ("X-RateLimit-Reset", f"{EPOCH + 3600}"),
                ("X-RateLimit-Used", "1"),
                ("X-RateLimit-Resource", "core"),
            ),
            RateHint(limit=5000, remaining=4999, reset=3600),
        ),
        (  # Envoy, which puts the policies behind the limit
            (
                ("x-ratelimit-limit", '10, 10;w=1;name="per, second", 60;w=3600'),
                ("x-ratelimit-remaining", "9"),
                ("x-ratelimit-reset", "1"),
            ),
            RateHint(limit=60, per=3600, remaining=9, reset=1),
        ),
        (  # Rack::Attack, as it is often set up: the names of draft 6 with an epoch
            (
                ("RateLimit-Limit", "100"),
                ("RateLimit-Remaining", "0"),
                ("RateLimit-Reset", f"{EPOCH + 7}"),
            ),
            RateHint(limit=100, remaining=0, reset=7),
        ),
        ((("Retry-After", "2"), ("X-Retry-In", "1.5s")), None),  # Traefik, which states no limit
    ],
    ids=["express-rate-limit", "slowapi", "GitHub", "Envoy", "Rack::Attack", "Traefik"],
)
def test_what_is_really_sent_is_read(fields: tuple[tuple[str, str], ...], expected: RateHint | None) -> None:
    """As the sources of each of them write it."""
    assert hint(*fields) == expected


# ----------------------------------------------------------- several policies


@pytest.mark.parametrize(
    "lines",
    [
        ('"hour";q=600;w=3600, "second";q=5;w=1, "day";q=20000;w=86400',),
        ('"hour";q=600;w=3600', '"second";q=5;w=1, "day";q=20000;w=86400'),
        ("600;w=3600, 5;w=1, 20000;w=86400",),
    ],
    ids=["one line", "two lines", "draft 6"],
)
def test_the_policy_that_allows_least_is_the_limit(lines: tuple[str, ...]) -> None:
    """600 an hour is less than 5 a second, and than 20,000 a day."""
    assert hint(*(("RateLimit-Policy", line) for line in lines)) == RateHint(limit=600, per=3600)


def test_the_policy_with_the_fewest_requests_left_is_what_remains() -> None:
    """With the time after which that one is renewed, which is not that of the others."""
    fields = ("RateLimit", '"hour";r=50;t=3000, "second";r=2;t=1, "day";r=900;t=80000')

    assert hint(fields) == RateHint(remaining=2, reset=1)


def test_of_two_counters_that_are_equal_the_later_renewal_counts() -> None:
    """Before both are renewed nothing is let in."""
    assert hint(("RateLimit", '"a";r=0;t=1, "b";r=0;t=30, "c";r=0')) == RateHint(remaining=0, reset=30)


def test_a_policy_without_a_period_counts_only_if_no_other_has_one() -> None:
    """How tight it is cannot be told."""
    assert hint(("RateLimit-Policy", "1, 10;w=60")) == RateHint(limit=10, per=60)
    assert hint(("RateLimit-Policy", "7, 5")) == RateHint(limit=5)


def test_a_policy_that_counts_something_else_is_left_out() -> None:
    """Bytes are no requests, nor are requests under way at once; neither is what remains of them."""
    policy = ("RateLimit-Policy", '"mb";q=3;qu="content-bytes";w=60, "n";q=10;qu="requests";w=60')
    left = ("RateLimit", '"mb";r=1;t=5, "n";r=9;t=50')

    assert hint(policy, left) == RateHint(limit=10, per=60, remaining=9, reset=50)


def test_two_limiters_that_each_write_three_lines_are_not_mixed() -> None:
    """As slowapi does for a limit of the route and one of the application: the n-th lines belong together."""
    fields = [
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "40"),
        ("X-RateLimit-Reset", "3000"),
        ("X-RateLimit-Limit", "10"),
        ("X-RateLimit-Remaining", "3"),
        ("X-RateLimit-Reset", "20"),
    ]

    assert hint(*fields) == hint(*fields[3:], *fields[:3]) == RateHint(limit=10, remaining=3, reset=20)


def test_the_standard_headers_count_before_the_older_ones() -> None:
    """They say what they mean; the older ones are read where the others say nothing that can be used."""
    older = (("X-RateLimit-Limit", "5"), ("X-RateLimit-Remaining", "4"))

    assert hint(("RateLimit-Remaining", "9"), *older) == RateHint(remaining=9)
    assert hint(("RateLimit-Remaining", "many"), *older) == RateHint(limit=5, remaining=4)


def test_a_name_may_hold_what_separates_others() -> None:
    """Commas, semicolons, equals signs and escaped quotes within quotes are a part of the name."""
    name = r'"a, \"b\"; q=1; w=1"'

    assert hint(("RateLimit-Policy", f"{name};q=10;w=60"), ("RateLimit", f"{name};r=9;t=5")) == RateHint(
        limit=10, per=60, remaining=9, reset=5
    )


# --------------------------------------------------------------------- epochs


def test_an_epoch_is_compared_with_the_servers_own_clock() -> None:
    """Where the answer tells it; a clock that is a day behind then does no harm."""
    reset = ("X-RateLimit-Reset", str(EPOCH + 30))
    date = ("Date", format_datetime(NOW, usegmt=True))

    assert hint(reset, date, now=NOW - timedelta(days=1)) == RateHint(reset=30)
    assert hint(reset, now=NOW - timedelta(seconds=12)) == RateHint(reset=42)
    assert hint(reset, ("Date", "yesterday"), now=NOW) == RateHint(reset=30)


@pytest.mark.parametrize("offset", [0, -1, -86_400, 31_536_001, 10**12])
def test_an_epoch_that_is_over_or_far_away_says_nothing(offset: int) -> None:
    """A time that has passed is no wait, and one in more than a year is an error."""
    assert hint(("X-RateLimit-Remaining", "3"), ("X-RateLimit-Reset", str(EPOCH + offset))) == RateHint(remaining=3)


@pytest.mark.parametrize(("text", "reset"), [("31536000", 31_536_000.0), ("0.25", 0.25), ("1.", 1.0)])
def test_seconds_are_taken_up_to_a_year(text: str, reset: float) -> None:
    """Anything larger is read as an epoch."""
    assert hint(("RateLimit-Reset", text)) == RateHint(reset=reset)


# ------------------------------------------------------------------- nonsense

NONSENSE = ["", " ", "-1", "+1", "soon", "1_0", "1e3", "inf", "nan", "0x10", "٣", "1 2", "9" * 16, "1.2.3"]


@pytest.mark.parametrize("text", NONSENSE)
@pytest.mark.parametrize("name", ["Limit", "Remaining", "Reset"])
def test_nonsense_says_nothing_in_its_own_field_alone(name: str, text: str) -> None:
    """The two others are read as before."""
    fields = {"Limit": "10", "Remaining": "9", "Reset": "50"}
    for prefix in ("RateLimit-", "X-RateLimit-"):
        read = hint(*((prefix + each, text if each == name else good) for each, good in fields.items()))

        assert read == RateHint(
            limit=None if name == "Limit" else 10,
            remaining=None if name == "Remaining" else 9,
            reset=None if name == "Reset" else 50,
        )


@pytest.mark.parametrize("text", [*NONSENSE, "0"])
def test_a_period_that_is_nonsense_leaves_the_limit(text: str) -> None:
    """No period has zero seconds either."""
    assert hint(("RateLimit-Policy", f"10;w={text}")) == RateHint(limit=10)


def test_zero_means_no_limit_no_time_and_nothing_left() -> None:
    """A limit of nothing and a wait of nothing say nothing; nothing left is a statement."""
    assert hint(("RateLimit", "limit=0, remaining=0, reset=0")) == RateHint(remaining=0)
    assert hint(("RateLimit-Policy", "0;w=60")) is None
    assert hint(("RateLimit-Remaining", "2.5")) is None


@pytest.mark.parametrize("line", ["", ",", ";", "=", '"', '";q=1', ",;=,", '"a"', "q=5", "w=60;q"])
def test_what_is_no_list_says_nothing(line: str) -> None:
    """Where there is nothing else, there is no hint."""
    assert hint(("RateLimit-Policy", line), ("RateLimit", line)) is None


def test_a_line_without_measure_is_not_read() -> None:
    """However its quotes are nested, it costs no time."""
    lines = [('"' + '\\"' * 2_000_000), '"' + '\\"' * 499, '"' * 999]
    began = time.perf_counter()

    assert [hint(("RateLimit-Policy", line)) for line in lines] == [None] * 3
    assert hint(("RateLimit-Policy", "10;w=60".ljust(1_000))) == RateHint(limit=10, per=60)
    assert hint(("RateLimit-Policy", "10;w=60".ljust(1_001))) is None
    assert time.perf_counter() - began < 0.5


@given(st.lists(st.text(alphabet='"\\,;=qwrt0123456789.a ', max_size=60), min_size=3, max_size=3))
def test_no_header_breaks_anything(texts: list[str]) -> None:
    """Whatever is written there: nothing is raised, and every number is one."""
    names = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Reset")
    read = hint(*zip(names, texts, strict=True)) or RateHint()

    assert read.limit is None or read.limit > 0
    assert read.per is None or 0 < read.per < float("inf")
    assert read.remaining is None or read.remaining >= 0
    assert read.reset is None or 0 < read.reset <= 31_536_000


def test_an_answer_without_such_headers_has_no_hint() -> None:
    """Of a plain mapping too, which holds one line of each."""
    assert hint(("Date", "x"), ("Content-Type", "application/json")) is None
    assert rate_hint({}, NOW) is None
    assert rate_hint({"RateLimit-Limit": "10"}, NOW) == RateHint(limit=10)
