"""Sends requests over aiohttp: a `Request` goes out, a `Response` or a `TransportFailure` comes back.

It raises nothing for failures of the network or the server. That keeps aiohttp's exceptions, which hold the
Authorization header, out of every chain of exceptions and every traceback.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from respan_async._http import aiohttp_version  # noqa: F401  refuses an aiohttp that is too old, before it is used
from respan_async._http.json_text import parse
from respan_async._http.operations import Request
from respan_async._http.response import Response, TransportFailure
from respan_async._http.response_reading import TruncatedResponse, at_hand, read
from respan_async._http.session import HEADERS, Network, SessionKeeper, check_loop, own_session
from respan_async._http.transport_failures import authority, classify
from respan_async.errors import ClientStateError, ConfigurationError, RespanError
from respan_async.secret import Secret

Timeout = aiohttp.ClientTimeout
"""The timeout of one attempt."""


class TrackedBody(aiohttp.BytesPayload):
    """The body of one request, which knows whether the request has begun to leave.

    aiohttp's exceptions do not tell that, but a payload knows: aiohttp reads its size when it builds the request, and
    calls its write method when the first byte, headers included, goes out. A mock of aiohttp does neither.
    """

    touched = False
    started = False
    recalled = False

    def __init__(self, body: bytes, permits: Callable[[], bool] | None = None) -> None:
        super().__init__(body, content_type="application/json")
        self._permits = permits

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return this body: a mock copies its arguments, and a copy of `permits` would copy the whole client."""
        return self

    @property
    def size(self) -> int | None:
        """Bytes of the body."""
        self.touched = True
        return super().size

    @property
    def json(self) -> Any:
        """The body as JSON, for tests that inspect the calls of a mocked session."""
        return parse(self.decode().encode())

    @property
    def may_have_left(self) -> bool:
        """Whether bytes may have reached the server; without proof, True."""
        return self.started or not self.touched

    def recall(self) -> bool:
        """Forbid the request to leave from now on; return whether it certainly had not begun to leave."""
        self.recalled = not self.may_have_left
        return self.recalled

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Note that the request is leaving, and write it, if it may still leave."""
        if self.recalled:
            # The call is cancelled, but the cancellation reaches its task one turn of the loop after this write.
            raise asyncio.CancelledError
        if self._permits is not None and not self._permits():
            raise ConnectionAbortedError  # nothing was sent, provably
        if getattr(getattr(writer, "protocol", None), "should_close", False):
            # The server has already sent bytes on this connection; they cannot be the answer to this request.
            raise ConnectionAbortedError
        self.started = True
        await super().write_with_length(writer, content_length)


class SendingCounter:
    """Count how often aiohttp sends one request, as a middleware, which aiohttp calls for each sending.

    aiohttp sends a GET or a DELETE again if the connection was dropped, and the server's limit counts each sending.
    """

    sendings = 0

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request once."""
        self.sendings += 1
        return await handler(request)

    @property
    def resends(self) -> int:
        """How often the request was sent after the first time; 0 under a mock, which sends nothing."""
        return max(0, self.sendings - 1)


