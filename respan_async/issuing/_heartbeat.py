"""Keeps an owner's lease with a heartbeat, and knows without asking the store whether it holds."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from respan_async._arguments import is_number, shown
from respan_async._suspend_clock import elapsed
from respan_async.errors import ConfigurationError, LedgerError


class LeaseKeeper:
    """Hold an owner's lease as long as it beats.

    After the machine slept, every lease is over, also those of healthy processes. So a process that was away for longer
    than two beats gives the others as long to wake, before it treats them as gone.

    Args:
        lease: Seconds that a lease lasts.
        renew: Prolongs the existing lease; returns whether there is one.
        register_owner: Makes another owner, with a lease.
        reclaim_owners: Takes over what dead owners have left.

    Raises:
        ConfigurationError: `lease` is not above 0 and finite.

    Attributes:
        until: The earliest time at which the lease ends, by `_suspend_clock.elapsed()`.
    """

    def __init__(
        self,
        lease: float,
        renew: Callable[[], Awaitable[bool]],
        register_owner: Callable[[], Awaitable[None]],
        reclaim_owners: Callable[[], Awaitable[None]],
    ) -> None:
        if not is_number(lease) or not 0 < lease < float("inf"):
            raise ConfigurationError(f"lease: expected seconds above 0, got {shown(lease)}")
        self.until = 0.0
        self._since = 0.0
        self._lease = lease
        self._renew = renew
        self._register_owner = register_owner
        self._reclaim_owners = reclaim_owners
        self._beaten = 0.0
        self._patient_until = 0.0
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take a lease, take over what others have left, and keep beating.

        Raises:
            LedgerError: The store cannot do it.
        """
        await self._hold()
        await self._reclaim_owners()
        self._begin()

    async def resume(self) -> None:
        """Take a lease again on another event loop, after the previous one was closed, and keep beating.

        Raises:
            LedgerError: The store cannot do it.
        """
        self.leave_loop()
        await self._hold()
        if not self.others_may_wake():
            await self._reclaim_owners()
        self._begin()

    def leave_loop(self) -> None:
        """Forget the heartbeat of a closed event loop."""
        self._beating = None

    def _begin(self) -> None:
        self._beaten = elapsed()
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    def cancel(self) -> None:
        """Stop beating; the lease ends by itself."""
        if self._beating is not None:
            self._beating.cancel()

    def stop(self) -> None:
        """Stop beating, and hold no claim from now on."""
        self.until = 0.0
        self.cancel()

    def lease_held_since(self, since: float) -> bool:
        """Whether the claims have held without a break since a time of `time.monotonic()`."""
        return self._since <= since and elapsed() < self.until

    @property
    def seconds_left(self) -> float:
        """The least seconds that the lease will last."""
        return self.until - elapsed()

    def others_may_wake(self) -> bool:
        """Whether this process was away until just now, so that others may have been away as well."""
        now = elapsed()
        if now - self._beaten > self._lease / 2:
            self._patient_until = now + self._lease / 2
        return now < self._patient_until

    async def _beat(self) -> None:
        """Prolong the lease, well before it ends, and take over what others have left since."""
        while True:
            await asyncio.sleep(self._lease / 4)
            # A ledger that cannot be written now may be writable again before the lease ends.
            with contextlib.suppress(LedgerError):
                await self._hold()
                patient = self.others_may_wake()  # asked before this beat counts
                self._beaten = elapsed()
                if not patient:
                    await self._reclaim_owners()

    async def _hold(self) -> None:
        """Take a lease: prolong the existing one, or make another owner."""
        asked = elapsed()
        if not await self._renew():
            # The first lease; or others took the last one, with all its claims, while this process was stopped.
            await self._register_owner()
            # Attempts noted while registration was in progress belong to the old owner, so count from here.
            self._since = time.monotonic()
        elif elapsed() >= self.until:
            # The lease may have ended before, and other owners may have taken over single tickets.
            self._since = time.monotonic()
        self.until = asked + self._lease
