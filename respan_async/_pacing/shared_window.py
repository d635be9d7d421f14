"""Slots of a limit that many processes share.

The theory. The log is somewhere else, and every word with it takes a round trip. So slots are asked for in the
background, as soon as somebody waits, and what has become of earlier ones rides along. A grant names the time from
which its slot may be used, which may lie ahead: then one word is enough for each slot.

Rules:

1. At most one slot is held ahead of its time, and a batch asks for it no sooner than it must: an interactive call of
   any process waits behind what the others hold.
2. Whatever was asked without an answer may have been done: its slots are given back with the next word, and what was
   told is told again.
3. A slot of which nothing is heard comes back by itself, one lease and one period after its last sign of life.
4. A log that cannot be reached is waited for during one period, for the others may go on by it; then this process goes
   on with its share of the limit. A log that has vanished counts as full.
"""

import asyncio
import contextvars
import logging
import math
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.reserved_slots import ReservedSlots
from respan_async._pacing.retry_after import at_least
from respan_async._pacing.shared_protocol import ReserveReply, ReserveRequest, SharedLog, Unreachable
from respan_async._pacing.store_outage import StoreOutage
from respan_async._pacing.window import GRACE, OnPause
from respan_async.errors import ConfigurationError

LEASE: Final = 10.0
_SILENCE: Final = LEASE / 3
_TICK: Final = 1e-4
_LEAST_LEAD: Final = 0.01
"""Seconds before its time by which a batch asks for a slot, at least: timers and busy loops are late by as much."""
_COARSE: Final = 20.0
"""Seconds of a period below which whole seconds are too coarse a measure to be taken at their word."""
_LONGEST_PAUSE: Final = 120.0
_AT_ONCE: Final = 100
"""Slots that are asked for with one word at most; only those that are free at once are granted together."""

_logger: Final = logging.getLogger("respan_async")


