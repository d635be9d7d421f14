"""What is written though nobody waits for it, and written again when it could not be."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from respan_async._calls.lifecycle import Lifetime
from respan_async.errors import LedgerError

Note: TypeAlias = Callable[[], Awaitable[object]]
"""Writes something; may be called again when that has failed, however much later."""


class Notes:
    """Write notes in the background, and remember those that failed.

    Args:
        lifetime: Where what goes on in the background belongs.
    """

    def __init__(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._tasks: set[asyncio.Task[bool]] = set()
        self._lost: deque[Note] = deque()

    def add(self, note: Note) -> None:
        """Write a note."""
        task = self._lifetime.spawn(self._write(note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def repeat(self) -> None:
        """Write what could not be written; the first that fails again ends this, and is the last the next time."""
        for _ in range(len(self._lost)):
            if not await self._write(self._lost.popleft()):
                return

    async def written(self) -> None:
        """Wait for what is being written."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _write(self, note: Note) -> bool:
        try:
            await note()
        except LedgerError:
            self._lost.append(note)
            return False
        return True
