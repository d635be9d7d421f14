"""Iterates over an asynchronous input in one task, and hands its items to several workers.

A generator may hold something open around its `yield`: a timeout, a task group, a cancel scope, a context variable. All
of these belong to the task in which they were begun, and some of them cancel that task. Rules:

1. The input runs in one task, from its first step to its closing.
2. The input runs only while a worker waits for an item, and when it is closed.
3. If the task is cancelled while no step is under way, the cancellation comes from a scope around the `yield`, so it is
   raised at the `yield`.
4. An input that has raised is not asked again. Its exception is raised once, in one worker.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import attrs

from respan_async._calls.lifecycle import being_cancelled
from respan_async.errors import ClientStateError
from respan_async.events import logger

Item = TypeVar("Item")


@runtime_checkable
class _Closeable(Protocol):
    """An object with `aclose`, such as an asynchronous generator."""

    async def aclose(self) -> object:
        """Close it."""
        ...


@attrs.frozen(eq=False)
class _Request(Generic[Item]):
    """One worker that waits for an item.

    Attributes:
        item: The item, once the input has given it.
        is_over: Tells whether no more items are wanted.
    """

    item: asyncio.Future[Item]
    is_over: Callable[[], bool]


class AsyncInput(Generic[Item]):
    """Iterate over an input on demand.

    Args:
        items: The input.
        spawn: Runs the task.
    """

    def __init__(
        self, items: AsyncIterable[Item], spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._source: AsyncIterator[Item] = aiter(items)
        self._requests: deque[_Request[Item]] = deque()
        self._untaken: deque[Item] = deque()  # items whose workers were cancelled
        self._call: asyncio.Future[None] | None = None  # wakes the task, which waits for a request
        self._is_running = self._is_interrupted = self._is_ended = False
        self._error: BaseException | None = None
        self._task = spawn(self._run())
        self._task.add_done_callback(self._over)

    async def pull(self, is_over: Callable[[], bool]) -> Item:
        """Take an item.

        Args:
            is_over: Called when it is this worker's turn; returns whether no more items are wanted.

        Raises:
            StopAsyncIteration: No item is left, or no more items are wanted.
        """
        if self._untaken:
            return self._untaken.popleft()
        if self._is_ended:
            raise self._end()
        request = _Request(asyncio.get_running_loop().create_future(), is_over)
        self._requests.append(request)
        self._wake()
        try:
            item: Item = await request.item
            return item
        except asyncio.CancelledError:
            if not request.item.cancelled() and request.item.exception() is None:
                self._untaken.append(request.item.result())  # the item and the cancellation came at the same time
            raise

    def interrupt(self) -> None:
        """Cancel the step that is under way, because the waiting workers want no more items."""
        if any(not request.item.done() for request in self._requests):
            self._cancel()

    def finish(self) -> set[asyncio.Task[None]]:
        """Close the input, so that it closes what it holds open; return the task that does so, if it is not done."""
        self._is_ended = True
        self._cancel()
        self._wake()
        return set() if self._task.done() else {self._task}

    def _cancel(self) -> None:
        if self._is_running and not self._is_interrupted:  # a second cancellation would cut short the input's cleanup
            self._is_interrupted = True
            self._task.cancel()

    # ---------------------------------------------------------- within the task

    async def _run(self) -> None:
        while not self._is_ended:
            try:
                await self._next_request()
            except asyncio.CancelledError as error:
                await self._step(self._throw(error))
            else:
                if not self._is_ended:
                    await self._step(self._next_item())
        self._answer_all()
        if isinstance(self._source, _Closeable):
            try:
                await self._source.aclose()
            except Exception as error:  # noqa: BLE001  of the user's input; the keys that were made must not be lost
                logger.warning("the input of a batch raised %s when it was closed", type(error).__name__)

    async def _next_request(self) -> None:
        """Wait until a worker wants an item, or until the input is to be closed."""
        while not self._is_ended:
            while self._requests:
                request = self._requests[0]
                if not request.item.done() and not request.is_over():
                    return
                self._requests.popleft()
                if not request.item.done():
                    request.item.set_exception(StopAsyncIteration())
            self._call = asyncio.get_running_loop().create_future()
            await self._call

    async def _step(self, step: Awaitable[Item]) -> None:
        """Let the input run up to its next item, and hand the item to the first waiting worker."""
        self._is_running = True
        try:
            item = await step
        except GeneratorExit:
            raise  # the event loop is closed
        except StopAsyncIteration:
            self._is_ended = True
        except asyncio.CancelledError:
            self._is_ended = True
            if not self._is_interrupted:
                self._error = ClientStateError(
                    "a task of the batch was cancelled from outside"
                    if being_cancelled()
                    else "the input was cancelled from within"
                )
        except BaseException as error:  # noqa: BLE001  of the user's input; a worker raises it again
            self._is_ended, self._error = True, error
        else:
            self._hand_over(item)
        finally:
            self._is_running = False

    async def _next_item(self) -> Item:
        return await anext(self._source)  # within the step, because a plain `__anext__` raises when it is called

    async def _throw(self, cancellation: asyncio.CancelledError) -> Item:
        """Raise a cancellation at the input's current `yield`; return the next item, if the input yields one."""
        if not isinstance(self._source, AsyncGenerator):
            raise cancellation
        item: Item = await self._source.athrow(cancellation)  # the same object, because anyio recognises its text
        return item

    def _hand_over(self, item: Item) -> None:
        while self._requests:
            request = self._requests.popleft()
            if not request.item.done():
                request.item.set_result(item)
                return
        self._untaken.append(item)

    def _answer_all(self) -> None:
        """Tell the waiting workers that no item will come."""
        while self._requests:
            request = self._requests.popleft()
            if not request.item.done():
                request.item.set_exception(self._end())

    def _over(self, task: asyncio.Task[None]) -> None:
        """End the input with its task, also if the input has raised an exception that ends the task."""
        self._is_ended = True
        if not task.cancelled():
            self._error = self._error or task.exception()
        self._answer_all()

    def _wake(self) -> None:
        if self._call is not None and not self._call.done():
            self._call.set_result(None)

    def _end(self) -> BaseException:
        """Return the input's exception once; from then on, a `StopAsyncIteration`."""
        error, self._error = self._error, None
        return error or StopAsyncIteration()
