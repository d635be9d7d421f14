"""Finds out whether a learned limit is too low, by sending a few requests beyond it.

1. A limit that was used up, followed by a whole period without a refusal, may be too low: then some requests go beyond
   it. Their number is a sixteenth of the limit at first, and doubles after each success.
2. If no request is refused within a period of the first one beyond the limit, the limit is raised by that number.
3. A refusal of such a request was to be expected. It says nothing about other users of the account, and the next try
   waits for twice as many periods.
"""

import math
from typing import Final

from respan_async._pacing.probe_backoff import ProbeBackoff
from respan_async._pacing.rate_limit import RateLimit

_FIRST_STEP: Final = 16


class LimitScout:
    """Find out whether the server lets more requests in than believed."""

    def __init__(self) -> None:
        self._probe_backoff = ProbeBackoff()
        self._step = 0
        self._extra = 0
        self._beyond_since: float | None = None
        self._used_up_at = -math.inf

    @property
    def is_beyond(self) -> bool:
        """Whether a refusal is to be expected."""
        return self._beyond_since is not None

    @property
    def extra(self) -> int:
        """How many requests may go beyond the limit, as `allowance` has decided last."""
        return self._extra

    def restart(self, now: float) -> None:
        """Begin anew, with a newly learned limit."""
        self._step = self._extra = 0
        self._beyond_since = None
        self._probe_backoff = ProbeBackoff()
        self._probe_backoff.restart(now)

    def rest(self) -> None:
        """Try nothing, because the server states its limit."""
        self._probe_backoff = ProbeBackoff(math.inf)
        self._probe_backoff.restart(0.0)

    def allowance(self, now: float, limit: RateLimit) -> int:
        """Return how many requests may go beyond the limit."""
        used_up = self._used_up_at >= self._probe_backoff.clean_since
        if not self._extra and used_up and self._probe_backoff.is_over(now, limit.per):
            self._step = min(2 * self._step, limit.limit) or max(1, limit.limit // _FIRST_STEP)
            self._extra = self._step
        return self._extra

    def taken(self, now: float, used: int, limit: RateLimit) -> None:
        """Note that a slot was taken, and `used` slots are taken now."""
        if used >= limit.limit:
            self._used_up_at = now
        if self._extra and self._beyond_since is None and used > limit.limit:
            self._beyond_since = now

    def confirmed(self, now: float, limit: RateLimit) -> int:
        """Return by how many requests the limit is higher than believed; 0 if that is not proven."""
        if self._beyond_since is None or now < self._beyond_since + limit.per:
            return 0
        extra, self._extra, self._beyond_since = self._extra, 0, None
        self._probe_backoff.succeeded()
        return extra

    def refused(self, now: float) -> None:
        """Note that a request beyond the limit was refused."""
        self._step = self._extra = 0
        self._beyond_since = None
        self._probe_backoff.failed(now)