class Transport:
    """Send requests over one `aiohttp.ClientSession`.

    Args:
        base_url: Scheme, host and port, without a path of this API.
        session: The caller's session, never closed here; or None for our own, made at the first request.
        network: The network settings of our own session.

    Attributes:
        host: Host and port, as messages name the server.
    """

    def __init__(self, base_url: str, session: aiohttp.ClientSession | None, network: Network = Network()) -> None:  # noqa: B008  a frozen value
        self._base_url = base_url
        self._origin = URL(base_url)
        self.host = authority(self._origin)
        self._given = session
        self._network = network
        self._sessions = SessionKeeper(partial(own_session, network))
        self._closed = False
        self._urls: dict[str, URL] = {}

    async def send(
        self,
        request: Request[Any],
        tracked_body: TrackedBody | None,
        token: Secret,
        timeout: Timeout,
        extra_headers: tuple[tuple[str, Secret | str], ...] = (),
    ) -> Response | TransportFailure:
        """Send one request once, and never follow a redirect.

        Args:
            request: The request.
            tracked_body: Its body, watched by the caller; None if the request has no body.
            token: The bearer token.
            timeout: The timeout of this attempt.
            extra_headers: Additional headers; the library's own take precedence.

        Raises:
            ClientStateError: The session was closed, or belongs to another event loop.
            ConfigurationError: The caller's session cannot carry this request.
        """
        if self._closed:
            # Reached only by a call that closed the client from within; a new session would never be closed.
            raise ClientStateError("the client is closed")
        if self._given is not None:
            if self._given.closed:
                raise ClientStateError("the aiohttp session was closed; give AsyncRespan an open one")
            check_loop(self._given)
        session = self._sessions.take() if self._given is None else self._given
        sendings = SendingCounter()
        result: TransportFailure | ConfigurationError | None = None
        response: aiohttp.ClientResponse | None = None
        try:
            response = await session.request(
                request.operation.method,
                self._url(request.path),
                data=tracked_body,
                headers=self._headers(token, extra_headers),
                timeout=timeout,
                allow_redirects=False,
                raise_for_status=False,
                middlewares=(sendings,) if tracked_body is None else (),
                auto_decompress=False,  # see `content_encoding`
            )
            if tracked_body is None or not tracked_body.recall():
                return at_hand(response, sendings.resends) or await read(response, sendings.resends)
            result = TransportFailure(f"{self.host} spoke before it was asked", left=False)
        except TruncatedResponse as error:
            result = self._classify(error.cause, tracked_body, error.received, sendings.resends)
        except asyncio.CancelledError:
            pass  # a new one is raised below, because this traceback holds frames with the Authorization header
        except Exception as error:  # noqa: BLE001  the caller gets a value for any failure of aiohttp
            result = self._classify(error, tracked_body, None, sendings.resends)
        finally:
            if response is not None:
                # A response that was read to its end has returned its connection already, so that closing it does no
                # harm.
                response.close()
            if self._given is None:
                self._sessions.give_back(session)
        # Drop the response: the traceback keeps this frame, and the response holds the Authorization header.
        response = None
        if result is None:
            raise asyncio.CancelledError
        if isinstance(result, RespanError):
            raise result
        return result

    def _classify(
        self, error: Exception, tracked_body: TrackedBody | None, received: Response | None, resends: int
    ) -> TransportFailure | ConfigurationError:
        # `Effect.NONE` needs proof: see `TrackedBody`.
        return classify(
            error,
            self._origin,
            left=tracked_body is None or tracked_body.may_have_left,
            begun=None if tracked_body is None else tracked_body.started,
            received=received,
            resends=resends,
            unused_proxy=self._network.unused_proxy,
        )

    def _headers(self, token: Secret, extra: tuple[tuple[str, Secret | str], ...]) -> dict[str, str]:
        bearer = {"Authorization": f"Bearer {token.reveal()}"}
        if self._given is None and not extra:
            return bearer  # our own session adds the other headers
        besides = {name: value.reveal() if isinstance(value, Secret) else value for name, value in extra}
        return {**besides, **HEADERS, **bearer}

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base_url + path, encoded=True)
            if len(self._urls) < 8:  # a create always has the same path; paths with ids are not cached beyond this
                self._urls[path] = url
        return url

    def leave_loop(self) -> None:
        """Forget the session of a closed event loop; the next request makes one on its own loop.

        Raises:
            ClientStateError: The session belongs to the caller, and cannot be made anew.
        """
        if self._given is not None:
            raise ClientStateError(
                "the client was given an aiohttp session, which belongs to an event loop that is closed; without "
                "session=, a client makes its own on each loop in turn"
            )
        self._sessions.leave_loop()

    async def park(self) -> None:
        """Close our own session, on an event loop that is about to end."""
        await self._sessions.aclose()

    async def aclose(self) -> None:
        """Close our own session."""
        self._closed = True
        await self._sessions.aclose()


def timeout_of(value: float | Timeout) -> Timeout:
    """Return aiohttp's timeout for a number of seconds per attempt."""
    return value if isinstance(value, Timeout) else Timeout(total=value)


def bound_of(timeout: Timeout) -> float | None:
    """Return the most seconds that an attempt may take; None if a phase is unbounded."""
    return timeout.total or timeout.sock_read or timeout.connect or timeout.sock_connect
