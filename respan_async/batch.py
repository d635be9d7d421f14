"""Many items, a few at a time: the engine of every batch.

Rules:

1. An item is taken from the input only when one of the workers is free to work on it, and a worker is free only when
   fewer than `max_in_flight` items are being worked on *or waiting to be taken*. So memory does not grow with it.
2. One item's failure is its own outcome. A key that the server does not accept ends the batch, as do a certificate
   that does not verify and an input that raises: what was taken is finished and yielded first, then the error is
   raised. An answer that may be every item's (a redirect, a 403, a missing route, a 2xx without a key) is the item's
   own, until several such come in a row with nothing made in between. For a 403, by which the server also says that
   the API key is not accepted, it is enough that nothing else was answered at all.
3. When the batch is left early, nothing more is taken, what is in the air is finished, and keys that were made and
   never handed out are discarded. An asynchronous input is closed, so that what it holds open is closed now.
"""

import asyncio
import warnings
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from respan_async._calls.client_context import ClientContext
from respan_async._calls.lifecycle import Stage, being_cancelled
from respan_async._calls.shielding import Job, run_shielded
from respan_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    ClientStateError,
    ConfigurationError,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    PermissionDeniedError,
    RespanError,
)
from respan_async.events import logger
from respan_async.models import CreatedKey
from respan_async.outcomes import Failed, Issued, Progress

Item = TypeVar("Item")


_FATAL: Final = (AuthenticationError, ClientStateError, ConfigurationError)

_SEVERAL: Final = 5
"""So many items in a row with an answer that may be every item's are no chance."""

_OF_AN_ITEM: Final = frozenset({400, 409, 413, 422, 429})
"""Statuses that are about what was sent for one item, or about when."""


