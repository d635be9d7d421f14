"""Passes the outcomes of a batch from its workers to the caller that iterates over them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from respan_async.models import CreatedKey
from respan_async.outcomes import Failed, Issued

Item = TypeVar("Item")


class OutcomeQueue(Generic[Item]):
    """Keep outcomes until the caller takes them.

    Args:
        discard: Called with a key that was made, but whose outcome the caller never takes.
        ordered: Give outcomes in the order of their items.
    """

    def __init__(self, discard: Callable[[CreatedKey], None], *, ordered: bool) -> None:
        self._discard = discard
        self._ordered = ordered
        self._ready: deque[Issued[Item] | Failed[Item]] = deque()
        # With `ordered`, the outcomes that come before their turn.
        self._early: dict[int, Issued[Item] | Failed[Item]] = {}
        self._next = 0
        self._waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        """Whether an outcome can be taken now."""
        return bool(self._ready)

    def put(self, outcome: Issued[Item] | Failed[Item]) -> None:
        """Add an outcome."""
        if self._ordered:
            self._early[outcome.index] = outcome
            while self._next in self._early:
                self._ready.append(self._early.pop(self._next))
                self._next += 1
        else:
            self._ready.append(outcome)
        if self._ready:
            self.wake()

    def take(self) -> Issued[Item] | Failed[Item]:
        """Take the next outcome."""
        return self._ready.popleft()

    async def wait(self) -> None:
        """Wait for an outcome, or for `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let the waiting callers look again."""
        while self._waiters:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    def close_gaps(self) -> None:
        """Release the outcomes after an item without an outcome, because with `ordered` they would wait for ever."""
        self._ready.extend(self._early.pop(index) for index in sorted(self._early))

    def throw_away(self, outcome: Issued[Item] | Failed[Item]) -> None:
        """Discard the key of an outcome that the caller never takes."""
        if isinstance(outcome, Issued) and not outcome.replayed:
            self._discard(outcome.key)

    def throw_all_away(self) -> None:
        """Discard the keys of all outcomes that the caller has not taken."""
        while self._ready or self._early:
            self.throw_away(self._ready.popleft() if self._ready else self._early.popitem()[1])
