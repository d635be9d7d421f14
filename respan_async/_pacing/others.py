"""What others use of the account: the second of the two counts.

The theory of "ours and others". An account is shared: with yesterday's process, with other programs, with people in a
dashboard. What *we* used is known, by the sliding log of our own requests. What *others* use is revealed by refusals: a
request that is refused while we hold k of N slots says that others hold the N - k that are missing. It does not say
that N is lower. So N stands, and what others hold is left out of it. Rules:

1. A first refusal finds slots that *pass*: others took them at some time within the last period. The server says when
   the first of them comes back; the rest are expected evenly from then on, and all of them within one period.
2. A refusal within two periods of the last one finds a *share* that others take in every period. It is left to them,
   and somewhat more, so that others who are refused meanwhile get their slots.
3. After clean periods half of the share is tried. Where that is refused, the share is as before, and the next try
   waits for twice as many clean periods.

A limit that was halved, or given too high, looks the same as others who take the difference, and is treated the same.
"""

import math
from bisect import bisect_right
from typing import Final

from respan_async._pacing.probe_backoff import ProbeBackoff

_STEPS: Final = 20
"""A share grows by a twentieth of the limit at least."""


class Others:
    """Slots of the limit that others hold."""

    def __init__(self) -> None:
        self._share = 0
        self._share_before = 0  # the last try began
        self._returns: list[float] = []  # when passing slots come back
        self._probe_backoff = ProbeBackoff()
        self._refused_at = -math.inf

    @property
    def share(self) -> int:
        """How many slots of every period are left to others."""
        return self._share

    def used(self, now: float) -> int:
        """Return how many slots others hold."""
        if self._returns and self._returns[0] <= now:
            del self._returns[: bisect_right(self._returns, now)]
        return len(self._returns) + self._share

    def expiries(self, number: int) -> list[float]:
        """Return when the first `number` of the passing slots come back."""
        return self._returns[:number]

    def is_trying(self, now: float, per: float) -> bool:
        """Whether a refusal now would say that the share is still taken."""
        return self._share < self._share_before and self._probe_backoff.is_trying(now, per)

    def found(self, now: float, ours: int, limit: int, per: float, retry_after: float | None) -> None:
        """Note a refusal that our own count does not explain.

        Args:
            now: When.
            ours: How many slots are ours, fewer than the limit.
            limit: How many there are.
            per: Seconds of a period.
            retry_after: Seconds until the first of the others' slots comes back; None where nothing was said.
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
        """Note that the server itself said how many slots others hold, until when."""
        self._returns = [until] * number

    def relax(self, now: float, per: float) -> None:
        """Try half of the share, when it is time."""
        if self._share and self._probe_backoff.is_over(now, per):
            self._share_before = self._share
            self._share //= 2
            self._probe_backoff.tried(now)
            self._refused_at = now  # a refusal within two periods is no news of passing slots

    def relaxes_at(self, per: float) -> float | None:
        """Return when it will be time, if there is a share."""
        return self._probe_backoff.ends_at(per) if self._share else None
