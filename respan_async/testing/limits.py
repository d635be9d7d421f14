"""The rate limits that a server may have, as functions of the time and of the requests let in before.

They use no clock: the caller passes the time, in seconds, and it never goes back. A refused request leaves no trace, as
in Django REST Framework, whose own throttle is `SlidingLog`.
"""

from collections import deque
from collections.abc import Sequence
from math import floor
from typing import Protocol

import attrs
from attrs.validators import ge, gt

__all__ = ["GRAIN", "Bucket", "FixedWindow", "Limit", "SlidingLog", "busiest_window"]

GRAIN = 1e-5
"""Seconds within which two times count as equal: an event loop fires a timer up to its clock's resolution too early (a
microsecond on a loop with virtual time), and a client that waited as told deserves no second refusal."""


class Limit(Protocol):
    """Decide about one request at a time."""

    def admit(self, now: float) -> float | None:
        """Let a request in, or say how long it has to wait.

        Args:
            now: The time of the request in seconds, on any clock that never goes back.

        Returns:
            None if the request is let in, and remembered; otherwise the exact seconds after which it would be.
        """


@attrs.define
class SlidingLog:
    """Let a request in when fewer than `limit` were let in during the last `per` seconds.

    Args:
        limit: Requests in any half-open window of `per` seconds.
        per: Seconds.
    """

    limit: int = attrs.field(validator=gt(0))
    per: float = attrs.field(kw_only=True, validator=gt(0))
    _log: deque[float] = attrs.field(factory=deque, init=False, repr=False, eq=False)

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        log = self._log
        while log and log[0] + self.per <= now + GRAIN:
            log.popleft()
        if len(log) >= self.limit:
            return log[0] + self.per - now
        log.append(now)
        return None


@attrs.define
class FixedWindow:
    """Let `limit` requests in between one multiple of `per` seconds and the next.

    Args:
        limit: Requests in one window.
        per: Seconds that a window lasts.
        offset: Seconds by which the windows begin later than the multiples of `per`.
    """

    limit: int = attrs.field(validator=gt(0))
    per: float = attrs.field(kw_only=True, validator=gt(0))
    offset: float = attrs.field(default=0.0, kw_only=True)
    _window: int | None = attrs.field(default=None, init=False, repr=False, eq=False)
    _used: int = attrs.field(default=0, init=False, repr=False, eq=False)

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        window = floor((now - self.offset + GRAIN) / self.per)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= self.limit:
            return (window + 1) * self.per + self.offset - now
        self._used += 1
        return None


def _one_period(bucket: "Bucket") -> float:
    return max(1.0, bucket.limit)


@attrs.define
class Bucket:
    """Let a request in when a token is left: one drips in every `per / limit` seconds, and at most `burst` are kept.

    Args:
        limit: Tokens that drip in during `per` seconds.
        per: Seconds.
        burst: Tokens that the bucket holds, full at first; by default as many as drip in during one period.
    """

    limit: float = attrs.field(validator=gt(0))
    per: float = attrs.field(kw_only=True, validator=gt(0))
    burst: float = attrs.field(default=attrs.Factory(_one_period, takes_self=True), kw_only=True, validator=ge(1))
    _full_at: float | None = attrs.field(default=None, init=False, repr=False, eq=False)

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        drip = self.per / self.limit
        full_at = now if self._full_at is None else max(self._full_at, now)
        wait = full_at + drip - self.burst * drip - now
        if wait > GRAIN:
            return wait
        self._full_at = full_at + drip
        return None


def busiest_window(times: Sequence[float], per: float) -> int:
    """Count the most times that fall into one half-open window of `per` seconds, in one pass.

    Args:
        times: Seconds, ascending.
        per: Seconds; two times exactly `per` apart (within `GRAIN`) are not in one window.

    Returns:
        The number; 0 when there are no times.
    """
    most = first = 0
    for last, time in enumerate(times):
        while times[first] + per <= time + GRAIN:
            first += 1
        most = max(most, last - first + 1)
    return most
