"""The places of a batch: how many items may be worked on or wait to be taken at the same time."""

import asyncio
from collections import deque


class Places:
    """Give places to workers, and take them back when an outcome was taken.

    No semaphore: asyncio's goes through all who wait whenever it is released, which costs 3 µs a key.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take_at_once(self) -> bool:
        """Take a place, if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Wait until a place is passed on to this worker, or the batch wakes all workers."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def leave(self) -> None:
        """Pass a place on to a worker that waits, or have one more that is free."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def wake_all(self) -> None:
        """Wake all workers that wait, because there is nothing left to do."""
        while self._waiters:
            self.leave()
