"""Putting secrets where they belong, until it succeeds."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final

from respan_async._calls.lifecycle import Lifecycle, Stage, being_cancelled
from respan_async._calls.sweep import AFTER_EXPIRY, LONG_AFTER_EXPIRY
from respan_async.errors import LedgerError
from respan_async.events import logger
from respan_async.issuing.ledger import Ledger
from respan_async.models import CreatedKey

FIRST: Final = 1.0
LONGEST: Final = 60.0
"""Seconds from one attempt to deliver a secret to the next: the first pause, doubled up to the longest."""

_PAGE: Final = 100

_THEIRS: Final = 600.0
"""Seconds for which a key is left to the owner that has recorded it, if that is alive."""


class Delivery:
    """Call the user's function for a ticket's key until it succeeds or the key is dead, then erase the secret.

    Whether a key is dead is told by this machine's clock, which may be set wrong. So a secret that was not delivered is
    erased only when its key has been dead for long; until then a clock that is set right lets it be delivered.

    Args:
        deliver: The user's function, idempotent by ticket.
        ledger: Where the secrets are kept until then.
        lifecycle: Where what goes on in the background belongs.
        clock: The wall clock, aware.
    """

    def __init__(
        self,
        deliver: Callable[[str, CreatedKey], Awaitable[None]],
        ledger: Ledger,
        lifecycle: Lifecycle,
        clock: Callable[[], datetime],
    ) -> None:
        self._deliver = deliver
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[str] = set()
        self._erased: set[str] = set()  # since the last page of what was left was asked for
        self._catching_up = False
        self._unreadable: set[str] = set()  # of which the log has told
        self._stopped = False
        lifecycle.register(Stage.STOP, self._stop)

    async def deliver(self, ticket_id: str, key: CreatedKey) -> None:
        """Deliver now, if that is not under way; what fails is tried again in the background."""
        if ticket_id in self._under_way:
            return
        self._under_way.add(ticket_id)
        insist = False
        try:
            insist = not await self._once(ticket_id, key) and not self._stopped
        finally:
            if insist:
                self._spawn(self._retry(ticket_id, key))
            else:
                self._under_way.discard(ticket_id)

    def deliver_left(self) -> None:
        """Deliver, in the background, what earlier runs and others that have died have left."""
        if not self._catching_up:
            self._catching_up = True
            self._spawn(self._catch_up())

    async def aclose(self) -> None:
        """End what goes on in the background; the ledger keeps what is not delivered."""
        self._lifecycle.unregister(Stage.STOP, self._stop)
        self._stop()
        if tasks := self._others():
            await asyncio.wait(tasks)

    def _stop(self) -> None:
        self._stopped = True
        for task in self._others():
            task.cancel()

    def _others(self) -> set[asyncio.Task[None]]:
        # The user's function may close the issuer from within one of these tasks, which cannot wait for itself.
        return {task for task in self._tasks if task is not asyncio.current_task()}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._lifecycle.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _once(self, ticket_id: str, key: CreatedKey) -> bool:
        try:
            await self._deliver(ticket_id, key)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            logger.warning("ticket %r could not be delivered: CancelledError", ticket_id)
            return False
        except Exception as error:  # noqa: BLE001  the user's function; it is called again
            logger.warning("ticket %r could not be delivered: %s", ticket_id, _named(error))
            return False
        await self._erase(ticket_id)
        return True

    async def _erase(self, ticket_id: str) -> None:
        try:
            await self._ledger.erase(ticket_id)
            if self._catching_up:
                self._erased.add(ticket_id)
        except LedgerError as error:
            # Delivered all the same. The next run delivers it once more, and erases it then.
            logger.warning("the secret of ticket %r is still in the ledger: %s", ticket_id, error)

    async def _retry(self, ticket_id: str, key: CreatedKey) -> None:
        pause = FIRST
        try:
            while not self._is_dead(key, AFTER_EXPIRY):
                await asyncio.sleep(pause)
                if await self._once(ticket_id, key) or self._stopped:
                    return
                pause = min(2 * pause, LONGEST)
        finally:
            self._under_way.discard(ticket_id)
        logger.warning("ticket %r was not delivered before its key expired", ticket_id)

    async def _catch_up(self) -> None:
        try:
            await self._deliver_left()
        except LedgerError as error:
            logger.warning("what was not delivered could not be read: %s", error)
        finally:
            self._catching_up = False

    async def _deliver_left(self) -> None:
        after = ""
        while True:
            self._erased.clear()
            left = await self._ledger.undelivered(after, _PAGE, left_for=_THEIRS)
            if not left:
                return
            for ticket_id, key in left:
                after = ticket_id
                if isinstance(key, LedgerError):
                    self._tell_unreadable(ticket_id, key)
                elif self._is_dead(key, LONG_AFTER_EXPIRY):
                    await self._erase(ticket_id)
                elif ticket_id not in self._erased and not self._is_dead(key, AFTER_EXPIRY):
                    await self.deliver(ticket_id, key)

    def _tell_unreadable(self, ticket_id: str, error: LedgerError) -> None:
        if ticket_id not in self._unreadable:
            self._unreadable.add(ticket_id)
            logger.warning("%s; it is left as it is", error)

    def _is_dead(self, key: CreatedKey, since: timedelta) -> bool:
        """Whether a key has expired that long ago, by this machine's clock."""
        return key.expiry_date is not None and key.expiry_date + since <= self._clock()


def _named(error: Exception) -> str:
    """Name an error without its text, which may hold the secret, unless that is the system's own for its number."""
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        known = os.strerror(error.errno)
        return f"{name}: {known}" if error.strerror == known else name
    return name
