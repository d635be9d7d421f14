"""The clients that are compared in CPU time: ours, those of the peers, and what aiohttp and asyncio themselves cost.

Each makes `count` keys at 64 in flight. All send the same three fields and ask for the same answer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from benchmarks import ours, tenants
from benchmarks.peers import PEERS, Peer, gathered
from benchmarks.tenants import API_KEY, IN_FLIGHT, PATH
from respan_async import AsyncRespan
from respan_async.events import Event

Run = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Run]:
    """The loop from aiohttp's own documentation: `post(json=)`, a semaphore, `gather`, `json()`."""
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {API_KEY}"}) as session:
        semaphore = asyncio.Semaphore(IN_FLIGHT)

        async def create(number: int) -> dict[str, Any]:
            async with semaphore, session.post(PATH, json=tenants.fields(number)) as response:
                response.raise_for_status()
                key: dict[str, Any] = await response.json()
                return key

        async def run(count: int) -> None:
            keys = await asyncio.gather(*(create(number) for number in range(count)))
            assert len(keys) == count

        yield run


@asynccontextmanager
async def create_many(url: str) -> AsyncIterator[Run]:
    """Ours, everything on: `create_many`, streamed."""
    async with AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT) as respan:

        async def run(count: int) -> None:
            assert len(await ours.stream(respan, count)) == count

        yield run


@asynccontextmanager
async def create_many_hooked(url: str) -> AsyncIterator[Run]:
    """The same, with a hook that collects every event."""
    events: list[Event] = []
    async with AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT, hooks=[events.append]) as respan:

        async def run(count: int) -> None:
            events.clear()
            assert len(await ours.stream(respan, count)) == count
            assert len(events) >= count

        yield run


@asynccontextmanager
async def create(url: str) -> AsyncIterator[Run]:
    """Ours, one `create()` for each key, all of them gathered; the client keeps 64 in flight by itself."""
    async with AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT) as respan:

        async def run(count: int) -> None:
            single = respan.temporary_keys.create
            keys = await asyncio.gather(
                *(
                    single(name=tenants.name(number), expires_in=tenants.LIFETIME, max_usage=tenants.MAX_USAGE)
                    for number in range(count)
                )
            )
            assert len(keys) == count

        yield run


@asynccontextmanager
async def _peer(peer: Peer, url: str) -> AsyncIterator[Run]:
    async with peer.open(url, None) as one:

        async def run(count: int) -> None:
            keys = await gathered(one, count)
            assert all(isinstance(key, str) for key in keys)

        yield run


class _Floor(asyncio.Protocol):
    """One connection that sends the next request as soon as the last answer is whole."""

    def __init__(self, host: str, take: Callable[[], int | None]) -> None:
        self._take = take
        self._head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {API_KEY}\r\n".encode()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def send(self) -> None:
        """Send the next request, if there is one."""
        number = self._take()
        if number is None:
            self.done.set_result(None)
            return
        body = json.dumps(tenants.fields(number)).encode()
        self.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))

    def data_received(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201")
        assert json.loads(body)["api_key"]
        self.send()


@asynccontextmanager
async def floor(url: str) -> AsyncIterator[Run]:
    """A hand-written protocol that knows this one server: what asyncio itself costs."""
    address = urlsplit(url)

    async def run(count: int) -> None:
        numbers = iter(range(count))
        loop = asyncio.get_running_loop()

        def connection() -> _Floor:
            return _Floor(address.netloc, lambda: next(numbers, None))

        connections = [
            (await loop.create_connection(connection, address.hostname or "", address.port or 80))[1]
            for _ in range(IN_FLIGHT)
        ]
        for each in connections:
            each.send()
        await asyncio.gather(*(each.done for each in connections))
        for each in connections:
            each.transport.close()

    yield run


CLIENTS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Run]]]] = {
    "bare": bare,
    "create_many": create_many,
    "create_many_hooked": create_many_hooked,
    "create": create,
    "floor": floor,
    **{name: partial(_peer, peer) for name, peer in PEERS.items()},
}
