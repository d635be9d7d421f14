"""The queue of calls that wait for a slot, in one class."""

import asyncio
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

import attrs

from respan_async._pacing.slots import Slot


@attrs.define(eq=False)
class Waiter:
    """A call that waits for a slot.

    Attributes:
        granted: Set when a slot is granted.
        asked_at: When it began to wait.
        since: When the call began to wait for its first slot; None while it waits for its first.
        caller: The call.
    """

    granted: "asyncio.Future[Slot]"
    asked_at: float
    since: float | None = None
    caller: object = None


class WaitQueue:
    """First come, first served; a call that was refused keeps its place."""

    def __init__(self) -> None:
        self._new: OrderedDict[Waiter, None] = OrderedDict()
        self._back: list[Waiter] = []

    def join(self, waiter: Waiter) -> None:
        """Join the queue; a call that has been granted a slot before goes before all newcomers."""
        if waiter.since is None:
            self._new[waiter] = None
        else:
            insort(self._back, waiter, key=lambda other: other.since or 0.0)

    def leave(self, waiter: Waiter) -> None:
        """Leave the queue."""
        if waiter in self._new:
            del self._new[waiter]
        elif waiter in self._back:
            self._back.remove(waiter)

    def pop(self) -> Waiter:
        """Remove and return the next waiter."""
        return self._back.pop(0) if self._back else self._new.popitem(last=False)[0]

    def find(self, caller: object) -> Waiter | None:
        """Return the waiter of a call, if it is in the queue."""
        return next((waiter for waiter in self if waiter.caller is caller), None)

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def __iter__(self) -> Iterator[Waiter]:
        yield from self._back
        yield from self._new
