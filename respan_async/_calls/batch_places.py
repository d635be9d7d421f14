"""Bounds how many items of a batch are being worked on, or have outcomes that the caller has not taken."""

import asyncio
from collections import deque


class Places:
    """Give a place to each worker that works; the caller passes the place on when it takes the outcome.

    This is not a semaphore, because asyncio's goes through all waiters at each release, which costs 3 µs a key.

    Args:
        number: The number of places.
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
        """Pass a place on to a waiting worker; if none waits, the place is free."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def wake_all(self) -> None:
        """Wake all waiting workers, because the batch has ended."""
        while self._waiters:
            self.leave()
