"""Grants the slots for all requests of a client, in order of priority, within the limit.

Rules:

1. A slot is granted when the window has a free one, and the window, `max_in_flight` and the circuit breaker allow one
   more request in flight. A call that was granted a slot releases it exactly once.
2. Interactive calls go before batches, and batches before the sweep; first come, first served within a class, where a
   refused call keeps its place. A lower class that has been passed over 19 times in a row gets the next slot. An eighth
   of `max_in_flight` is reserved for interactive calls, so that stalled batches cannot block them.
3. An interactive call takes any free slot. The lower classes are spread, one slot every P/N, unless all their remaining
   requests fit into half of the free slots: a burst of a whole period's slots would come back as a burst, and all other
   calls would wait for it. If interactive calls come, and slots are many, the lower classes leave one free. A batch
   that is not to be spread takes all free slots at once, until an interactive call comes.
4. Failures of different calls in a row hold the lower classes back, and one probe at a time finds out when that is
   over. A server that fails and asks to wait gets no request of any class.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from respan_async._pacing.alarm import Alarm
from respan_async._pacing.circuit_breaker import CircuitBreaker
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.priority import Priority
from respan_async._pacing.priority_queues import PriorityQueues
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, PendingWork, Slot, SlotOutcome
from respan_async._pacing.wait_queue import Waiter
from respan_async._pacing.window import Window
from respan_async.errors import ClientStateError

_RESERVED: Final = 8
"""One part in so many of `max_in_flight` is reserved for interactive calls."""
_MANY: Final = 50
_RECENT: Final = 5.0
"""With a limit of `_MANY` or more, the lower classes leave one slot free for `_RECENT` periods after an interactive
call: the next one then does not wait, which costs them at most a fiftieth."""
_CATCH_UP: Final = 0.02
"""Seconds by which a spread class may be late and still catch up, because timers and busy loops are late by as much."""
_FIRST_FLIGHT: Final = 2.0
_RAMP: Final = 1 / 16
"""Requests of the lower classes in flight at first, while no limit is known, and the increase with each answer. A limit
of N is then met with N/16 requests in flight, which are refused, instead of with all."""


class Pacer:
    """Grant slots, in order of priority, as fast as the limit allows.

    Args:
        window: The source of slots.
        max_in_flight: The most requests in flight at the same time, of all classes together.
        longest_pause: Seconds; if a failing server asks for a longer wait, it is asked again after this long.

    Attributes:
        clock: The clock of all times of the pace.
        in_air: The number of requests in flight.
        refused: The number of requests turned away so far.
        last_problem: The last problem, in a sentence.
        on_pause: Called with the reason, the seconds, and whether only the lower classes are held back.
    """

    def __init__(
        self,
        window: Window,
        max_in_flight: int,
        longest_pause: float = 120.0,
    ) -> None:
        self.window = window
        self.clock = LoopClock()
        self.max_in_flight = max_in_flight
        self.in_air = 0
        self.refused = 0
        self.last_problem: str | None = None
        self.on_pause: Callable[[str, float, bool], None] = lambda *_: None
        self._max_below = max_in_flight - (max(1, max_in_flight // _RESERVED) if max_in_flight > 1 else 0)
        self._queues = PriorityQueues()
        self._alarm = Alarm(self.clock, self._dispatch)
        self._in_air_below = 0  # the part of the lower classes
        self._pending: set[PendingWork] = set()
        self._breaker = CircuitBreaker(longest_pause)
        self._let_in_at: dict[object, float] = {}
        self._ramp = _FIRST_FLIGHT
        self._spread_from = -math.inf
        self._interactive_at = -math.inf
        self._loops_left = 0
        self._open_from: int = Priority.INTERACTIVE
        window.attach(
            self._dispatch,
            lambda reason, seconds, lower_only: self.on_pause(reason, seconds, lower_only),
            self.clock,
        )

    # ------------------------------------------------------------------ asking

    async def acquire(
        self, priority: Priority, deadline: float | None = None, *, since: float | None = None, caller: object = None
    ) -> Slot:
        """Wait for a slot.

        Args:
            priority: The class to wait in.
            deadline: The event loop's time after which the slot is useless.
            since: The event loop's time when the call began, if it has had a slot before: it keeps its place in the
                queue.
            caller: The call, for `promote`.

        Raises:
            DeadlineUnreachable: The slot cannot be granted before the deadline, or was not.
            ClientStateError: The pacer was closed.
        """
        if priority < self._open_from:
            raise ClientStateError("the client is closed")
        now = self.clock.time()
        if priority is Priority.INTERACTIVE:
            self._interactive_at = now
        if not self._queues.waiting(priority) and self._may_go(priority, now):
            return self._grant(priority, now, now)
        deadline = None if deadline is None else self.clock.of_loop(deadline)
        if deadline is not None and now + (wait := self._least_wait(priority, now)) > deadline:
            raise DeadlineUnreachable(wait)
        waiter = Waiter(asyncio.get_running_loop().create_future(), now, since, caller)
        self._queues.join(priority, waiter)
        self._dispatch()
        expiry = None if deadline is None else self.clock.call_at(deadline, self._expire, waiter)
        try:
            return await waiter.granted
        except (asyncio.CancelledError, DeadlineUnreachable):
            self._queues.leave(waiter)
            granted = waiter.granted
            if not granted.cancelled() and granted.exception() is None:
                self.release(granted.result(), SlotOutcome.UNUSED)  # the next waiter gets the slot
            elif self.window.shared:
                self._request_slots()  # withdraw our demand: another process may need the slot we had asked for
            raise
        finally:
            if expiry is not None:
                expiry.cancel()

    def promote(self, caller: object, priority: Priority) -> None:
        """Move a call that waits in a lower class to this one."""
        if self._queues.promote(caller, priority):
            self._interactive_at = self.clock.time()
            self._dispatch()

    def release(
        self,
        slot: Slot,
        outcome: SlotOutcome,
        *,
        caller: object = None,
        let_in: object = None,
        retry_after: float | None = None,
        sendings: int = 1,
        hint: RateHint | None = None,
        problem: str | None = None,
    ) -> None:
        """Release a granted slot, and note how it ended.

        Args:
            slot: The slot.
            outcome: How it ended.
            caller: The call; failures of different calls in a row are an outage.
            let_in: The operation for which the request was let in; None if it was turned away although it was answered.
            retry_after: Seconds that the server asked to wait.
            sendings: How often the transport sent the request.
            hint: The limit that the answer states.
            problem: The problem, in a sentence.
        """
        if slot.loops_left != self._loops_left:
            return  # a slot of a closed loop: `arrive` counted it when the client moved
        now = self.clock.time()
        window = self.window
        if problem is not None:
            self.last_problem = problem
        self.in_air -= 1
        if slot.priority is not Priority.INTERACTIVE:
            self._in_air_below -= 1
        if sendings > 1 and outcome not in (SlotOutcome.ANSWERED, SlotOutcome.FAILED):
            window.resent(now, sendings - 1)
        match outcome:
            case SlotOutcome.ANSWERED:
                window.answered(now, slot.granted_at, sendings)
                if let_in is not None:
                    self._let_in_at[let_in] = now
                self._ramp += _RAMP
                self._breaker.served(slot.granted_at)
            case SlotOutcome.FAILED:
                window.answered(now, slot.granted_at, sendings)
                self._note_failure(now, caller, retry_after)
            case SlotOutcome.REFUSED:
                self.refused += 1
                self._ramp = _FIRST_FLIGHT
                window.refused(now, slot.granted_at, retry_after)
            case SlotOutcome.LOST:
                window.lost(now)
                self._note_failure(now, caller)
            case SlotOutcome.UNREACHED:
                window.unused(now)
                # A connection that cannot be made has nothing to do with the call.
                self._note_failure(now, slot)
            case _:  # UNUSED
                window.unused(now)
        if outcome in (SlotOutcome.UNREACHED, SlotOutcome.UNUSED):
            self._spread_from -= slot.interval  # another request may go in its place
        if hint is not None and outcome is not SlotOutcome.REFUSED:
            window.told(now, hint)
        self._dispatch()

    def unreachable(self, problem: str) -> None:
        """Note a request that could not be made, after its slot was given back.

        Args:
            problem: The problem, in a sentence.
        """
        self.last_problem = problem
        self._note_failure(self.clock.time(), object())
        self._dispatch()

    def let_in_since(self, time: float, operation: object) -> bool:
        """Whether a request of this operation was let in at that time or later."""
        return self._let_in_at.get(operation, -math.inf) >= time

    def announce(self, *, spread: bool = True) -> PendingWork:
        """Announce a batch; it updates the returned object with its remaining demand."""
        pending = PendingWork(spread=spread)
        self._pending.add(pending)
        return pending

    def withdraw(self, pending: PendingWork) -> None:
        """Withdraw an announcement."""
        self._pending.discard(pending)
        self._dispatch()

    @property
    def outage(self) -> bool:
        """Whether the lower classes are held back by failures in a row."""
        return self._breaker.troubled

    @property
    def has_patient_work(self) -> bool:
        """Whether batches or sweeps wait, or will ask for more."""
        return self._left() > 0

    def waiting(self, priority: Priority) -> int:
        """Return how many wait in a class."""
        return self._queues.waiting(priority)

    def paused_until(self, now: float) -> float | None:
        """Return the time until which all classes are held back, if they are."""
        until = max(self.window.paused_until(now) or now, self._breaker.asked_until)
        return until if until > now else None

    # ----------------------------------------------------------------- closing

    def close(self, below: int = len(Priority)) -> None:
        """Refuse new calls of the classes before `below`, and fail the waiting ones."""
        self._open_from = below
        for waiter in self._queues.pop_all(below):
            if not waiter.granted.done():
                error = ClientStateError("the client was closed while the call waited for its turn")
                waiter.granted.set_exception(error)
        if not self._queues:
            self._alarm.cancel()

    # ------------------------------------------------- other loops, other times

    def leave_loop(self) -> None:
        """Forget the waiters of a closed event loop, because none of them will ever continue.

        Raises:
            ClientStateError: The window cannot move to another loop.
        """
        self.window.leave_loop()
        self._queues.clear()
        self._pending.clear()
        self._alarm.leave_loop()

    def arrive(self) -> None:
        """Count the requests that were in flight on the previous loop as sent without an answer."""
        now = self.clock.time()
        for _ in range(self.in_air):
            self.window.lost(now)
        self.in_air = self._in_air_below = 0
        self._loops_left += 1

    def advance(self, seconds: float) -> None:
        """For tests: advance the clock, and grant the slots that are due then."""
        self.clock.advance(seconds)
        self._alarm.cancel()
        self._dispatch()

    # ---------------------------------------------------------------- granting

    def _grant(self, priority: Priority, asked_at: float, now: float) -> Slot:
        window = self.window
        window.take(now)
        self.in_air += 1
        if priority is not Priority.INTERACTIVE:
            self._in_air_below += 1
        interval = 0.0
        if window.limit is not None:
            # Every class counts: the lower classes leave the slots that an interactive call takes out of turn.
            interval = window.spread_interval()
            self._spread_from = max(self._spread_from, now - max(interval, _CATCH_UP)) + interval
        self._queues.note_granted(priority)
        return Slot(priority, asked_at, now, interval, self._loops_left)

    def _may_go(self, priority: Priority, now: float) -> bool:
        """Whether a slot may be granted to this class now."""
        window = self.window
        if self._free_capacity(priority, now) < 1:
            return False
        limit = window.limit
        spare = 0
        if priority is not Priority.INTERACTIVE and not window.shared:
            if limit is None:
                return self._in_air_below < self._ramp
            early = self._spread_from > now
            keeps_one = limit.limit >= _MANY and now < self._interactive_at + _RECENT * limit.per
            if (
                (early or keeps_one)
                and not self._queues.is_overdue(priority)
                and not self._need_not_be_spread(limit, now)
            ):
                if early:
                    return False
                spare = 1
        return limit is None or window.delay(now, spare) <= 0

    def _free_capacity(self, priority: Priority, now: float) -> float:
        """Return how many more requests of this class may be in flight, apart from slots; below one, none may."""
        room = self.max_in_flight - self.in_air
        if room < 1 or not self._breaker.admits_anything(now, self.in_air):
            return 0
        capacity = min(room, self.window.room(now, self.in_air))
        if priority is Priority.INTERACTIVE or capacity < 1:
            return capacity
        if not self._breaker.admits(now, self._in_air_below):
            return 0
        return min(capacity, self._max_below - self._in_air_below, self._breaker.width - self._in_air_below)

    def _need_not_be_spread(self, limit: RateLimit, now: float) -> bool:
        """Whether the lower classes may take all free slots at once (rule 3)."""
        if self._pending and not any(pending.spread for pending in self._pending):
            return now >= self._interactive_at + limit.per
        return 2 * self._left() <= self.window.free(now)

    def _left(self) -> float:
        """Return how many more slots the lower classes will ask for."""
        return self._queues.waiting_below() + sum(pending.more for pending in self._pending)

    def _dispatch(self) -> None:
        """Grant the slots that are due, and set the alarm for the next ones."""
        if self._queues:
            now = self.clock.time()
            while (priority := self._next(now)) is not None:
                waiter = self._queues.pop(priority)
                if not waiter.granted.done():
                    waiter.granted.set_result(self._grant(priority, waiter.asked_at, now))
            self._set_alarm(now)
        if self.window.shared:
            self._request_slots()

    def _request_slots(self) -> None:
        """Tell a shared window how many calls could go if it had slots for them."""
        now = self.clock.time()
        urgent, patient = self._queues.waiting(Priority.INTERACTIVE), self._queues.waiting_below()
        if urgent:
            urgent = min(urgent, math.floor(self._free_capacity(Priority.INTERACTIVE, now)))
        if patient:
            patient = min(patient, math.floor(self._free_capacity(Priority.BATCH, now)))
        self.window.request_slots(urgent, patient, self._left())

    def _next(self, now: float) -> Priority | None:
        """Return the next class, if it may go."""
        return next((priority for priority in self._queues.by_turn() if self._may_go(priority, now)), None)

    def _set_alarm(self, now: float) -> None:
        times = [self._breaker.asked_until, self._breaker.closed_until, self._spread_from]
        times.append(self.window.wakes_at(now) or -math.inf)
        upcoming = min((time for time in times if time > now), default=None)
        if upcoming is not None and self._queues:
            self._alarm.set(upcoming, now)
        else:
            self._alarm.cancel()

    def _expire(self, waiter: Waiter) -> None:
        if not waiter.granted.done():
            priority = self._queues.class_of(waiter)
            self._queues.leave(waiter)
            now = self.clock.time()
            waiter.granted.set_exception(DeadlineUnreachable(self._least_wait(priority, now)))

    def _least_wait(self, priority: Priority, now: float) -> float:
        """Return the least seconds until a new call of this class can have a slot."""
        ahead = self._queues.waiting_up_to(priority)
        pauses = [self._breaker.asked_until - now]
        if priority is not Priority.INTERACTIVE:
            pauses.append(self._breaker.closed_until - now)
        return max(self.window.delay(now, ahead), *pauses, 0.0)

    # ---------------------------------------------------------------- trouble

    def _note_failure(self, now: float, culprit: object, retry_after: float | None = None) -> None:
        if retry_after is not None:
            if (seconds := self._breaker.asked_to_wait(now, retry_after)) is not None:
                self.on_pause("asked", seconds, False)
        elif (seconds := self._breaker.failed(now, culprit)) is not None:
            self.on_pause("outage", seconds, True)