class Batch(Generic[Item]):
    """Keys for many items, with bounded parallelism.

    Await it for a list of outcomes in the input's order. Or enter it, and iterate over the outcomes as they come:

        async with respan.temporary_keys.create_many(requests) as batch:
            async for outcome in batch: ...

    Attributes:
        progress: How far it has come, at any time.
    """

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        start: Callable[[Item], Job[CreatedKey]],
        discard: Callable[[CreatedKey], None],
        context: ClientContext,
        *,
        max_in_flight: int | None,
        ordered: bool,
        spread: bool,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes | Mapping):
            raise InvalidRequestError(f"items: expected an iterable of requests, got {type(items).__name__}")
        if max_in_flight is None:
            max_in_flight = context.pacer.max_in_flight
        if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
            raise InvalidRequestError(f"max_in_flight: expected a whole number, 1 or more, got {max_in_flight!r:.100}")
        if not isinstance(spread, bool):
            raise InvalidRequestError(f"spread: expected True or False, got {spread!r:.100}")
        self._items = items
        self._start = start
        self._discard = discard
        self._pacer = context.pacer
        self._lifecycle = context.lifecycle
        self._max_in_flight = max_in_flight
        self._ordered = ordered
        self._spread = spread
        self._prepare = prepare
        # What an async input says of its length is how many wait in it now.
        self._total = len(items) if isinstance(items, Sized) and not isinstance(items, AsyncIterable) else None
        self._plain: Iterator[Item] | None = None
        self._source: AsyncIterator[Item] | None = None
        self._pulling = asyncio.Lock()
        self._workers: set[asyncio.Task[None]] = set()
        self._working: dict[int, Job[CreatedKey]] = {}
        self._ready: deque[Issued[Item] | Failed[Item]] = deque()
        self._early: dict[int, Issued[Item] | Failed[Item]] = {}
        # No semaphore: asyncio's goes through all who wait whenever it is released, which costs 3 µs a key.
        self._places = max_in_flight
        self._placeless: deque[asyncio.Future[None]] = deque()
        self._puller: asyncio.Task[Any] | None = None
        self._news: list[asyncio.Future[None]] = []
        self._halted = False  # what has not been sent was given up
        self._taken = self._next_out = 0
        self._done = self._failed = self._replayed = 0
        self._exhausted = self._left = False
        self._fatal: BaseException | None = None
        self._alike: deque[RespanError] = deque(maxlen=_SEVERAL)  # in a row, what may be every item's
        self._broken = False  # the input raised
        self._entered = self._awaited = self._begun = False
        self._began = self._ended = 0.0
        self._refused_before = 0

    # ---------------------------------------------------------------- outside

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        # Without the attribute where the arguments were wrong.
        if not getattr(self, "_begun", True):
            warn("a batch was neither awaited nor entered, and so has done nothing", RuntimeWarning, source=self)

    def __await__(self) -> Generator[Any, None, list[Issued[Item] | Failed[Item]]]:
        return self._collect().__await__()

    async def __aenter__(self) -> Self:
        self._begun = True
        if self._entered:
            raise ClientStateError("a batch runs once; make another for another run")
        self._lifecycle.check()
        self._entered = True
        if self._prepare is not None:
            await self._prepare()
        if isinstance(self._items, AsyncIterable):
            self._source = aiter(self._items)
        else:
            self._plain = iter(self._items)
        self._began = asyncio.get_running_loop().time()
        self._refused_before = self._pacer.refused
        self._pending_work = self._pacer.announce(spread=self._spread)
        self._announce()
        self._lifecycle.register(Stage.STOP, self._client_closed, on_this_loop=True)
        for _ in range(self._max_in_flight if self._total is None else min(self._max_in_flight, self._total)):
            worker = self._lifecycle.spawn(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._worker_over)
        if not self._workers:
            self._all_over()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._stop()
        while self._ready or self._early:
            self._throw_away(self._ready.popleft() if self._ready else self._early.popitem()[1])
        # What is in the air belongs to the client by now: it is finished even if this wait is cancelled.
        left: set[asyncio.Task[None]] = set(self._workers)
        if not self._awaited:  # or what is left of the input is still to be counted
            left |= self._closing_input()
        if left:
            await asyncio.wait(left)

    def __aiter__(self) -> AsyncIterator[Issued[Item] | Failed[Item]]:
        return self

    async def __anext__(self) -> Issued[Item] | Failed[Item]:
        if not self._entered:
            raise ClientStateError("enter the batch before iterating: async with ... as batch")
        while not self._ready:
            if not self._workers:
                if self._fatal is not None and not self._left:
                    self._left = True
                    raise self._fatal
                raise StopAsyncIteration
            news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._news.append(news)
            await news
        outcome = self._ready.popleft()
        self._leave_place()
        return outcome

    def stop(self) -> None:
        """Take nothing more from the input, and give up what has not been sent; what is in the air is still yielded.

        Go on iterating, for the keys that then arrive. An item that was given up is `Failed` with a `ClientStateError`;
        one that was never taken has no outcome.
        """
        if not self._entered:
            raise ClientStateError("enter the batch before stopping it: async with ... as batch")
        self._stop()

    @property
    def progress(self) -> Progress:
        """How far the batch has come."""
        now = asyncio.get_running_loop().time() if self._workers else self._ended
        elapsed = max(now - self._began, 0.0) if self._entered else 0.0
        rate = self._done / elapsed if elapsed else 0.0
        return Progress(
            done=self._done,
            failed=self._failed,
            replayed=self._replayed,
            in_flight=len(self._working),
            refused=self._pacer.refused - self._refused_before if self._entered else 0,
            total=self._total,
            elapsed=elapsed,
            rate=rate,
            eta=self._eta(rate),
        )

    def _eta(self, rate: float) -> float | None:
        if self._total is None:
            return None
        left = max(self._total - self._done, 0)
        window = self._pacer.window
        if window.limit is not None:
            # Once the limit is what holds the batch back, it tells the future better than the past does.
            allowed = 1.0 / window.spread_interval(self._pacer.clock.time())
            rate = min(rate, allowed) if rate else allowed
        return left / rate if rate else None

    # ----------------------------------------------------------------- inside

    async def _work(self) -> None:
        while self._place_at_once() or await self._place():
            try:
                item = next(self._plain) if self._plain is not None else await self._pull()
            except (StopIteration, StopAsyncIteration):
                self._end_input()
                break
            except asyncio.CancelledError:
                if self._stopped:
                    break
                if being_cancelled():
                    raise
                self._broken, self._fatal = True, ClientStateError("the input was cancelled from within")
                self._end_input()
                break
            except BaseException as error:  # noqa: BLE001  the input's own error, raised again to who iterates
                self._broken = self._fatal is None
                self._fatal = self._fatal or error
                self._end_input()
                break
            index = self._taken
            self._taken += 1
            self._announce()
            if self._stopped:
                self._put(Failed(item, index, self._reason))  # it was on its way when the batch ended
            else:
                self._put(await self._outcome(item, index))

    def _place_at_once(self) -> bool:
        """Take a place for one more item, if one is free and there is anything left to do."""
        if not self._places or self._stopped:
            return False
        self._places -= 1
        return True

    async def _place(self) -> bool:
        """Wait until one more item may be taken; return whether there is anything left to do."""
        if not self._stopped:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._placeless.append(waiter)
            await waiter
        return not self._stopped

    def _leave_place(self) -> None:
        """Pass a place on: an outcome was taken."""
        while self._placeless:
            waiter = self._placeless.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places += 1

    async def _outcome(self, item: Item, index: int) -> Issued[Item] | Failed[Item]:
        try:
            job = self._working[index] = self._start(item)
        except RespanError as error:
            return self._failure(item, index, error)
        try:
            key = await self._key_of(job)
        except RespanError as error:
            return self._failure(item, index, error, quota_exhausted=job.quota_exhausted)
        except asyncio.CancelledError:
            if being_cancelled():
                self._cancelled()
            return Failed(item, index, self._why_given_up(job.abandoned_error()))
        finally:
            self._working.pop(index, None)
        if not job.replayed:
            self._alike.clear()
        return Issued(item, index, key, job.replayed, job.delivered)

    async def _key_of(self, job: Job[CreatedKey]) -> CreatedKey:
        if job.deadline is None:
            return await job.run()  # the worker is a task of its own already
        return await run_shielded(job, self._lifecycle, self._discard)

    def _failure(self, item: Item, index: int, error: RespanError, *, quota_exhausted: bool = False) -> Failed[Item]:
        """Return an item's failure; end the batch, if it is not about that item alone."""
        useless = False
        if _may_be_of_all(error):
            self._alike.append(error)
            useless = len(self._alike) >= _SEVERAL
        given_up = self._halted and isinstance(error, ClientStateError)
        # No item has a connection until a setting is changed: the server's certificate, or what a proxy asks for.
        unreachable = isinstance(error, APIConnectionError) and not error.retryable and not self._halted
        if useless or unreachable or quota_exhausted or (isinstance(error, _FATAL) and not given_up):
            self._fatal = self._fatal or error
            self._stop()
        return Failed(item, index, self._why_given_up(error) if given_up else error)

    def _why_given_up(self, error: RespanError) -> RespanError:
        """Return what ended the batch, in place of an error that says no more than that the item was given up."""
        said = bool(error.suspects) or error.effect is not Effect.NONE
        return self._fatal if isinstance(self._fatal, RespanError) and not said else error

    async def _pull(self) -> Item:
        """Take an item from an asynchronous input, one worker at a time."""
        async with self._pulling:
            if self._stopped:
                raise StopAsyncIteration
            self._puller = asyncio.current_task()
            assert self._source is not None  # an input is plain or not
            try:
                return await anext(self._source)
            finally:
                self._puller = None

    def _closing_input(self) -> set[asyncio.Task[None]]:
        """Close an asynchronous input once no worker takes from it any more; return the task that does, if any."""
        aclose = getattr(self._source, "aclose", None)
        if aclose is None:
            return set()

        async def close() -> None:
            if self._workers:
                await asyncio.wait(self._workers)
            try:
                await aclose()
            except Exception as error:  # noqa: BLE001  the input's own; the keys there are count for more
                logger.warning("the input of a batch raised %s when it was closed", type(error).__name__)

        return {self._lifecycle.spawn(close())}

    def _put(self, outcome: Issued[Item] | Failed[Item]) -> None:
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        self._replayed += isinstance(outcome, Issued) and outcome.replayed
        if self._left:
            self._throw_away(outcome)
        elif self._ordered:
            self._early[outcome.index] = outcome
            while self._next_out in self._early:
                self._ready.append(self._early.pop(self._next_out))
                self._next_out += 1
        else:
            self._ready.append(outcome)
        if self._ready:
            self._tell()

    def _throw_away(self, outcome: Issued[Item] | Failed[Item]) -> None:
        if isinstance(outcome, Issued) and not outcome.replayed:
            self._discard(outcome.key)

    @property
    def _reason(self) -> RespanError:
        known = self._fatal if isinstance(self._fatal, RespanError) else None
        return known or ClientStateError("the batch ended before this item was sent")

    @property
    def _stopped(self) -> bool:
        return self._left or self._exhausted or self._fatal is not None

    def _stop(self) -> None:
        """Take nothing more, and give up what has not been sent."""
        self._halted = True
        self._end_input()
        for job in list(self._working.values()):
            job.abandon(wanted=not self._left)
        if self._puller is not None and (self._left or not self._awaited):
            # An awaited batch has an outcome for every item, so it goes on taking them.
            self._puller.cancel()

    def _cancelled(self) -> None:
        """End, because somebody has cancelled what works on the items: to go on with fewer would lose items unsaid."""
        if not self._stopped:
            self._fatal = ClientStateError("a task of the batch was cancelled from outside")
            self._stop()

    def _client_closed(self) -> None:
        self._fatal = self._fatal or ClientStateError("the client was closed before the batch was through")
        self._stop()

    def _end_input(self) -> None:
        self._exhausted = True
        self._announce()
        while self._placeless:
            self._leave_place()  # to find that there is nothing left to do

    def _announce(self) -> None:
        """Tell the pacer how much is still to come: what fits into the free slots need not be spread."""
        if self._exhausted:
            self._pending_work.more = 0
        elif self._total is not None:
            self._pending_work.more = max(self._total - self._taken, 0)

    def _worker_over(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled():
            self._cancelled()
        elif (error := worker.exception()) is not None:
            self._fatal = self._fatal or error
            self._end_input()  # or, in order, those who wait for a place would wait for its outcome for ever
        if not self._workers:
            self._all_over()
        self._tell()

    def _all_over(self) -> None:
        """Note that no worker is left, and nothing more will come."""
        forbidden = [error for error in self._alike if isinstance(error, PermissionDeniedError)]
        if forbidden and len(forbidden) == self._done - self._replayed:
            self._fatal = self._fatal or forbidden[-1]  # every item; there were fewer than several
        self._ended = asyncio.get_running_loop().time()
        self._pacer.withdraw(self._pending_work)
        self._lifecycle.unregister(Stage.STOP, self._client_closed)
        # In order, a gap is left by an item that never had an outcome; what came after it still counts.
        self._ready.extend(self._early.pop(index) for index in sorted(self._early))

    def _tell(self) -> None:
        while self._news:
            news = self._news.pop()
            if not news.done():
                news.set_result(None)

    async def _collect(self) -> list[Issued[Item] | Failed[Item]]:
        """Run to the end; see `Batch`."""
        outcomes: list[Issued[Item] | Failed[Item]] = []
        self._awaited = True
        try:
            try:
                async with self:
                    async for outcome in self:
                        outcomes.append(outcome)  # noqa: PERF401  a comprehension would lose them when it is cut short
            except RespanError as error:
                if (
                    self._broken
                    or error is not self._fatal
                    or not any(isinstance(outcome, Issued) for outcome in outcomes)
                ):
                    raise
                # Keys were made, and are shown only once: raising would lose them. What is left fails as well.
                outcomes.extend([Failed(item, index, error) async for index, item in self._rest()])
            finally:
                closing = self._closing_input()
            if closing:
                await asyncio.wait(closing)
        except BaseException:
            for outcome in outcomes:
                self._throw_away(outcome)
            raise
        return sorted(outcomes, key=lambda outcome: outcome.index)

    async def _rest(self) -> AsyncIterator[tuple[int, Item]]:
        """Take what is left of the input, as far as it goes."""
        while True:
            try:
                # An input is plain, or else there is a source.
                item = next(self._plain) if self._source is None else await anext(self._source)  # type: ignore[arg-type]
            except Exception:  # noqa: BLE001  exhausted, or broken as well: the keys there are count for more
                return
            yield self._taken, item
            self._taken += 1


def _may_be_of_all(error: RespanError) -> bool:
    """Whether another item would most likely fare no better: the host, the route or the API key is wrong."""
    if isinstance(error, APIStatusError):
        return not error.retryable and error.status not in _OF_AN_ITEM
    return isinstance(error, InvalidResponseError)
