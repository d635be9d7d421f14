"""Runs the background tasks of a client: starts them, waits for them, cancels them, and ends those of a closed loop."""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from respan_async.errors import RespanError
from respan_async.events import logger

T = TypeVar("T")

_LONGEST_CUT: Final = 3.0
"""Seconds that cancelled tasks have to end."""


class BackgroundTasks:
    """The tasks that a client runs beside its callers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._if_cut: dict[asyncio.Task[Any], Callable[[], object]] = {}
        self._delegates: dict[asyncio.Task[Any] | None, asyncio.Task[Any] | None] = {}
        self._logged_failures: set[tuple[str, str]] = set()

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        context: contextvars.Context | None = None,
        if_cut: Callable[[], object] | None = None,
        *,
        awaited: bool = False,
    ) -> asyncio.Task[T]:
        """Run a coroutine in the background, until it ends or the closing client cancels it after the grace.

        Args:
            work: The coroutine.
            context: The context in which to run the coroutine; None for the caller's, which may belong to a traced
                request.
            if_cut: Called on the next event loop, if this loop closes before the task's waiter has run.
            awaited: Whether a caller takes the task's result or exception; if not, an unexpected failure is logged.
        """
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        if if_cut is not None:
            self._if_cut[task] = if_cut
        task.add_done_callback(self._over)
        if not awaited:
            task.add_done_callback(self._log_failure)
        return task

    def delegate(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run user code on behalf of the running task, in another task, because user code may ignore its cancellation.

        A closing client waits for the running task, and not for this other task.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._delegates[task] = self.acting_task()
        task.add_done_callback(self._delegate_over)
        return task

    def acting_task(self) -> asyncio.Task[Any] | None:
        """Return the running task; in a delegate, the task on whose behalf it runs."""
        current = asyncio.current_task()
        return self._delegates.get(current, current)

    @property
    def within(self) -> bool:
        """Whether the running task is one of the client's background tasks."""
        return self.acting_task() in self._tasks

    async def finish(self, seconds: float) -> None:
        """Wait for the background tasks, and for the tasks that they start, but not longer than `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (tasks := self._others()) and (left := end - loop.time()) > 0:
            await asyncio.wait(tasks, timeout=left)

    async def cut(self) -> None:
        """Cancel the background tasks, and the tasks that they start.

        Tasks that ignore cancellation run user code (e.g. a batch's input); stop waiting after `_LONGEST_CUT`.
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

    def detach(self) -> set[asyncio.Task[Any]]:
        """Forget all tasks, because their loop is closed; return them, to be passed to `end`."""
        left, self._tasks = self._tasks, set()
        self._delegates.clear()
        return left

    def end(self, left: Iterable[asyncio.Task[Any]]) -> None:
        """Close the coroutines of tasks whose loop is closed, and call their `if_cut`."""
        for task in left:
            _close(task.get_coro())
            if (tell := self._if_cut.pop(task, None)) is not None:
                tell()

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._if_cut.pop(task, None)
        _retrieve(task)

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        """Log an unexpected failure, once for each kind, without the exception's text, because it may hold a secret."""
        error = None if task.cancelled() else task.exception()
        if not isinstance(error, Exception) or isinstance(error, RespanError):
            return
        failure = (getattr(task.get_coro(), "__qualname__", "a task"), type(error).__name__)
        if failure not in self._logged_failures:
            self._logged_failures.add(failure)
            logger.error("%s has failed unexpectedly in the background: %s", *failure)

    def _delegate_over(self, task: asyncio.Task[Any]) -> None:
        del self._delegates[task]
        _retrieve(task)

    def _others(self) -> set[asyncio.Task[Any]]:
        # A hook may close the client from within one of these tasks, which cannot wait for itself.
        return self._tasks - {self.acting_task()}


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve a task's exception, because asyncio would log it otherwise; tasks that await this task still get it."""
    if not task.cancelled():
        task.exception()


def _close(coroutine: Any) -> None:
    """Close a coroutine whose loop is closed; its `finally` blocks run now, and note the suspects that it leaves."""
    # The `finally` blocks may touch the closed loop; ignore those errors.
    with contextlib.suppress(Exception):
        coroutine.close()
