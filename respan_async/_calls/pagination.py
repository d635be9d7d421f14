"""Reads the list of keys, page by page."""

from collections.abc import AsyncIterator, Generator
from typing import Any, Final

from respan_async._calls.call_service import CallService
from respan_async._http import body_origin, operations
from respan_async._pacing.priority import Priority
from respan_async.errors import InvalidResponseError, NotFoundError
from respan_async.models import KeyPage, TemporaryKey

MAX_PAGES: Final = 10_000
"""The number of pages after which a list is taken to be endless."""


class Listing:
    """A list of keys that is still to be read.

    `await` it for one `KeyPage`; `async for` yields every `TemporaryKey` from that page on, as the pages come; `await`
    its `all()` for a list of them. The server numbers its pages anew for each request. So a key that is revoked while
    pages are still to be read moves other keys to a page that was read already: a caller that revokes keys *while*
    iterating over them leaves about half of them alive. A key that is created meanwhile makes other keys come twice.
    `all()` is the safe way.
    """

    def __init__(self, service: CallService, page: int, page_size: int | None) -> None:
        self._service = service
        self._first = page
        self._page_size = page_size

    def __await__(self) -> Generator[Any, None, KeyPage]:
        return self._read(self._first).__await__()

    async def __aiter__(self) -> AsyncIterator[TemporaryKey]:
        first = await self._read(self._first)
        for key in first.results:
            yield key
        if first.next_page is None:
            return
        # The pages are announced, because otherwise each would be a batch of one, which takes free slots at once.
        pacer = self._service.context.pacer
        pending = pacer.announce()
        try:
            async for page in self._further_pages(first):
                for key in page.results:
                    yield key
        finally:
            pacer.withdraw(pending)

    async def all(self) -> list[TemporaryKey]:
        """Read the list to its end, and return every key once; the keys may then be revoked one after the other.

        If other processes revoke keys at the same time, keys may still be missing, because the pages move for all
        readers.
        """
        keys = {key.id: key async for key in self}
        return list(keys.values())

    async def _further_pages(self, page: KeyPage) -> AsyncIterator[KeyPage]:
        """Read the pages after `page`."""
        number, pages = self._first, 1
        while (following := page.next_page) is not None:
            if following <= number or pages >= MAX_PAGES:
                raise InvalidResponseError(
                    f"list: page {number} of the list names page {following} as the next",
                    status=200,
                    request_id=page.request_id,
                )
            number, pages = following, pages + 1
            try:
                page = await self._read(number, Priority.BATCH)
            except NotFoundError as error:
                if body_origin.is_past_the_end(error.body or ""):
                    return  # keys were revoked meanwhile, and so the page has vanished
                raise  # a missing route (e.g. during a deployment) says nothing about the list
            yield page

    async def _read(self, page: int, priority: Priority = Priority.INTERACTIVE) -> KeyPage:
        return await self._service.send(operations.list_page(page, self._page_size), priority)
