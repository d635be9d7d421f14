"""A list of keys, page by page."""

from collections.abc import AsyncIterator, Generator
from typing import Any, Final

from respan_async._calls.service import Service
from respan_async._http import protocol
from respan_async.errors import InvalidResponseError, NotFoundError
from respan_async.models import KeyPage, TemporaryKey

MAX_PAGES: Final = 10_000
"""Pages after which a list is taken to be endless."""


class Listing:
    """A list of keys that is still to be read.

    `await` it for one `KeyPage`; `async for` gives every `TemporaryKey` from that page on.
    """

    def __init__(self, service: Service, page: int, page_size: int | None) -> None:
        self._service = service
        self._first = page
        self._page_size = page_size

    def __await__(self) -> Generator[Any, None, KeyPage]:
        return self._read(self._first).__await__()

    async def __aiter__(self) -> AsyncIterator[TemporaryKey]:
        number: int | None = self._first
        pages = 0
        while number is not None:
            try:
                page = await self._read(number)
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

    async def _read(self, page: int) -> KeyPage:
        return await self._service.send(protocol.list_page(page, self._page_size))