class SharedWindow:
    """The pacer's window on a log that many processes share; see `Window` for its methods.

    Args:
        log: Where the log is.
        limit: The account's limit, of all processes together.
        fallback_share: The part of it to go on with when the log cannot be reached; 0 to wait until it can.
        timeout: Seconds after which a word with the log fails.
    """

    def __init__(self, log: SharedLog, limit: RateLimit, fallback_share: float, timeout: float) -> None:
        self._log = log
        self._given = limit
        self._reserved = ReservedSlots()
        self._epoch = ""
        self._heard = 0.0
        # What was wanted last, and what the log said last, and when.
        self._urgent = self._patient = 0
        self._left = 0.0
        self._used = 0
        self._met_at = self._soonest_at = self._again_at = -math.inf
        self._asked_urgently = False
        self._paused_until = -math.inf
        self._unsaid = 0  # refusals in a row that did not say how long to wait
        self._taken_at = -math.inf
        self._request_delay = 0.0
        self._outage = StoreOutage(limit, fallback_share, timeout)
        self._local: LocalWindow | None = None
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = self._attached = False
        self._wake: Callable[[], None] = lambda: None
        self._on_pause: OnPause = lambda *_: None

    # ------------------------------------------------------------ as a window

    @property
    def shared(self) -> bool:
        """Whether slots must be asked for, and are spread elsewhere."""
        return self._local is None

    @property
    def limit(self) -> RateLimit:
        """What is allowed now: to all processes, or to this one while the log cannot be reached."""
        return self._given if self._local is None else self._local.limit or self._given

    @property
    def learned(self) -> bool:
        """Whether `limit` comes from the server's refusals rather than from a setting."""
        return self._local is not None and self._local.learned

    def attach(self, wake: Callable[[], None], on_pause: OnPause) -> None:
        """Have somebody to wake when slots have come, and to tell when the log cannot be reached."""
        if self._attached:
            raise ConfigurationError("pace: this window belongs to another client; make one for each")
        self._attached = True
        self._wake = wake
        self._on_pause = on_pause

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Hear how many calls could go if there were slots, and how much the lower classes have left."""
        self._urgent, self._patient, self._left = urgent, patient, left
        self._consider()

    def used(self, now: float) -> int:
        """Return how many slots are taken, of all processes, by what the log said last."""
        return self._used if self._local is None else self._local.used(now)

    def others(self, now: float) -> int:
        """Return how many slots are believed to be taken by others, as far as this process knows by itself."""
        return 0 if self._local is None else self._local.others(now)

    def free(self, now: float) -> int:
        """Return how many slots are left, by what the log said last."""
        return self._given.limit - self._used if self._local is None else self._local.free(now)

    def spread_interval(self, now: float) -> float:
        """Return the seconds between two requests that are spread evenly."""
        return self._given.interval if self._local is None else self._local.spread_interval(now)

    def room(self, now: float, in_air: int) -> float:
        """Return how many more requests may be in the air, apart from slots."""
        return math.inf if self._local is None else self._local.room(now, in_air)

    def paused_until(self, now: float) -> float | None:
        """Return until when everything is held back by a refusal, if it is."""
        if self._local is not None:
            return self._local.paused_until(now)
        return self._paused_until if self._paused_until > now else None

    def delay(self, now: float, ahead: int = 0) -> float:
        """Return the least seconds until a slot is free for one who has `ahead` others before it; 0: now."""
        if self._local is not None:
            return self._local.delay(now, ahead)
        self._reserved.give_back(now, stale_only=True)
        begins = self._reserved.begins(ahead)
        if begins is not None:
            return _TICK if self._could_be_sooner(begins, now) else max(begins - now, 0.0)
        least = self._paused_until
        if self._outage.since is not None:
            least = self._outage.retry_at
        elif self._soonest_at > now:
            least = max(least, self._soonest_at + ahead // self._given.limit * self._given.per)
        return max(least - now, _TICK)

    def wakes_at(self, now: float) -> float | None:
        """Return when the next slot comes by itself, or None if only an answer can bring one."""
        return self._reserved.begins() if self._local is None else self._local.wakes_at(now)

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Do nothing: the log remembers by itself."""

    def take(self, now: float) -> None:
        """Take a free slot."""
        self._taken_at = now
        if self._local is None:
            self._reserved.use(now)
        else:
            self._reserved.use_unreserved()
            self._local.take(now)

    def unused(self, now: float) -> None:
        """Give back a slot of which the server knows nothing."""
        self._reserved.mark_unused(now)
        if self._local is not None:
            self._local.unused(now)

    def answered(self, now: float, sent_at: float, sendings: int) -> None:
        """Note that the server let the request in, or its `sendings` repetitions."""
        self._unsaid = 0
        self._reserved.mark_answered(now)
        for _ in range(sendings - 1):
            self._reserved.mark_repeated(now)
        if self._local is not None:
            self._local.answered(now, sent_at, sendings)

    def lost(self, now: float) -> None:
        """Note that the request left, and no answer came."""
        self._reserved.mark_answered(now + GRACE)
        if self._local is not None:
            self._local.lost(now)

    def resent(self, now: float, times: int) -> None:
        """Note that a request whose end is no answer left so many times before, and none came then either."""
        for _ in range(times):
            self._reserved.mark_repeated(now + GRACE)
        if self._local is not None:
            self._local.resent(now, times)

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """Note that the server turned the request away, and let everybody know."""
        self._reserved.mark_unused(now)
        if self._local is not None:
            self._local.refused(now, sent_at, retry_after)
            return
        pause = self._pause_for(retry_after or None)
        if self._paused_until <= now:
            self._on_pause("refused", pause, False)
        self._paused_until = max(self._paused_until, now + pause)
        self._reserved.pause(now + pause)
        self._reserved.give_back(now)

    def told(self, now: float, hint: RateHint) -> None:
        """Take what an answer states of the limit as a hypothesis, where this process keeps a count of its own."""
        if self._local is not None:
            self._local.told(now, hint)

    def _pause_for(self, retry_after: float | None) -> float:
        """Return how long a refusal holds everybody back.

        A whole second means up to one second less. Where that matters to a period as short as this, a probe tells
        sooner.
        """
        if retry_after is None:
            self._unsaid += 1
            return min(self._given.interval * 2.0 ** min(self._unsaid - 1, 30), self._given.per)
        least = at_least(retry_after) if self._given.per < _COARSE else retry_after
        return min(max(least, self._given.interval), _LONGEST_PAUSE)

    async def aclose(self) -> None:
        """Say what is left to be said, and let go of the log."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # It comes to its end also when this is cancelled: cut short, a client of Redis leaves its connection open.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._asking is not None:
                await asyncio.wait({self._asking})
            self._urgent = self._patient = 0
            self._reserved.give_back(asyncio.get_running_loop().time())
            if self._reserved.has_news and self._outage.since is None:
                await self._exchange()
        finally:
            await self._log.aclose()

    # ------------------------------------------------------------------ asking

    def _consider(self) -> None:
        """Ask when it is time to, or set the alarm for when it will be."""
        if self._asking is not None or self._closed:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        # What lies ahead for nobody, another process may have use for.
        self._reserved.give_back(now, stale_only=bool(self._urgent or self._patient))
        if self._local is None and now >= self._outage.falls_back_at():
            self._fall_back(now)
        due = self._due(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due <= now:
            self._asking = loop.create_task(self._ask(), context=contextvars.Context())
        elif due < math.inf:
            self._timer = loop.call_at(max(due, now + _TICK), self._consider)

    def _due(self, now: float) -> float:
        """Return when there is something to be said."""
        if self._outage.since is not None:
            return self._outage.due(now)
        due = self._reserved.due(min(_SILENCE, self._given.per / 2), _SILENCE)
        if self._wants_slots(now):
            urgently_at = self._again_at if self._asked_urgently else now
            wanted_at = urgently_at if self._urgent else self._wanted_patiently_at
            due = min(due, max(wanted_at, self._paused_until))
        return due

    @property
    def _wanted_patiently_at(self) -> float:
        """When a batch is to ask (rule 1); a word that is said before, for whatever reason, does not ask for it."""
        return max(self._again_at, self._taken_at + self._request_delay)

    def _wants_slots(self, now: float) -> bool:
        begins = self._reserved.begins()
        if begins is None:
            return self._urgent > 0 or self._patient > 0
        return self._urgent > 0 and self._could_be_sooner(begins, now)

    def _could_be_sooner(self, begins: float, now: float) -> bool:
        """Whether an interactive call need not wait for a slot held ahead: it is a batch's, and there are free ones."""
        return begins > now and not self._asked_urgently and self._used < self._given.limit

    async def _ask(self) -> None:
        try:
            await self._exchange()
        except asyncio.CancelledError:
            self._closed = True  # the loop is being closed, without anybody having closed the client
            raise
        finally:
            self._asking = None
        if not self._closed:
            self._wake()
            self._consider()

    async def _exchange(self) -> None:
        """Say what is to be said, and take what is granted."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        urgent = patient = 0
        # While the log is away it is only asked whether it is back: what was granted to nobody's knowledge is lost.
        if self._outage.since is None and self._wants_slots(now) and now >= self._paused_until:
            urgent = min(self._urgent, _AT_ONCE)
            patient = 0 if urgent or now < self._wanted_patiently_at else min(self._patient, _AT_ONCE)
            self._reserved.give_back(now)
        first, names = self._reserved.names(urgent + patient)
        reports = self._reserved.pending_reports(now, _SILENCE)
        alive_for = 2 * (self._given.per + LEASE)
        request = ReserveRequest(
            limit=self._given,
            lease=LEASE,
            owner=self._reserved.owner,
            epoch=self._epoch if now < self._met_at + alive_for else "",
            fresh=secrets.token_hex(8),
            urgent=urgent,
            patient=patient,
            waiting=self._urgent,
            left=self._left,
            first=first,
            away=self._outage.within if self._outage.is_long(now) else 0.0,
            heard=self._heard,
            reports=reports,
        )
        try:
            reply = await self._log.exchange(request)
        except Unreachable as error:
            self._reserved.give_back_unconfirmed(now, names)
            self._reserved.forget(now - alive_for)
            self._on_unreachable(now, error)
            return
        self._reserved.acknowledge(reports, now)
        self._on_reached(reply, loop.time())
        if names:
            self._asked_urgently = urgent > 0
            self._again_at = self._met_at + reply.again
        self._reserved.granted(names, [self._met_at + begins for begins in reply.begins])
        if patient and reply.begins:
            self._adjust_request_delay(reply.begins[0], self._met_at - now)

    def _on_reached(self, reply: ReserveReply, now: float) -> None:
        if self._outage.ended():
            _logger.info("the shared pace is back")
        self._local = None
        if reply.vanished:
            _logger.warning("the shared pace was lost; it counts as used up for %g s", self._given.per)
        if self._epoch and reply.epoch != self._epoch:
            self._reserved.reset(now)  # this log is another one
            self._request_delay = 0.0
        self._epoch, self._heard = reply.epoch, reply.at
        self._met_at = now
        self._used = reply.used
        self._soonest_at = now + reply.soonest if reply.soonest else -math.inf

    def _adjust_request_delay(self, lead: float, trip: float) -> None:
        """Let a batch ask for its next slot so late that it will hold it for a short time only (rule 1).

        What is taken off each time makes processes that compete wait equally long, and so get equally much.
        """
        wanted = max(1.5 * self._given.interval, 5 * trip, _LEAST_LEAD)
        self._request_delay = max(0.9 * self._request_delay + lead - wanted, 0.0) if lead else 0.0

    # ----------------------------------------------------------- without a log

    def _on_unreachable(self, asked_at: float, error: Unreachable) -> None:
        self._reserved.give_back(asked_at)
        self._request_delay = 0.0  # how far ahead slots lie will have to be learned anew
        if self._outage.failed(asked_at, asyncio.get_running_loop().time()):
            _logger.warning(
                "the shared pace cannot be reached (%s): waiting for %g s, then going on with %s until it can",
                error,
                self._given.per,
                self._outage.fallback or "nothing",
            )
            self._on_pause("unreachable", self._given.per, False)

    def _fall_back(self, now: float) -> None:
        """Go on with this process's share (rule 4)."""
        self._local = LocalWindow(self._outage.fallback)
        for _ in range(self._reserved.in_air):
            self._local.take(now)
        self._urgent = self._patient = 0  # nobody tells what is wanted, from now on
        self._wake()
