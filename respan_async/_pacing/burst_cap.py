"""Caps how many requests may come at once, for servers that limit bursts apart from the period.

A token bucket may have room for fewer requests than a period's limit; a proxy without a burst lets one through every
P/N seconds; another bounds concurrent requests. Each refuses a burst although the period has room, and lets the next
request in soon after. So the *level* is bounded: the requests in flight, plus those answered that have not yet drained
at the rate of the limit, as from a leaky bucket. Rules:

1. Refusals that end sooner than the period explains cap the level at what was let in.
2. After clean periods, twice the cap is tried. If that is refused, the former cap returns, and the next try waits for
   twice as many clean periods.
3. A request drains from its answer on, not from its sending, so that jitter cannot make two arrive closer than they
   were sent. If a round trip is not short compared with P/N, that costs throughput while a cap is in force.
"""

import math
from typing import Final

from respan_async._pacing.probe_backoff import ProbeBackoff

_LEAST_PATIENCE: Final = 4.0
"""In periods: a burst is tried less often than a share, because a cap costs spread requests nothing."""
A_PART: Final = 0.25
"""A level, in requests, below which requests do not count as simultaneous: the last one has nearly drained."""
_HAIR: Final = 1e-6
_MOST: Final = 1024
"""A cap of this many simultaneous requests is no restriction."""


class BurstCap:
    """Bound the requests that come at once."""

    def __init__(self) -> None:
        self.cap: int | None = None
        self._cap_before = 0  # the cap before the last try
        self._answered = 0.0  # the part of the level that was answered, as it was at `_at`
        self._at = -math.inf
        self._level_refused = 0.0
        self._probe_backoff = ProbeBackoff(_LEAST_PATIENCE)

    def answered(self, now: float, interval: float) -> None:
        """Note that a request was let in, if the limit lets one in every `interval` seconds; 0: unknown."""
        self._answered = self._undrained(now, interval) + 1.0
        self._at = now

    def room(self, now: float, in_air: int, interval: float) -> float:
        """Return how many more requests may go now; below one, no request may go."""
        if self.cap is None:
            return math.inf
        return self.cap - in_air - self._undrained(now, interval) + _HAIR

    def opens_at(self, now: float, in_air: int, interval: float) -> float | None:
        """Return when one more request may go, if only time has to pass."""
        if self.cap is None or in_air >= self.cap:
            return None
        excess = self._undrained(now, interval) + in_air + 1 - self.cap
        return now + excess * interval if excess > 0 else None

    def begin_refusal(self, now: float, in_air: int, interval: float) -> None:
        """Note the level at the first refusal of a flight, with `in_air` other requests in flight."""
        self._level_refused = self._undrained(now, interval) + in_air

    def level_let_in(self, refused_later: int) -> float:
        """Return how much of that level was let in, if so many of the requests in flight were refused later."""
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
        """Try twice the cap, if it is time."""
        if self.cap is not None and self._probe_backoff.is_over(now, per):
            self._cap_before = self.cap
            self.cap *= 2
            self._probe_backoff.tried(now)
            if self.cap >= _MOST:
                self.cap = None

    def _undrained(self, now: float, interval: float) -> float:
        return max(self._answered - (now - self._at) / interval, 0.0) if interval else 0.0
