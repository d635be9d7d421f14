"""The input of a batch: any iterable, plain or asynchronous, from which several workers take items."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from typing import Generic, Protocol, TypeVar, runtime_checkable

from respan_async._calls.lifecycle import being_cancelled
from respan_async.errors import InvalidRequestError
from respan_async.events import logger

Item = TypeVar("Item")


@runtime_checkable
class _Closeable(Protocol):
    """What can be closed, as an asynchronous generator can."""

    async def aclose(self) -> object:
        """Close it."""
        ...


class BatchInput(Generic[Item]):
    """Give items one after the other, as they are asked for.

    Args:
        items: The iterable.

    Raises:
        InvalidRequestError: It is none, or one of something else than items.

    Attributes:
        total: How many items there are; None where the iterable does not say.
        plain: The iterator of a plain input, once it is open.
    """

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item]) -> None:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes | Mapping):
            raise InvalidRequestError(f"items: expected an iterable of requests, got {type(items).__name__}")
        self._items = items
        # What an async input says of its length is how many wait in it now.
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
            is_over: Asked when it is this worker's turn: whether nothing more is wanted.

        Raises:
            StopAsyncIteration: There is none left, or none is wanted.
        """
        async with self._pulling:
            if is_over():
                raise StopAsyncIteration
            self._puller = asyncio.current_task()
            assert self._source is not None  # an input is plain or not
            try:
                return await anext(self._source)
            finally:
                self._puller = None

    def interrupt(self) -> None:
        """Cancel the worker that waits for an item of an asynchronous input."""
        if self._puller is not None:
            self._puller.cancel()

    async def rest(self) -> AsyncIterator[Item]:
        """Take what is left, as far as it goes."""
        while True:
            try:
                # An input is plain, or else there is a source.
                item = next(self.plain) if self.plain is not None else await anext(self._source)  # type: ignore[arg-type]
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                return  # the input was cancelled from within
            except Exception:  # noqa: BLE001  exhausted, or broken as well: the keys there are count for more
                return
            yield item

    @property
    def can_be_closed(self) -> bool:
        """Whether it may hold something open that is to be closed."""
        return isinstance(self._source, _Closeable)

    async def aclose(self) -> None:
        """Close an asynchronous input, so that what it holds open is closed now."""
        assert isinstance(self._source, _Closeable)  # see `can_be_closed`
        try:
            await self._source.aclose()
        except Exception as error:  # noqa: BLE001  the input's own; the keys there are count for more
            logger.warning("the input of a batch raised %s when it was closed", type(error).__name__)
