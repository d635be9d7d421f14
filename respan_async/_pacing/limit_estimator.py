"""What the account's limit is, where it was not given.

A server that keeps a log or a window of period P, and says `retry_after` r when it refuses, has let N requests in
since r less than a period ago. After a pause nothing older counts: then N is what was let in since the pause, and P is
the age of the oldest of these plus r. Others may have held slots meanwhile, so that is a hypothesis. Rules:

1. Nothing is known, and nothing held back, until a refusal is believed. Each believed refusal gives a sample: how many
   were let in since the last pause, and the period that the oldest of them and r suggest. Where the server says
   nothing, or a second that may be none, the period lies between the last refusal and the first admission after it.
2. The documented limit is the prior. It is taken where the period agrees with it, or where four samples neither
   exclude it nor agree with each other. More requests than it allows, let in within its period, exclude it; so does,
   after four samples, a rate of three times its own.
3. Else a sample is taken where the prior is excluded, or where two samples in a row agree.
4. Of several round periods the longest that fits is taken. A limit so found too low grows (`limit_scout.py`); one too
   high is met by what `others.py` leaves out.
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
"""Seconds: what was let in without such a gap is one burst."""
_SLACK: Final = 1.02
_RESET_SLACK: Final = 2.1


@attrs.frozen
class _Sample:
    """What one believed refusal suggests: so many requests in so many seconds."""

    count: int
    per: float

    def agrees_with(self, other: "_Sample") -> bool:
        return 4 * abs(self.count - other.count) <= max(4, other.count)


@attrs.frozen
class _Unsaid:
    """A refusal that did not say how long to wait.

    Attributes:
        count: What was let in before it.
        oldest: When the oldest of that was.
        refused_at: When a request was refused last.
        latest: When it is over at the latest.
    """

    count: int
    oldest: float
    refused_at: float
    latest: float


class LimitEstimator:
    """Learn a limit from refusals.

    Args:
        log: Our own requests.
    """

    def __init__(self, log: SlidingLog) -> None:
        self._log = log
        self._samples: list[_Sample] = []
        self._first_sample_at = 0.0
        self._longest_reset = 0.0
        self._unsaid: _Unsaid | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a refusal that did not say how long to wait is not over yet."""
        return self._unsaid is not None

    def refused(self, now: float, retry_after: float | None) -> RateLimit | None:
        """Note a believed refusal; return the limit, if it is known by now."""
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
            # All its slots would be ours, and so the first of ours would be the first to come back.
            excluded = retry_after + 1 < DOCUMENTED_LIMIT.per - self._log.age(now, lets_in)
        return self._weigh(now, _Sample(count, per), excluded)

    def let_in(self, now: float) -> RateLimit | None:
        """Note that a request was let in, after the log did; return the limit, if it is known by now."""
        self._log.trim()
        if self._unsaid is None:
            return None
        unsaid, self._unsaid = self._unsaid, None
        over_at = max(min(now, unsaid.latest), unsaid.refused_at)
        sample = _Sample(unsaid.count, _round_between(unsaid.refused_at - unsaid.oldest, over_at - unsaid.oldest))
        lets_in = self._log.admitted_within(now, DOCUMENTED_LIMIT.per) - 1  # this one belongs to the next period
        return self._weigh(now, sample, lets_in > DOCUMENTED_LIMIT.limit)

    def let_in_singly(self, now: float) -> RateLimit:
        """Return the limit that the last second suggests, where requests are refused though they come one by one."""
        return RateLimit(max(self._log.admitted_within(now, 1.0), 1), per=1.0)

    def told(self, hint: RateHint) -> RateLimit | None:
        """Return the limit that an answer states, if it does; a period it leaves out is at least its longest reset."""
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
    """Return the period that an oldest request of `age` seconds and this `retry_after` mean, as a round value."""
    exact = age + retry_after
    slack = (_SLACK - 1) * exact + 0.01
    low = max(age + at_least(retry_after) - slack, 1.0 if is_whole(retry_after) else 0.0)
    return next((float(value) for value in reversed(_ROUND) if low <= value <= exact + slack), exact)


def _round_up(reset: float) -> float:
    """Return the shortest round period that a reset in so many seconds fits into.

    Servers round it up, some add a second, and one told as an epoch is read against a date in whole seconds. A period
    too short does no harm: what remains until the reset is told as well.
    """
    return next((float(value) for value in _ROUND if value >= reset - _RESET_SLACK and value >= 0.5 * reset), reset)


def _round_between(low: float, high: float) -> float:
    """Return the round period above `low` and up to `high` that is nearest to their geometric middle, or `high`."""
    middle = math.sqrt(max(low, 0.01) * high)
    fitting = (float(value) for value in _ROUND if low < value <= high)
    return min(fitting, key=lambda value: abs(math.log(value / middle)), default=high)
