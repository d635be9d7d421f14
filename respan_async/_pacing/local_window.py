"""Where slots come from: one process's own view of the account's limit."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from respan_async._pacing.limit_estimator import LimitEstimator
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.refusal_filter import RefusalFilter
from respan_async._pacing.sliding_log import AdmissionLog

GRACE: Final = 2.0
"""Seconds by which a request that was never answered may have reached the server later than we gave it up."""


@runtime_checkable
class Window(Protocol):
    """A source of slots, as the pacer sees it. Times are the event loop's."""

    @property
    def limit(self) -> RateLimit | None:
        """What is allowed now, or None while nothing is known."""
        ...

    @property
    def learned(self) -> bool:
        """Whether `limit` comes from the server's refusals rather than from a setting."""
        ...

    @property
    def shared(self) -> bool:
        """Whether slots must be asked for by `request_slots`, and come spread already."""
        ...

    def attach(self, wake: Callable[[], None], tell: Callable[[str, float, bool], None]) -> None:
        """Have somebody to wake when slots have come, and to tell of a pause: why, for how long, lower classes only."""
        ...

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Hear how many interactive calls and others could go if there were slots, and what the others have left."""
        ...

    def used(self, now: float) -> int:
        """Return how many slots are taken."""
        ...

    def delay(self, now: float, ahead: int = 0) -> float:
        """Return the least seconds until a slot is free for one who has `ahead` others before it; 0: now."""
        ...

    def wakes_at(self) -> float | None:
        """Return when the next slot comes by itself, or None if only an answer can bring one."""
        ...

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Count requests that were let in some seconds ago, before this window was there; the oldest first."""
        ...

    def take(self, now: float) -> None:
        """Take a free slot."""
        ...

    def unused(self, now: float) -> None:
        """Give back a slot of which the server knows nothing."""
        ...

    def answered(self, now: float, sendings: int) -> None:
        """Note that the server let the request in, or its `sendings` repetitions."""
        ...

    def lost(self, now: float) -> None:
        """Note that the request left, and no answer came."""
        ...

    def resent(self, now: float, times: int) -> None:
        """Note that a request whose end is no answer left so many times before, and none came then either."""
        ...

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Note that the server turned the request away; return whether that was to be expected."""
        ...

    def global_pause(self, retry_after: float | None) -> float | None:
        """Return how long a refusal that nobody was let in beside should hold back everybody; None: not known."""
        ...

    def is_frozen(self, now: float) -> bool:
        """Whether nothing may be sent until what is in the air has come back."""
        ...

    async def aclose(self) -> None:
        """Let go of what is open."""
        ...


class LocalWindow:
    """A sliding log in this process, with a limit that is given, or learned, or corrected by refusals.

    Args:
        given: The account's limit; None to learn it.
    """

    def __init__(self, given: RateLimit | None) -> None:
        self._log = AdmissionLog(GRACE)
        self._estimator = LimitEstimator(given, self._log)
        self._refusal_filter = RefusalFilter()

    @property
    def limit(self) -> RateLimit | None:
        """What is allowed now, or None while nothing is known."""
        return self._estimator.limit

    @property
    def learned(self) -> bool:
        """Whether `limit` comes from the server's refusals rather than from a setting."""
        return self._estimator.learned

    @property
    def shared(self) -> bool:
        """Whether slots must be asked for, which these need not."""
        return False

    def attach(self, wake: Callable[[], None], tell: Callable[[str, float, bool], None]) -> None:
        """Do nothing: slots come by answers and by time alone."""

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Do nothing: slots are there without being asked for."""

    def used(self, now: float) -> int:
        """Return how many slots are taken."""
        limit = self._estimator.limit
        return self._log.used(now, limit.per) if limit else self._log.in_air

    def delay(self, now: float, ahead: int = 0) -> float:
        """Return the least seconds until a slot is free for one who has `ahead` others before it; 0: now."""
        limit = self._estimator.limit
        if limit is None:
            return 0.0
        capacity = limit.limit + self._estimator.scouts(now)
        missing = self._log.used(now, limit.per) + ahead - capacity
        if missing < 0:
            return 0.0
        rounds, nth = divmod(missing, capacity)
        expiry = self._log.expiry(nth, limit.per)
        # A slot that is still in the air comes back one period after its answer, which is yet to come.
        wait = limit.per if expiry is None else max(expiry - now, 0.0)
        return wait + rounds * limit.per

    def wakes_at(self) -> float | None:
        """Return when the next slot comes by itself, or None if only an answer can bring one."""
        limit = self._estimator.limit
        return self._log.expiry(0, limit.per) if limit else self._estimator.counted_at

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Count requests that were let in some seconds ago, before this window was there; the oldest first."""
        self._log.preload(now - age for age in ages)

    def take(self, now: float) -> None:
        """Take a free slot."""
        self._log.in_air += 1
        self._estimator.taken(now)

    def unused(self, now: float) -> None:
        """Give back a slot of which the server knows nothing."""
        self._log.in_air -= 1
        self._estimator.record_outcome(now)

    def answered(self, now: float, sendings: int) -> None:
        """Note that the server let the request in, or its `sendings` repetitions."""
        self._log.in_air -= 1
        self._log.answered(now, sendings)
        self._refusal_filter.admitted()
        self._estimator.admitted(now)
        self._estimator.record_outcome(now)

    def lost(self, now: float) -> None:
        """Note that the request left, and no answer came."""
        self._log.in_air -= 1
        self._log.lost(now)
        self._estimator.record_outcome(now)

    def resent(self, now: float, times: int) -> None:
        """Note that a request whose end is no answer left so many times before, and none came then either."""
        for _ in range(times):
            self._log.lost(now)

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Note that the server turned the request away; return whether that was to be expected."""
        self._log.in_air -= 1
        self._refusal_filter.refused()
        believed = self._refusal_filter.is_over or not self._estimator.contradicts_limit(now, retry_after)
        expected = believed and self._estimator.refused(now, sent_at, retry_after)
        self._estimator.record_outcome(now)
        return expected

    def global_pause(self, retry_after: float | None) -> float | None:
        """Return how long a refusal that nobody was let in beside should hold back everybody; None: not known."""
        return self._estimator.global_pause(retry_after)

    def is_frozen(self, now: float) -> bool:
        """Whether nothing may be sent until what is in the air has come back."""
        return self._estimator.counting(now)

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""
