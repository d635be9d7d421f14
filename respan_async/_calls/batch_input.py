"""Reads the input of a batch: any iterable, plain or asynchronous, from which several workers take items."""

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sized
from functools import partial
from typing import Any, Generic, TypeVar

from respan_async._calls.async_input import AsyncInput
from respan_async._calls.lifecycle import being_cancelled
from respan_async.errors import InvalidRequestError

Item = TypeVar("Item")


def _length_of(items: object) -> int | None:
    # The length of an async input is the number of items that wait in it now.
    if not isinstance(items, Sized) or isinstance(items, AsyncIterable):
        return None
    try:
        return len(items)
    except Exception:  # noqa: BLE001  of the user's input: e.g. tqdm's `len` raises a TypeError if it knows no length
        return None


class BatchInput(Generic[Item]):
    """Give items one after the other, on demand.

    Args:
        items: The iterable.

    Raises:
        InvalidRequestError: `items` is not an iterable, or it is a single item.

    Attributes:
        total: The number of items; None if the iterable does not tell.
        take: Takes an item of a plain input, once it is open; raises `StopIteration` if no item is left. None for an
            asynchronous input.
    """

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item]) -> None:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes | Mapping):
            raise InvalidRequestError(f"items: expected an iterable of requests, got {type(items).__name__}")
        self._items = items
        self.total = _length_of(items)
        self.take: Callable[[], Item] | None = None
        self._source: AsyncInput[Item] | None = None

    def open(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        """Begin to iterate.

        Args:
            spawn: Starts the one task in which an asynchronous input runs.
        """
        if isinstance(self._items, AsyncIterable):
            self._source = AsyncInput(self._items, spawn)
        else:
            # All workers take in the same context, because a generator may set a context variable and reset it at its
            # end.
            run: Callable[[Callable[[], Item]], Item] = contextvars.copy_context().run
            self.take = partial(run, iter(self._items).__next__)

    async def pull(self, is_over: Callable[[], bool]) -> Item:
        """Take an item from an asynchronous input; see `AsyncInput.pull`."""
        assert self._source is not None  # only an asynchronous input is pulled
        return await self._source.pull(is_over)

    def interrupt(self) -> None:
        """Stop waiting for an item of an asynchronous input."""
        if self._source is not None:
            self._source.interrupt()

    async def rest(self) -> AsyncIterator[Item]:
        """Yield the remaining items until the input ends or breaks."""
        while True:
            try:
                item = self.take() if self.take is not None else await self.pull(lambda: False)
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                return  # the input itself was cancelled
            except Exception:  # noqa: BLE001  exhausted or broken; the keys that were made must not be lost
                return
            yield item

    def finish(self) -> set[asyncio.Task[None]]:
        """Close an asynchronous input; return the task that does so, if it is not done."""
        return set() if self._source is None else self._source.finish()
