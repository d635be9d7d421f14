"""A ledger on a machine whose clock can be set, and a ledger with something that happens at one of its operations."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from respan_async.issuing import AESGCMCipher, Ledger, LedgerError, SQLiteLedger
from respan_async.issuing.sqlite._session import Session


class Clock:
    """A wall clock that can be set; the server's is another, and right."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def wall(self) -> datetime:
        """Tell the time as Python has it."""
        return datetime.now(UTC) + self.offset

    def julian(self, _: str) -> float:
        """Tell the time as SQLite has it."""
        return (time.time() + self.offset.total_seconds()) / 86_400 + 2_440_587.5


class ClockedSession(Session):
    """The use of a file on a machine whose clock can be set."""

    def __init__(self, path: Path, clock: Clock, lease: float) -> None:
        super().__init__(path, lease)
        self._clock = clock

    def _check_account(self, connection: Any, account: str, force: bool) -> None:
        connection.create_function("julianday", 1, self._clock.julian)
        super()._check_account(connection, account, force)

    async def read(self, work: Any) -> Any:
        return await self.write(work)  # a connection beside it would ask the machine's clock


class ClockedLedger(SQLiteLedger):
    """A ledger in a file, on a machine whose clock can be set."""

    def __init__(
        self, path: str | Path, clock: Clock, cipher: AESGCMCipher | None = None, *, lease: float = 30.0
    ) -> None:
        super().__init__(path, cipher, lease=lease)
        self._session = ClockedSession(Path(path), clock, lease)


class SteppedLedger:
    """A ledger with something that happens before or after one of its operations.

    Args:
        ledger: The real one.

    Attributes:
        steps: How many there were.
        reached: The name of the step at which it happened.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.steps = 0
        self.reached = ""
        self._at = -1
        self._act: Callable[[str], Awaitable[None] | None] = lambda _: None

    def interrupt(self, at: int, act: Callable[[str], Awaitable[None] | None]) -> None:
        """Let something happen so many steps from now."""
        self._at = self.steps + at
        self._act = act

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        return method if name == "lease_held_since" else partial(self._operate, name, method)

    async def _operate(self, name: str, method: Callable[..., Awaitable[Any]], *values: Any, **named: Any) -> Any:
        await self._step(f"before {name}")
        result = await method(*values, **named)
        try:
            await self._step(f"after {name}")
        except LedgerError:
            if name == "open":
                await self._ledger.aclose()  # as one that could not be opened is not open
            raise
        return result

    async def _step(self, name: str) -> None:
        self.steps += 1
        if self.steps == self._at + 1:
            self.reached = name
            if (waiting := self._act(name)) is not None:
                await waiting
