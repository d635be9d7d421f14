"""What the account's limit is, as far as the server's refusals tell.

The theory. A server that keeps a log or a window of period P and says `retry_after` r when it refuses at time t has
let N requests in since t + r - P. So, given P, N can be counted; and P is the age of the oldest of them plus r, if
they began after a pause long enough for nothing older to count. That is one equation for two unknowns, and other
users of the account may have taken a share: the result is a hypothesis. Hence the rules:

1. Nothing is known until the first refusal. Then what is in the air comes back, and the burst since the last pause is
   counted. A refusal with nothing let in teaches nothing, then or later.
2. P prefers round values, within what the rounding of r leaves open.
3. A later refusal corrects N to what that period proves, and not below. P only grows: when r is longer than P, when P
   would have it that hardly anything was let in, or when the same N came again after a pause, over a longer time.
4. A limit that was used up for a whole period without a refusal may be too small: scouts go beyond it, one at first,
   twice as many each time they come through, and after ever longer patience when they do not.
5. A limit that was given is the ceiling: it is corrected downwards by refusals, and back up to it by scouts.
6. What is to come back r from now was let in r less than a period ago. Where nothing was, a refusal that would lower a
   given limit by much is somebody else's affair, unless there are many of them.
"""

import math
from typing import Final

import attrs

from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async._pacing.sliding_log import AdmissionLog

_ROUND: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60),
    *(120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400),
)
_LONGEST_COUNT: Final = 1.0
"""Seconds to wait for what is in the air before the burst is counted without it."""
_COARSE: Final = 20.0
"""Seconds of a period below which whole seconds are too coarse a measure to be taken at their word."""
_SHORTEST: Final = 1.0
"""Seconds of the shortest period that a whole number of seconds can speak of."""
_MUCH: Final = 0.9
"""A limit that falls below this part of what it was has changed much."""
_FINE: Final = 100
"""A limit is explored in steps of a hundredth of it, or one."""
_LEAST_PATIENCE: Final = 1.0
_MOST_PATIENCE: Final = 64.0


