"""The input of a batch: any iterable, plain or asynchronous, from which several workers take items."""

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
    # What an async input says of its length is how many wait in it now.
    if not isinstance(items, Sized) or isinstance(items, AsyncIterable):
        return None
    try:
        return len(items)
    except Exception:  # noqa: BLE001  the input's own, such as a TypeError of tqdm's: it does not know
        return None


class BatchInput(Generic[Item]):
    """Give items one after the other, as they are asked for.

    Args:
        items: The iterable.

    Raises:
        InvalidRequestError: It is none, or one of something else than items.

    Attributes:
        total: How many items there are; None where the iterable does not say.
        take: Takes an item of a plain input, once it is open; raises `StopIteration` where there is none left. None for
            an asynchronous input.
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
            spawn: Runs the one task in which an asynchronous input runs.
        """
        if isinstance(self._items, AsyncIterable):
            self._source = AsyncInput(self._items, spawn)
        else:
            # In one context, whichever worker takes: a generator may set a context variable, and reset it at its end.
            self.take = partial(contextvars.copy_context().run, iter(self._items).__next__)

    async def pull(self, is_over: Callable[[], bool]) -> Item:
        """Take an item from an asynchronous input; see `AsyncInput.pull`."""
        assert self._source is not None  # an input is plain or not
        return await self._source.pull(is_over)

    def interrupt(self) -> None:
        """Wait no longer for an item of an asynchronous input."""
        if self._source is not None:
            self._source.interrupt()

    async def rest(self) -> AsyncIterator[Item]:
        """Take what is left, as far as it goes."""
        while True:
            try:
                item = self.take() if self.take is not None else await self.pull(lambda: False)
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                return  # the input was cancelled from within
            except Exception:  # noqa: BLE001  exhausted, or broken as well: the keys there are count for more
                return
            yield item

    def finish(self) -> set[asyncio.Task[None]]:
        """Close an asynchronous input; return the task that does, if it is not done."""
        return set() if self._source is None else self._source.finish()
