"""Failures of different calls in a row, and the careful return from them."""

from typing import Final

from respan_async._pacing.slow_start import SlowStart

_AFTER: Final = 3
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class CircuitBreaker(SlowStart):
    """Hold the lower classes back when one call after the other fails.

    One call alone may have something the server cannot take; two different ones are the server's own trouble.
    """

    def __init__(self) -> None:
        super().__init__(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._failures_in_a_row = 0
        self._culprits: list[object] = []

    def served(self, sent_at: float, enough: int) -> None:
        """Note that a request was served; see `succeeded`."""
        self._failures_in_a_row = 0
        self._culprits.clear()
        self.succeeded(sent_at, enough)

    def failed(self, now: float, culprit: object) -> float | None:
        """Note that a call has failed; return the seconds of the pause if one begins."""
        self._failures_in_a_row += 1
        if len(self._culprits) < 2 and culprit not in self._culprits:
            self._culprits.append(culprit)
        is_one = self._failures_in_a_row >= _AFTER and len(self._culprits) > 1
        return self.close(now) if is_one and now >= self.closed_until else None
