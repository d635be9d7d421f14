"""Learns the account's limit from refusals, if it was not given.

A server that keeps a log or a window of period P, and says `retry_after` r when it refuses, has let N requests in
since r less than a period ago. After a pause nothing older counts: then N is the number let in since the pause, and P
is the age of the oldest of these plus r. Others may have held slots meanwhile, so that is a hypothesis. Rules:

1. Nothing is known, and nothing held back, until a refusal is believed. Each believed refusal gives a sample: the
   number let in since the last pause, and the period that the oldest of them and r suggest. If the server states no
   wait, or a whole second that may mean zero, the period lies between the last refusal and the first admission after
   it.
2. The documented limit is the prior. It is adopted if the period agrees with it, or if four samples neither exclude it
   nor agree with each other. It is excluded if more requests than it allows are let in within its period, or, after
   four samples, by a rate of three times its own.
3. Otherwise a sample is adopted if the prior is excluded, or if two samples in a row agree.
4. Of several round periods the longest that fits is taken. A limit that is too low grows (`limit_scout.py`); one that
   is too high is corrected by the slots that `others.py` leaves out.
5. A longer wait than the period explains shows that the period was wrong: everything is learned anew.
"""

import math
from typing import Final

import attrs

from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async._pacing.retry_after_rounding import at_least, is_whole
from respan_async._pacing.sliding_log import SlidingLog

_ROUND: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60),
    *(120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400),
)
_ENOUGH_SAMPLES: Final = 4
_OUTRUN: Final = 3.0
_SHORTEST_PAUSE: Final = 0.25
"""Seconds: requests let in without such a gap form one burst."""
_SLACK: Final = 1.02
_RESET_SLACK: Final = 2.1


@attrs.frozen
class _Sample:
    """The hypothesis of one believed refusal: a number of requests in a number of seconds."""

    count: int
    per: float

    def agrees_with(self, other: "_Sample") -> bool:
        return 4 * abs(self.count - other.count) <= max(4, other.count)


@attrs.frozen
class _Unsaid:
    """A refusal that did not say how long to wait.

    Attributes:
        count: The number of requests let in before it.
        oldest: When the oldest of them was let in.
        refused_at: When a request was last refused.
        latest: The latest time at which the refusal ends.
    """

    count: int
    oldest: float
    refused_at: float
    latest: float


class LimitEstimator:
    """Learn a limit from refusals.

    Args:
        log: The log of our own requests.
    """

    def __init__(self, log: SlidingLog) -> None:
        self._log = log
        self._samples: list[_Sample] = []
        self._first_sample_at = 0.0
        self._longest_reset = 0.0
        self._unsaid: _Unsaid | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a refusal without a stated wait has not ended yet."""
        return self._unsaid is not None

    def refused(self, now: float, retry_after: float | None) -> RateLimit | None:
        """Note a believed refusal; return the limit, once it is known."""
        vague = retry_after is None or at_least(retry_after) <= 0
        burst = self._log.burst(now, _SHORTEST_PAUSE if vague else 0.5 * retry_after)  # type: ignore[operator]
        if burst is None:
            return None
        count, age = burst
        if retry_after is None or vague:
            latest = math.inf if retry_after is None else now + retry_after
            if self._unsaid is None:
                self._unsaid = _Unsaid(count, now - age, now, latest)
            else:
                self._unsaid = attrs.evolve(self._unsaid, refused_at=now)
            return None
        self._unsaid = None
        per = _round_period(age, retry_after)
        lets_in = self._log.admitted_within(now, DOCUMENTED_LIMIT.per)
        excluded = lets_in > DOCUMENTED_LIMIT.limit or at_least(retry_after) > DOCUMENTED_LIMIT.per * _SLACK
        if lets_in == DOCUMENTED_LIMIT.limit and per != DOCUMENTED_LIMIT.per:
            # If the documented limit applied, all its slots would be ours, and retry_after would match our oldest
            # request.
            excluded = retry_after + 1 < DOCUMENTED_LIMIT.per - self._log.age(now, lets_in)
        return self._weigh(now, _Sample(count, per), excluded)

    def let_in(self, now: float) -> RateLimit | None:
        """Note that a request was let in, after the log did; return the limit, once it is known."""
        self._log.trim()
        if self._unsaid is None:
            return None
        unsaid, self._unsaid = self._unsaid, None
        over_at = max(min(now, unsaid.latest), unsaid.refused_at)
        sample = _Sample(unsaid.count, _round_between(unsaid.refused_at - unsaid.oldest, over_at - unsaid.oldest))
        lets_in = self._log.admitted_within(now, DOCUMENTED_LIMIT.per) - 1  # this request belongs to the next period
        return self._weigh(now, sample, lets_in > DOCUMENTED_LIMIT.limit)

    def let_in_singly(self, now: float) -> RateLimit:
        """Return the limit that the last second suggests, if requests are refused although they come one by one."""
        return RateLimit(max(self._log.admitted_within(now, 1.0), 1), per=1.0)

    def told(self, hint: RateHint) -> RateLimit | None:
        """Return the limit that an answer states, if any; a missing period is at least the longest reset seen."""
        if hint.limit is None:
            return None
        per = hint.per
        if per is None and hint.reset is not None:
            per = self._longest_reset = max(self._longest_reset, _round_up(hint.reset))
        return None if per is None else RateLimit(hint.limit, per=per)

    def forget(self) -> None:
        """Learn everything anew."""
        self._samples.clear()
        self._unsaid = None

    def _weigh(self, now: float, sample: _Sample, prior_is_excluded: bool) -> RateLimit | None:
        again = bool(self._samples) and sample.agrees_with(self._samples[-1])
        if again:
            sample = attrs.evolve(sample, per=max(sample.per, self._samples[-1].per))
        if not self._samples:
            self._first_sample_at = now
        self._samples.append(sample)
        if sample.per == DOCUMENTED_LIMIT.per:
            return RateLimit(max(sample.count, DOCUMENTED_LIMIT.limit), per=sample.per)
        if prior_is_excluded or again:
            return RateLimit(sample.count, per=sample.per)
        if len(self._samples) < _ENOUGH_SAMPLES:
            return None
        took = now - self._first_sample_at
        outrun = self._log.admitted_within(now, took) > _OUTRUN * took / DOCUMENTED_LIMIT.interval
        return RateLimit(sample.count, per=sample.per) if outrun else DOCUMENTED_LIMIT


def _round_period(age: float, retry_after: float) -> float:
    """Return the round period that follows from an oldest request of `age` seconds and this `retry_after`."""
    exact = age + retry_after
    slack = (_SLACK - 1) * exact + 0.01
    low = max(age + at_least(retry_after) - slack, 1.0 if is_whole(retry_after) else 0.0)
    return next((float(value) for value in reversed(_ROUND) if low <= value <= exact + slack), exact)


def _round_up(reset: float) -> float:
    """Return the shortest round period that contains a reset in so many seconds.

    Servers round the reset up, some add a second, and an epoch is compared with a date in whole seconds. A period that
    is too short does no harm, because the time until the reset is stated as well.
    """
    return next((float(value) for value in _ROUND if value >= reset - _RESET_SLACK and value >= 0.5 * reset), reset)


def _round_between(low: float, high: float) -> float:
    """Return the round period above `low` and up to `high` that is nearest to their geometric mean, or `high`."""
    middle = math.sqrt(max(low, 0.01) * high)
    fitting = (float(value) for value in _ROUND if low < value <= high)
    return min(fitting, key=lambda value: abs(math.log(value / middle)), default=high)