class LimitEstimator:
    """The limit as given, learned and corrected.

    Args:
        given: The limit from the settings, or None.
        log: When requests were let in.
    """

    def __init__(self, given: RateLimit | None, log: AdmissionLog) -> None:
        self.limit = given
        self.learned = False
        self._ceiling = given.limit if given else None
        self._log = log
        self._first_refusal: tuple[float, float | None] | None = None  # when, and its retry_after
        self._unsaid: tuple[int, float, float] | None = None  # a burst's number, its oldest, the last refusal after it
        self._peak = given.limit if given else 0  # the highest limit since the period was learned
        self._corrected_at = -math.inf
        self._lowered_at = -math.inf
        # Rule 4. Patience is counted in periods.
        self._clean_since = -math.inf
        self._used_up_at = -math.inf
        self._patience = _LEAST_PATIENCE
        self._step = 1
        self._target: int | None = None
        self._unconfirmed: int | None = None  # how many were in the air when the target was reached, and are still

    @property
    def counted_at(self) -> float | None:
        """When the first burst will have been counted at the latest, if it is being counted."""
        return self._first_refusal[0] + _LONGEST_COUNT if self._first_refusal is not None else None

    def counting(self, now: float) -> bool:
        """Whether the first burst is being counted, and nothing may be sent."""
        if self._first_refusal is None:
            return False
        if now >= self._first_refusal[0] + _LONGEST_COUNT:
            self._conclude(now)
        return self._first_refusal is not None

    def scouts(self, now: float) -> int:
        """Return how many requests may go beyond the limit, to see whether it is too small."""
        limit = self.limit
        if limit is None or (self._ceiling is not None and limit.limit >= self._ceiling):
            return 0
        if self._target is None:
            patient = now >= self._clean_since + self._patience * limit.per
            if not patient or self._used_up_at < self._clean_since:
                return 0
            self._target = limit.limit + self._step * max(1, limit.limit // _FINE)
            if self._ceiling is not None:
                self._target = min(self._target, self._ceiling)
        return self._target - limit.limit

    def taken(self, now: float) -> None:
        """Note that a slot was taken."""
        if self.limit is None:
            return
        used = self._log.used(now, self.limit.per)
        if used >= self.limit.limit:
            self._used_up_at = now
        if self._target is not None and self._unconfirmed is None and used >= self._target:
            self._unconfirmed = self._log.in_air

    def admitted(self, now: float) -> None:
        """Note that the server let one more in, after the log did."""
        if self.limit is None:
            self._log.trim()
            if self._unsaid is not None:
                count, oldest, refused_at = self._unsaid
                self._adopt(now, RateLimit(count, per=_round_between(refused_at - oldest, now - oldest)))
        elif self._target is not None:
            seen = self._log.admitted_within(now, self.limit.per)
            if seen > self.limit.limit:
                self.limit = attrs.evolve(self.limit, limit=seen)
            if self._unconfirmed is not None:
                self._unconfirmed -= 1
            if seen >= self._target or self._unconfirmed == 0:
                # All that were in the air when it was reached have been let in: where the server is far away, fewer
                # than that are ever seen within a period.
                self.limit = attrs.evolve(self.limit, limit=max(seen, self._target))
                self._target = self._unconfirmed = None
                if self._step > 1:
                    self._patience = _LEAST_PATIENCE  # the second success in a row: the limit really is higher
                self._step *= 2
                self._peak = self.limit.limit
                self._clean_since = now

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Note a refusal; return whether it was a scout's, which says nothing that was not expected.

        Args:
            now: When its answer came.
            sent_at: When the request was sent. One sent before the last correction adds nothing to it.
            retry_after: What the server asked, in seconds; None when it did not, or asked nonsense.
        """
        if self._first_refusal is not None or sent_at < self._corrected_at:
            return False
        if self.limit is None:
            self._first_refusal = (now, retry_after)
            return False
        scouting, before = self._target is not None, self.limit
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._step = 1
        self._target = self._unconfirmed = None
        corrected = self._corrected(now, retry_after)
        if corrected is None:
            return False
        limit, least = corrected
        self._adopt(now, limit)
        if self.limit == before and not scouting and now >= self._lowered_at + before.per:
            self._lowered_at = now
            # The period's count bears the limit out, and yet it was met: it is too high by what counting cannot see.
            self._adopt(now, attrs.evolve(before, limit=max(1, least, before.limit - 1)))
        return scouting and self.limit == before

    def contradicts_limit(self, now: float, retry_after: float | None) -> bool:
        """Whether a refusal would overturn a limit that was given, and does not fit it (rule 6)."""
        limit = self.limit
        if limit is None or self._ceiling is None:
            return False
        corrected = self._corrected(now, retry_after)
        if corrected is None or corrected[0].interval <= limit.interval / _MUCH:
            return False
        if retry_after is None:
            return True
        slack = 0.05 * limit.per
        latest = self._log.admitted_within(now, max(limit.per - retry_after - slack, 0.0))
        return latest == self._log.admitted_within(now, limit.per - _at_least(retry_after) + slack)

    def global_pause(self, retry_after: float | None) -> float | None:
        """Return how long a refusal that nobody was let in beside should hold back everybody; None: not known."""
        return global_pause_for(self.limit, retry_after)

    def record_outcome(self, now: float) -> None:
        """Note that a request came back, in whatever way."""
        if self._first_refusal is not None and self._log.in_air == 0:
            self._conclude(now)

    def _conclude(self, now: float) -> None:
        """Learn the limit from the first burst (rules 1 and 2)."""
        assert self._first_refusal is not None
        refused_at, retry_after = self._first_refusal
        self._first_refusal = None
        documented = DOCUMENTED_LIMIT.per
        burst = self._log.burst(now, documented if retry_after is None else retry_after)
        if burst is None:
            return
        count, age = burst[0], burst[1] - (now - refused_at)
        if age > documented or age + (retry_after or 0.0) > documented >= (retry_after or 0.0):
            per = documented  # older than what is documented: a steady flow, of which no start is known
        elif retry_after is None:
            self._unsaid = count, refused_at - age, refused_at  # the first to be let in again will tell the period
            return
        else:
            per = _round_period(age, retry_after)
        _, most = self._let_in(refused_at, per, retry_after or 0.0)
        if most:
            self._adopt(now, RateLimit(most, per=per))

    def _corrected(self, now: float, retry_after: float | None) -> tuple[RateLimit, int] | None:
        """Return the limit in line with a refusal (rule 3), and the least that the period proves, if it tells any."""
        limit = self.limit
        assert limit is not None
        per = limit.per
        if retry_after is not None:
            per = max(per, self._longer_period(now, limit, retry_after))
        if not self._log.admitted_within(now, per):
            return None  # others have used the account up, or it is none of its limits that refuses: no count tells
        least, most = self._let_in(now, per, retry_after or 0.0)
        # A longer period explains the refusals that had lowered the limit.
        number = max(1, least, min(self._peak if per > limit.per else limit.limit, most))
        if self._ceiling is not None:
            number = min(number, self._ceiling)
        return RateLimit(number, per=per), least

    def _longer_period(self, now: float, limit: RateLimit, retry_after: float) -> float:
        burst = self._log.burst(now, retry_after)
        if burst is None:
            return limit.per
        count, age = burst
        same_again = abs(count - limit.limit) <= max(1, limit.limit // 10)
        # Refused with less than half let in, for more than half a period: by this period's count that cannot be.
        contradicted = 2 * self._let_in(now, limit.per, retry_after)[1] < limit.limit and 2 * retry_after > limit.per
        if contradicted or _at_least(retry_after) > limit.per * 1.02:
            # As many as before, over a longer time, explains it best: two periods' worth may lie in one flow. What is
            # in the air was most likely let in by now.
            before = max(1, limit.limit - self._log.in_air)
            return max(limit.per, _round_period(min(age, self._log.age(now, before)), retry_after))
        if same_again and age + retry_after > limit.per * 1.1:
            return _round_period(age, retry_after)
        blurred = _is_whole(retry_after) and limit.per < _COARSE
        if blurred and 2 * self._let_in(now, limit.per, retry_after)[1] < self._peak:
            # Refused at less than half of what was let in once: a longer period, hidden by whole seconds, explains it.
            for per in (float(value) for value in _ROUND if limit.per < value <= _COARSE):
                least, most = self._let_in(now, per, retry_after)
                if least <= self._peak <= most:
                    return per
        return limit.per

    def _let_in(self, now: float, per: float, retry_after: float) -> tuple[int, int]:
        """Return how many the server let in of this period, at least and at most, given what rounding leaves open."""
        slack = 0.05 * per
        least = self._log.admitted_within(now, max(per - retry_after, 0.0))
        most = self._log.admitted_within(now, per - _at_least(retry_after) + slack)
        return least, most

    def _adopt(self, now: float, limit: RateLimit) -> None:
        self.learned = self.learned or limit != self.limit
        same_period = self.limit is not None and self.limit.per == limit.per
        self._peak = max(self._peak, limit.limit) if same_period else limit.limit
        self.limit = limit
        self._corrected_at = now
        self._clean_since = now
        self._log.period_changed(now, limit.per)


def global_pause_for(limit: RateLimit | None, retry_after: float | None) -> float | None:
    """Return how long a refusal should hold back everybody, given what is known of the limit.

    A whole second means up to one second less. Where that matters to a period as short as the one known, a probe
    tells sooner.
    """
    if retry_after is None or limit is None or _at_least(retry_after) >= 0.95 * retry_after:
        return retry_after
    if limit.per >= _COARSE:
        return retry_after
    return max(_at_least(retry_after), limit.interval)


def _round_period(age: float, retry_after: float) -> float:
    """Return the period that an oldest request of `age` seconds and this `retry_after` mean, as a round value.

    Of several round values the shortest is taken: a period too short shows at once, and is corrected by rule 3.
    """
    exact = age + retry_after
    slack = 0.02 * exact + 0.01
    low = max(age + _at_least(retry_after) - slack, _SHORTEST if _is_whole(retry_after) else 0.0)
    return next((float(value) for value in _ROUND if low <= value <= exact + slack), exact)


def _round_between(low: float, high: float) -> float:
    """Return the shortest round period above `low` and up to `high`, or `high`."""
    return next((float(value) for value in _ROUND if low < value <= high), high)


def _is_whole(retry_after: float) -> bool:
    return float(retry_after).is_integer()


def _at_least(retry_after: float) -> float:
    """Return the least wait that this `retry_after` can mean; whole seconds were most likely rounded up."""
    return max(retry_after - 1.0, 0.0) if _is_whole(retry_after) else retry_after
