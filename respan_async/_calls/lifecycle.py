"""Closes a client in order, and moves it to another event loop when its own is closed.

A client belongs to one event loop at a time. When that loop is closed, the client moves to the loop on which it is used
next. Rules:

1. The move happens once, under a thread lock. If two loops want the client at the same time, one gets it.
2. No task of the closed loop can continue. So their coroutines are closed, and their requests in flight become
   suspects, as when they are cancelled.
3. The client keeps the pace, the suspects and the settings. It makes anew what belongs to a loop: the session, timers,
   tasks, futures.
4. A loop that ends in order, as with `asyncio.run`, first closes what is open on it, so that nothing is left to move.
5. A part that cannot move, such as a session that the caller has brought, raises before anything is changed.
"""

import asyncio
import contextlib
import enum
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

from respan_async._arguments import is_number, shown
from respan_async._calls.background_tasks import BackgroundTasks
from respan_async._calls.owning_loop import OwningLoop
from respan_async.errors import ClientStateError, InvalidRequestError


def being_cancelled() -> bool:
    """Whether the running task itself was cancelled, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def check_grace(grace: Any, *, finite: bool = False) -> None:
    """Refuse a grace that is not a number of seconds; infinity is allowed, unless `finite`.

    Raises:
        InvalidRequestError: `grace` is not a number, or below 0.
    """
    if not is_number(grace) or not grace >= 0 or (finite and grace == math.inf):
        raise InvalidRequestError(f"grace: expected a number of seconds, 0 or more, got {shown(grace)}")


class Stage(enum.Enum):
    """A stage of closing, at which registered steps are called. The stages come in this order."""

    STOP = enum.auto()
    """Background work ends: batches take no more input, sweeps and deliveries stop. Steps do not wait."""
    REFUSE = enum.auto()
    """Calls that wait for a slot are refused. Afterwards the background tasks are awaited, within the grace."""
    CUT = enum.auto()
    """The grace is over: no call may begin. Afterwards the remaining background tasks are cancelled."""
    DEPENDENTS = enum.auto()
    """The users of the client close: an issuer, with its ledger."""
    RESOURCES = enum.auto()
    """The client's resources close: the shared window, the session."""


class Move(enum.Enum):
    """A stage of the move from one event loop to the next, at which registered steps are called."""

    PARK = enum.auto()
    """The loop ends in order, and the client lives on: open resources are closed. Awaited, on that loop."""
    LEAVE = enum.auto()
    """The loop is closed: waiters on it are forgotten. A part that cannot move raises a `ClientStateError`."""
    ARRIVE = enum.auto()
    """The client belongs to the running loop now: background work begins anew."""


