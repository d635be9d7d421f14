"""A list of keys, page by page."""

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Final

from respan_async.errors import InvalidResponseError, NotFoundError
from respan_async.models import KeyPage, TemporaryKey

MAX_PAGES: Final = 10_000
"""Pages after which a list is taken to be endless."""


class Listing:
    """A list of keys that is still to be read.

    `await` it for one `KeyPage`; `async for` gives every `TemporaryKey` from that page on.
    """

    def __init__(self, read: Callable[[int, int | None], Any], page: int, page_size: int | None) -> None:
        self._read = read
        self._first = page
        self._page_size = page_size

    def __await__(self) -> Generator[Any, None, KeyPage]:
        result: Generator[Any, None, KeyPage] = self._read(self._first, self._page_size).__await__()
        return result

    async def __aiter__(self) -> AsyncIterator[TemporaryKey]:
        number: int | None = self._first
        pages = 0
        while number is not None:
            try:
                page: KeyPage = await self._read(number, self._page_size)
            except NotFoundError:
                if pages:
                    return  # keys were revoked meanwhile, and the page with them
                raise
            for key in page.results:
                yield key
            pages += 1
            if page.next_page is not None and (page.next_page <= number or pages >= MAX_PAGES):
                raise InvalidResponseError(f"list: page {number} of the list names page {page.next_page} as the next")
            number = page.next_page
