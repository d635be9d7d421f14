"""Estimates how many slots of the account other users hold: the second of the two counts.

The theory of "ours and others". An account is shared: with earlier processes, other programs, people in a dashboard.
The sliding log knows what *we* used. Refusals reveal what *others* use: a request that is refused while we hold k of N
slots says that others hold the missing N - k. It does not say that N is lower. So N stands, and what others hold is
subtracted from it. Rules:

1. A first refusal finds slots that *pass*: others took them at some time within the last period. The server says when
   the first of them comes back; the rest are expected evenly from then on, all of them within one period.
2. A refusal within two periods of the last one finds a *share* that others take in every period. It is left to them,
   with a margin, so that others who are refused meanwhile get their slots.
3. After clean periods, half the share is tried. If that is refused, the former share returns, and the next try waits
   for twice as many clean periods.

A limit that was halved, or given too high, looks like other users who take the difference, and is treated the same.
"""

import math
from bisect import bisect_right
from typing import Final

from respan_async._pacing.probe_backoff import ProbeBackoff

_STEPS: Final = 20
"""A share grows by at least a twentieth of the limit."""


class Others:
    """Slots of the limit that others hold."""

    def __init__(self) -> None:
        self._share = 0
        self._share_before = 0  # the share before the last try
        self._returns: list[float] = []  # when passing slots come back
        self._probe_backoff = ProbeBackoff()
        self._refused_at = -math.inf

    @property
    def share(self) -> int:
        """How many slots of every period are left to others."""
        return self._share

    def used(self, now: float) -> int:
        """Return how many slots other users hold."""
        if self._returns and self._returns[0] <= now:
            del self._returns[: bisect_right(self._returns, now)]
        return len(self._returns) + self._share

    def expiries(self, number: int) -> list[float]:
        """Return when the first `number` of the passing slots come back."""
        return self._returns[:number]

    def is_trying(self, now: float, per: float) -> bool:
        """Whether a refusal now would mean that the share is still taken."""
        return self._share < self._share_before and self._probe_backoff.is_trying(now, per)

    def found(self, now: float, ours: int, limit: int, per: float, retry_after: float | None) -> None:
        """Note a refusal that our own count does not explain.

        Args:
            now: The time.
            ours: The number of our slots, fewer than the limit.
            limit: The number of slots.
            per: The period in seconds.
            retry_after: Seconds until the first of the others' slots comes back; None if the server did not say.
        """
        missing = limit - ours
        again = now - self._refused_at < 2 * per
        self._refused_at = now
        self._returns.clear()
        if not again:
            first = min(retry_after or 0.0, per)
            gap = (per - first) / missing
            self._returns = [now + first + gap * index for index in range(missing)]
            self._probe_backoff.restart(now)
        elif self.is_trying(now, per):
            self._share = self._share_before
            self._probe_backoff.failed(now)
        else:
            self._share = min(max(missing, self._share + max(1, limit // _STEPS)), limit - 1)
            self._probe_backoff.restart(now)

    def told(self, number: int, until: float) -> None:
        """Note how many slots others hold according to the server, and until when."""
        self._returns = [until] * number

    def relax(self, now: float, per: float) -> None:
        """Try half the share, if it is time."""
        if self._share and self._probe_backoff.is_over(now, per):
            self._share_before = self._share
            self._share //= 2
            self._probe_backoff.tried(now)
            self._refused_at = now  # so that a refusal within two periods does not count as passing slots

    def relaxes_at(self, per: float) -> float | None:
        """Return when the next try is due, if there is a share."""
        return self._probe_backoff.ends_at(per) if self._share else None