class Lifecycle:
    """The states of a client: where it may be used, its background tasks, and its closing.

    Attributes:
        tasks: The background tasks.
        closing: Whether closing has begun.
        closed: Set when closing has ended.
    """

    def __init__(self) -> None:
        self._home = OwningLoop("client", "used", self._loop_ends)
        self.tasks = BackgroundTasks()
        self._steps: dict[Stage | Move, dict[Callable[[], object], None]] = {stage: {} for stage in (*Stage, *Move)}
        self._steps_of_loop: dict[Callable[[], object], Stage | Move] = {}
        self._moving = threading.RLock()  # a hook that hears of a suspect may use the client
        self.closing = False
        self._closing_was_cut = False  # closing was cut off by the end of its loop
        self.closed = asyncio.Event()

    def register(self, stage: Stage | Move, step: Callable[[], object], *, on_this_loop: bool = False) -> None:
        """Register a step for a stage. Steps are called in the order of registration; an awaitable result is awaited.

        Args:
            stage: The stage.
            step: The function to call.
            on_this_loop: Forget the step when the client moves to another loop.
        """
        self._steps[stage][step] = None
        if on_this_loop:
            self._steps_of_loop[step] = stage

    def unregister(self, stage: Stage | Move, step: Callable[[], object]) -> None:
        """Forget a step, if it is registered."""
        self._steps[stage].pop(step, None)
        self._steps_of_loop.pop(step, None)

    async def aclose(self, grace: float) -> None:
        """Close: take each `Stage` in turn. If the client is being closed already, wait until it is closed.

        Args:
            grace: Seconds to wait for background tasks.

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
            await self._close_after_loop()  # a part cannot move, such as a session that the caller has brought
            return
        if self.closing and not self._closing_was_cut:
            # A task that `aclose` awaits must not itself await `aclose` (deadlock).
            if not self.tasks.within:
                await self.closed.wait()
            return
        self.closing, self._closing_was_cut = True, False
        # The stack takes every stage, even if an earlier one is cancelled.
        async with contextlib.AsyncExitStack() as stages:
            stages.callback(self._home.unwatch)
            stages.callback(self.closed.set)
            stages.push_async_callback(self._take, Stage.RESOURCES)
            stages.push_async_callback(self._take, Stage.DEPENDENTS)
            stages.push_async_callback(self.tasks.cut)
            stages.push_async_callback(self._take, Stage.CUT)
            await self._take(Stage.STOP)
            await self._take(Stage.REFUSE)
            await self.tasks.finish(grace)

    async def _close_after_loop(self) -> None:
        """Close on another loop, after the client's own loop was closed: no task of that loop will ever end."""
        self.closing = True
        left = self.tasks.detach()
        for step in tuple(self._steps[Move.LEAVE]):
            with contextlib.suppress(ClientStateError):  # raised by the part that cannot move
                step()
        self.tasks.end(left)
        self._home.unbind()  # the steps below close on this loop
        self.closed = asyncio.Event()
        async with contextlib.AsyncExitStack() as stages:
            stages.callback(self.closed.set)
            stages.push_async_callback(self._take, Stage.RESOURCES)
            stages.push_async_callback(self._take, Stage.DEPENDENTS)

    def check(self) -> None:
        """Refuse a call that cannot work here or now.

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
            else:
                self._home.bind()  # or check, if another thread has bound it meanwhile

    def check_home(self) -> None:
        """Refuse a client that belongs elsewhere, such as to a parent process; move it here if its loop is closed.

        Raises:
            ClientStateError: The client belongs to another event loop that lives, or to the process before a fork; or
                it cannot move to this loop.
        """
        with self._moving:
            if self._home.is_gone and not self.closed.is_set():
                self._move()
        self._home.check(living=True)

    def check_same_place(self) -> None:
        """Refuse to continue something, such as a batch, in another place than it was begun in.

        Raises:
            ClientStateError: The client belongs to another event loop, or to the process before a fork.
        """
        self._home.check(living=True)

    def _move(self) -> None:
        """Move to the running loop, after the previous loop was closed."""
        for step in self._steps[Move.LEAVE]:
            step()
        for step, stage in tuple(self._steps_of_loop.items()):
            self.unregister(stage, step)
        left = self.tasks.detach()
        self._home.unbind()
        self._home.bind()
        self._closing_was_cut = self.closing
        self.closed = asyncio.Event()
        self.tasks.end(left)
        for step in tuple(self._steps[Move.ARRIVE]):  # some unregister themselves
            step()

    async def _loop_ends(self) -> None:
        """Cancel the background tasks and park, because this loop is about to be closed."""
        if not self.closing:
            await self.tasks.cut()
            await self._take(Move.PARK)

    def release(self, task: asyncio.Task[Any]) -> None:
        """Let a background task be cancelled when the client closes, so that closing does not wait for it."""
        if self.closing:
            task.cancel()
        else:
            self.register(Stage.STOP, task.cancel, on_this_loop=True)
            task.add_done_callback(lambda task: self.unregister(Stage.STOP, task.cancel))

    async def _take(self, stage: Stage | Move) -> None:
        """Call every step of a stage, even if an earlier one is cancelled."""
        async with contextlib.AsyncExitStack() as steps:
            for step in reversed(self._steps[stage]):
                steps.push_async_callback(_call, step)


async def _call(step: Callable[[], object]) -> None:
    result = step()
    if inspect.isawaitable(result):
        await result
