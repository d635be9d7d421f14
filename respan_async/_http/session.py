"""The session that a client makes for itself, and what is asked of one that it is given."""

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
"""Seconds an idle connection is kept. Below the 5 seconds after which common servers close theirs: a POST that meets
that closing is a lost answer, and so a possible key that nobody holds."""

_ASLEEP: Final = 0.5
"""Seconds that this machine may have been asleep before idle connections count as closed by the server. aiohttp counts
idle time by a clock that stands still meanwhile, and the server has a second more patience than `KEEPALIVE`."""

HEADERS: Final = {
    "Accept": "application/json",
    # Answers are small, and one that is not compressed cannot grow in memory.
    "Accept-Encoding": "identity",
    "User-Agent": "respan-async",
}


@attrs.frozen(kw_only=True)
class Network:
    """The way from a client's own session to the server.

    Attributes:
        proxy: The URL of a proxy, which may hold a password; None for no proxy.
        ssl: What TLS is spoken with, to the server and to a proxy; None for aiohttp's own, which trusts what the system
            trusts.
        unused_proxy: The variable of the environment that names a proxy which is not used, or None.
    """

    proxy: Secret | None = None
    ssl: SSLContext | None = None
    unused_proxy: str | None = None


class _Connector(aiohttp.TCPConnector):
    """Use no connection again on which the server spoke unasked: the next request would take that for its answer.

    A `TrackedBody` sees to that by itself, in any session; this is for requests without a body as well.
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
    """Make the session of a client to which none was given."""
    return aiohttp.ClientSession(
        # How many requests are in the air is the pacer's to say; a second bound would only add waiting in the dark.
        connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE, ssl=network.ssl or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),
        proxy=None if network.proxy is None else network.proxy.reveal(),
    )


class SessionKeeper:
    """Keep the session that a client makes for itself, for as long as its connections are of use.

    Rules:

    1. The session is made at the first request, and belongs to the event loop of that.
    2. After a time in which this machine was asleep, requests take a new session: the server has closed the idle
       connections of the old one meanwhile, and a POST that meets such a closing is a lost answer.
    3. The old session is closed once nothing is in the air on it.
    4. When the event loop is closed, the next request makes a session on its own.

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
            return  # closed meanwhile, or of an event loop that is closed
        self._in_air[session] -= 1
        if session is not self._session:
            self._close_if_unused(session)

    def leave_loop(self) -> None:
        """Forget sessions of an event loop that is closed; their sockets close with what Python collects."""
        left = self._forget()
        self._closing.clear()
        for session in left:
            closing = session.close()
            with contextlib.suppress(StopIteration, RuntimeError):
                closing.send(None)  # on a loop that is closed there is nothing to wait for
            closing.close()

    async def aclose(self) -> None:
        """Close what is open; the next request makes another session."""
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
            # In a task: no request waits for connections to be shut down.
            task = asyncio.get_running_loop().create_task(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def check_session(session: object) -> None:
    """Refuse what is no session.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError(f"session: expected an aiohttp.ClientSession, got {type(session).__name__}")


def check_loop(session: aiohttp.ClientSession) -> None:
    """Refuse a session of another event loop, be it closed, before a request that could not be carried through.

    Raises:
        ClientStateError: It is one.
    """
    loop = getattr(session, "_loop", None)  # its public name is deprecated; under a mock there is none
    if isinstance(loop, asyncio.AbstractEventLoop) and loop is not asyncio.get_running_loop():
        raise ClientStateError("the aiohttp session belongs to another event loop; give AsyncRespan one of this loop")


def most_in_air(session: aiohttp.ClientSession | None, wanted: int) -> int:
    """Return how many requests may be in the air: as many as wanted, or as a caller's session has connections for.

    A request that waits for a connection has its slot already, and the time of its attempt runs.
    """
    connector = None if session is None else session.connector
    limits = () if connector is None else (connector.limit, connector.limit_per_host)
    return min([wanted, *(limit for limit in limits if limit > 0)])
