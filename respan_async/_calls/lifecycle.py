"""From a client's first call to its closing: its event loop, its process, and what goes on in the background.

A client belongs to one event loop at a time. When that loop is closed, the client moves to the loop on which it is used
next. Rules:

1. The move happens once, under a lock of threads. Of two loops that want the client at the same time, one gets it.
2. Nothing that ran on the closed loop will ever go on there. So its coroutines are closed: what they had in the air
   becomes a suspect, as when they are cancelled.
3. What was noted stays: the pace, the suspects, the settings. What belongs to a loop is made anew: the session, timers,
   tasks, futures.
4. A loop that ends in order (`asyncio.run` does) closes what is open on it before, so that nothing is left to move.
5. What cannot move, such as a session that the caller has brought, says so, and nothing has been touched then.
"""

import asyncio
import contextlib
import contextvars
import enum
import inspect
import math
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from respan_async._arguments import is_number, shown
from respan_async._calls.owning_loop import OwningLoop
from respan_async.errors import ClientStateError, InvalidRequestError
from respan_async.events import logger

T = TypeVar("T")

_LONGEST_CUT: Final = 3.0
"""Seconds in which what was cancelled is to end."""


def being_cancelled() -> bool:
    """Whether the running task was cancelled itself, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def check_grace(grace: Any, *, finite: bool = False) -> None:
    """Refuse what is no number of seconds, before anything is done; infinity is one, unless it is to be finite.

    Raises:
        InvalidRequestError: It is none, or below 0.
    """
    if not is_number(grace) or not grace >= 0 or (finite and grace == math.inf):
        raise InvalidRequestError(f"grace: expected a number of seconds, 0 or more, got {shown(grace)}")


class Stage(enum.Enum):
    """A stage of closing, at which something may ask to be called. They come in this order."""

    STOP = enum.auto()
    """What goes on by itself ends: batches take nothing more, sweeps and deliveries stop. Nothing is awaited here."""
    REFUSE = enum.auto()
    """Those who wait for a slot are refused. Then the background is waited for, within the grace."""
    CUT = enum.auto()
    """The grace is over: no call may begin. Then what is left of the background is cancelled."""
    DEPENDENTS = enum.auto()
    """Those who use the client close: an issuer, with its ledger."""
    RESOURCES = enum.auto()
    """What the client holds is closed: the shared window, the session."""


class Move(enum.Enum):
    """A stage of the way from one event loop to the next, at which something may ask to be called."""

    PARK = enum.auto()
    """The loop ends in order, and the client goes on: what is open is closed. Awaited, on that loop."""
    LEAVE = enum.auto()
    """The loop is closed: what waited there is forgotten. What cannot move raises a `ClientStateError`."""
    ARRIVE = enum.auto()
    """The client belongs to the running loop by now: what goes on by itself begins anew."""


class Lifecycle:
    """Know where a client may be used, and what it still has under way by itself; close it in order.

    Attributes:
        closing: Whether closing has begun.
        closed: Set when it is over.
    """

    def __init__(self) -> None:
        self._home = OwningLoop("client", "made", self._loop_ends)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._if_cut: dict[asyncio.Task[Any], Callable[[], object]] = {}
        self._delegates: dict[asyncio.Task[Any] | None, asyncio.Task[Any] | None] = {}
        self._steps: dict[Stage | Move, dict[Callable[[], object], None]] = {stage: {} for stage in (*Stage, *Move)}
        self._steps_of_loop: dict[Callable[[], object], Stage | Move] = {}
        self._moving = threading.RLock()  # a hook that hears of a suspect may use the client
        self.closing = False
        self._closing_was_cut = False  # by the end of its loop
        self.closed = asyncio.Event()

    def register(self, stage: Stage | Move, step: Callable[[], object], *, on_this_loop: bool = False) -> None:
        """Call something at a stage, in the order of registration; where the stage is awaited, await what it returns.

        Args:
            stage: The stage.
            step: What to call.
            on_this_loop: Forget it when the client moves to another loop.
        """
        self._steps[stage][step] = None
        if on_this_loop:
            self._steps_of_loop[step] = stage

    def unregister(self, stage: Stage | Move, step: Callable[[], object]) -> None:
        """Forget what was registered, if it still is."""
        self._steps[stage].pop(step, None)
        self._steps_of_loop.pop(step, None)

    async def aclose(self, grace: float) -> None:
        """Close: take each `Stage` in turn. When it is closed or being closed already, wait for the end of that.

        Args:
            grace: Seconds for what is in the background.

        Raises:
            InvalidRequestError: `grace` is not a number of seconds; nothing was closed.
            ClientStateError: As of `check_home`; nothing was closed.
        """
        check_grace(grace)
        if self.closed.is_set():
            return
        try:
            self.check_home()
        except ClientStateError:
            if not self._home.is_gone:
                raise
            await self._close_after_loop()  # of what cannot move, such as a session of the caller's
            return
        if self.closing and not self._closing_was_cut:
            # What the one who closes waits for must not wait for that one.
            if not self.within:
                await self.closed.wait()
            return
        self.closing, self._closing_was_cut = True, False
        # Each stage comes to its turn, also when one before it is cancelled.
        async with contextlib.AsyncExitStack() as stages:
            stages.callback(self._home.unwatch)
            stages.callback(self.closed.set)
            stages.push_async_callback(self._take, Stage.RESOURCES)
            stages.push_async_callback(self._take, Stage.DEPENDENTS)
            stages.push_async_callback(self._cut)
            stages.push_async_callback(self._take, Stage.CUT)
            await self._take(Stage.STOP)
            await self._take(Stage.REFUSE)
            await self._finish(grace)

    async def _close_after_loop(self) -> None:
        """Close on another loop, where the client's own is closed: nothing that ran there will ever end."""
        self.closing = True
        left, self._tasks = self._tasks, set()
        self._delegates.clear()
        for step in tuple(self._steps[Move.LEAVE]):
            with contextlib.suppress(ClientStateError):  # of what cannot move, which is why it is closed here
                step()
        self._end(left)
        self._home.unbind()  # what is closed from here on is closed on this loop
        self.closed = asyncio.Event()
        async with contextlib.AsyncExitStack() as stages:
            stages.callback(self.closed.set)
            stages.push_async_callback(self._take, Stage.RESOURCES)
            stages.push_async_callback(self._take, Stage.DEPENDENTS)

    def check(self) -> None:
        """Refuse a call that could not work.

        Raises:
            ClientStateError: The client is closed; belongs to another event loop that lives, or to the process before a
                fork; or it cannot move to this loop.
        """
        if self.closing:
            raise ClientStateError("the client is closed")
        if self._home.is_bound and not self._home.is_gone:
            self._home.check()
            return
        with self._moving:
            if self._home.is_gone:
                self._move()
            elif self._home.is_bound:  # by another thread, meanwhile
                self._home.check()
            else:
                self._home.bind()

    def check_home(self) -> None:
        """Refuse to touch what belongs elsewhere, such as a parent's sockets; let it come here, if its loop is closed.

        Raises:
            ClientStateError: The client belongs to another event loop that lives, or to the process before a fork; or
                it cannot move to this loop.
        """
        with self._moving:
            if self._home.is_gone and not self.closed.is_set():
                self._move()
        self._home.check(living=True)

    def check_same_place(self) -> None:
        """Refuse to go on with something, such as a batch, elsewhere than where it was begun.

        Raises:
            ClientStateError: The client belongs to another event loop, or to the process before a fork.
        """
        self._home.check(living=True)

    def _move(self) -> None:
        """Go on on the running loop; the one before is closed."""
        for step in self._steps[Move.LEAVE]:
            step()
        for step, stage in tuple(self._steps_of_loop.items()):
            self.unregister(stage, step)
        left, self._tasks = self._tasks, set()
        self._delegates.clear()
        self._home.unbind()
        self._home.bind()
        self._closing_was_cut = self.closing
        self.closed = asyncio.Event()
        self._end(left)
        for step in tuple(self._steps[Move.ARRIVE]):  # some unregister themselves
            step()

    def _end(self, left: Iterable[asyncio.Task[Any]]) -> None:
        """End tasks whose loop is closed: what they would have told then is told now."""
        for task in left:
            _close(task.get_coro())
            if (tell := self._if_cut.pop(task, None)) is not None:
                tell()

    async def _loop_ends(self) -> None:
        """End what runs on this loop, which is about to be closed, and close what is open on it."""
        if not self.closing:
            await self._cut()
            await self._take(Move.PARK)

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        context: contextvars.Context | None = None,
        if_cut: Callable[[], object] | None = None,
    ) -> asyncio.Task[T]:
        """Run something in the background, until it ends or the client has waited for it long enough.

        Args:
            work: What to run.
            context: Where, when it is not part of what its starter does, such as a request that is traced.
            if_cut: Called on the next event loop, if this one is closed before what waits for the task has its turn.
        """
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        if if_cut is not None:
            self._if_cut[task] = if_cut
        task.add_done_callback(self._over)
        return task

    def delegate(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run somebody else's code, for the running task, in a task that may not heed its cancellation.

        Closing waits for the running task, and not for this one.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._delegates[task] = self.acting_task()
        task.add_done_callback(self._delegate_over)
        return task

    def acting_task(self) -> asyncio.Task[Any] | None:
        """Return the running task, or the one that it runs somebody else's code for."""
        current = asyncio.current_task()
        return self._delegates.get(current, current)

    def release(self, task: asyncio.Task[Any]) -> None:
        """Let something in the background end when the client is closed, which is not to wait for it."""
        if self.closing:
            task.cancel()
        else:
            self.register(Stage.STOP, task.cancel, on_this_loop=True)
            task.add_done_callback(lambda task: self.unregister(Stage.STOP, task.cancel))

    @property
    def within(self) -> bool:
        """Whether the running task is one of this client's own."""
        return self.acting_task() in self._tasks

    async def _take(self, stage: Stage | Move) -> None:
        """Call what is registered for a stage; each comes to its turn, also when one before it is cancelled."""
        async with contextlib.AsyncExitStack() as steps:
            for step in reversed(self._steps[stage]):
                steps.push_async_callback(_call, step)

    async def _finish(self, seconds: float) -> None:
        """Wait for what is in the background, and for what that starts in turn, but not longer than `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (tasks := self._others()) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)

    async def _cut(self) -> None:
        """Cancel what is still in the background, and what that starts in turn.

        What does not heed that runs somebody else's code, such as a batch's input: it holds nobody up for ever.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _LONGEST_CUT
        while tasks := self._others():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=max(end - loop.time(), 0.0))
            if loop.time() >= end and (deaf := self._others()):
                logger.warning("%d tasks do not heed their cancellation, and are left behind", len(deaf))
                return

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._if_cut.pop(task, None)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would log it; a task that awaits this one sees it too

    def _delegate_over(self, task: asyncio.Task[Any]) -> None:
        del self._delegates[task]
        if not task.cancelled():
            task.exception()  # as above

    def _others(self) -> set[asyncio.Task[Any]]:
        # A hook may close the client from within one of these tasks, which cannot wait for itself.
        return self._tasks - {self.acting_task()}


def _close(coroutine: Any) -> None:
    """End a coroutine whose loop is closed, so that it notes what it leaves: its `finally` clauses run now."""
    # What they do to that loop fails, and is of no use any more.
    with contextlib.suppress(Exception):
        coroutine.close()


async def _call(step: Callable[[], object]) -> None:
    result = step()
    if inspect.isawaitable(result):
        await result
