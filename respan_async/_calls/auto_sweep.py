"""Sweeping by itself, while there are suspects: soon after a new one, and then ever more rarely.

To read the list of a large account takes many requests, and most suspects have left no key. So each sweep that finds
nothing doubles the time to the next, from ten minutes to a day. A new suspect, a sweep that finds something, and an API
key that may sweep again begin anew. What fails unexpectedly is told once, and tried again like any other failure.
"""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from respan_async._calls.lifecycle import Lifecycle, Move, Stage
from respan_async._calls.suspects import SuspectStore
from respan_async._calls.sweep_policy import SweepPolicy, SweepReport
from respan_async._pacing.loop_clock import LoopClock
from respan_async.errors import AuthenticationError, ClientStateError, PermissionDeniedError, RespanError, Suspect
from respan_async.events import logger

SHORTEST: Final = 600.0
LONGEST: Final = 86_400.0
"""Seconds from one sweep to the next, when nobody asks for them: at first, and in the end."""


class AutoSweep:
    """Sweep by itself while there are suspects whose keys can be found, by a tag or an id.

    Args:
        once: Sweeps, unless another process has done so within as many seconds, and returns None then.
        store: Where the suspects are kept.
        policy: What a sweep may do.
        lifecycle: Where the task belongs.
        clock: The wall clock, aware.
        loop_clock: The pace's, by which it waits.
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
        self._woken = self._was_at_work = False
        self._news = asyncio.Event()
        self._last = -math.inf
        self._pause = SHORTEST
        self._refused = self._rest_told = False
        self._failed: type[Exception] | None = None  # unexpectedly, and told
        lifecycle.register(Stage.STOP, self._stop)
        lifecycle.register(Move.LEAVE, self._leave_loop)
        lifecycle.register(Move.ARRIVE, self._arrive)

    def added(self) -> None:
        """There is a new suspect."""
        self._begin_anew()
        self._news.set()
        self.wake()

    def wake(self) -> None:
        """There may be suspects."""
        self._woken = True
        if self._lifecycle.closing or (self._task is not None and not self._task.done()):
            return
        # In a context of its own: it outlives the call that has left the suspect.
        self._task = self._lifecycle.spawn(self._run(), contextvars.Context())

    def _leave_loop(self) -> None:
        self._was_at_work = self._task is not None
        self._task = None
        self._news = asyncio.Event()

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
            except Exception as error:  # noqa: BLE001  of whatever kind: nobody would sweep again
                self._tell_failure(error)
                await self._loop_clock.sleep(SHORTEST)
            else:
                return

    async def _wait(self) -> bool:
        """Wait until it is time to sweep; return False when there is nothing to sweep for."""
        while True:
            self._woken = False
            self._news.clear()
            suspects = [suspect for suspect in await self._store.pending() if suspect.tag or suspect.id]
            if not suspects and not self._woken:  # or one was noted while they were read
                return False
            seconds = self._seconds_to_wait(suspects, self._loop_clock.time())
            if suspects and seconds <= 0.0:
                return True
            if suspects:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._news.wait()

    def _seconds_to_wait(self, suspects: Sequence[Suspect], now: float) -> float:
        """Return how long it is to the next sweep: its turn, or the time from which a suspect may be looked for."""
        at = self._last + self._pause
        clock = self._clock()
        for suspect in suspects:
            if 0.0 < (wait := self._policy.seconds_to_wait(suspect, clock)) < math.inf:
                at = min(at, max(self._last + SHORTEST, now + wait))
        return at - now

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
        except Exception as error:  # noqa: BLE001  as above
            self._tell_failure(error)
            self._rest()
        else:
            self._failed = None
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

    def _begin_anew(self) -> None:
        self._pause = SHORTEST
        self._rest_told = False

    def _rest(self) -> None:
        if not self._news.is_set():
            self._pause = min(2 * self._pause, LONGEST)

    def _tell_failure(self, error: Exception) -> None:
        """Say once that sweeping fails, without the error's text, which may show anything."""
        if type(error) is not self._failed:
            self._failed = type(error)
            logger.error("sweeping has failed unexpectedly, and is tried again later: %s", type(error).__name__)

    def _tell_rest(self, left: Sequence[Suspect]) -> None:
        """Say once why the next sweeps come more rarely."""
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
