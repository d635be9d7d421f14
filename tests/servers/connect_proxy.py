"""A proxy that makes tunnels, as the networks of companies have one: CONNECT (RFC 9110, 9.3.6), with a login."""

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Self


class ConnectProxy:
    """Connect clients to servers of this machine that stand for others.

    Args:
        servers: Ports of this machine, by the authority that clients ask for, such as `api.respan.ai:443`.
        login: `user:password`, without which a client gets a 407; None for no login.
        tls: Speak TLS with clients.

    Attributes:
        asked: The authorities that clients asked for, in their order.
        said: All bytes of clients outside of the tunnels.
    """

    def __init__(
        self, servers: Mapping[str, int], *, login: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._servers = servers
        self._login = None if login is None else f"Basic {base64.b64encode(login.encode('latin-1')).decode()}"
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        self.said = b""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Break every tunnel, and leave no task behind."""
        assert self._server is not None
        self._server.close()
        for tunnel in self._tunnels:
            tunnel.cancel()
        if self._tunnels:
            await asyncio.wait(self._tunnels)

    @property
    def authority(self) -> str:
        """Host and port."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tunnels.add(task)
        try:
            await self._tunnel(client, to_client)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tunnels.discard(task)
            to_client.transport.abort()

    async def _tunnel(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        head = await client.readuntil(b"\r\n\r\n")
        self.said += head
        request, *lines = head.decode("latin-1").split("\r\n")
        method, authority, _ = request.split(" ")
        headers = dict(line.split(": ", 1) for line in lines if line)
        self.asked.append(authority)
        if self._login is not None and headers.get("Proxy-Authorization") != self._login:
            return await self._refuse(to_client, "407 Proxy Authentication Required")
        if method != "CONNECT" or authority not in self._servers:
            return await self._refuse(to_client, "403 Forbidden")
        server, to_server = await asyncio.open_connection("127.0.0.1", self._servers[authority])
        to_client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            ways = {asyncio.create_task(_pump(client, to_server)), asyncio.create_task(_pump(server, to_client))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        finally:
            to_server.transport.abort()
        return None

    async def _refuse(self, to_client: asyncio.StreamWriter, status: str) -> None:
        to_client.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await to_client.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(2**16):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
