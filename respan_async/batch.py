"""Works on many items, a few at a time: the engine of every batch.

Rules:

1. A worker takes an item from the input only when it is free to work on it, and a worker is free only when fewer than
   `max_in_flight` items are being worked on, *or have outcomes that the caller has not taken*. So memory does not grow
   with the input.
2. If one item fails, its outcome is a `Failed`. Some failures end the batch (`batch_failures.py`), and so does an input
   that raises: the items that were taken are finished and yielded first, then the error is raised.
3. If the caller leaves the batch early, no more items are taken, requests in flight are finished, and keys that were
   made and never handed out are discarded.
4. An asynchronous input runs in a separate task (`async_input.py`), and is closed there once no more items are taken,
   so that it closes what it holds open.
"""

import asyncio
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from respan_async._arguments import is_whole, shown
from respan_async._calls.batch_failures import BatchFailures
from respan_async._calls.batch_input import BatchInput
from respan_async._calls.batch_outcomes import OutcomeQueue
from respan_async._calls.batch_places import Places
from respan_async._calls.client_context import ClientContext
from respan_async._calls.lifecycle import Move, Stage, being_cancelled
from respan_async._calls.shielding import Job, run_shielded
from respan_async.errors import ClientStateError, Effect, InvalidRequestError, RespanError
from respan_async.events import logger
from respan_async.models import CreatedKey
from respan_async.outcomes import Failed, Issued, Progress

Item = TypeVar("Item")


