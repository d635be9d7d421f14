"""Putting secrets where they belong, until it succeeds."""

import asyncio
import errno
import inspect
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import attrs

from respan_async._arguments import is_number, shown
from respan_async._calls.lifecycle import Lifecycle, Stage
from respan_async._calls.sweep import AFTER_EXPIRY, LONG_AFTER_EXPIRY
from respan_async.errors import ConfigurationError, LedgerError
from respan_async.events import logger
from respan_async.issuing.ledger import Ledger, UnreadableSecret
from respan_async.issuing.states import TicketState
from respan_async.models import CreatedKey

FIRST: Final = 1.0
LONGEST: Final = 60.0
"""Seconds from one attempt to deliver a secret to the next: the first pause, doubled up to the longest."""

_LAST_MOMENT: Final = 1.0
"""Seconds for which a call that was cancelled is waited for."""

_PAGE: Final = 100

_THEIRS: Final = 600.0
"""Seconds for which a key is left to the owner that has recorded it, if that is alive."""


@attrs.frozen(kw_only=True)
class DeliverySettings:
    """How much is delivered at a time, and how long that may take.

    Attributes:
        max_deliveries: Calls of the user's function at a time.
        deliver_timeout: Seconds that one may take; None for any number.
        max_undelivered: Keys that could not be delivered, of which a batch makes no more; None for any number.

    Raises:
        ConfigurationError: One of them is not that.
    """

    max_deliveries: int
    deliver_timeout: float | None
    max_undelivered: int | None

    def __attrs_post_init__(self) -> None:
        for name in ("max_deliveries", "max_undelivered"):
            count = getattr(self, name)
            optional = name == "max_undelivered" and count is None
            if not optional and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
                raise ConfigurationError(f"{name}: expected a whole number, 1 or more, got {shown(count)}")
        seconds = self.deliver_timeout
        if seconds is not None and (not is_number(seconds) or not 0 < seconds < float("inf")):
            raise ConfigurationError(f"deliver_timeout: expected seconds above 0, or None, got {shown(seconds)}")


@attrs.frozen
class _Failure:
    """Why a call of the user's function failed.

    Attributes:
        reason: In a few words, without the secret.
        final: The place refuses this key for good: calling again would not help.
    """

    reason: str
    final: bool = False


