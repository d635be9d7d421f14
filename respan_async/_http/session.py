"""Makes and keeps the client's own session, and checks a session that the caller gives."""

import asyncio
import contextlib
import time
import weakref
from collections import Counter
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Final

import aiohttp
import attrs

from respan_async._suspend_clock import elapsed
from respan_async.errors import ClientStateError, ConfigurationError
from respan_async.secret import Secret

KEEPALIVE: Final = 4.0
"""Seconds an idle connection is kept. Common servers close theirs after 5 seconds; a POST that meets such a closing is
a lost answer, and may leave an orphaned key."""

_ASLEEP: Final = 0.5
"""Seconds of machine sleep after which idle connections count as closed by the server. aiohttp's clock stands still
during sleep, and the server waits a second longer than `KEEPALIVE`."""

HEADERS: Final = {
    "Accept": "application/json",
    # Answers are small, and an uncompressed one cannot expand in memory.
    "Accept-Encoding": "identity",
    "User-Agent": "respan-async",
}


@attrs.frozen(kw_only=True)
class Network:
    """The network settings of a client's own session.

    Attributes:
        proxy: The URL of a proxy, which may hold a password; None for no proxy.
        ssl: The TLS settings for the server and a proxy; None for aiohttp's default, which trusts the system's CAs.
        unused_proxy: The environment variable that names a proxy which is not used, or None.
    """

    proxy: Secret | None = None
    ssl: SSLContext | None = None
    unused_proxy: str | None = None


class _Connector(aiohttp.TCPConnector):
    """A connector that never reuses a connection on which the server spoke unasked.

    The next request would take those bytes for its answer. `TrackedBody` checks that in any session; this connector
    also protects requests without a body.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Get a connection from the pool, or make one."""
        connection = await super().connect(req, traces, timeout)
        while (protocol := connection.protocol) is not None and protocol.should_close and protocol in self._known:
            connection.close()
            connection = await super().connect(req, traces, timeout)
        self._known.add(protocol)
        return connection


def own_session(network: Network) -> aiohttp.ClientSession:
    """Make the session of a client that was given none."""
    return aiohttp.ClientSession(
        # The pacer bounds the requests in flight; a second bound here would only add hidden waiting.
        connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE, ssl=network.ssl or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),
        proxy=None if network.proxy is None else network.proxy.reveal(),
    )


class SessionKeeper:
    """Keep the client's own session as long as its connections are usable.

    Rules:

    1. The session is made at the first request, and belongs to its event loop.
    2. After this machine was asleep, requests take a new session: the server has closed the idle connections of the old
       one meanwhile, and a POST that meets such a closing is a lost answer.
    3. The old session is closed once no request uses it.
    4. When the event loop is closed, the next request makes a session on its own loop.

    Args:
        make: Makes a session.
    """

    def __init__(self, make: Callable[[], aiohttp.ClientSession]) -> None:
        self._make = make
        self._session: aiohttp.ClientSession | None = None
        self._slept = 0.0
        self._in_air: Counter[aiohttp.ClientSession] = Counter()
        self._closing: set[asyncio.Task[None]] = set()

    def take(self) -> aiohttp.ClientSession:
        """Return the session for one request, to be given back once."""
        slept = elapsed() - time.monotonic()
        session = self._session
        if session is not None and slept - self._slept > _ASLEEP:
            self._session = None
            self._close_if_unused(session)
            session = None
        if session is None:
            session = self._session = self._make()
            self._slept = slept
        self._in_air[session] += 1
        return session

    def give_back(self, session: aiohttp.ClientSession) -> None:
        """Note that a request has ended."""
        if session not in self._in_air:
            return  # the session was closed meanwhile, or belongs to a closed event loop
        self._in_air[session] -= 1
        if session is not self._session:
            self._close_if_unused(session)

    def leave_loop(self) -> None:
        """Forget the sessions of a closed event loop; their sockets close when Python collects them."""
        left = self._forget()
        self._closing.clear()
        for session in left:
            closing = session.close()
            with contextlib.suppress(StopIteration, RuntimeError):
                closing.send(None)  # on a closed loop, closing awaits nothing
            closing.close()

    async def aclose(self) -> None:
        """Close the open sessions; the next request makes another session."""
        for session in self._forget():
            await session.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _forget(self) -> set[aiohttp.ClientSession]:
        known = set(self._in_air)
        if self._session is not None:
            known.add(self._session)
        self._session = None
        self._in_air.clear()
        return known

    def _close_if_unused(self, session: aiohttp.ClientSession) -> None:
        if self._in_air[session] <= 0:
            del self._in_air[session]
            # In a task, because no request waits for connections to be shut down.
            task = asyncio.get_running_loop().create_task(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def check_session(session: object) -> None:
    """Refuse an object that is not a session.

    Raises:
        ConfigurationError: It is not an `aiohttp.ClientSession`.
    """
    if not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError(f"session: expected an aiohttp.ClientSession, got {type(session).__name__}")


def check_loop(session: aiohttp.ClientSession) -> None:
    """Refuse a session of another event loop, even a closed one, before a request is sent on it.

    Raises:
        ClientStateError: It belongs to another event loop.
    """
    loop = getattr(session, "_loop", None)  # its public name is deprecated; a mock has none
    if isinstance(loop, asyncio.AbstractEventLoop) and loop is not asyncio.get_running_loop():
        raise ClientStateError("the aiohttp session belongs to another event loop; give AsyncRespan one of this loop")


def most_in_air(session: aiohttp.ClientSession | None, wanted: int) -> int:
    """Return how many requests may be in flight: `wanted`, or fewer if a caller's session has fewer connections.

    A request that waits for a connection already occupies its slot, and the time of its attempt runs.
    """
    connector = None if session is None else session.connector
    limits = () if connector is None else (connector.limit, connector.limit_per_host)
    return min([wanted, *(limit for limit in limits if limit > 0)])
