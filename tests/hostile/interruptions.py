"""What can happen to a caller, or to the client, in the middle of an operation."""

import asyncio
import contextlib
from typing import Any, Literal

import attrs

from respan_async import RespanError
from tests.hostile.steps import Operation, World


def fate(task: asyncio.Task[Any]) -> BaseException | None:
    """Tell how a task ended: by an error, by being cancelled, or well."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def is_ours(error: BaseException | None) -> bool:
    """Whether an operation may end so by itself."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_ours(inner) for inner in error.exceptions)
    return error is None or isinstance(error, RespanError)


@attrs.define
class Cancelled:
    """The caller is cancelled.

    Attributes:
        again: In how many turns it is cancelled once more; 0 for never, -1 for every turn until it gives in.
    """

    again: int = 0
    closes: bool = False
    _late: bool = False

    async def play(self, world: World, operation: Operation) -> None:
        """Be the caller."""
        await operation(world)

    def strike(self, world: World, task: asyncio.Task[Any]) -> None:
        """Cancel it."""
        self._late = not task.cancel()
        self._strike_again(world, task)

    def _strike_again(self, world: World, task: asyncio.Task[Any]) -> None:
        if self.again < 0:
            task.cancel()
            if not task.done():
                world.loop.interrupt(1, "before", lambda: self._strike_again(world, task))
        elif self.again:
            world.loop.interrupt(self.again, "before", task.cancel)

    async def judge(self, world: World, task: asyncio.Task[Any]) -> None:
        """See that it ended as cancelled, or had ended."""
        if self._late:
            assert is_ours(fate(task))
        else:
            assert task.cancelled(), f"the cancellation was swallowed, or became {fate(task)!r}"


@attrs.define
class TimedOut:
    """The time of the caller is up: of the inner of two timeouts, of the outer one, or of both."""

    which: Literal["inner", "outer", "both"] = "inner"
    closes: bool = False
    _timeouts: list[asyncio.Timeout] = attrs.field(factory=list)
    _fired: list[str] = attrs.field(factory=list)

    async def play(self, world: World, operation: Operation) -> None:
        """Be the caller, with a timeout within a timeout."""
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(None) as outer:
                try:
                    async with asyncio.timeout(None) as inner:
                        self._timeouts = [outer, inner]
                        await operation(world)
                except TimeoutError:
                    self._fired.append("inner")
                    await asyncio.sleep(0)
        except TimeoutError:
            self._fired.append("outer")
        assert task.cancelling() == 0, "a cancellation was counted and not taken back"
        await asyncio.sleep(0)  # where one that is left would be raised

    def strike(self, world: World, task: asyncio.Task[Any]) -> None:
        """Let the time be up."""
        for timeout in self._timeouts[self.which == "inner" : 1 + (self.which != "outer")]:
            with contextlib.suppress(RuntimeError):  # it is over already
                timeout.reschedule(asyncio.get_running_loop().time())

    async def judge(self, world: World, task: asyncio.Task[Any]) -> None:
        """See that it became a TimeoutError where it belongs, and nothing else became anything else."""
        error = fate(task)
        assert is_ours(error)
        expired = [timeout.expired() for timeout in self._timeouts]
        if self._timeouts and error is None:
            # When both are up, the outer one's cancellation goes on through the inner one.
            told = ["outer" in self._fired, "inner" in self._fired or all(expired)]
            assert told == expired


@attrs.define
class Closed:
    """The client is closed, by somebody else.

    Attributes:
        grace: Seconds it gives to what is in the air.
        cancels: When the caller is cancelled as well: in which turn after that, or None.
        cut: When the closing is itself cancelled: in which turn after it began, or None; in every turn if below 0.
        slack: Seconds it may take beyond its grace.
    """

    grace: float = 1000.0
    cancels: int | None = None
    cut: int | None = None
    slack: float = 0.1
    closes: bool = True
    _closing: asyncio.Task[None] | None = None
    _began: float = 0.0
    _took: float = 0.0

    async def play(self, world: World, operation: Operation) -> None:
        """Be the caller."""
        await operation(world)

    def strike(self, world: World, task: asyncio.Task[Any]) -> None:
        """Close it."""
        self._began = asyncio.get_running_loop().time()
        closing = self._closing = asyncio.create_task(self._close(world))
        if self.cancels is not None:
            self._later(world, self.cancels, task)
        if self.cut is not None and self.cut >= 0:
            self._later(world, self.cut, closing)
        elif self.cut is not None:
            self._relentlessly(world, closing)

    async def _close(self, world: World) -> None:
        try:
            await world.respan.aclose(self.grace)
        finally:
            self._took = asyncio.get_running_loop().time() - self._began

    def _later(self, world: World, turns: int, task: asyncio.Task[Any]) -> None:
        if turns:
            world.loop.interrupt(turns, "before", task.cancel)
        else:
            task.cancel()

    def _relentlessly(self, world: World, task: asyncio.Task[Any]) -> None:
        def cancel() -> None:
            task.cancel()
            if not task.done():
                world.loop.interrupt(1, "before", cancel)

        world.loop.interrupt(2, "before", cancel)

    async def judge(self, world: World, task: asyncio.Task[Any]) -> None:
        """See that the caller has its result or is told, and that closing takes no longer than its grace."""
        error = fate(task)
        assert is_ours(error) or (self.cancels is not None and task.cancelled()), repr(error)
        assert self._closing is not None
        assert asyncio.get_running_loop().time() - self._began < self.grace + self.slack, "the caller was told late"
        await asyncio.wait({self._closing})
        assert self._took < self.grace + self.slack
        if self.cut is None:
            await self._closing
        else:
            assert self._closing.cancelled() or self._closing.exception() is None


@attrs.define
class AllCancelled:
    """Every task there is gets cancelled, as by a shutdown out of a cookbook."""

    closes: bool = False
    _late: bool = False

    async def play(self, world: World, operation: Operation) -> None:
        """Be the caller."""
        await operation(world)

    def strike(self, world: World, task: asyncio.Task[Any]) -> None:
        """Cancel all of them."""
        self._late = task.done()
        for each in world.tasks():
            each.cancel()

    async def judge(self, world: World, task: asyncio.Task[Any]) -> None:
        """See that the caller ended as cancelled, or had ended."""
        assert is_ours(fate(task)) if self._late else task.cancelled()
