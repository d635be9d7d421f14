"""Talks to the shared log for one process: asks for slots in the background, and reports the outcome of earlier ones.

Rules:

1. At most one request to the log is under way, in its own task. It carries all pending reports, and asks for slots if
   it is time to.
2. At most one slot is held ahead of its time. Slots that are free at once are granted together.
3. A request without an answer may have been executed. Its slots are given back with the next request, and its reports
   are sent again.
4. News is reported with the next request for slots, or after a while; a pause that the server asked for, and requests
   sent without a slot, at once.
5. While the log is away or unreliable, it is asked for no slots (`store_outage.py`).
"""

import asyncio
import contextvars
import logging
import math
import secrets
from collections.abc import Callable
from typing import Final

from respan_async._pacing.alarm import Alarm
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.log_protocol import ReserveReply, ReserveRequest, SharedLog, Unreachable
from respan_async._pacing.shared.reservation_scheduler import ReservationScheduler
from respan_async._pacing.shared.slot_accounting import SlotAccounting
from respan_async._pacing.shared.store_outage import StoreOutage

LEASE: Final = 10.0
_SILENCE: Final = LEASE / 3

_logger: Final = logging.getLogger("respan_async")


class SharedLogClient:
    """Ask for slots in the background, and report the outcome of earlier ones.

    Args:
        log: The shared log.
        limit: The account's limit, of all processes together.
        outage: Decides what to do while the log is away.

    Attributes:
        clock: The pacer's clock.
        slots: The slots that this process holds or has in flight, and its unconfirmed reports.
        timing: The current demand, and when to ask for it.
        alone: Whether the process uses its share of the limit, without slots of the log.
        used: The number of taken slots, according to the last reply.
        soonest_at: When the next slot comes back, according to the last reply; minus infinity if one is free.
        paused_until: Until when the server has asked this process to wait.
        on_news: Called when slots have come, or `alone` has changed.
        on_pause: Called with the reason, the seconds, and whether only the lower classes are held.
    """

    def __init__(self, log: SharedLog, limit: RateLimit, outage: StoreOutage) -> None:
        self.clock = LoopClock()
        self.slots = SlotAccounting()
        self.timing = ReservationScheduler(limit)
        self.alone = False
        self.used = 0
        self.soonest_at = self.paused_until = -math.inf
        self.on_news: Callable[[], None] = lambda: None
        self.on_pause: Callable[[str, float, bool], None] = lambda *_: None
        self._log = log
        self._limit = limit
        self._outage = outage
        self._epoch = ""
        self._heard = 0.0
        self._met_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self._alarm = Alarm(self.clock, self.consider)
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    def attach(self, clock: LoopClock, on_pause: Callable[[str, float, bool], None]) -> None:
        """Go by the pacer's clock, and tell it of pauses."""
        self.clock, self.on_pause = clock, on_pause
        self._alarm = Alarm(clock, self.consider)

    def could_be_sooner(self, begins: float, now: float) -> bool:
        """Whether an interactive call can go before a slot held ahead: it is a batch's, and others come sooner."""
        if begins <= now or self.timing.asked_urgently:
            return False
        return self.used < self._limit.limit or now < self.soonest_at < begins

    def consider(self) -> None:
        """Ask if it is time to, or set the alarm for that time."""
        if self._asking is not None or self._closed:
            return
        now = self.clock.time()
        # Another process may need a slot that no call here waits for.
        self.slots.give_back(now, stale_only=bool(self.timing.urgent or self.timing.patient))
        if not self.alone and now >= self._outage.falls_back_at():
            self.alone = True
            self.timing.withdraw()  # no call states its demand from now on
            self.on_news()
        due = self._due(now)
        if now < due < math.inf:
            self._alarm.set(due, now)
        else:
            self._alarm.cancel()
        if due <= now:
            asking = asyncio.get_running_loop().create_task(self._ask(), context=contextvars.Context())
            self._asking = None if asking.done() else asking  # an eager task may have ended already

    def leave_loop(self) -> None:
        """Forget the request under way on a closed event loop; its granted slots come back when their lease ends.

        Raises:
            ClientStateError: The log's connections belong to the user.
        """
        self._log.leave_loop()
        self._asking = self._closing = None
        self._alarm.leave_loop()
        self._closed = False  # a closing that was cut short with its loop begins anew
        self.timing.withdraw()
        self.timing.reset()
        self.slots.give_back(self.clock.time())

    async def park(self) -> None:
        """Close the log's connections, on an event loop that is about to end."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        self._alarm.cancel()
        await self._log.aclose()  # the next loop makes another connection

    async def aclose(self) -> None:
        """Send the last reports, and close the log."""
        self._closed = True
        self._alarm.cancel()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # Shielded, because a client of a store that is cut short leaves its connection open.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._asking is not None:
                await asyncio.wait({self._asking})
            self.timing.withdraw()
            self.slots.give_back(self.clock.time())
            if self.slots.has_news and self._outage.since is None:
                await self._exchange()
        finally:
            await self._log.aclose()

    # ------------------------------------------------------------------ asking

    def _due(self, now: float) -> float:
        """Return when the log must be asked or told something."""
        if self._outage.since is not None:
            return self._outage.due(now)
        due = self.slots.due(min(_SILENCE, self._limit.per / 2), _SILENCE)
        if self.alone:
            return min(due, self._outage.trusted_at)
        if self._outage.untrusted:
            return min(due, self._outage.falls_back_at(), self._outage.trusted_at)
        if self._wants_slots(now):
            due = min(due, max(self.timing.due(), self.paused_until))
        return due

    def _wants_slots(self, now: float) -> bool:
        begins = self.slots.begins()
        if begins is None:
            return self.timing.urgent > 0 or self.timing.patient > 0
        return self.timing.urgent > 0 and self.could_be_sooner(begins, now)

    async def _ask(self) -> None:
        try:
            await self._exchange()
        except asyncio.CancelledError:
            self._closed = True  # the loop is being closed, although the client was not
            raise
        finally:
            self._asking = None
        if not self._closed:
            self.on_news()
            self.consider()

    async def _exchange(self) -> None:
        """Send reports and demand, and take the granted slots."""
        now = self.clock.time()
        urgent = patient = 0
        if not self._is_on_its_own and self._wants_slots(now) and now >= self.paused_until:
            urgent, patient = self.timing.amounts(now)
            self.slots.give_back(now)
        first, names = self.slots.names(urgent + patient)
        reports = self.slots.pending_reports(now, _SILENCE)
        alive_for = 2 * (self._limit.per + LEASE)
        request = ReserveRequest(
            limit=self._limit,
            lease=LEASE,
            owner=self.slots.owner,
            epoch=self._epoch if now < self._met_at + alive_for else "",
            fresh=secrets.token_hex(8),
            urgent=urgent,
            patient=patient,
            waiting=self.timing.urgent,
            left=self.timing.left,
            first=first,
            away=self._outage.within if self._outage.is_long(now) else 0.0,
            heard=self._heard,
            reports=reports,
        )
        try:
            reply = await self._log.exchange(request)
        except Unreachable as error:
            self.slots.give_back_unconfirmed(now, names)
            self.slots.forget(now - alive_for)
            self._on_unreachable(now, error)
            return
        self.slots.acknowledge(reports, now)
        self._on_reached(reply, self.clock.time())
        if names:
            self.timing.replied(urgently=urgent > 0, again_at=self._met_at + reply.again)
        self.slots.granted(names, [self._met_at + begins for begins in reply.begins])
        if patient and reply.begins:
            self.timing.granted(reply.begins[0], reply.held, self._met_at - now)

    @property
    def _is_on_its_own(self) -> bool:
        """Whether to stop asking for slots: grants from an unreliable log could be lost unseen."""
        return self.alone or self._outage.since is not None or self._outage.untrusted

    def _on_reached(self, reply: ReserveReply, now: float) -> None:
        self._outage.reached()
        if reply.epoch != self._epoch and (self._epoch or reply.full):
            self.slots.reset(now)  # another log has taken the place of the known one
            self.timing.reset()
            if reply.full:
                self._on_lost(reply.full, now)
        self._epoch, self._heard = reply.epoch, reply.at
        self._met_at = now
        self.used = reply.used
        self.soonest_at = now + reply.soonest if reply.soonest else -math.inf
        if self._outage.over(now):
            _logger.info("the shared pace is back")
        if now >= self._outage.trusted_at:
            self.alone = False

    # ----------------------------------------------------------- without a log

    def _on_lost(self, full: float, now: float) -> None:
        trusted = not self._outage.untrusted
        if self._outage.lost(now, full):
            _logger.warning(
                "the shared pace was lost (%s): it counts as used up for %g s; lost again, it is replaced by %s",
                self._log.loss_hint,
                full,
                self._outage.fallback or "nothing",
            )
        if trusted and self._outage.untrusted:
            self.on_pause("unreachable", max(self._outage.falls_back_at() - now, 0.0), False)

    def _on_unreachable(self, asked_at: float, error: Unreachable) -> None:
        self.slots.reset(asked_at)
        self.timing.reset()
        if self._outage.failed(asked_at, self.clock.time()):
            _logger.warning(
                "the shared pace cannot be reached (%s): waiting for %g s, then going on with %s until it can",
                error,
                self._limit.per,
                self._outage.fallback or "nothing",
            )
            self.on_pause("unreachable", self._limit.per, False)
