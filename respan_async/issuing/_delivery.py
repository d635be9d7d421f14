"""Delivers secrets: calls the user's function for each ticket until it succeeds."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from respan_async._calls.lifecycle import Lifecycle, Stage
from respan_async._calls.sweep_policy import AFTER_EXPIRY, LONG_AFTER_EXPIRY
from respan_async.errors import LedgerError
from respan_async.events import logger
from respan_async.issuing._deliver_calls import LAST_MOMENT, DeliverCall, DeliverCalls, Failure
from respan_async.issuing._delivery_settings import DeliverySettings
from respan_async.issuing.ledger import Ledger, UnreadableSecret
from respan_async.issuing.states import TicketState
from respan_async.models import CreatedKey

T = TypeVar("T")

FIRST: Final = 1.0
LONGEST: Final = 60.0
"""The longest pause between two attempts to deliver a secret; the first pause is doubled up to it."""

_PAGE: Final = 100

_THEIRS: Final = 600.0
"""Seconds for which a live owner alone delivers a key that it has recorded."""


_UNDER_WAY: Final = Failure("it is under way")


class Delivery:
    """Call the user's function for a ticket's key until it succeeds or the key is dead, then erase the secret.

    Whether a key is dead is judged by this machine's clock, which may be wrong. So an undelivered secret is erased only
    when its key has been dead for long; until then, once the clock is corrected, the secret can be delivered.

    Args:
        deliver: The user's function, idempotent by ticket.
        ledger: The ledger, which keeps the secrets until they are delivered.
        lifecycle: The lifecycle of the client, which runs the tasks.
        clock: The wall clock, aware.
        settings: The limits of delivery.
    """

    def __init__(
        self,
        deliver: Callable[[str, CreatedKey], Awaitable[None]],
        ledger: Ledger,
        lifecycle: Lifecycle,
        clock: Callable[[], datetime],
        settings: DeliverySettings,
    ) -> None:
        self._ledger = ledger
        self._lifecycle = lifecycle
        self._clock = clock
        self._settings = settings
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls = DeliverCalls(deliver, lifecycle, settings.max_deliveries, settings.deliver_timeout)
        self._awaited_by: WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None] = WeakKeyDictionary()
        self._under_way: set[str] = set()
        self._failed: set[str] = set()  # tickets that are tried again in the background, each with its secret
        self._cut: dict[str, None] = {}  # tickets whose delivery ended with its event loop
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._erased: set[str] = set()  # tickets whose secrets were erased since the current catch-up began
        self._catching_up = False
        self._told: set[str] = set()  # tickets that the log has named
        self._stopped = False
        lifecycle.register(Stage.STOP, self._stop)

    async def deliver(self, ticket_id: str, key: CreatedKey, *, patient: bool) -> bool:
        """Deliver now, unless a delivery is under way; if it fails, try again in the background.

        Args:
            ticket_id: The ticket.
            key: Its key.
            patient: Whether to wait without a limit; if False, wait for `deliver_timeout` at most, after which the
                delivery goes on in the background.

        Returns:
            Whether the key was delivered now.
        """
        if ticket_id in self._under_way:
            return False
        self._under_way.add(ticket_id)
        patience = None if patient else self._settings.deliver_timeout
        return await self._deliver_first(ticket_id, key, first=True, patience=patience)

    async def room(self) -> None:
        """Wait until fewer keys than `max_undelivered` are undelivered."""
        await self._has_room.wait()

    def deliver_left(self) -> None:
        """Deliver, in the background, the secrets that earlier runs and dead processes have not delivered."""
        if not self._catching_up:
            self._catching_up = True
            self._spawn(self._catch_up())

    def arrive(self) -> None:
        """Begin anew on the next event loop; deliveries that were under way on the closed loop are repeated."""
        self._cut |= dict.fromkeys((*self._under_way, *self._failed))
        self._tasks.clear()
        self._calls.arrive()
        self._awaited_by.clear()
        self._under_way.clear()
        self._failed.clear()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._catching_up = False

    async def aclose(self) -> None:
        """Stop within a moment; the ledger keeps undelivered secrets."""
        self._lifecycle.unregister(Stage.STOP, self._stop)
        self._stop()
        for call in (calls := self._others(self._calls.tasks)):
            call.cancel()
        # Calls that heed their cancellation end within `LAST_MOMENT`. The others cannot be ended.
        if tasks := self._others(self._tasks) | calls:
            await asyncio.wait(tasks, timeout=LAST_MOMENT)
        if deaf := sum(not call.done() for call in calls):
            logger.warning("%d calls of `deliver` go on though they were cancelled", deaf)

    def _stop(self) -> None:
        self._stopped = True
        self._has_room.set()
        for task in self._others(self._tasks):
            task.cancel()

    def _others(self, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        # The user's function may close the issuer from within one of these tasks, which cannot wait for itself.
        current = asyncio.current_task()
        return set(tasks) - {
            current,
            self._lifecycle.tasks.acting_task(),
            self._awaited_by.get(current) if current else None,
        }

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._note(self._lifecycle.tasks.spawn(work))

    def _note(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _deliver_first(
        self, ticket_id: str, key: CreatedKey, *, first: bool = False, patience: float | None = None
    ) -> bool:
        insist = delivered = False
        call: DeliverCall | None = None
        failure: Failure | None = _UNDER_WAY
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    call = await self._calls.begin(ticket_id, key, first=first)
                    await call.wait()
            if call is not None and call.is_over:
                failure = await self._settle(ticket_id, call)
            delivered = failure is None
        except (asyncio.CancelledError, GeneratorExit):
            self._cut[ticket_id] = None
            raise
        else:
            # Beyond `max_undelivered`, only the ledger keeps the key, and a later catch-up delivers it.
            insist = failure is not None and not failure.final and not self._stopped and self._has_room.is_set()
        finally:
            if insist:
                self._go_on(ticket_id, key, call, is_first=failure is _UNDER_WAY)
            else:
                self._under_way.discard(ticket_id)
                if call is not None:
                    call.drop()
        return delivered

    def _go_on(self, ticket_id: str, key: CreatedKey, call: DeliverCall | None, *, is_first: bool) -> None:
        """Go on with a delivery in the background."""
        self._note_failed(ticket_id)
        begun = call if is_first else None
        work = self._retry(ticket_id, key, begun, is_first=is_first)
        # A call that is under way acts for the task that began it. A delegate awaits it from now on, and not another of
        # the client's background tasks: if `deliver` closes the client from within, closing would wait for that task.
        task = self._spawn(work) if begun is None else self._note(self._lifecycle.tasks.delegate(work))
        task.add_done_callback(partial(self._note_over, ticket_id, begun))

    def _note_failed(self, ticket_id: str) -> None:
        self._failed.add(ticket_id)
        most = self._settings.max_undelivered
        if most is not None and len(self._failed) >= most:
            self._has_room.clear()
            logger.warning("%d keys could not be delivered yet: batches wait until some are", most)

    def _note_over(self, ticket_id: str, begun: DeliverCall | None, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._cut[ticket_id] = None
            if begun is not None:  # no task awaits this call if the task was cancelled before its first step
                begun.drop()
        self._under_way.discard(ticket_id)
        self._failed.discard(ticket_id)
        self._has_room.set()

    async def _settle(self, ticket_id: str, call: DeliverCall) -> Failure | None:
        failure = await call.end()
        if failure is None:
            await self._erase(ticket_id)
        else:
            logger.warning("ticket %r could not be delivered: %s", ticket_id, failure.reason)
        return failure

    async def _erase(self, ticket_id: str) -> bool:
        """Erase a secret; return whether it was erased."""
        try:
            await self._ledger.erase(ticket_id)
            if self._catching_up:
                self._erased.add(ticket_id)
            return True
        except LedgerError as error:
            # The key was delivered, but its secret is not erased: the next run delivers it once more, and erases it.
            logger.warning("the secret of ticket %r is still in the ledger: %s", ticket_id, error)
            return False

    async def _retry(self, ticket_id: str, key: CreatedKey, begun: DeliverCall | None, *, is_first: bool) -> None:
        """Call the user's function until it succeeds, or the key is dead.

        Args:
            ticket_id: The ticket.
            key: Its key.
            begun: A call that is under way; None if there is none.
            is_first: Whether no call has failed yet.
        """
        pause, call = FIRST, begun
        while call is not None or not self._is_dead(key, AFTER_EXPIRY):  # a begun call holds a place until it ends
            if call is None:
                if not is_first:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST)
                call = await self._calls.begin(ticket_id, key, first=is_first)
            self._awaited_by[call.task] = asyncio.current_task()
            failure = await self._settle(ticket_id, call)
            if failure is None or failure.final or self._stopped:
                return
            call, is_first = None, False
        logger.warning("ticket %r was not delivered before its key expired", ticket_id)

    async def _catch_up(self) -> None:
        try:
            await self._deliver_cut()
            await self._deliver_left()
        except LedgerError as error:
            logger.warning("what was not delivered could not be read: %s", error)
        except Exception as error:  # noqa: BLE001  no caller awaits this task, and a later catch-up tries again
            logger.warning("what was not delivered could not be looked through: %s", type(error).__name__)
        finally:
            self._catching_up = False

    async def _deliver_cut(self) -> None:
        """Repeat the deliveries that the end of an event loop cut off, because other owners leave them to this one."""
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
        """Deliver undelivered secrets, several at a time, so that one hanging delivery does not hold up the others."""
        after = ""
        running: set[asyncio.Task[Any]] = set()
        self._erased.clear()
        while left := await self._ledger.undelivered(after, _PAGE, left_for=_THEIRS):
            for ticket_id, key in left:
                after = ticket_id
                if self._is_dead(key, LONG_AFTER_EXPIRY):
                    if await self._erase(ticket_id) and ticket_id not in self._told:
                        self._told.add(ticket_id)
                        logger.warning(
                            "ticket %r was not delivered, and is erased: its key expired long ago", ticket_id
                        )
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
        if ticket_id not in self._told:
            self._told.add(ticket_id)
            remedy = error.remedy if isinstance(error, UnreadableSecret) else "it is left as it is"
            logger.warning("%s; %s", error, remedy)

    def _is_dead(self, key: CreatedKey | LedgerError, since: timedelta) -> bool:
        """Whether a key expired longer than `since` ago by this machine's clock; False if its expiry is not known."""
        expiry_date = key.expiry_date if isinstance(key, CreatedKey | UnreadableSecret) else None
        return expiry_date is not None and expiry_date <= self._clock() - since
