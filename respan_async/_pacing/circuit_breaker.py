"""Holds requests back while the server fails, and lets them return step by step.

1. Failures of different calls in a row hold the lower classes back: one call alone may carry something that the server
   cannot take; two different ones show that the server is in trouble. Interactive calls go on.
2. A server that fails and says how long to wait gets no request of any class for that long, up to a bound.
3. After each pause one request goes first, and more as they are served.
"""

import math
from typing import Final

from respan_async._pacing.slow_start import SlowStart

_AFTER: Final = 3
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class CircuitBreaker(SlowStart):
    """Hold the lower classes back when one call after the other fails.

    Args:
        longest_asked: Seconds; if a server asks for a longer wait, it is asked again after this long.
    """

    def __init__(self, longest_asked: float) -> None:
        super().__init__(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._longest_asked = longest_asked
        self._failures_in_a_row = 0
        self._culprits: list[object] = []
        self._asked = SlowStart(_FIRST_PAUSE, _LONGEST_PAUSE)

    @property
    def asked_until(self) -> float:
        """The time until which the server asked all classes to wait."""
        return self._asked.closed_until

    def admits_anything(self, now: float, in_air: int) -> bool:
        """Whether one more request of any class may go now."""
        return self._asked.width == math.inf or self._asked.admits(now, in_air)

    def served(self, sent_at: float) -> None:
        """Note that a request was served."""
        self._failures_in_a_row = 0
        self._culprits.clear()
        self.succeeded(sent_at)
        self._asked.succeeded(sent_at)

    def failed(self, now: float, culprit: object) -> float | None:
        """Note that a call has failed; return the seconds of the pause if one begins."""
        self._failures_in_a_row += 1
        if len(self._culprits) < 2 and culprit not in self._culprits:
            self._culprits.append(culprit)
        is_outage = self._failures_in_a_row >= _AFTER and len(self._culprits) > 1
        return self.close(now) if is_outage and now >= self.closed_until else None

    def asked_to_wait(self, now: float, seconds: float) -> float | None:
        """Note that the server failed and asked to wait; return the seconds of the pause if one begins."""
        begins = now >= self._asked.closed_until
        seconds = self._asked.close(now, min(seconds, self._longest_asked))
        return seconds if begins else None
