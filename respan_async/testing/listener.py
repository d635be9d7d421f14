"""The sockets of the fake server: listens, simulates an outage, and ends connections with RST or FIN.

Works the same on real sockets and on an event loop whose sockets are in memory (async-solipsism); there a reset is a
plain end of stream, because such sockets have no RST.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from respan_async.testing.clock import Clock

__all__ = ["Connection", "Handler", "Listener"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_T = TypeVar("_T")

_LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER with a time of 0: closing the socket then sends RST."""

_FOREVER = 1e9
"""Seconds that an idle connection is kept."""

_BACKLOG = 4096
"""More connections than any test opens at one time, because a full backlog delays a connect by a second."""


class Connection(web.RequestHandler):
    """One connection of one client."""

    __slots__ = ("_listener", "_lost")

    def __init__(self, listener: "Listener", loop: asyncio.AbstractEventLoop) -> None:
        # tcp_keepalive would cost a system call per connection, which loopback does not need.
        # The timer of keepalive_timeout asks the clock whether it is late; with virtual time it may ask for ever.
        super().__init__(
            listener.server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no access log
            tcp_keepalive=False,
            keepalive_timeout=_FOREVER,
        )
        self._listener = listener
        self._lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; reset it if it came in just before an outage."""
        super().connection_made(transport)
        self._listener.accepted(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Notify the waiting handler that the client is gone."""
        super().connection_lost(exc)
        self._listener.dropped(self)
        self._lost.set_result(None)

    @property
    def is_open(self) -> bool:
        """Whether bytes written now may still reach the client."""
        return self.transport is not None and not self.transport.is_closing()

    async def lost(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.shield(self._lost)

    def reset(self) -> None:
        """End the connection with a RST."""
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and isinstance(sock.fileno(), int):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.transport.abort()

    def finish(self, last: bytes = b"") -> None:
        """End the connection with a FIN.

        Args:
            last: Bytes to write before, unchanged.
        """
        if self.transport is None:
            return
        if last:
            self.transport.write(last)
        self.transport.close()


class Listener:
    """A listening socket that can go away and come back.

    Args:
        handler: Answers a request.
        host: The address to listen on; a literal.
        port: The port; 0 for a free one, which is then kept through an outage.
    """

    def __init__(self, handler: Handler, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.connections = 0
        self.server = web.Server(handler)
        self._open: set[Connection] = set()
        self._listening: asyncio.Server | None = None
        self.loop = asyncio.get_running_loop()
        self.clock = Clock(self.loop)
        self._real = True

    @property
    def is_listening(self) -> bool:
        """Whether a connection would be accepted."""
        return self._listening is not None

    async def start(self) -> None:
        """Begin to listen."""
        self._listening = await self.loop.create_server(self._connection, self.host, self.port, backlog=_BACKLOG)
        sock = self._listening.sockets[0]
        self.port = sock.getsockname()[1]
        self._real = isinstance(sock.fileno(), int)

    def shut(self) -> None:
        """Refuse new connections and reset the existing ones, at once."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for connection in tuple(self._open):
            connection.reset()

    def reopen(self) -> None:
        """Listen again on the same port, at once."""
        if self._listening is not None:
            return
        if self._real:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            sock = socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
            opening = self.loop.create_server(self._connection, sock=sock, backlog=_BACKLOG)
        else:
            opening = self.loop.create_server(self._connection, self.host, self.port, backlog=_BACKLOG)
        self._listening = _completed(opening)

    def accepted(self, connection: Connection) -> None:
        """Register a new connection."""
        self.connections += 1
        self._open.add(connection)
        if self._listening is None:
            connection.reset()

    def dropped(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)

    def _connection(self) -> Connection:
        return Connection(self, self.loop)


def _completed(opening: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end without the event loop, if it never waits for more than its next turn.

    `create_server` is such a coroutine if it need not look up a host. With the event loop, an outage would end some
    turns later, and refuse the request in the next line of a test.
    """
    while True:
        try:
            opening.send(None)
        except StopIteration as end:
            result: _T = end.value
            return result
