"""How many requests may come at once, where a server minds that apart from how many come in a period.

A token bucket may have room for fewer than a period's limit; a proxy without a burst lets one through every P/N
seconds; another bounds the requests in the air. Each refuses a burst although the period has room, and lets the next
request in soon after. So the *level* is bounded: what is in the air, and what was answered and has not drained yet at
the rate of the limit, as from a leaky bucket. Rules:

1. Refusals that are over sooner than the period explains cap the level at what was let in.
2. After clean periods twice as much is tried. Where that is refused, the cap is as before, and the next try waits for
   twice as many clean periods.
3. A request drains from its answer on, not from its sending, so that no jitter makes two arrive closer than they were
   sent. Where a round trip is not short beside P/N, that costs throughput while a cap is in force.
"""

import math
from typing import Final

from respan_async._pacing.probe_backoff import ProbeBackoff

_LEAST_PATIENCE: Final = 4.0
"""Periods: a burst is tried less often than a share, because spread requests lose nothing by a cap."""
A_PART: Final = 0.25
"""A level, in requests, up to which nothing counts as having come at once: the last one is as good as drained."""
_HAIR: Final = 1e-6
_MOST: Final = 1024
"""A cap of so many requests at once is none."""


class BurstCap:
    """Bound the requests that come at once."""

    def __init__(self) -> None:
        self.cap: int | None = None
        self._cap_before = 0  # the last try began
        self._answered = 0.0  # of the level, as it was `_at`
        self._at = -math.inf
        self._level_refused = 0.0
        self._probe_backoff = ProbeBackoff(_LEAST_PATIENCE)

    def answered(self, now: float, interval: float) -> None:
        """Note that a request was let in, where the limit lets one in every `interval` seconds; 0: not known."""
        self._answered = self._undrained(now, interval) + 1.0
        self._at = now

    def room(self, now: float, in_air: int, interval: float) -> float:
        """Return how many more may go now; less than one means none."""
        if self.cap is None:
            return math.inf
        return self.cap - in_air - self._undrained(now, interval) + _HAIR

    def opens_at(self, now: float, in_air: int, interval: float) -> float | None:
        """Return when one more may go, if time alone brings that about."""
        if self.cap is None or in_air >= self.cap:
            return None
        excess = self._undrained(now, interval) + in_air + 1 - self.cap
        return now + excess * interval if excess > 0 else None

    def begin_refusal(self, now: float, in_air: int, interval: float) -> None:
        """Note the level at the first refusal of a flight, with `in_air` others in the air."""
        self._level_refused = self._undrained(now, interval) + in_air

    def level_let_in(self, refused_later: int) -> float:
        """Return how much of that level was let in, when so many of what was in the air were refused as well."""
        return self._level_refused - refused_later

    def tighten(self, now: float, let_in: float, per: float) -> None:
        """Cap the level at what was let in."""
        if self.cap is not None and self._cap_before < self.cap and self._probe_backoff.is_trying(now, per):
            self.cap = self._cap_before
            self._probe_backoff.failed(now)
            return
        cap = max(1, math.ceil(let_in - A_PART))
        self.cap = cap if self.cap is None else max(1, min(cap, self.cap - 1))
        self._probe_backoff.restart(now)

    def relax(self, now: float, per: float) -> None:
        """Try twice as much, when it is time."""
        if self.cap is not None and self._probe_backoff.is_over(now, per):
            self._cap_before = self.cap
            self.cap *= 2
            self._probe_backoff.tried(now)
            if self.cap >= _MOST:
                self.cap = None

    def _undrained(self, now: float, interval: float) -> float:
        return max(self._answered - (now - self._at) / interval, 0.0) if interval else 0.0