class Delivery:
    """Call the user's function for a ticket's key until it succeeds or the key is dead, then erase the secret.

    Whether a key is dead is told by this machine's clock, which may be set wrong. So a secret that was not delivered is
    erased only when its key has been dead for long; until then a clock that is set right lets it be delivered.

    Each call of `deliver` runs in a task of its own, because it may heed neither its time nor its cancellation. What
    waits for it goes on then, and the ticket is left alone until it has ended.

    Args:
        deliver: The user's function, idempotent by ticket.
        ledger: Where the secrets are kept until then.
        lifecycle: Where what goes on in the background belongs.
        clock: The wall clock, aware.
        settings: How many, and for how long.
    """

    def __init__(
        self,
        deliver: Callable[[str, CreatedKey], Awaitable[None]],
        ledger: Ledger,
        lifecycle: Lifecycle,
        clock: Callable[[], datetime],
        settings: DeliverySettings,
    ) -> None:
        self._deliver = deliver
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._clock = clock
        self._settings = settings
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: dict[str, asyncio.Task[_Failure | None]] = {}  # of the user's function, by ticket
        self._free = asyncio.Semaphore(settings.max_deliveries)
        self._under_way: set[str] = set()
        self._failed: set[str] = set()  # tickets that are tried again in the background, each with its secret
        self._cut: dict[str, None] = {}  # tickets whose delivery ended with its event loop
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._erased: set[str] = set()  # since what was left began to be looked through
        self._catching_up = False
        self._unreadable: set[str] = set()  # of which the log has told
        self._stopped = False
        lifecycle.register(Stage.STOP, self._stop)

    async def deliver(self, ticket_id: str, key: CreatedKey) -> bool:
        """Deliver now, if that is not under way; what fails is tried again in the background.

        Returns:
            Whether it was delivered now.
        """
        if ticket_id in self._under_way:
            return False
        self._under_way.add(ticket_id)
        return await self._deliver_first(ticket_id, key)

    async def room(self) -> None:
        """Wait until less is undelivered than may be."""
        await self._has_room.wait()

    def deliver_left(self) -> None:
        """Deliver, in the background, what earlier runs and others that have died have left."""
        if not self._catching_up:
            self._catching_up = True
            self._spawn(self._catch_up())

    def arrive(self) -> None:
        """Begin anew on the next event loop; what was under way on the one before, which is closed, is made again."""
        self._cut |= dict.fromkeys((*self._under_way, *self._failed))
        self._tasks.clear()
        self._calls.clear()
        self._under_way.clear()
        self._failed.clear()
        self._free = asyncio.Semaphore(self._settings.max_deliveries)
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._catching_up = False

    async def aclose(self) -> None:
        """End what goes on, within a moment; the ledger keeps what is not delivered."""
        self._lifecycle.unregister(Stage.STOP, self._stop)
        self._stop()
        for call in (calls := self._others(self._calls.values())):
            call.cancel()
        # Calls that heed their cancellation end within it. What does not, cannot be ended.
        if tasks := self._others(self._tasks) | calls:
            await asyncio.wait(tasks, timeout=_LAST_MOMENT)
        if deaf := sum(not call.done() for call in calls):
            logger.warning("%d calls of `deliver` go on though they were cancelled", deaf)

    def _stop(self) -> None:
        self._stopped = True
        self._has_room.set()
        for task in self._others(self._tasks):
            task.cancel()

    def _others(self, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        # The user's function may close the issuer from within one of these tasks, which cannot wait for itself.
        return set(tasks) - {asyncio.current_task(), self._lifecycle.acting_task()}

    def _spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        task = self._lifecycle.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _deliver_first(self, ticket_id: str, key: CreatedKey) -> bool:
        insist = delivered = False
        try:
            failure = await self._once(ticket_id, key)
            delivered = failure is None
        except (asyncio.CancelledError, GeneratorExit):
            self._cut[ticket_id] = None
            raise
        else:
            # Beyond what may be undelivered, it is left to the ledger, and delivered from there.
            insist = failure is not None and not failure.final and not self._stopped and self._has_room.is_set()
        finally:
            if insist:
                self._note_failed(ticket_id)
                self._spawn(self._retry(ticket_id, key)).add_done_callback(partial(self._note_over, ticket_id))
            else:
                self._under_way.discard(ticket_id)
        return delivered

    def _note_failed(self, ticket_id: str) -> None:
        self._failed.add(ticket_id)
        most = self._settings.max_undelivered
        if most is not None and len(self._failed) >= most:
            self._has_room.clear()
            logger.warning("%d keys could not be delivered yet: batches wait until some are", most)

    def _note_over(self, ticket_id: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._cut[ticket_id] = None
        self._under_way.discard(ticket_id)
        self._failed.discard(ticket_id)
        self._has_room.set()

    async def _once(self, ticket_id: str, key: CreatedKey) -> _Failure | None:
        failure = await self._call(ticket_id, key)
        if failure is None:
            await self._erase(ticket_id)
        else:
            logger.warning("ticket %r could not be delivered: %s", ticket_id, failure.reason)
        return failure

    async def _call(self, ticket_id: str, key: CreatedKey) -> _Failure | None:
        """Call the user's function; return None, or why it has failed."""
        late = False
        async with self._free:
            call = self._calls.get(ticket_id)
            if call is None:  # or the one before, which did not heed its cancellation
                call = self._calls[ticket_id] = self._lifecycle.delegate(self._invoke(ticket_id, key))
                call.add_done_callback(lambda _: self._calls.pop(ticket_id, None))
            try:
                await asyncio.wait({call}, timeout=self._settings.deliver_timeout)
                if late := not call.done():
                    call.cancel()
                    await asyncio.wait({call}, timeout=_LAST_MOMENT)
            except asyncio.CancelledError:
                call.cancel()
                raise
        if not call.done() or (late and call.cancelled()):
            return _Failure(f"no end within {self._settings.deliver_timeout:g} s")
        if call.cancelled():
            return _Failure("CancelledError")
        return call.result()

    async def _invoke(self, ticket_id: str, key: CreatedKey) -> _Failure | None:
        """Call it, and return why it failed: not as an exception, whose text asyncio would log with the task."""
        try:
            result: object = self._deliver(ticket_id, key)
            if inspect.isawaitable(result):
                await result
            elif result is not None:  # a generator, or a future of a thread: it has not been done
                return _Failure(f"it returned a {type(result).__name__}")
        except LedgerError as error:  # this library's own, which shows no secret
            return _Failure(str(error), final=not error.retryable)
        except Exception as error:  # noqa: BLE001  the user's function; it is called again
            return _Failure(_named(error))
        return None

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
        while not self._is_dead(key, AFTER_EXPIRY):
            await asyncio.sleep(pause)
            failure = await self._once(ticket_id, key)
            if failure is None or failure.final or self._stopped:
                return
            pause = min(2 * pause, LONGEST)
        logger.warning("ticket %r was not delivered before its key expired", ticket_id)

    async def _catch_up(self) -> None:
        try:
            await self._deliver_cut()
            await self._deliver_left()
        except LedgerError as error:
            logger.warning("what was not delivered could not be read: %s", error)
        finally:
            self._catching_up = False

    async def _deliver_cut(self) -> None:
        """Deliver what was under way on an event loop that has ended: others leave it to this owner."""
        while self._cut:
            ticket_id, _ = self._cut.popitem()
            try:
                record = await self._ledger.find(ticket_id)
            except LedgerError as error:
                if error.retryable:
                    self._cut[ticket_id] = None
                    raise
                self._tell_unreadable(ticket_id, error)
                continue
            if record is None or record.key is None or record.state is not TicketState.ISSUED:
                continue
            await self.room()
            if ticket_id not in self._under_way and not self._is_dead(record.key, AFTER_EXPIRY):
                self._under_way.add(ticket_id)
                self._spawn(self._deliver_first(ticket_id, record.key))

    async def _deliver_left(self) -> None:
        """Go through what is left, with so many deliveries at a time: one that hangs holds none of the others."""
        after = ""
        running: set[asyncio.Task[Any]] = set()
        self._erased.clear()
        while left := await self._ledger.undelivered(after, _PAGE, left_for=_THEIRS):
            for ticket_id, key in left:
                after = ticket_id
                if self._is_dead(key, LONG_AFTER_EXPIRY):
                    await self._erase(ticket_id)
                    continue
                if isinstance(key, LedgerError):
                    self._tell_unreadable(ticket_id, key)
                    continue
                if len(running) >= self._settings.max_deliveries:
                    _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await self.room()
                elsewhere = ticket_id in self._under_way or ticket_id in self._erased
                if not elsewhere and not self._is_dead(key, AFTER_EXPIRY):
                    self._under_way.add(ticket_id)
                    running.add(self._spawn(self._deliver_first(ticket_id, key)))

    def _tell_unreadable(self, ticket_id: str, error: LedgerError) -> None:
        if ticket_id not in self._unreadable:
            self._unreadable.add(ticket_id)
            logger.warning("%s; it is left as it is", error)

    def _is_dead(self, key: CreatedKey | LedgerError, since: timedelta) -> bool:
        """Whether a key has expired that long ago, by this machine's clock; as far as that is known."""
        expiry_date = key.expiry_date if isinstance(key, CreatedKey | UnreadableSecret) else None
        return expiry_date is not None and expiry_date <= self._clock() - since


def _named(error: Exception) -> str:
    """Name an error without its text, which may hold the secret, unless that is the system's own for its number."""
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        known = os.strerror(error.errno)
        return f"{name}: {known}" if error.strerror == known else name
    return name
