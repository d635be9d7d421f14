"""Pauses after trouble, and then lets requests return step by step."""

import math
from typing import Final

_WIDE: Final = 1024.0
"""So many requests at once are no restriction."""


class SlowStart:
    """Hold requests back for a while, then let one through, and more as they succeed.

    After a pause one request goes first; each success allows one more in flight at the same time, which doubles the
    number with every round trip. So the client does not stampede a server that has just come back.

    Args:
        first: Seconds of the first pause for which the server named no time; each further pause is twice as long.
        longest: Seconds of the longest such pause.

    Attributes:
        closed_until: When the pause ends.
        width: How many requests may be in flight.
        failures: The number of pauses in a row, without a success between them.
    """

    def __init__(self, first: float, longest: float) -> None:
        self.closed_until = -math.inf
        self.width = math.inf
        self._closed_at = -math.inf
        self._first = first
        self._longest = longest
        self.failures = 0
        self._unsaid = 0  # the part of them for which the server named no time

    @property
    def troubled(self) -> bool:
        """Whether the last result was a failure."""
        return self.failures > 0

    def close(self, now: float, seconds: float | None = None) -> float:
        """Pause for `seconds`, or longer with each failure in a row; return the seconds."""
        if seconds is None:
            seconds = min(self._first * 2.0 ** min(self._unsaid, 30), self._longest)
            self._unsaid += 1
        self.failures += 1
        self._closed_at = now
        self.closed_until = max(self.closed_until, now + seconds)
        self.width = 1.0
        return seconds

    def succeeded(self, sent_at: float) -> None:
        """Note a success. A success that was sent before the pause began says nothing about the time after."""
        if sent_at < self._closed_at:
            return
        self.failures = self._unsaid = 0
        self.width = self.width + 1.0 if self.width < _WIDE else math.inf

    def admits(self, now: float, in_air: int) -> bool:
        """Whether one more request may go now."""
        return now >= self.closed_until and in_air < self.width
