"""Reads an answer from its connection, up to its end or the size bound.

A 2xx answer that breaks off may still hold a complete key. So may an answer whose end never comes, e.g. if the last
chunk of a chunked body is missing. A complete JSON object cannot be the beginning of a longer one, so the reader waits
only for a moment after it.
"""

import asyncio
from functools import partial
from typing import Final

import aiohttp

from respan_async._http import json_text
from respan_async._http.content_encoding import GZIP_MAGIC, decoded
from respan_async._http.header_parsing import charset
from respan_async._http.response import Response

MAX_BODY: Final = 8 * 2**20
"""The most decoded bytes to read of one answer. A page of a thousand keys has about a tenth of that."""

_CHUNK: Final = 2**16

_SILENCE: Final = 0.25
"""Seconds of silence after which the reader checks whether a body is complete, so that only its end is missing.

It checks once in so many seconds, so the reading may end after up to twice that."""


class TruncatedResponse(Exception):
    """An answer broke off after its status.

    Attributes:
        received: The part of the answer that had come.
        cause: The exception that aiohttp raised.
    """

    def __init__(self, received: Response, cause: Exception) -> None:
        super().__init__()
        self.received = received
        self.cause = cause


def at_hand(response: aiohttp.ClientResponse, resends: int) -> Response | None:
    """Return an answer whose complete body came with its headers; None if more of the body is to come."""
    content = response.content
    if not content.is_eof() or content.exception() is not None or content.total_bytes > MAX_BODY:
        return None
    return _response(response, content.read_nowait(), resends)


async def read(response: aiohttp.ClientResponse, resends: int) -> Response:
    """Read an answer up to the size bound.

    If an answer other than 2xx breaks off, what came of it is returned, because its status is enough.

    Raises:
        TruncatedResponse: A 2xx answer broke off.
    """
    content = response.content
    closed = getattr(getattr(response.connection, "protocol", None), "closed", None)
    over = partial(_no_more, content)
    if closed is not None:
        # Callbacks stay on the connection after this response: `_look_at` is shared by all responses, `over` is removed
        # below.
        closed.remove_done_callback(_look_at)
        closed.add_done_callback(_look_at)
        closed.add_done_callback(over)
    chunks: list[bytes] = []
    watch = _SilenceWatch(response, chunks)
    size = 0
    cut = False
    try:
        while chunk := await content.read(_CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                return Response(response.status, response.headers, b"".join(chunks)[:_CHUNK], True, resends)
    except Exception as error:  # noqa: BLE001  the status is known despite any error
        if 200 <= response.status < 300:
            raise TruncatedResponse(_response(response, b"".join(chunks), resends, True), error) from None
        cut = True
    finally:
        watch.end()
        if closed is not None:
            closed.remove_done_callback(over)
    return _response(response, b"".join(chunks), resends, cut)


class _SilenceWatch:
    """Ends the reading of an answer whose body is complete, but whose end does not come.

    Args:
        response: The answer.
        chunks: The parts of its body that have come; the reader adds to them.
    """

    def __init__(self, response: aiohttp.ClientResponse, chunks: list[bytes]) -> None:
        self._response = response
        self._chunks = chunks
        self._looked_at = self._seen = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SILENCE, self._look)

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        number = len(self._chunks)
        is_silent, self._seen = number == self._seen, number
        if is_silent and number > self._looked_at:
            self._looked_at = number
            if _is_whole(_response(self._response, b"".join(self._chunks), 0)):
                _no_more(self._response.content)
                return
        self._timer = self._loop.call_later(_SILENCE, self._look)


def _is_whole(received: Response) -> bool:
    """Whether a body is a complete JSON object or list."""
    try:
        data = None if received.oversize else json_text.parse(received.body, charset(received.headers))
        return isinstance(data, dict | list)
    except json_text.DecodeError:
        return False


def _response(response: aiohttp.ClientResponse, body: bytes, resends: int, cut: bool = False) -> Response:
    """Return a complete answer, with its body decompressed."""
    if "Content-Encoding" in response.headers or body.startswith(GZIP_MAGIC):
        body = decoded(response.headers, body, MAX_BODY)
        if len(body) > MAX_BODY:
            return Response(response.status, response.headers, body[:_CHUNK], True, resends)
    return Response(response.status, response.headers, body, False, resends, cut)


def _look_at(closed: asyncio.Future[None]) -> None:
    """Retrieve a connection's exception, because asyncio would otherwise complain that it was never retrieved."""
    _ = closed.cancelled() or closed.exception()


def _no_more(content: aiohttp.StreamReader, _: object = None) -> None:
    """End the reading of an answer whose connection is gone, or whose end does not come.

    If bytes within a body are not HTTP, aiohttp closes the connection, and does not wake the task that reads the rest.
    """
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError())
