"""What keeps an owner's claims: a lease, prolonged by a heartbeat, and known without asking the store."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from respan_async._arguments import is_number, shown
from respan_async._suspend_clock import elapsed
from respan_async.errors import ConfigurationError, LedgerError


class LeaseKeeper:
    """Hold an owner's lease for as long as it beats.

    After a sleep of the machine every lease is over, those of healthy processes too. So a process that was away for
    longer than the time of two beats gives the others as long to wake, before it takes them for gone.

    Args:
        lease: Seconds that a lease lasts.
        renew: Prolongs the lease there is; returns whether there is one.
        register_owner: Makes another owner, with a lease.
        reclaim_owners: Takes over what owners have left that are gone.

    Raises:
        ConfigurationError: `lease` is not above 0 and finite.

    Attributes:
        until: When the lease ends, by `_suspend_clock.elapsed()`, at the earliest.
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
        """Have a lease, take over what others have left, and go on doing so.

        Raises:
            LedgerError: The store cannot do it.
        """
        await self._hold()
        await self._reclaim_owners()
        self._begin()

    async def resume(self) -> None:
        """Have a lease again on another event loop, after the one before was closed, and go on beating.

        Raises:
            LedgerError: The store cannot do it.
        """
        self.leave_loop()
        await self._hold()
        if not self.others_may_wake():
            await self._reclaim_owners()
        self._begin()

    def leave_loop(self) -> None:
        """Forget the beating of an event loop that is closed."""
        self._beating = None

    def _begin(self) -> None:
        self._beaten = elapsed()
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    def cancel(self) -> None:
        """Beat no more; the lease ends by itself."""
        if self._beating is not None:
            self._beating.cancel()

    def stop(self) -> None:
        """Beat no more, and hold nothing from now on."""
        self.until = 0.0
        self.cancel()

    def lease_held_since(self, since: float) -> bool:
        """Whether the claims have held all the time since then, which is one of `time.monotonic()`."""
        return self._since <= since and elapsed() < self.until

    @property
    def seconds_left(self) -> float:
        """How long the lease lasts from now on, at the least."""
        return self.until - elapsed()

    def others_may_wake(self) -> bool:
        """Whether this process was away until a moment ago, so that others may have been so as well."""
        now = elapsed()
        if now - self._beaten > self._lease / 2:
            self._patient_until = now + self._lease / 2
        return now < self._patient_until

    async def _beat(self) -> None:
        """Prolong the lease, well before it ends, and take over what others have left since."""
        while True:
            await asyncio.sleep(self._lease / 4)
            # A ledger that cannot be written now may be again before the lease ends.
            with contextlib.suppress(LedgerError):
                await self._hold()
                patient = self.others_may_wake()  # before this beat is one
                self._beaten = elapsed()
                if not patient:
                    await self._reclaim_owners()

    async def _hold(self) -> None:
        """Have a lease from now on: the one there is, prolonged, or another."""
        asked = elapsed()
        if not await self._renew():
            # The first, or one that others took away while this process was stopped, with all its claims.
            await self._register_owner()
            self._since = time.monotonic()  # what was intended while this was asked is the old owner's
        elif elapsed() >= self.until:
            self._since = time.monotonic()  # it may have ended first, and single tickets have been taken over
        self.until = asked + self._lease
