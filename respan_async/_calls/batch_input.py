"""Reads the input of a batch: any iterable, plain or asynchronous, from which several workers take items."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from typing import Generic, Protocol, TypeVar, runtime_checkable

from respan_async._calls.lifecycle import being_cancelled
from respan_async.errors import InvalidRequestError
from respan_async.events import logger

Item = TypeVar("Item")


@runtime_checkable
class _Closeable(Protocol):
    """An object with `aclose`, such as an asynchronous generator."""

    async def aclose(self) -> object:
        """Close it."""
        ...


class BatchInput(Generic[Item]):
    """Give items one after the other, on demand.

    Args:
        items: The iterable.

    Raises:
        InvalidRequestError: `items` is not an iterable, or it is a single item.

    Attributes:
        total: The number of items; None if the iterable does not tell.
        plain: The iterator of a plain input, once it is open.
    """

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item]) -> None:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes | Mapping):
            raise InvalidRequestError(f"items: expected an iterable of requests, got {type(items).__name__}")
        self._items = items
        # The length of an async input only says how many items wait in it now.
        self.total = len(items) if isinstance(items, Sized) and not isinstance(items, AsyncIterable) else None
        self.plain: Iterator[Item] | None = None
        self._source: AsyncIterator[Item] | None = None
        self._pulling = asyncio.Lock()
        self._puller: asyncio.Task[object] | None = None

    def open(self) -> None:
        """Begin to iterate."""
        if isinstance(self._items, AsyncIterable):
            self._source = aiter(self._items)
        else:
            self.plain = iter(self._items)

    async def pull(self, is_over: Callable[[], bool]) -> Item:
        """Take an item from an asynchronous input, one worker at a time.

        Args:
            is_over: Asked when it is this worker's turn; returns whether no more items are wanted.

        Raises:
            StopAsyncIteration: No item is left, or none is wanted.
        """
        async with self._pulling:
            if is_over():
                raise StopAsyncIteration
            self._puller = asyncio.current_task()
            assert self._source is not None  # an input is either plain or asynchronous
            try:
                return await anext(self._source)
            finally:
                self._puller = None

    def interrupt(self) -> None:
        """Cancel the worker that waits for an item of an asynchronous input."""
        if self._puller is not None:
            self._puller.cancel()

    async def rest(self) -> AsyncIterator[Item]:
        """Yield the remaining items until the input ends or breaks."""
        while True:
            try:
                # An input is plain, or else there is a source.
                item = next(self.plain) if self.plain is not None else await anext(self._source)  # type: ignore[arg-type]
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                return  # the input itself was cancelled
            except Exception:  # noqa: BLE001  exhausted or broken: the keys that were made count for more
                return
            yield item

    @property
    def can_be_closed(self) -> bool:
        """Whether the input may hold something open."""
        return isinstance(self._source, _Closeable)

    async def aclose(self) -> None:
        """Close an asynchronous input, so that it releases at once what it holds open."""
        assert isinstance(self._source, _Closeable)  # see `can_be_closed`
        try:
            await self._source.aclose()
        except Exception as error:  # noqa: BLE001  the input's own error; the keys that were made count for more
            logger.warning("the input of a batch raised %s when it was closed", type(error).__name__)
