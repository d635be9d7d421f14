"""Keeps a queue of waiting calls for each class of priority, and decides which class is next."""

from collections.abc import Iterator
from typing import Final

from respan_async._pacing.priority import Priority
from respan_async._pacing.wait_queue import Waiter, WaitQueue

_PASSED_OVER: Final = 19


class PriorityQueues:
    """Queue the waiting calls by class. A class that was passed over 19 times in a row is next."""

    def __init__(self) -> None:
        self._queues: tuple[WaitQueue, ...] = tuple(WaitQueue() for _ in Priority)
        self._passed_over = [0] * len(Priority)

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return any(self._queues)

    def waiting(self, priority: Priority) -> int:
        """Return the number of waiting calls of a class."""
        return len(self._queues[priority])

    def waiting_up_to(self, priority: Priority) -> int:
        """Return the number of waiting calls of a class and of those before it."""
        return sum(map(len, self._queues[: priority + 1]))

    def waiting_below(self) -> int:
        """Return the number of waiting calls of the classes below the interactive one."""
        return len(self._queues[Priority.BATCH]) + len(self._queues[Priority.SWEEP])

    def join(self, priority: Priority, waiter: Waiter) -> None:
        """Wait in a class."""
        self._queues[priority].join(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out of its queue."""
        for queue in self._queues:
            queue.leave(waiter)

    def promote(self, caller: object, priority: Priority) -> bool:
        """Move a call that waits in a lower class to this one; return whether it waited in one."""
        for queue in self._queues[priority + 1 :]:
            if (waiter := queue.find(caller)) is not None:
                queue.leave(waiter)
                self._queues[priority].join(waiter)
                return True
        return False

    def class_of(self, waiter: Waiter) -> Priority:
        """Return the class in which it waits."""
        return next(priority for priority in Priority if waiter in self._queues[priority])

    def pop(self, priority: Priority) -> Waiter:
        """Take out the next waiter of a class."""
        return self._queues[priority].pop()

    def pop_all(self, below: int) -> Iterator[Waiter]:
        """Take out all waiters of the classes before `below`."""
        for queue in self._queues[:below]:
            while queue:
                yield queue.pop()

    def by_turn(self) -> list[Priority]:
        """Return the classes in which calls wait, in their order."""
        return sorted(
            (priority for priority in Priority if self._queues[priority]),
            key=lambda priority: (not self.is_overdue(priority), priority),
        )

    def is_overdue(self, priority: Priority) -> bool:
        """Whether a class was passed over so often that it is its turn."""
        return self._passed_over[priority] >= _PASSED_OVER

    def note_granted(self, priority: Priority) -> None:
        """Note that a class got a slot, and that the lower classes in which calls wait were passed over."""
        self._passed_over[priority] = 0
        for lower in range(priority + 1, len(Priority)):
            if self._queues[lower]:
                self._passed_over[lower] += 1

    def clear(self) -> None:
        """Forget all waiters."""
        self._queues = tuple(WaitQueue() for _ in Priority)
