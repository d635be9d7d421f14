"""Counts the slots of the account's limit within one process: ours and those of other users.

A slot is free if our own requests of the last period (`sliding_log.py`) and the slots that others hold (`others.py`)
are fewer than the limit, which was given or learned (`limit_estimator.py`, `limit_scout.py`). What a refusal means:

1. It is reviewed first (`refusal_review.py`). A disproved refusal changes nothing, unless such refusals are frequent:
   then the server limits bursts (`burst_cap.py`).
2. A believed refusal belongs to another limit if no log of this limit can explain it, because one of our own slots
   comes back sooner than the server asks to wait. It pauses everything as told, and teaches nothing.
3. A refusal that asks for no longer wait than the interval between two requests is chance, a burst, or a full window in
   which others come and go. It matters if such refusals are frequent, or while a smaller share for others is being
   tried. If many follow one another, more is missing than a slot, and the next probe waits longer.
4. Any other refusal shows what others hold.
5. A refusal while our own window is empty means an outage or exhausted quota. It teaches nothing.
6. After a pause one request goes first, and more as they are let in (`slow_start.py`).
7. The limit that answers state in their headers is a hypothesis: it replaces learning, never changes a given limit, and
   tells what others hold until the count begins anew.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from respan_async._pacing.burst_cap import A_PART, BurstCap
from respan_async._pacing.limit_estimator import LimitEstimator
from respan_async._pacing.limit_scout import LimitScout
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.others import Others
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.refusal_review import Observation, RefusalReview, Verdict
from respan_async._pacing.retry_after_rounding import at_least
from respan_async._pacing.sliding_log import SlidingLog
from respan_async._pacing.slow_start import SlowStart
from respan_async._pacing.window import GRACE, OnPause

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_PROBE_AFTER: Final = 0.1
"""Seconds after which a probe is sent while no limit is known."""
_PART: Final = 0.02
"""The part of a period after which a probe is sent if a limit is known."""
_SLACK: Final = 0.05
"""The part of a period by which a server's clock and ours may differ about a wait."""
_EVEN_PROBES: Final = 4
_LONGEST_GAP: Final = 1 / 12
"""The first probes in a row follow one another at the interval of requests, up to this part of a period; each further
one waits twice as long, because a server that keeps asking for a moment lacks more than the next slot."""
_NOMINAL: Final = 1.0
"""The period, in seconds, assumed for bursts while no limit is known."""


