"""Starts sweeps automatically while there are suspects: a minute after a new one, and then ever more rarely.

A sweep begins when the youngest suspect is as old as the grace of the sweep, so that one sweep finds the keys of all
answers that were lost in one outage. If suspects keep coming, the sweep waits no longer than twice the grace. The
waiting time goes on when a client moves to another event loop; a sweep that is due by then begins there.

It takes many requests to read the list of a large account, and most suspects have left no key. So each sweep that finds
nothing doubles the time to the next one, from ten minutes to a day. The interval returns to ten minutes after a new
suspect, after a sweep that finds something, and once the API key may sweep again. An unexpected failure is logged once,
and sweeps go on later.
"""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from respan_async._calls.lifecycle import Lifecycle, Move, Stage
from respan_async._calls.suspect_store import SuspectStore
from respan_async._calls.sweep_policy import SweepPolicy, SweepReport
from respan_async._pacing.loop_clock import LoopClock
from respan_async.errors import AuthenticationError, ClientStateError, PermissionDeniedError, RespanError, Suspect
from respan_async.events import logger

SHORTEST: Final = 600.0
LONGEST: Final = 86_400.0
"""The first and the longest interval between sweeps, in seconds."""


class AutoSweep:
    """Sweep automatically while there are suspects whose keys can be found, by a tag or an id.

    Args:
        once: Sweeps once; returns None if another process has swept within the given seconds.
        store: Where the suspects are kept.
        policy: What a sweep may do.
        lifecycle: The lifecycle of the client, which runs the task.
        clock: The wall clock, aware.
        loop_clock: The pace's clock, by which the task waits.
    """

    def __init__(
        self,
        once: Callable[[float], Awaitable[SweepReport | None]],
        store: SuspectStore,
        policy: SweepPolicy,
        lifecycle: Lifecycle,
        clock: Callable[[], datetime],
        loop_clock: LoopClock,
    ) -> None:
        self._once = once
        self._store = store
        self._policy = policy
        self._lifecycle = lifecycle
        self._clock = clock
        self._loop_clock = loop_clock
        self._task: asyncio.Task[None] | None = None
        self._woken = self._was_at_work = self._has_news = False
        self._sleep: asyncio.Task[None] | None = None
        self._last = -math.inf
        self._settled_at = self._settled_at_latest = -math.inf  # when the youngest suspect is old enough
        self._fruitless = 0  # sweeps in a row that found nothing
        self._refused = self._rest_told = False
        self._logged_failure: type[Exception] | None = None
        lifecycle.register(Stage.STOP, self._stop)
        lifecycle.register(Move.LEAVE, self._leave_loop)
        lifecycle.register(Move.ARRIVE, self._arrive)

    def added(self, suspect: Suspect) -> None:
        """Note that there is a new suspect; one without a tag and an id is none that a sweep can look for."""
        if not (suspect.tag or suspect.id):
            return
        if suspect.id is None:  # a key with a known id is not looked for in the list
            now = self._loop_clock.time()
            if self._settled_at <= self._last:
                self._settled_at, self._settled_at_latest = now, now + 2 * self._policy.grace
            self._settled_at = min(now + self._policy.grace, self._settled_at_latest)
        self._begin_anew()
        self._has_news = True
        if self._sleep is not None:
            self._sleep.cancel()
        self.wake()

    def wake(self) -> None:
        """Note that there may be suspects."""
        self._woken = True
        if self._lifecycle.closing or (self._task is not None and not self._task.done()):
            return
        # The task has a new context, because it outlives the call that has left the suspect.
        self._task = self._lifecycle.tasks.spawn(self._run(), contextvars.Context())

    def _leave_loop(self) -> None:
        self._was_at_work = self._task is not None
        self._task = self._sleep = None

    def _arrive(self) -> None:
        if self._was_at_work:
            self.wake()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                while await self._wait():
                    await self._sweep()
            except ClientStateError:
                return
            except RespanError as error:
                logger.info("suspects could not be read: %s", type(error).__name__)
                return
            except Exception as error:  # noqa: BLE001  if this task ended, no other task would sweep
                self._log_failure(error)
                await self._loop_clock.sleep(SHORTEST)
            else:
                return

    async def _wait(self) -> bool:
        """Wait until it is time to sweep; return False if there is nothing to sweep for."""
        while True:
            self._woken = self._has_news = False
            suspects = [suspect for suspect in await self._store.pending() if suspect.tag or suspect.id]
            if not suspects and not self._woken:  # a suspect may have been noted while the suspects were read
                return False
            seconds = self._seconds_to_wait(suspects, self._loop_clock.time())
            if suspects and seconds <= 0.0:
                return True
            if suspects:
                await self._wait_for_news(seconds)

    async def _wait_for_news(self, seconds: float) -> None:
        """Wait for a new suspect, but not longer than `seconds`."""
        sleep = self._sleep = asyncio.get_running_loop().create_task(self._loop_clock.sleep(seconds))
        try:
            await asyncio.wait({sleep})
        finally:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, and the task with it
                sleep.cancel()
            self._sleep = None

    def _seconds_to_wait(self, suspects: Sequence[Suspect], now: float) -> float:
        """Return the seconds until the next sweep: the regular interval, or less if a suspect is eligible earlier."""
        at = self._last + self._pause
        clock = self._clock()
        for suspect in suspects:
            if 0.0 < (wait := self._policy.seconds_to_wait(suspect, clock)) < math.inf:
                at = min(at, max(self._last + SHORTEST, now + wait))
        return max(at, self._settled_at) - now

    async def _sweep(self) -> None:
        self._last = self._loop_clock.time()
        try:
            report = await self._once(self._pause)
        except (PermissionDeniedError, AuthenticationError) as error:
            if not self._refused:
                logger.warning(
                    "this API key may not sweep (%s): suspects are only reported until it may; that is tried ever more "
                    "rarely, in the end once a day",
                    type(error).__name__,
                )
            self._refused = True
            self._rest()
        except ClientStateError:
            raise
        except RespanError as error:
            logger.info("a sweep did not get through: %s", type(error).__name__)
            self._rest()
        except Exception as error:  # noqa: BLE001  if this task ended, no other task would sweep
            self._log_failure(error)
            self._rest()
        else:
            self._logged_failure = None
            if report is not None:
                self._go_on_after(report)

    def _go_on_after(self, report: SweepReport) -> None:
        if self._refused:
            logger.info("this API key may sweep again")
        if self._refused or report.revoked or report.expired:
            self._refused = False
            self._begin_anew()
        elif report.left:
            self._tell_rest(report.left)
            self._rest()

    @property
    def _pause(self) -> float:
        """Seconds from the beginning of one sweep to the next."""
        return min(SHORTEST * 2.0 ** min(max(self._fruitless - 1, 0), 10), LONGEST)

    def _begin_anew(self) -> None:
        self._fruitless = 0
        self._rest_told = False

    def _rest(self) -> None:
        if not self._has_news:
            self._fruitless += 1

    def _log_failure(self, error: Exception) -> None:
        """Log once that sweeping fails, without the error's text, because it may hold a secret."""
        if type(error) is not self._logged_failure:
            self._logged_failure = type(error)
            logger.error("sweeping has failed unexpectedly, and is tried again later: %s", type(error).__name__)

    def _tell_rest(self, left: Sequence[Suspect]) -> None:
        """Log once why the next sweeps come more rarely."""
        if self._rest_told:
            return
        self._rest_told = True
        if taken_over := sum(map(self._policy.is_doubtful, left)):
            logger.warning(
                "%d suspects were taken over from processes that are gone; keys of theirs that were never used are "
                "revoked %s, and at once by sweep(taken_over=True), if no copy of this ledger has been in use",
                taken_over,
                "never" if self._policy.takeover_age is None else f"{self._policy.takeover_age} after that",
            )
        logger.info("a sweep has found no key of %d suspects; the next come ever more rarely", len(left))
