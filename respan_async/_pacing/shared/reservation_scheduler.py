"""Decides when a process asks the shared log for slots, and for which calls.

Rules:

1. Interactive calls ask at once, unless they were just told when to ask again.
2. A batch asks as late as it can, because an interactive call of any process waits behind the slots that other
   processes hold ahead of their time. It asks so long after it used its last slot that it will hold the next one for a
   slot and a half, or for five round trips if these take longer.
3. How long a batch should have waited is learned from how far ahead its slot lies, but only from the part that comes
   from slots which other processes held before it. A slot also lies far ahead if a burst has left a gap; then there is
   no other process to wait for.
4. A slot that an interactive call took does not delay a batch, even if the batch had asked for it.
"""

import math
from typing import Final

from respan_async._pacing.rate_limit import RateLimit

_LEAST_LEAD: Final = 0.01
"""The least seconds by which a batch asks before its time, because timers and busy loops are late by as much."""
_MOST: Final = 100
"""The most slots asked for with one request; only slots that are free at once are granted together."""


class ReservationScheduler:
    """The demand, and when to ask for it. Times are those of one monotonic clock.

    Attributes:
        urgent: Interactive calls that could go if there were slots.
        patient: Calls of batches and sweeps that could go if there were slots.
        left: The remaining demand of batches and sweeps altogether.
        asked_urgently: Whether interactive calls asked for the last slots.
    """

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self.urgent = self.patient = 0
        self.left = 0.0
        self.asked_urgently = False
        self._again_at = -math.inf
        self._taken_at = -math.inf
        self._delay = 0.0

    def withdraw(self) -> None:
        """Drop the demand."""
        self.urgent = self.patient = 0

    def due(self) -> float:
        """Return when to ask; infinity if there is no demand."""
        if self.urgent:
            return self._again_at if self.asked_urgently else -math.inf
        return self._patient_at if self.patient else math.inf

    @property
    def _patient_at(self) -> float:
        return max(self._again_at, self._taken_at + self._delay)

    def amounts(self, now: float) -> tuple[int, int]:
        """Return how many slots to ask for now, for interactive calls or else for others."""
        if self.urgent:
            return min(self.urgent, _MOST), 0
        return 0, 0 if now < self._patient_at else min(self.patient, _MOST)

    def replied(self, urgently: bool, again_at: float) -> None:
        """Note which calls have asked, and when it makes sense to ask again."""
        self.asked_urgently = urgently
        self._again_at = again_at

    def granted(self, lead: float, held: int, trip: float) -> None:
        """Note how far ahead a batch's slot lies, how many slots others hold, and how long the reply took.

        The amount subtracted each time makes competing processes wait equally long, and so get equally many slots.
        """
        wanted = max(1.5 * self._limit.interval, 5 * trip, _LEAST_LEAD)
        in_turn = min(lead, (held + 1) * self._limit.interval)
        self._delay = max(0.9 * self._delay + in_turn - wanted, 0.0) if lead else 0.0

    def taken(self, now: float) -> None:
        """Note that a slot was used."""
        if not self.asked_urgently and not self.urgent:
            self._taken_at = now

    def reset(self) -> None:
        """Forget how late to ask, because the log has changed or was away."""
        self._delay = 0.0
