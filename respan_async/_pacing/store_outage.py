"""The time during which a log that processes share cannot be reached."""

import math
from typing import Final

from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.reserved_slots import HOLD

_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 2.0


class StoreOutage:
    """Know how long a log has been away, and when to try again.

    Args:
        limit: The limit of all processes together.
        share: The part of it to go on with; 0 to wait.
        timeout: Seconds after which a try has failed.

    Attributes:
        since: When the first try failed, or None.
        retry_at: When to try again.
        within: Seconds in which every process that cannot reach the log knows that it is back.
    """

    def __init__(self, limit: RateLimit, share: float, timeout: float) -> None:
        self._limit = limit
        self._share = share
        self._pause = _FIRST_RETRY
        self._failures = 0
        self.since: float | None = None
        self.retry_at = -math.inf
        self.within = _LAST_RETRY + 2 * timeout

    @property
    def fallback(self) -> RateLimit | None:
        """What to go on with, if anything: the share, with a longer period where it is less than one request."""
        number = self._limit.limit * self._share
        if not number:
            return None
        if number >= 1:
            return RateLimit(int(number), per=self._limit.per)
        return RateLimit(1, per=self._limit.per / number)

    def failed(self, asked_at: float, now: float) -> bool:
        """Note that a try has failed; return whether that is worth telling: once, and not of a single one."""
        self.since = asked_at if self.since is None else self.since
        self.retry_at = now + self._pause
        self._pause = min(2 * self._pause, _LAST_RETRY)
        self._failures += 1
        return self._failures == 2

    def ended(self) -> bool:
        """Note that the log was reached; return whether its being away was told."""
        told = self._failures > 1
        self.since = None
        self._pause = _FIRST_RETRY
        self._failures = 0
        return told

    def is_long(self, now: float) -> bool:
        """Whether the others may have gone on without the log as well."""
        return self.since is not None and now - self.since > self.within

    def falls_back_at(self) -> float:
        """Return when nothing counts any more that the others did by the log, with what they held."""
        return math.inf if self.since is None or not self._share else self.since + self._limit.per + HOLD

    def due(self, now: float) -> float:
        """Return when there is something to do: try again, or fall back."""
        falls_back_at = self.falls_back_at()
        return min(self.retry_at, falls_back_at) if now < falls_back_at else self.retry_at
