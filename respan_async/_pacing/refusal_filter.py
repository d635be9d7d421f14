"""When refusals that do not fit what is known of the limit are believed all the same.

A server refuses for other reasons as well: another limit, a proxy, somebody else's burst. A limit that really is much
lower refuses again and again, until it is kept; the others refuse here and there.
"""

from collections import deque
from typing import Final

_ENOUGH: Final = 5
_AMONG: Final = 40
"""So many refusals among so many answers are believed: by chance, one in fifty would bring that about in one of 130."""


class RefusalFilter:
    """Count refusals among answers."""

    def __init__(self) -> None:
        self._answers = 0
        self._refusals: deque[int] = deque()  # of which number each was

    def admitted(self) -> None:
        """Note that a request was let in."""
        self._answers += 1

    def refused(self) -> None:
        """Note that one was refused."""
        self._answers += 1
        self._refusals.append(self._answers)
        while self._refusals[0] <= self._answers - _AMONG:
            self._refusals.popleft()

    @property
    def is_over(self) -> bool:
        """Whether there have been enough."""
        return len(self._refusals) >= _ENOUGH
