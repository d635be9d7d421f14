"""Reads an answer off its connection, up to a size, and up to its end.

An answer of 2xx that breaks off may still hold a whole key. So may one whose end never comes, such as the last chunk of
a chunked body: JSON that is whole is the beginning of no other, so nothing more is waited for than a moment.
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
"""The most decoded bytes read of one answer. A page of a thousand keys has about a tenth of it."""

_CHUNK: Final = 2**16

_SILENCE: Final = 0.25
"""Seconds in which nothing comes, after which a body is looked at: whether it is whole, and lacks its end alone. It is
looked at once in so many seconds, so it may take twice that."""


class TruncatedResponse(Exception):
    """An answer broke off after its status.

    Attributes:
        received: What had come of it.
        cause: What aiohttp raised.
    """

    def __init__(self, received: Response, cause: Exception) -> None:
        super().__init__()
        self.received = received
        self.cause = cause


def at_hand(response: aiohttp.ClientResponse, resends: int) -> Response | None:
    """Return an answer whose body came whole with its headers; None if there is more to wait for."""
    content = response.content
    if not content.is_eof() or content.exception() is not None or content.total_bytes > MAX_BODY:
        return None
    return _response(response, content.read_nowait(), resends)


async def read(response: aiohttp.ClientResponse, resends: int) -> Response:
    """Read an answer up to the size bound. A refusal that breaks off is still that refusal.

    Raises:
        TruncatedResponse: One of 2xx broke off.
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
    """Ends the reading of an answer that is whole and has no end.

    Args:
        response: The answer.
        chunks: What has come of its body; added to by who reads.
    """

    def __init__(self, response: aiohttp.ClientResponse, chunks: list[bytes]) -> None:
        self._response = response
        self._chunks = chunks
        self._looked_at = self._seen = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SILENCE, self._look)

    def end(self) -> None:
        """Watch no longer."""
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
    """Whether a body is a JSON object or list from its beginning to its end."""
    if received.oversize:
        return False
    try:
        return isinstance(json_text.parse(received.body, charset(received.headers)), dict | list)
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

    After bytes that are not HTTP within a body, aiohttp closes the connection and does not wake the task that reads the
    rest.
    """
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError())
