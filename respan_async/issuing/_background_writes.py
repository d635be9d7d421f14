"""Writes to the ledger in the background, and repeats failed writes."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from respan_async._calls.lifecycle import Lifecycle
from respan_async.errors import LedgerError

Write: TypeAlias = Callable[[], Awaitable[object]]
"""A write, which may be repeated after a failure, at any later time."""


class BackgroundWrites:
    """Write in the background, and remember failed writes.

    Args:
        lifecycle: The lifecycle of the client, which runs the tasks.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._tasks: dict[asyncio.Task[bool], Write] = {}
        self._is_ledger_away = False
        self._lost: deque[Write] = deque()

    def add(self, write: Write) -> None:
        """Start a write."""
        if self._is_ledger_away:
            self._lost.append(write)
            return
        task = self._lifecycle.tasks.spawn(self._write(write))
        self._tasks[task] = write
        task.add_done_callback(partial(self._over, write))

    async def repeat(self) -> None:
        """Repeat the failed writes, until one fails again; that one is the last the next time."""
        for _ in range(len(self._lost)):
            if not await self._write(self._lost.popleft()):
                return

    def leave_loop(self) -> None:
        """Keep all unfinished writes, which may not have been done, until the ledger is open on the next event loop."""
        self._is_ledger_away = True
        self._lost.extend(self._tasks.values())
        self._tasks.clear()

    async def resume(self) -> None:
        """Repeat the kept writes, because the ledger is open again."""
        self._is_ledger_away = False
        await self.repeat()

    async def written(self) -> None:
        """Wait for the writes under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _over(self, write: Write, task: asyncio.Task[bool]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():  # the client is being closed
            self._lost.append(write)

    async def _write(self, write: Write) -> bool:
        try:
            await write()
        except LedgerError:
            self._lost.append(write)
            return False
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._tasks:  # `_over` handles the tasks
                self._lost.appendleft(write)
            raise
        return True
