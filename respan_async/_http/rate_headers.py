"""Reads the headers by which servers and proxies state their limit into a `RateHint`.

    RateLimit-Policy: 10;w=60     RateLimit-Limit: 10, RateLimit-Remaining: 9, RateLimit-Reset: 60     IETF draft 6
    RateLimit-Policy: 10;w=60     RateLimit: limit=10, remaining=9, reset=60                           IETF draft 7
    RateLimit-Policy: "a";q=10;w=60                     RateLimit: "a";r=9;t=60                        IETF draft 8
    X-RateLimit-Limit: 10, X-RateLimit-Remaining: 9, X-RateLimit-Reset: 60, or an epoch                older than those

Who sends what (source: their code): express-rate-limit sends each of the four, as configured, with an epoch in the
last. slowapi sends the last, with an epoch that may have decimals, and a line of each for every limiter that saw the
request. GitHub sends the last, with an epoch. Envoy sends the last, with seconds, and the policies of draft 6 after the
limit: `10, 10;w=1, 1000;w=3600`. Rack::Attack is often set up to send draft 6 with an epoch. Traefik and Django REST
Framework send none of them, only `Retry-After`.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from respan_async._http.header_parsing import date, lines, number
from respan_async._pacing.rate_hint import RateHint

_STANDARD: Final = ("RateLimit-Policy", "RateLimit", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_OLDER: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_NAMES: Final = _STANDARD + _OLDER

_YEAR: Final = 31_536_000
"""A year in seconds. A larger number is a time since 1970, not a wait."""
_LONGEST: Final = 1_000
"""The longest line that is read, in characters; the work on hostile quotes grows with its square."""

# The members of a list, and the parts of a member (RFC 8941), where commas and semicolons may stand within quotes.
_MEMBER: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
_PART: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^";])+')


class _Quota(NamedTuple):
    """How many requests a policy allows in how many seconds."""

    limit: int | None
    per: float | None


class _Counter(NamedTuple):
    """How many requests are left of a policy, and for how many seconds."""

    remaining: int | None
    reset: float | None


class _Member(NamedTuple):
    """One member of a list: a value, or a name, and its parameters as text."""

    value: str
    parameters: dict[str, str]


def rate_hint(headers: Mapping[str, str], now: datetime) -> RateHint | None:
    """Return what the headers of an answer state of the limit; None if they state nothing.

    Args:
        headers: The headers of the answer.
        now: The wall clock, aware; used for an epoch if the answer has no `Date`.
    """
    for name in _NAMES:
        if name in headers:
            break
    else:
        return None
    standard = _Statement(headers, now)
    standard.read_structured_fields()
    standard.read_three_fields("RateLimit")
    older = _Statement(headers, now)
    older.read_three_fields("X-RateLimit")
    return standard.tightest() or older.tightest()


class _Statement:
    """The statements in the headers of one answer: the quotas of policies, and the counters of what is left of them."""

    def __init__(self, headers: Mapping[str, str], now: datetime) -> None:
        self._headers = headers
        self._now = now
        self._quotas: list[_Quota] = []
        self._counters: list[_Counter] = []

    def read_structured_fields(self) -> None:
        """Read `RateLimit-Policy`, and `RateLimit` in the forms of draft 7 and draft 8."""
        of_other_units: set[str] = set()  # draft 8 can also count bytes, or concurrent requests
        for value, parameters in self._members("RateLimit-Policy"):
            if parameters.get("qu", '"requests"').strip('"') != "requests":
                of_other_units.add(value)
            else:
                # In draft 8 the value is a name; in draft 7 it was the quota itself.
                quota = _requests(parameters.get("q", value))
                self._quotas.append(_Quota(quota, _seconds(parameters.get("w"))))
        of_draft_7: dict[str, str] = {}
        for value, parameters in self._members("RateLimit"):
            name, equals, text = value.partition("=")
            if equals and not name.startswith('"'):
                of_draft_7[name.strip()] = text
            elif value not in of_other_units:
                self._counters.append(_Counter(_whole(parameters.get("r")), self._until(parameters.get("t"))))
        if of_draft_7:
            self._quotas.append(_Quota(_requests(of_draft_7.get("limit")), None))
            self._counters.append(_Counter(_whole(of_draft_7.get("remaining")), self._until(of_draft_7.get("reset"))))

    def read_three_fields(self, prefix: str) -> None:
        """Read `-Limit`, `-Remaining` and `-Reset`; the n-th of each was written by the same limiter."""
        for value, parameters in self._members(f"{prefix}-Limit"):
            self._quotas.append(_Quota(_requests(value), _seconds(parameters.get("w"))))
        remaining = (_whole(value) for value, _ in self._members(f"{prefix}-Remaining"))
        resets = (self._until(value) for value, _ in self._members(f"{prefix}-Reset"))
        self._counters.extend(itertools.starmap(_Counter, itertools.zip_longest(remaining, resets)))

    def tightest(self) -> RateHint | None:
        """Return the quota that allows least and the counter that has least left; None if there is neither."""
        limit, per = min(self._quotas, key=_tightness, default=_Quota(None, None))
        remaining, reset = min(self._counters, key=_scarcity, default=_Counter(None, None))
        hint = RateHint(limit=limit, per=None if limit is None else per, remaining=remaining, reset=reset)
        return None if hint == _NOTHING else hint

    def _members(self, name: str) -> Iterator[_Member]:
        for line in lines(self._headers, name):
            if len(line) > _LONGEST:
                continue
            for member in _MEMBER.findall(line):
                value, *parts = _PART.findall(member) or [""]
                pairs = (part.partition("=") for part in parts)
                yield _Member(value.strip(), {key.strip(): text.strip() for key, _, text in pairs})

    def _until(self, text: str | None) -> float | None:
        """Read the seconds until the count begins anew; None if unknown."""
        seconds = _seconds(text)
        if seconds is not None and seconds > _YEAR:
            # The server's own clock, if it tells it, keeps an error of the local clock out of the result.
            seconds -= (date(self._headers.get("Date")) or self._now).timestamp()
        return seconds if seconds is not None and 0 < seconds <= _YEAR else None


_NOTHING: Final = RateHint()


def _tightness(quota: _Quota) -> tuple[int, float]:
    """Order quotas: first those with a known period, by rate; then the others, by number."""
    if quota.limit is None:
        return 2, 0.0
    return (1, quota.limit) if quota.per is None else (0, quota.limit / quota.per)


def _scarcity(counter: _Counter) -> tuple[float, float]:
    """Order counters by what is left; of two equal ones, the one renewed later comes first."""
    return float("inf") if counter.remaining is None else counter.remaining, -(counter.reset or 0.0)


def _whole(text: str | None) -> int | None:
    read = None if text is None else number(text)
    return int(read) if read is not None and read.is_integer() else None


def _requests(text: str | None) -> int | None:
    return _whole(text) or None  # no request could keep to a limit of zero


def _seconds(text: str | None) -> float | None:
    return (None if text is None else number(text)) or None
