"""Grants slots of a limit that many processes share through a log.

The theory. The log is remote, and every request to it takes a round trip. So slots are asked for in the background as
soon as a call waits, and the outcomes of earlier slots travel with that request. A grant names the time from which its
slot may be used, which may lie ahead: then one request is enough for each slot.

Rules:

1. A call goes when the process holds a slot whose time has come. Slots are not tied to calls: an interactive call takes
   the slot that a batch has asked for.
2. A slot that is not reported any more comes back by itself, one lease and one period after its last report.
3. A refusal that one process meets holds back every process. After it, that process sends one request first, and more
   as they are let in.
4. While the log is away or unreliable, this process uses its share of the limit, which it counts itself, and reports
   its requests to the log as soon as it can (`store_outage.py`).

`reservation_scheduler.py` decides when the log is asked; `log_client.py` and `log_protocol.py` define the messages.
"""

from collections.abc import Callable, Iterable
from typing import Final

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.retry_after_rounding import at_least
from respan_async._pacing.shared.log_client import SharedLogClient
from respan_async._pacing.shared.log_protocol import SharedLog
from respan_async._pacing.shared.store_outage import StoreOutage
from respan_async._pacing.slow_start import SlowStart
from respan_async._pacing.window import GRACE, OnPause
from respan_async.errors import ConfigurationError

_TICK: Final = 1e-4
_COARSE: Final = 20.0
"""The period, in seconds, below which whole seconds are too coarse to be taken literally."""
_LONGEST_PAUSE: Final = 120.0
_FIRST_PAUSE: Final = 1 / 8
"""The part of a period to pause after a refusal that does not say how long to wait."""


class SharedWindow:
    """The pacer's window on a log that many processes share; see `Window` for its methods.

    Args:
        log: The shared log.
        limit: The account's limit, of all processes together.
        fallback_share: The part of it to use while the log is unreliable; 0 to wait.
        timeout: Seconds after which a request to the log fails.
    """

    def __init__(self, log: SharedLog, limit: RateLimit, fallback_share: float, timeout: float) -> None:
        self._given = limit
        self._outage = StoreOutage(limit, fallback_share, timeout)
        self._client = SharedLogClient(log, limit, self._outage)
        self._slots = self._client.slots
        self._local: LocalWindow | None = None
        self._slow_start = SlowStart(limit.per * _FIRST_PAUSE, limit.per)
        self._attached = False
        self._wake: Callable[[], None] = lambda: None
        self._client.on_news = self._on_news

    @property
    def shared(self) -> bool:
        return self._local is None

    @property
    def limit(self) -> RateLimit:
        return self._given if self._local is None else self._local.limit or self._given

    @property
    def learned(self) -> bool:
        return False

    def attach(self, wake: Callable[[], None], on_pause: OnPause, clock: LoopClock) -> None:
        """Set what to call when slots have come, what to call with a pause, and the clock of all times."""
        if self._attached:
            raise ConfigurationError("pace: this window belongs to another client; make one for each")
        self._attached = True
        self._wake = wake
        self._client.attach(clock, on_pause)

    def leave_loop(self) -> None:
        self._client.leave_loop()

    async def park(self) -> None:
        await self._client.park()

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        timing = self._client.timing
        timing.urgent, timing.patient, timing.left = urgent, patient, left
        self._client.consider()

    def used(self, now: float) -> int:
        return self._client.used if self._local is None else self._local.used(now)

    def others(self, now: float) -> int:
        return 0 if self._local is None else self._local.others(now)

    def free(self, now: float) -> int:
        return self._given.limit - self._client.used if self._local is None else self._local.free(now)

    def spread_interval(self) -> float:
        return self._given.interval if self._local is None else self._local.spread_interval()

    def room(self, now: float, in_air: int) -> float:
        return self._slow_start.width - in_air if self._local is None else self._local.room(now, in_air)

    def paused_until(self, now: float) -> float | None:
        if self._local is not None:
            return self._local.paused_until(now)
        return self._client.paused_until if self._client.paused_until > now else None

    def delay(self, now: float, ahead: int = 0) -> float:
        if self._local is not None:
            return self._local.delay(now, ahead)
        self._slots.give_back(now, stale_only=True)
        begins = self._slots.begins(ahead)
        if begins is not None:
            return _TICK if self._client.could_be_sooner(begins, now) else max(begins - now, 0.0)
        least = self._client.paused_until
        if self._outage.since is not None:
            least = self._outage.retry_at
        elif self._client.soonest_at > now:
            least = max(least, self._client.soonest_at + ahead // self._given.limit * self._given.per)
        return max(least - now, _TICK)

    def wakes_at(self, now: float) -> float | None:
        return self._slots.begins() if self._local is None else self._local.wakes_at(now)

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Do nothing, because the log remembers the requests."""

    def take(self, now: float) -> None:
        if self._local is None:
            self._client.timing.taken(now)
            self._slots.use(now)
        else:
            self._slots.use_unreserved()
            self._local.take(now)
            self._client.consider()

    def unused(self, now: float) -> None:
        self._slots.mark_unused(now)
        if self._local is not None:
            self._local.unused(now)

    def answered(self, now: float, sent_at: float, sendings: int) -> None:
        self._slow_start.succeeded(sent_at)
        self._slots.mark_answered(now)
        for _ in range(sendings - 1):
            self._slots.mark_repeated(now)
        if self._local is not None:
            self._local.answered(now, sent_at, sendings)

    def lost(self, now: float) -> None:
        self._slots.mark_answered(now + GRACE)
        if self._local is not None:
            self._local.lost(now)

    def resent(self, now: float, times: int) -> None:
        for _ in range(times):
            self._slots.mark_repeated(now + GRACE)
        if self._local is not None:
            self._local.resent(now, times)

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """Note that the server turned the request away, and report that to all processes."""
        self._slots.mark_unused(now)
        if self._local is not None:
            self._local.refused(now, sent_at, retry_after)
            return
        pause = self._slow_start.close(now, self._stated_pause(retry_after or None))
        if self._client.paused_until <= now:
            self._client.on_pause("refused", pause, False)
        self._client.paused_until = max(self._client.paused_until, now + pause)
        self._slots.pause(now + pause)
        self._slots.give_back(now)

    def told(self, now: float, hint: RateHint) -> None:
        if self._local is not None:
            self._local.told(now, hint)

    def _stated_pause(self, retry_after: float | None) -> float | None:
        """Return how long a refusal holds all processes back, if it says so.

        A whole second means up to one second less. If that matters to a period as short as this, a probe finds out
        sooner.
        """
        if retry_after is None:
            return None
        least = at_least(retry_after) if self._given.per < _COARSE else retry_after
        return min(max(least, min(self._given.interval, retry_after)), _LONGEST_PAUSE)

    async def aclose(self) -> None:
        """Send the last reports, and close the log."""
        await self._client.aclose()

    # ------------------------------------------------------------------- news

    def _on_news(self) -> None:
        """Start or stop counting alone, and let the pacer see the new slots."""
        if not self._client.alone:
            self._local = None
        elif self._local is None:
            self._local = LocalWindow(self._outage.fallback)
            for _ in range(self._slots.in_air):
                self._local.take(self._client.clock.time())
        self._wake()
