"""Decides whether a refusal is believed.

A server refuses because a limit is used up, or for another reason: a different limit, a proxy, a burst, chance. One
question tells them apart: was anything let in that was sent after the refused request? Rules:

1. After a refusal nothing is sent until the requests in flight have come back, a second at most. All of them are *one*
   observation: a request that was sent before its end gives no new information later.
2. The refusal is disproved if more of the requests sent after the refused one were let in than refused. It is believed
   if several were refused and hardly any let in.
3. Otherwise one probe is sent. The refusal is believed if the probe is refused as well, and disproved if the probe is
   let in before the time that the server had asked to wait.
4. Refusals are frequent if there were four among the last hundred answers, not counting explained ones.
"""

import enum
import math
from collections import deque
from typing import Final

import attrs

from respan_async._pacing.retry_after_rounding import at_least

_LONGEST_WATCH: Final = 1.0
_FREQUENT: Final = 4
_AMONG: Final = 100


class Verdict(enum.Enum):
    """The result of an observation."""

    BELIEVED = enum.auto()
    DISPROVED = enum.auto()
    UNDECIDED = enum.auto()
    """One request was refused, and none was sent after it: a probe decides."""


@attrs.frozen
class Observation:
    """The observation of one refusal.

    Attributes:
        verdict: The result.
        refusals: The number of refused requests.
        retry_after: The shortest wait that the server asked for, in seconds; None if it did not say.
    """

    verdict: Verdict
    refusals: int
    retry_after: float | None


class RefusalReview:
    """Review one refusal at a time.

    Attributes:
        ended_at: When the last review ended.
    """

    def __init__(self) -> None:
        self._began_at: float | None = None
        self.ended_at = -math.inf
        self._sent_at = 0.0  # when the first refused request was sent
        self._refusals = 0
        self._let_in_after = 0
        self._retry_after: float | None = None
        self._disproved_until: float | None = None  # a probe sent before this time, and let in, disproves the refusal
        self._answers = 0
        self._refused: deque[int] = deque()  # the sequence number of each unexplained refusal

    @property
    def is_open(self) -> bool:
        """Whether nothing may be sent, because requests are still in flight."""
        return self._began_at is not None

    @property
    def ends_at(self) -> float | None:
        """When an open review ends at the latest."""
        return None if self._began_at is None else self._began_at + _LONGEST_WATCH

    @property
    def are_frequent(self) -> bool:
        """Whether unexplained refusals are too many to be chance (rule 4)."""
        return len(self._refused) >= _FREQUENT

    def explained(self) -> None:
        """Forget the earlier refusals, because their reason is known."""
        self._refused.clear()

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Note a refusal; return whether it begins a review."""
        self._count()
        if sent_at < self.ended_at:
            return False
        self._refused.append(self._answers)
        begins = self._began_at is None
        if begins:
            self._began_at, self._sent_at = now, sent_at
            self._refusals = self._let_in_after = 0
            self._retry_after = None
        self._refusals += 1
        if retry_after is not None:
            self._retry_after = min(retry_after, retry_after if self._retry_after is None else self._retry_after)
        return begins

    def let_in(self, sent_at: float) -> bool:
        """Note that a request was let in; return whether it was a probe that disproves the last refusal."""
        self._count()
        if self._began_at is not None:
            self._let_in_after += sent_at >= self._sent_at
            return False
        if self._disproved_until is None or sent_at < self.ended_at:
            return False
        disproved = sent_at < self._disproved_until
        self._disproved_until = None
        return disproved

    def conclude(self, now: float, in_air: int) -> Observation | None:
        """Return the observation, once the requests in flight have come back, or the review has timed out."""
        if self._began_at is None or (in_air and now < self._began_at + _LONGEST_WATCH):
            return None
        refused_at, self._began_at, self.ended_at = self._began_at, None, now
        was_probe, self._disproved_until = self._disproved_until is not None, None
        if self._let_in_after > self._refusals:
            verdict = Verdict.DISPROVED
        elif was_probe or (self._refusals > 1 and 4 * self._let_in_after <= self._refusals):
            verdict = Verdict.BELIEVED
        else:
            verdict = Verdict.UNDECIDED
            said = self._retry_after
            self._disproved_until = math.inf if said is None else refused_at + max(at_least(said), _HAIR)
        return Observation(verdict, self._refusals, self._retry_after)

    def decided(self) -> None:
        """Skip the probe, because the meaning of the refusal is known otherwise."""
        self._disproved_until = None

    def _count(self) -> None:
        self._answers += 1
        while self._refused and self._refused[0] <= self._answers - _AMONG:
            self._refused.popleft()


_HAIR: Final = 1e-6
