"""The clients that are compared: ours, and those one would write by hand. Each makes `count` keys at 64 in flight.

All send the same three fields and ask for the same answer; a lifetime is counted from the moment of the request.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import attrs
import cattrs
import tenacity

from respan_async import AsyncRespan, CreateKeyRequest, Issued
from respan_async.events import Event

IN_FLIGHT: Final = 64
API_KEY: Final = "benchmark.0123456789abcdef0123456789abcdef"
_PATH: Final = "/api/temporary-keys/"
_HOUR: Final = timedelta(hours=1)

Run = Callable[[int], Awaitable[None]]


def _fields(number: int) -> dict[str, Any]:
    return {
        "name": f"tenant-{number}",
        "expiry_date": (datetime.now(UTC) + _HOUR).isoformat(),
        "max_usage": 1000,
    }


def _requests(count: int) -> Iterator[CreateKeyRequest]:
    return (CreateKeyRequest(name=f"tenant-{number}", expires_in=_HOUR, max_usage=1000) for number in range(count))


def _session(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {API_KEY}"})


@asynccontextmanager
async def bare(url: str) -> AsyncIterator[Run]:
    """The loop from aiohttp's own documentation: `post(json=)`, a semaphore, `gather`, `json()`."""
    async with _session(url) as session:
        semaphore = asyncio.Semaphore(IN_FLIGHT)

        async def create(number: int) -> dict[str, Any]:
            async with semaphore, session.post(_PATH, json=_fields(number)) as response:
                response.raise_for_status()
                key: dict[str, Any] = await response.json()
                return key

        async def run(count: int) -> None:
            keys = await asyncio.gather(*(create(number) for number in range(count)))
            assert len(keys) == count

        yield run


@attrs.frozen
class _Key:
    id: str
    api_key: str
    prefix: str
    created: datetime
    name: str
    revoked: bool
    expiry_date: datetime
    key_usage: int
    max_usage: int
    last_used: datetime
    rate_limit: float | None
    spending_limit: float | None
    spending_in_period: float
    is_test: bool
    is_temporary: bool


@asynccontextmanager
async def naive(url: str) -> AsyncIterator[Run]:
    """Every feature the obvious way: a tenacity decorator, a default cattrs converter, `asyncio.timeout`, `gather`."""
    converter = cattrs.Converter()
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    async with _session(url) as session:
        semaphore = asyncio.Semaphore(IN_FLIGHT)

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(aiohttp.ClientError),
            wait=tenacity.wait_random_exponential(max=30),
            stop=tenacity.stop_after_attempt(5),
        )
        async def create(number: int) -> _Key:
            async with asyncio.timeout(30), session.post(_PATH, json=_fields(number)) as response:
                response.raise_for_status()
                return converter.structure(await response.json(), _Key)

        async def bounded(number: int) -> _Key:
            async with semaphore:
                return await create(number)

        async def run(count: int) -> None:
            keys = await asyncio.gather(*(bounded(number) for number in range(count)))
            assert len(keys) == count

        yield run


async def _stream(respan: AsyncRespan, count: int) -> None:
    issued = 0
    async with respan.temporary_keys.create_many(_requests(count), max_in_flight=IN_FLIGHT) as batch:
        async for outcome in batch:
            issued += isinstance(outcome, Issued)
    assert issued == count


@asynccontextmanager
async def create_many(url: str) -> AsyncIterator[Run]:
    """Ours, everything on: `create_many`, streamed."""
    async with AsyncRespan(API_KEY, base_url=url) as respan:
        yield lambda count: _stream(respan, count)


@asynccontextmanager
async def create_many_hooked(url: str) -> AsyncIterator[Run]:
    """The same, with a hook that collects every event."""
    events: list[Event] = []
    async with AsyncRespan(API_KEY, base_url=url, hooks=[events.append]) as respan:

        async def run(count: int) -> None:
            events.clear()
            await _stream(respan, count)
            assert len(events) >= count

        yield run


@asynccontextmanager
async def create(url: str) -> AsyncIterator[Run]:
    """Ours, one `create()` for each key, all of them gathered; the client keeps 64 in flight by itself."""
    async with AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT) as respan:

        async def run(count: int) -> None:
            single = respan.temporary_keys.create
            keys = await asyncio.gather(
                *(single(name=f"tenant-{number}", expires_in=_HOUR, max_usage=1000) for number in range(count))
            )
            assert len(keys) == count

        yield run


class _Floor(asyncio.Protocol):
    """One connection that sends the next request as soon as the last answer is whole."""

    def __init__(self, host: str, take: Callable[[], int | None]) -> None:
        self._take = take
        self._head = f"POST {_PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {API_KEY}\r\n".encode()
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
        body = json.dumps(_fields(number)).encode()
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


CLIENTS: Final = {
    "bare": bare,
    "create_many": create_many,
    "create_many_hooked": create_many_hooked,
    "create": create,
    "naive": naive,
    "floor": floor,
}
