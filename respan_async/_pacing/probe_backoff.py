"""Decides when a looser setting is tried again after a refusal.

A limit may have risen, others may have given up their share, a longer burst may be allowed by now. Only a try finds
out, and a refused try costs a refusal. So a try waits for clean periods: twice as many after each refused try, and the
least number again after a successful one.
"""

import math
from typing import Final

_MOST: Final = 64.0


class ProbeBackoff:
    """Count the clean periods before the next try.

    Args:
        least: Periods before the first try.
    """

    def __init__(self, least: float = 1.0) -> None:
        self._least = least
        self._periods = least
        self._clean_since = -math.inf
        self._tried_at = -math.inf

    @property
    def clean_since(self) -> float:
        """When the count of clean periods began."""
        return self._clean_since

    def ends_at(self, per: float) -> float:
        """Return when the next try is due, if a period has `per` seconds."""
        return self._clean_since + self._periods * per

    def is_over(self, now: float, per: float) -> bool:
        """Whether it is time for the next try."""
        return now >= self.ends_at(per)

    def is_trying(self, now: float, per: float) -> bool:
        """Whether a refusal now would answer the last try."""
        return now < self._tried_at + 2 * per

    def restart(self, now: float) -> None:
        """Count anew, after a refusal."""
        self._clean_since = now

    def tried(self, now: float) -> None:
        """Note that a looser setting is tried from now on."""
        self._tried_at = self._clean_since = now

    def failed(self, now: float) -> None:
        """Note that the try was refused."""
        self._periods = min(self._periods * 2, _MOST)
        self._tried_at = -math.inf
        self._clean_since = now

    def succeeded(self) -> None:
        """Note that the try succeeded; the next one may follow at once."""
        self._periods = self._least
        self._tried_at = self._clean_since = -math.inf
