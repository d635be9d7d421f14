"""The one place before which every request of a client waits.

Rules:

1. A slot is granted when a window has one free, fewer than `max_in_flight` requests are in the air, and neither slow
   start nor the circuit breaker holds it back. Whoever was granted a slot releases it exactly once.
2. Interactive calls go before batches, and those before the sweep; first come, first served within a class. A lower
   class that has been passed over 19 times in a row gets the next slot.
3. An interactive call takes any free slot. The lower classes are spread, one slot every P/N, unless all that they have
   left fits into what is free: a burst of a whole period's slots would come back as a burst, and an interactive call
   would wait for it. Where interactive calls come, and slots are many, they leave one free.
4. A refusal pauses everybody when nothing was let in meanwhile, or nothing is known yet; else only the call it met.
5. Failures of different calls in a row pause the lower classes, and one probe at a time finds out when it is over.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from respan_async._pacing.circuit_breaker import CircuitBreaker
from respan_async._pacing.local_window import Window
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, PendingWork, Priority, Slot, SlotOutcome
from respan_async._pacing.slow_start import SlowStart
from respan_async.errors import ClientStateError

_PASSED_OVER: Final = 19
_MANY: Final = 50
_RECENT: Final = 5.0
"""Of a limit of so many, the lower classes leave one slot free for so many periods after an interactive call: the next
one then does not wait at all, which costs them a fiftieth at most."""
_CATCH_UP: Final = 0.02
"""Seconds by which a spread class may be behind and still catch up; timers and busy loops are late by as much."""
_TICK: Final = 1e-4
_FIRST_FLIGHT: Final = 2.0
_RAMP: Final = 1 / 6
"""Requests of the lower classes in the air at first, while no limit is known, and by how many more each answer lets
them be. A limit of N is then met with N/6 in the air, which are refused, instead of with all there are."""


class Pacer:
    """Grant slots, in order of priority, as fast as the limit lets anyone.

    Args:
        window: Where slots come from.
        max_in_flight: Requests in the air at the same time, of all classes together.
        longest_pause: Seconds; a server that asks for more is asked again after this long.

    Attributes:
        in_air: Requests in the air.
        refused: Requests turned away so far.
        on_pause: Told the reason, the seconds, and whether only the lower classes are held.
    """

    def __init__(
        self,
        window: Window,
        max_in_flight: int,
        longest_pause: float = 120.0,
    ) -> None:
        self.window = window
        self.max_in_flight = max_in_flight
        self.in_air = 0
        self.refused = 0
        self._longest_pause = longest_pause
        self.on_pause: Callable[[str, float, bool], None] = lambda *_: None
        self._waiting: tuple[OrderedDict[asyncio.Future[Slot], float], ...] = tuple(OrderedDict() for _ in Priority)
        self._passed_over = [0] * len(Priority)
        self._in_air_below = 0  # of the lower classes
        self._pending_work: set[PendingWork] = set()
        self._slow_start = SlowStart(first=0.5, longest=30.0)
        self._breaker = CircuitBreaker()
        self._ramp = _FIRST_FLIGHT
        self._spread_from = -math.inf
        self._last_admission = -math.inf
        self._interactive_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._open_from: int = Priority.INTERACTIVE
        window.attach(self._dispatch, lambda reason, seconds, lower_only: self.on_pause(reason, seconds, lower_only))

    # ------------------------------------------------------------------ asking

    async def acquire(self, priority: Priority, deadline: float | None = None) -> Slot:
        """Wait for a slot.

        Args:
            priority: The class to wait in.
            deadline: The event loop's time until which the slot is of use.

        Raises:
            DeadlineUnreachable: It cannot be, or was not, granted before the deadline.
            ClientStateError: The pacer was closed.
        """
        if priority < self._open_from:
            raise ClientStateError("the client is closed")
        loop = asyncio.get_running_loop()
        now = loop.time()
        if priority is Priority.INTERACTIVE:
            self._interactive_at = now
        queue = self._waiting[priority]
        if not queue and self._may_go(priority, now):
            return self._grant(priority, now, now)
        if deadline is not None and now + (wait := self._least_wait(priority, now)) > deadline:
            raise DeadlineUnreachable(wait)
        waiter: asyncio.Future[Slot] = loop.create_future()
        queue[waiter] = now
        self._dispatch()
        expiry = None if deadline is None else loop.call_at(deadline, self._expire, waiter, priority)
        try:
            return await waiter
        except (asyncio.CancelledError, DeadlineUnreachable):
            queue.pop(waiter, None)
            if not waiter.cancelled() and waiter.exception() is None:
                # Granted in the same moment: it goes to the next in line.
                self.release(waiter.result(), SlotOutcome.UNUSED)
            elif self.window.shared:
                self._request_slots()  # a slot that was to come, another process may have use for
            raise
        finally:
            if expiry is not None:
                expiry.cancel()

    def release(
        self,
        slot: Slot,
        outcome: SlotOutcome,
        *,
        caller: object = None,
        retry_after: float | None = None,
        sendings: int = 1,
    ) -> None:
        """Say how a granted slot ended.

        Args:
            slot: The slot.
            outcome: How.
            caller: Whose call it was; failures of different calls in a row are an outage.
            retry_after: Seconds a refusal asked for.
            sendings: How often the request went out, where the transport repeated it.
        """
        now = asyncio.get_running_loop().time()
        self.in_air -= 1
        if slot.priority is not Priority.INTERACTIVE:
            self._in_air_below -= 1
        if sendings > 1 and outcome not in (SlotOutcome.ANSWERED, SlotOutcome.FAILED):
            self.window.resent(now, sendings - 1)
        match outcome:
            case SlotOutcome.ANSWERED | SlotOutcome.FAILED:
                self.window.answered(now, sendings)
                self._last_admission = now
                self._slow_start.succeeded(slot.granted_at, self.max_in_flight)
                self._ramp += _RAMP
                if outcome is SlotOutcome.ANSWERED:
                    self._breaker.served(slot.granted_at, self.max_in_flight)
                else:
                    self._note_failure(now, caller)
            case SlotOutcome.REFUSED:
                self._refuse(slot, now, retry_after)
            case SlotOutcome.LOST:
                self.window.lost(now)
                self._note_failure(now, caller)
            case SlotOutcome.UNREACHED:
                self.window.unused(now)
                # That no connection can be made has nothing to do with whose call it was.
                self._note_failure(now, slot)
            case _:  # UNUSED
                self.window.unused(now)
        self._dispatch()

    def announce(self) -> PendingWork:
        """Announce a batch; it says by the returned object how much it will still ask for."""
        pending = PendingWork()
        self._pending_work.add(pending)
        return pending

    def withdraw(self, pending: PendingWork) -> None:
        """Take an announcement back."""
        self._pending_work.discard(pending)
        self._dispatch()

    @property
    def outage(self) -> bool:
        """Whether the lower classes are held back by failures in a row."""
        return self._breaker.troubled

    def waiting(self, priority: Priority) -> int:
        """Return how many wait in a class."""
        return len(self._waiting[priority])

    def paused_until(self, now: float) -> float | None:
        """Return the time until which everybody is held back, if they are."""
        return self._slow_start.closed_until if self._slow_start.closed_until > now else None

    # ----------------------------------------------------------------- closing

    def close(self, below: int = len(Priority)) -> None:
        """Refuse newcomers of the classes before `below`, and fail those of them who wait."""
        self._open_from = below
        for queue in self._waiting[:below]:
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(ClientStateError("the client was closed while the call waited for its turn"))
            queue.clear()
        if self._timer is not None and not any(self._waiting):
            self._timer.cancel()
            self._timer = None  # or it would be taken for one that still rings

    # ---------------------------------------------------------------- granting

    def _grant(self, priority: Priority, asked_at: float, now: float) -> Slot:
        self.window.take(now)
        self.in_air += 1
        if priority is not Priority.INTERACTIVE:
            self._in_air_below += 1
        limit = self.window.limit
        if limit is not None:
            # Every class counts: what an interactive call takes out of turn, the lower classes leave.
            catch_up = max(limit.interval, _CATCH_UP)
            self._spread_from = max(self._spread_from, now - catch_up) + limit.interval
        self._passed_over[priority] = 0
        for lower in range(priority + 1, len(Priority)):
            if self._waiting[lower]:
                self._passed_over[lower] += 1
        return Slot(priority, asked_at, now)

    def _may_go(self, priority: Priority, now: float) -> bool:
        """Whether a slot may be granted to this class now."""
        window = self.window
        if not self._is_let_through(priority, now) or window.is_frozen(now):
            return False
        limit = window.limit
        spare = 0
        if priority is not Priority.INTERACTIVE and not window.shared:
            if limit is None:
                return self._in_air_below < self._ramp
            early = self._spread_from > now
            keeps_one = limit.limit >= _MANY and now < self._interactive_at + _RECENT * limit.per
            overdue = self._passed_over[priority] >= _PASSED_OVER
            if (early or keeps_one) and not overdue and not self._all_fits(limit, now):
                if early:
                    return False
                spare = 1
        return limit is None or window.delay(now, spare) <= 0

    def _is_let_through(self, priority: Priority, now: float) -> bool:
        """Whether nothing but a slot is missing to this class."""
        if self.in_air >= self.max_in_flight or not self._slow_start.admits(now, self.in_air):
            return False
        return priority is Priority.INTERACTIVE or self._breaker.admits(now, self._in_air_below)

    def _all_fits(self, limit: RateLimit, now: float) -> bool:
        """Whether all that the lower classes have left fits into what is free, so that it need not be spread."""
        return self._left() <= limit.limit - self.window.used(now)

    def _left(self) -> float:
        """Return how much the lower classes will still ask for."""
        return self._waiting_below() + sum(pending.more for pending in self._pending_work)

    def _waiting_below(self) -> int:
        return len(self._waiting[Priority.BATCH]) + len(self._waiting[Priority.SWEEP])

    def _dispatch(self) -> None:
        """Grant what can be granted, and set the alarm for what cannot yet."""
        if any(self._waiting):
            now = asyncio.get_running_loop().time()
            while (priority := self._next(now)) is not None:
                waiter, asked_at = self._waiting[priority].popitem(last=False)
                if not waiter.done():
                    waiter.set_result(self._grant(priority, asked_at, now))
            self._set_alarm(now)
        if self.window.shared:
            self._request_slots()

    def _request_slots(self) -> None:
        """Tell a shared window how many could go if it had slots for them."""
        now = asyncio.get_running_loop().time()
        urgent, patient = len(self._waiting[Priority.INTERACTIVE]), self._waiting_below()
        if urgent:
            urgent = min(urgent, self._free_capacity(Priority.INTERACTIVE, now))
        if patient:
            patient = min(patient, self._free_capacity(Priority.BATCH, now))
        self.window.request_slots(urgent, patient, self._left())

    def _free_capacity(self, priority: Priority, now: float) -> int:
        """Return how many of a class nothing but slots is missing to."""
        if not self._is_let_through(priority, now):
            return 0
        widths = [self.max_in_flight - self.in_air, self._slow_start.width - self.in_air]
        if priority is not Priority.INTERACTIVE:
            widths.append(self._breaker.width - self._in_air_below)
        return math.ceil(min(widths))

    def _by_turn(self) -> list[Priority]:
        """Return the classes somebody waits in, in the order of their turns."""
        return sorted(
            (priority for priority in Priority if self._waiting[priority]),
            key=lambda priority: (self._passed_over[priority] < _PASSED_OVER, priority),
        )

    def _next(self, now: float) -> Priority | None:
        """Return the class whose turn it is, if it may go."""
        return next((priority for priority in self._by_turn() if self._may_go(priority, now)), None)

    def _set_alarm(self, now: float) -> None:
        times = [self._slow_start.closed_until, self._breaker.closed_until, self._spread_from]
        times.append(self.window.wakes_at() or -math.inf)
        upcoming = min((time for time in times if time > now), default=None)
        if self._timer is not None:
            if upcoming is not None and 0 <= self._timer.when() - upcoming <= _TICK:
                return
            self._timer.cancel()
            self._timer = None
        if upcoming is not None and any(self._waiting):
            # An alarm may ring a clock's resolution early: the step keeps one that does from ringing on the spot.
            self._timer = asyncio.get_running_loop().call_at(max(upcoming, now + _TICK), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._dispatch()

    def _expire(self, waiter: asyncio.Future[Slot], priority: Priority) -> None:
        if not waiter.done():
            del self._waiting[priority][waiter]
            waiter.set_exception(DeadlineUnreachable(self._least_wait(priority, asyncio.get_running_loop().time())))

    def _least_wait(self, priority: Priority, now: float) -> float:
        """Return the least seconds until a newcomer of this class can have a slot."""
        ahead = sum(len(self._waiting[higher]) for higher in range(priority + 1))
        pauses = [self._slow_start.closed_until - now]
        if priority is not Priority.INTERACTIVE:
            pauses.append(self._breaker.closed_until - now)
        return max(self.window.delay(now, ahead), *pauses)

    # ---------------------------------------------------------------- trouble

    def _refuse(self, slot: Slot, now: float, retry_after: float | None) -> None:
        self.refused += 1
        if retry_after is not None and retry_after > self._longest_pause:
            # Too long to be obeyed blindly or to learn from: perhaps nonsense. One probe finds out, again and again.
            if self.window.shared:
                self.window.refused(now, slot.granted_at, self._longest_pause)
            else:
                self.window.unused(now)
            self._pause(now, self._longest_pause)
            return
        unknown = self.window.limit is None
        expected = self.window.refused(now, slot.granted_at, retry_after)
        met_nobody = self._last_admission < slot.granted_at
        if (unknown or met_nobody) and not expected:
            self._pause(now, self.window.global_pause(retry_after))

    def _pause(self, now: float, seconds: float | None) -> None:
        if self._slow_start.closed_until > now:
            return  # the same flight
        self.on_pause("refused", self._slow_start.close(now, seconds), False)

    def _note_failure(self, now: float, culprit: object) -> None:
        if (seconds := self._breaker.failed(now, culprit)) is not None:
            self.on_pause("outage", seconds, True)