class LocalWindow:
    """The pacer's window on a limit that this process counts itself; see `Window` for its methods.

    Args:
        given: The account's limit; None to learn it.
        longest_pause: Seconds; if a server asks for a longer wait, it is asked again after this long.
    """

    def __init__(self, given: RateLimit | None, longest_pause: float = 120.0) -> None:
        self._limit = given
        self._given = given is not None
        self._longest_pause = longest_pause
        self._log = SlidingLog(GRACE)
        self._others = Others()
        self._burst = BurstCap()
        self._review = RefusalReview()
        self._estimator = LimitEstimator(self._log)
        self._scout = LimitScout()
        self._slow_start = SlowStart(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._stalled = 0  # requests in flight that were sent before the last refusal and are no longer waited for
        self._paused_until = -math.inf
        self._believed_at = -math.inf
        self._on_pause: OnPause = lambda *_: None

    # ---------------------------------------------------------------- reading

    @property
    def limit(self) -> RateLimit | None:
        return self._limit

    @property
    def learned(self) -> bool:
        return self._limit is not None and not self._given

    @property
    def shared(self) -> bool:
        return False

    def attach(self, wake: Callable[[], None], on_pause: OnPause, clock: LoopClock) -> None:
        self._on_pause = on_pause

    def leave_loop(self) -> None:
        """Do nothing: times keep their age, and nothing else belongs to a loop."""

    async def park(self) -> None:
        """Do nothing: no resource is open."""

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Do nothing: slots need not be asked for."""

    def used(self, now: float) -> int:
        limit = self._limit
        return self._log.used(now, limit.per) if limit else self._log.in_air

    def others(self, now: float) -> int:
        return self._others.used(now)

    def free(self, now: float) -> int:
        assert self._limit is not None
        return self._limit.limit - self._log.used(now, self._limit.per) - self._others.used(now)

    def spread_interval(self) -> float:
        assert self._limit is not None
        return self._limit.per / max(self._limit.limit + self._scout.extra - self._others.share, 1)

    def room(self, now: float, in_air: int) -> float:
        self._keep_up(now)
        if self._review.is_open or now < self._slow_start.closed_until:
            return 0.0
        return min(self._slow_start.width - (in_air - self._stalled), self._burst.room(now, in_air, self._interval))

    def paused_until(self, now: float) -> float | None:
        return self._paused_until if self._paused_until > now else None

    def delay(self, now: float, ahead: int = 0) -> float:
        limit = self._limit
        pause = max(self._slow_start.closed_until - now, 0.0)
        if limit is None:
            return pause
        capacity = limit.limit + self._allowance(now)
        missing = self._log.used(now, limit.per) + self._others.used(now) + ahead - capacity
        if missing < 0:
            return pause
        rounds, nth = divmod(missing, max(capacity - self._others.share, 1))
        ends = sorted(self._log.expiries(now, nth + 1, limit.per) + self._others.expiries(nth + 1))
        # A slot that is still in flight comes back one period after its answer, which is yet to come.
        wait = max(ends[nth] - now, 0.0) if nth < len(ends) else limit.per
        return max(wait + rounds * limit.per, pause)

    def wakes_at(self, now: float) -> float | None:
        times = [self._slow_start.closed_until, self._review.ends_at]
        times.append(self._burst.opens_at(now, self._log.in_air, self._interval))
        if self._limit is not None:
            times += self._log.expiries(now, 1, self._limit.per)
            times += self._others.expiries(1)
            times.append(self._others.relaxes_at(self._limit.per))
        return min((time for time in times if time is not None and time > now), default=None)

    # ----------------------------------------------------------------- noting

    def preload(self, now: float, ages: Iterable[float]) -> None:
        self._log.preload(now - age for age in ages)

    def take(self, now: float) -> None:
        self._log.in_air += 1
        if self._limit is not None and not self._given:
            self._scout.taken(now, self._log.used(now, self._limit.per), self._limit)

    def unused(self, now: float) -> None:
        self._came_back()
        self._keep_up(now)

    def answered(self, now: float, sent_at: float, sendings: int) -> None:
        self._came_back(sent_at)
        self._log.answered(now, sendings)
        self._burst.answered(now, self._interval)
        self._slow_start.succeeded(sent_at)
        if self._review.let_in(sent_at):
            self._disproved(now)
        if self._limit is None:
            self._adopt(now, self._estimator.let_in(now))
        elif not self._given and (more := self._scout.confirmed(now, self._limit)):
            self._limit = attrs.evolve(self._limit, limit=self._limit.limit + more)
        self._keep_up(now)

    def lost(self, now: float) -> None:
        self._came_back()
        self._log.lost(now)
        self._keep_up(now)

    def resent(self, now: float, times: int) -> None:
        for _ in range(times):
            self._log.lost(now)

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        self._came_back(sent_at)
        if self._review.refused(now, sent_at, retry_after or None):
            self._burst.begin_refusal(now, self._log.in_air, self._interval)
        self._keep_up(now)

    def told(self, now: float, hint: RateHint) -> None:
        if not self._given:
            limit = self._estimator.told(hint)
            if limit is not None and limit != self._limit:
                self._adopt(now, limit)
                self._scout.rest()
        limit = self._limit
        if limit is not None and hint.remaining is not None and hint.reset is not None:
            unseen = limit.limit - self._log.used(now, limit.per) - hint.remaining
            self._others.told(max(unseen, 0), now + min(hint.reset, limit.per))

    async def aclose(self) -> None:
        """Do nothing: no resource is open."""

    # ----------------------------------------------------------------- inside

    @property
    def _interval(self) -> float:
        return self._limit.interval if self._limit else 0.0

    def _allowance(self, now: float) -> int:
        return 0 if self._given or self._limit is None else self._scout.allowance(now, self._limit)

    def _came_back(self, sent_at: float = -math.inf) -> None:
        """Note that a request is no longer in flight. With no known send time, count it as stalled."""
        self._log.in_air -= 1
        if self._stalled and sent_at < self._review.ended_at:
            self._stalled -= 1

    def _keep_up(self, now: float) -> None:
        """Apply the changes that time and answers have made due."""
        limit = self._limit
        if limit is not None:
            self._others.relax(now, limit.per)
        self._burst.relax(now, limit.per if limit else _NOMINAL)
        observation = self._review.conclude(now, self._log.in_air)
        if observation is not None:
            self._stalled = self._log.in_air
            self._judge(now, observation)

    def _judge(self, now: float, observation: Observation) -> None:
        """Apply a refusal (rules 1 to 4)."""
        limit, retry_after = self._limit, observation.retry_after
        let_in = self._burst.level_let_in(observation.refusals - 1)
        if observation.verdict is Verdict.DISPROVED:
            self._disproved(now, let_in)
        elif limit is not None and self._scout.is_beyond:
            self._review.decided()
            self._review.explained()
            self._scout.refused(now)
        elif observation.verdict is Verdict.UNDECIDED and not self._needs_no_probe(now, retry_after):
            self._slow_start.close(now, min(self._probe_after(now, retry_after), retry_after or math.inf))
        elif limit is None:
            self._review.explained()
            self._adopt(now, self._estimator.refused(now, retry_after))
            self._pause(now, None if retry_after is None or not at_least(retry_after) else retry_after)
        else:
            self._review.decided()
            self._believed(now, limit, retry_after, let_in)

    def _needs_no_probe(self, now: float, retry_after: float | None) -> bool:
        """Whether a lone refusal is believed at once, because it ends soon, or resembles one that was just believed."""
        limit = self._limit
        if limit is None:
            return self._estimator.is_waiting
        recent = now - self._believed_at < 2 * limit.per
        return self._is_soon_over(limit, retry_after) or (recent and not self._is_anothers(now, limit, retry_after))

    def _probe_after(self, now: float, retry_after: float | None) -> float:
        limit = self._limit
        if limit is None:
            return _PROBE_AFTER
        return max(limit.interval, 0.0 if self._is_anothers(now, limit, retry_after) else _PART * limit.per)

    def _disproved(self, now: float, let_in: float | None = None) -> None:
        """Apply a refusal after which requests were let in (rule 1)."""
        if not self._review.are_frequent:
            return
        let_in = self._burst.level_let_in(0) if let_in is None else let_in
        if self._limit is None and self._burst.cap == 1:
            self._adopt(now, self._estimator.let_in_singly(now))
        elif let_in >= 1 or self._limit is None:
            self._burst.tighten(now, max(let_in, 1.0), self._limit.per if self._limit else _NOMINAL)
        self._review.explained()

    def _believed(self, now: float, limit: RateLimit, retry_after: float | None, let_in: float) -> None:
        """Apply a believed refusal under a known limit (rules 2 to 4)."""
        if self._is_anothers(now, limit, retry_after):
            assert retry_after is not None
            self._review.explained()
            if not self._given and at_least(retry_after) > (1 + _SLACK) * limit.per:
                self._limit = None
                self._estimator.forget()
                self._adopt(now, self._estimator.refused(now, retry_after))
            self._pause(now, retry_after)
            return
        ours = self._log.used(now, limit.per)
        if not ours:
            self._pause(now, retry_after)
            return
        recent, self._believed_at = now - self._believed_at < 2 * limit.per, now
        if self._is_soon_over(limit, retry_after):
            if ours < limit.limit and self._others.is_trying(now, limit.per):
                self._others.found(now, ours, limit.limit, limit.per, retry_after)
            elif self._review.are_frequent:
                self._review.explained()
                if let_in > A_PART:
                    self._burst.tighten(now, let_in, limit.per)
                elif ours < limit.limit:
                    self._others.found(now, ours, limit.limit, limit.per, retry_after)
            doublings = min(max(self._slow_start.failures - _EVEN_PROBES, 0), 30)
            gap = min(limit.interval * 2.0**doublings, _LONGEST_GAP * limit.per)
            self._slow_start.close(now, max(limit.interval, gap, at_least(retry_after or 0.0)))
            return
        self._review.explained()
        assert retry_after is not None
        if ours < limit.limit:
            self._others.found(now, ours, limit.limit, limit.per, retry_after)
        soonest = self._log.expiries(now, 1, limit.per)
        if recent and soonest:
            retry_after = max(min(soonest[0] - now, retry_after), limit.interval)
        self._pause(now, retry_after)

    def _is_anothers(self, now: float, limit: RateLimit, retry_after: float | None) -> bool:
        """Whether no log of this limit explains such a wait (rule 2)."""
        if retry_after is None:
            return False
        least = at_least(retry_after) - _SLACK * limit.per
        soonest = self._log.expiries(now, 1, limit.per)
        return least > limit.per or bool(soonest and least > soonest[0] - now)

    def _is_soon_over(self, limit: RateLimit, retry_after: float | None) -> bool:
        """Whether a refusal asks for no longer wait than the interval between two requests (rule 3)."""
        return retry_after is None or at_least(retry_after) <= 2 * limit.interval

    def _adopt(self, now: float, limit: RateLimit | None) -> None:
        """Adopt a learned limit."""
        if limit is not None:
            self._limit = limit
            self._log.period_changed(now, limit.per)
            self._scout.restart(now)

    def _pause(self, now: float, seconds: float | None) -> None:
        """Hold all requests back, for `seconds` or with growing pauses; let one request go first afterwards."""
        seconds = self._slow_start.close(now, None if seconds is None else min(seconds, self._longest_pause))
        self._paused_until = self._slow_start.closed_until
        self._on_pause("refused", seconds, False)