class Batch(Generic[Item]):
    """Keys for many items, with bounded parallelism.

    Await it for a list of outcomes in the input's order. Or enter it, and iterate over the outcomes as they come:

        async with respan.temporary_keys.create_many(requests) as batch:
            async for outcome in batch: ...

    Attributes:
        progress: The current progress.
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
        self._input = BatchInput(items)
        if max_in_flight is None:
            max_in_flight = context.pacer.max_in_flight
        if not is_whole(max_in_flight) or max_in_flight < 1:
            raise InvalidRequestError(f"max_in_flight: expected a whole number, 1 or more, got {shown(max_in_flight)}")
        if not isinstance(spread, bool):
            raise InvalidRequestError(f"spread: expected True or False, got {shown(spread)}")
        self._start = start
        self._discard = discard
        self._pacer = context.pacer
        self._lifecycle = context.lifecycle
        self._max_in_flight = max_in_flight
        self._spread = spread
        self._prepare = prepare
        self._total = self._input.total
        self._workers: set[asyncio.Task[None]] = set()
        self._working: dict[int, Job[CreatedKey]] = {}
        self._outcomes: OutcomeQueue[Item] = OutcomeQueue(discard, ordered=ordered)
        self._places = Places(max_in_flight)
        self._halted = False  # items not yet sent were given up
        self._taken = 0
        self._done = self._failed = self._replayed = 0
        self._exhausted = self._left = False
        self._fatal: BaseException | None = None
        self._failures = BatchFailures()
        self._broken = False  # the input raised
        self._entered = self._awaited = self._begun = False
        self._began = self._ended = 0.0
        self._refused_before = 0

    # ---------------------------------------------------------------- outside

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        # The attribute is missing if the arguments were wrong.
        if not getattr(self, "_begun", True):
            warn("a batch was neither awaited nor entered, and so has done nothing", RuntimeWarning, source=self)

    def __await__(self) -> Generator[Any, None, list[Issued[Item] | Failed[Item]]]:
        return self._collect().__await__()

    async def __aenter__(self) -> Self:
        self._check_unused()
        self._lifecycle.check()
        self._entered = True
        if self._prepare is not None:
            await self._prepare()
        self._input.open(self._lifecycle.tasks.spawn)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._refused_before = self._pacer.refused
        self._pending_work = self._pacer.announce(spread=self._spread)
        self._announce()
        self._lifecycle.register(Stage.STOP, self._client_closed, on_this_loop=True)
        self._lifecycle.register(Move.ARRIVE, self._let_go)
        # Start at least one worker, because an input with the length 0 may have items.
        for _ in range(self._max_in_flight if self._total is None else min(self._max_in_flight, max(self._total, 1))):
            worker = self._lifecycle.tasks.spawn(self._work(), awaited=True)
            self._workers.add(worker)
            worker.add_done_callback(self._worker_over)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lifecycle.check_same_place()  # otherwise a forked child would revoke the keys that its parent hands out
        self._left = True
        if self._is_elsewhere:
            return  # the batch has ended with its loop
        self._stop()
        self._let_go()
        # The client owns the requests in flight: they are finished even if this wait is cancelled.
        left: set[asyncio.Task[None]] = set(self._workers)
        if not self._awaited:  # an awaited batch still counts the rest of the input
            left |= self._input.finish()
        if left:
            await asyncio.wait(left)

    def _check_unused(self) -> None:
        self._begun = True
        if self._entered:
            raise ClientStateError("a batch runs once; make another for another run")

    @property
    def _is_elsewhere(self) -> bool:
        return asyncio.get_running_loop() is not self._loop

    def __aiter__(self) -> AsyncIterator[Issued[Item] | Failed[Item]]:
        return self

    async def __anext__(self) -> Issued[Item] | Failed[Item]:
        if not self._entered:
            raise ClientStateError("enter the batch before iterating: async with ... as batch")
        self._lifecycle.check_same_place()
        while not self._outcomes:
            if not self._workers:
                self._lifecycle.unregister(Move.ARRIVE, self._let_go)
                if self._fatal is not None and not self._left:
                    self._left = True
                    raise self._fatal
                raise StopAsyncIteration
            if self._is_elsewhere:
                raise ClientStateError("a batch runs on one event loop, and that of this one has ended; make another")
            await self._outcomes.wait()
        outcome = self._outcomes.take()
        self._places.leave()
        return outcome

    def stop(self) -> None:
        """Take no more input, and give up the items not yet sent; outcomes of requests in flight are still yielded.

        Go on iterating to get the keys that then arrive. An item that was given up is `Failed` with a
        `ClientStateError`; an item that was never taken has no outcome.
        """
        if not self._entered:
            raise ClientStateError("enter the batch before stopping it: async with ... as batch")
        self._lifecycle.check_same_place()
        self._stop()

    @property
    def progress(self) -> Progress:
        """The current progress; may be read from any thread."""
        now = self._loop.time() if self._workers else self._ended
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
            # Cap the ETA rate at the known limit: it predicts better than the measured rate.
            allowed = 1.0 / window.spread_interval()
            rate = min(rate, allowed) if rate else allowed
        return left / rate if rate else None

    # ----------------------------------------------------------------- inside

    async def _work(self) -> None:
        while self._place_at_once() or await self._place():
            try:
                take = self._input.take
                item = take() if take is not None else await self._input.pull(self._is_stopped)
            except (StopIteration, StopAsyncIteration):
                self._end_input()
                break
            except asyncio.CancelledError:
                if self._is_stopped():
                    break
                if being_cancelled():
                    raise
                self._broken, self._fatal = True, ClientStateError("the input was cancelled from within")
                self._end_input()
                break
            except BaseException as error:  # noqa: BLE001  of the user's input; raised again in the iterating caller
                self._broken = self._fatal is None
                self._fatal = self._fatal or error
                self._end_input()
                break
            index = self._taken
            self._taken += 1
            self._announce()
            if self._is_stopped():
                # The batch ended while the item was on its way to this worker.
                late = ClientStateError("the batch ended before this item was sent")
                self._put(Failed(item, index, self._why_given_up(late)))
            else:
                self._put(await self._outcome(item, index))

    def _place_at_once(self) -> bool:
        """Take a place for one more item, if a place is free and the batch has not ended."""
        return not self._is_stopped() and self._places.take_at_once()

    async def _place(self) -> bool:
        """Wait until one more item may be taken; return whether the batch goes on."""
        if not self._is_stopped():
            await self._places.wait()
        return not self._is_stopped()

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
            self._failures.made()
        return Issued(item, index, key, job.replayed, job.delivered)

    async def _key_of(self, job: Job[CreatedKey]) -> CreatedKey:
        if job.deadline is None:
            return await job.run()  # the worker already is a separate task
        return await run_shielded(job, self._lifecycle, self._discard)

    def _failure(self, item: Item, index: int, error: RespanError, *, quota_exhausted: bool = False) -> Failed[Item]:
        """Return an item's failure; end the batch, if the failure concerns more than that item."""
        given_up = self._halted and isinstance(error, ClientStateError)
        if self._failures.ends_batch(error, halted=self._halted) or quota_exhausted:
            self._fatal = self._fatal or error
            self._stop()
        return Failed(item, index, self._why_given_up(error) if given_up else error)

    def _why_given_up(self, error: RespanError) -> RespanError:
        """Return the error that ended the batch, instead of one that only says that the item was given up."""
        said = bool(error.suspects) or error.effect is not Effect.NONE
        return self._fatal if isinstance(self._fatal, RespanError) and not said else error

    def _put(self, outcome: Issued[Item] | Failed[Item]) -> None:
        self._done += 1
        self._failed += isinstance(outcome, Failed)
        self._replayed += isinstance(outcome, Issued) and outcome.replayed
        if self._left:
            self._outcomes.throw_away(outcome)
        else:
            self._outcomes.put(outcome)
        self._let_input_go()

    def _is_stopped(self) -> bool:
        return self._left or self._exhausted or self._fatal is not None

    def _stop(self) -> None:
        """Take no more input, and give up the items not yet sent."""
        self._halted = True
        self._end_input()
        for job in list(self._working.values()):
            job.abandon(wanted=not self._left)
        self._let_input_go()

    def _let_input_go(self) -> None:
        """Stop waiting for an item of an asynchronous input, if no item is wanted any more.

        An awaited batch that has made a key returns an outcome for every item, so it goes on taking items.
        """
        made = self._done > self._failed or bool(self._working)
        if self._halted and (self._left or not self._awaited or (self._fatal is not None and not made)):
            self._input.interrupt()

    def _cancelled(self) -> None:
        """End the batch, because a worker was cancelled: fewer workers would lose items silently."""
        if not self._is_stopped():
            self._fatal = ClientStateError("a task of the batch was cancelled from outside")
            self._stop()

    def _client_closed(self) -> None:
        self._fatal = self._fatal or ClientStateError("the client was closed before the batch was through")
        self._stop()

    def _let_go(self) -> None:
        """Discard the outcomes that no caller will take, because the batch was left, or its event loop was closed."""
        self._lifecycle.unregister(Move.ARRIVE, self._let_go)
        self._left = True
        self._outcomes.throw_all_away()

    def _end_input(self) -> None:
        self._exhausted = True
        self._announce()
        self._places.wake_all()

    def _announce(self) -> None:
        """Tell the pacer the remaining demand, because a batch that fits into the free slots need not be spread."""
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
            self._end_input()  # with `ordered`, waiting workers would otherwise wait for this outcome for ever
        if not self._workers:
            self._all_over()
        self._outcomes.wake()

    def _all_over(self) -> None:
        """Note that no worker is left, so that no further outcome will come."""
        self._fatal = self._fatal or self._failures.of_all(self._done - self._replayed)
        self._ended = asyncio.get_running_loop().time()
        self._pacer.withdraw(self._pending_work)
        self._lifecycle.unregister(Stage.STOP, self._client_closed)
        self._outcomes.close_gaps()
        if not self._awaited:
            self._input.finish()

    async def _collect(self) -> list[Issued[Item] | Failed[Item]]:
        """Run the batch to its end; see `Batch`."""
        self._check_unused()
        self._awaited = True
        outcomes: list[Issued[Item] | Failed[Item]] = []
        try:
            try:
                async with self:
                    async for outcome in self:
                        outcomes.append(outcome)  # noqa: PERF401  a comprehension would lose the outcomes when it is cut short
            except RespanError as error:
                if (
                    self._broken
                    or error is not self._fatal
                    or not any(isinstance(outcome, Issued) for outcome in outcomes)
                ):
                    raise
                # Keys were made, and their secrets are shown only once: raising would lose them. The remaining items
                # fail as well.
                outcomes.extend([Failed(item, index, error) async for index, item in self._rest()])
            finally:
                closing = self._input.finish()
            if closing:
                await asyncio.wait(closing)
        except BaseException as error:
            made = sum(isinstance(outcome, Issued) and not outcome.replayed for outcome in outcomes)
            if self._broken and made:  # no list is returned, because it would look complete, so the keys are revoked
                logger.warning(
                    "an awaited batch ended with %s: %d keys that it had made are revoked", type(error).__name__, made
                )
            for outcome in outcomes:
                self._outcomes.throw_away(outcome)
            raise
        return sorted(outcomes, key=lambda outcome: outcome.index)

    async def _rest(self) -> AsyncIterator[tuple[int, Item]]:
        """Yield the remaining items of the input, with their indexes, until it ends or breaks."""
        async for item in self._input.rest():
            yield self._taken, item
            self._taken += 1
