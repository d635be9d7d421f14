"""Decides what a process does while the shared log is away or unreliable.

Rules:

1. A log that cannot be reached is tried again after pauses that grow from 0.1 to 2 seconds.
2. A log that was lost (its name changed) counts as full for one period, because no process knows what was in it.
3. A log that is lost again within three periods is not asked for slots until it has lasted for three periods. Requests
   are reported to it all the same.
4. Without a log to ask, the process waits until every request that other processes sent through the lost log has left
   the window. That takes one period and the time for which a slot is held. Then it uses its share of the limit.
5. The process gives up its share when the log can be reached, is no longer full for being new, and is asked again
   (rule 3).
6. An outage is worth one warning, and a loss is worth one, until the log has been reached, and has lasted for three
   periods if it was lost.
"""

import math
from typing import Final

from respan_async._pacing.rate_limit import LONGEST_PERIOD, RateLimit
from respan_async._pacing.shared.slot_accounting import HOLD

_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 2.0
_STEADY_PERIODS: Final = 3
_LOSSES: Final = 2


class StoreOutage:
    """Track how long a log has been away or unreliable, and decide what to do meanwhile.

    Args:
        limit: The limit of all processes together.
        share: The part of the limit to use meanwhile; 0 to wait.
        timeout: Seconds after which a try has failed.

    Attributes:
        since: When the first try failed, or None while the log can be reached.
        retry_at: When to try again.
        within: Seconds within which every process that cannot reach the log notices that it is back.
    """

    def __init__(self, limit: RateLimit, share: float, timeout: float) -> None:
        self._limit = limit
        self._share = share
        self._pause = _FIRST_RETRY
        self._failures = 0
        self._losses = 0
        self._began_at = -math.inf  # when the present log began, if it replaced a lost one
        self._counted_until = -math.inf  # until when the previous log may have granted slots
        self._untrusted_since = math.inf
        self._told_unreachable = self._told_lost = False
        self.since: float | None = None
        self.retry_at = -math.inf
        self.within = _LAST_RETRY + 2 * timeout

    @property
    def fallback(self) -> RateLimit | None:
        """The limit to use meanwhile: the share, with a longer period if it is less than one request; None to wait."""
        number = self._limit.limit * self._share
        if not number:
            return None
        if number >= 1:
            return RateLimit(int(number), per=self._limit.per)
        return RateLimit(1, per=min(self._limit.per / number, LONGEST_PERIOD))

    # ------------------------------------------------------------------ events

    def failed(self, asked_at: float, now: float) -> bool:
        """Note that a try has failed; return whether to warn: once, and not for a single failure."""
        self.since = asked_at if self.since is None else self.since
        self.retry_at = now + self._pause
        self._pause = min(2 * self._pause, _LAST_RETRY)
        self._failures += 1
        if self._failures < 2 or self._told_unreachable:
            return False
        self._told_unreachable = True
        return True

    def reached(self) -> None:
        """Note that the log was reached."""
        self.since = None
        self._pause = _FIRST_RETRY
        self._failures = 0

    def lost(self, now: float, full: float) -> bool:
        """Note that the log was lost, and the new one is full for some seconds; return whether to warn."""
        began_at = now + full - self._limit.per
        if not self._losses or began_at >= self._began_at + self._limit.per:
            self._counted_until = began_at
        self._began_at = began_at
        self._losses += 1
        if self._losses == _LOSSES and self._share:
            self._untrusted_since = self._counted_until
        told, self._told_lost = self._told_lost, True
        return not told

    def over(self, now: float) -> bool:
        """Forget losses if the log has lasted; return whether an outage has ended that was worth a warning."""
        if self.since is not None or (self._losses and now < self._steady_at):
            return False
        told = self._told_unreachable or self._told_lost
        self._losses = 0
        self._untrusted_since = math.inf
        self._told_unreachable = self._told_lost = False
        return told

    # --------------------------------------------------------------- decisions

    @property
    def _steady_at(self) -> float:
        return self._began_at + _STEADY_PERIODS * self._limit.per

    @property
    def untrusted(self) -> bool:
        """Whether the log is lost so often that it is not asked for slots."""
        return self._untrusted_since < math.inf

    @property
    def trusted_at(self) -> float:
        """When the present log may be trusted, if it still exists then."""
        if not self._losses:
            return -math.inf
        return self._steady_at if self.untrusted else self._began_at + self._limit.per

    def is_long(self, now: float) -> bool:
        """Whether other processes may have used their shares as well."""
        return self.since is not None and now - self.since > self.within

    def falls_back_at(self) -> float:
        """Return when every request that others sent through the lost log, or held slots for, has left the window."""
        since = min(math.inf if self.since is None else self.since, self._untrusted_since)
        return since + self._limit.per + HOLD if self._share else math.inf

    def due(self, now: float) -> float:
        """Return when to act: try again, or fall back."""
        falls_back_at = self.falls_back_at()
        return min(self.retry_at, falls_back_at) if now < falls_back_at else self.retry_at
