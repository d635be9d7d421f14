"""A wire between a client and a server, which can go dead without either of them being told."""

import asyncio
import ssl
from typing import Self


class Wire:
    """Forward connections to a port of this machine.

    While the wire is cut, connections stay open, and new ones can be made, but nothing comes through. What was said
    meanwhile arrives when it is healed, as what TCP repeats would.

    Args:
        to: The port of the server.
        tls: Speak TLS with the client; None for what the server speaks.

    Attributes:
        lose_answers: How many of the server's next answers are lost, with their connections.
    """

    def __init__(self, to: int, tls: ssl.SSLContext | None = None) -> None:
        self._to = to
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self._links: set[asyncio.Task[None]] = set()
        self.lose_answers = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Break every connection, and leave no task behind."""
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Let nothing through any more."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything through again, and what was held back first."""
        self._whole.set()

    def replace(self) -> asyncio.Event:
        """Let new connections through; those there are stay dead until the event that this gives is set."""
        old, self._whole = self._whole, asyncio.Event()
        self._whole.set()
        return old

    async def _link(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        whole = self._whole
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(client, to_server, whole, answers=False))
                group.create_task(self._pump(server, to_client, whole, answers=True))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            for writer in (to_server, to_client):
                writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, whole: asyncio.Event, *, answers: bool
    ) -> None:
        while True:
            try:
                chunk = await reader.read(2**16)
            except ConnectionError:
                chunk = b""
            await whole.wait()
            if answers and chunk and self.lose_answers:
                self.lose_answers -= 1
                raise ConnectionError("lost")
            if not chunk:
                await asyncio.sleep(0.05)  # let what was said last arrive
                raise ConnectionError("closed")
            writer.write(chunk)
            await writer.drain()
