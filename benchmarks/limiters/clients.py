"""What is measured at a limiter: ours, and the plain way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol

import aiohttp
import attrs
import tenacity

from benchmarks import ours, tenants
from benchmarks.limiters.limiter import Limiter
from benchmarks.peers import MANY
from benchmarks.tenants import API_KEY, IN_FLIGHT, PATH
from respan_async import AsyncRespan, Issued, RespanError, RetryPolicy

GIVEN: Final = "ours, limit given"
AUTO: Final = 'ours, pace="auto"'
PLAIN: Final = "plain"

_FAILURES: Final = (RespanError, aiohttp.ClientError, TimeoutError)


class Client(Protocol):
    """A client that is open."""

    async def single(self, number: int) -> bool:
        """Create one key, for somebody who waits for it; tell whether that succeeded."""
        ...

    async def batch(self, count: int, issued: Callable[[], None]) -> None:
        """Create so many keys, and call `issued` for each that succeeds."""
        ...


Open = Callable[[Limiter, str], AbstractAsyncContextManager[Client]]
"""Opens a client at a limiter's URL."""


@attrs.frozen
class _Ours:
    """This library's client."""

    respan: AsyncRespan

    async def single(self, number: int) -> bool:
        """See `Client`."""
        try:
            await self.respan.temporary_keys.create(
                name=tenants.name(number), expires_in=tenants.LIFETIME, max_usage=tenants.MAX_USAGE
            )
        except _FAILURES:
            return False
        return True

    async def batch(self, count: int, issued: Callable[[], None]) -> None:
        """See `Client`."""
        async with self.respan.temporary_keys.create_many(ours.requests(count)) as batch:
            async for outcome in batch:
                if isinstance(outcome, Issued):
                    issued()


def _settings(limiter: Limiter) -> dict[str, Any]:
    """Return what the client is told of a limiter that does not refuse with 429, if it can be told."""
    fields = {field.name for field in attrs.fields(RetryPolicy)}
    if limiter.refusal == 429 or "refusal_statuses" not in fields:
        return {}
    told: dict[str, Any] = {"refusal_statuses": frozenset({limiter.refusal})}
    return {"retry": RetryPolicy(**told)}


@asynccontextmanager
async def _ours(limiter: Limiter, url: str, *, given: bool) -> AsyncIterator[Client]:
    pace: Any = limiter.limit if given else "auto"
    async with AsyncRespan(API_KEY, base_url=url, pace=pace, **_settings(limiter)) as respan:
        yield _Ours(respan)


@attrs.frozen
class _Plain:
    """What one would write by hand."""

    create: Callable[[int], Coroutine[Any, Any, None]]

    async def single(self, number: int) -> bool:
        """See `Client`."""
        try:
            await self.create(number)
        except _FAILURES:
            return False
        return True

    async def batch(self, count: int, issued: Callable[[], None]) -> None:
        """See `Client`."""
        semaphore = asyncio.Semaphore(IN_FLIGHT)

        async def one(number: int) -> None:
            async with semaphore:
                if await self.single(number):
                    issued()

        await asyncio.gather(*map(one, range(count)))


_BACKING_OFF: Final = tenacity.wait_random_exponential(max=30)


def _wait(state: tenacity.RetryCallState) -> float:
    """Wait as long as a Retry-After header says, or else for a random time that grows."""
    error = state.outcome and state.outcome.exception()
    if isinstance(error, aiohttp.ClientResponseError) and error.headers and "Retry-After" in error.headers:
        return float(error.headers["Retry-After"])
    return _BACKING_OFF(state)


@asynccontextmanager
async def _plain(limiter: Limiter, url: str) -> AsyncIterator[Client]:
    aiolimiter: Any = import_module("aiolimiter")
    known = aiolimiter.AsyncLimiter(limiter.limit.limit, limiter.limit.per)
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {API_KEY}"}) as session:

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type((aiohttp.ClientError, TimeoutError)),
            wait=_wait,
            stop=tenacity.stop_after_attempt(MANY + 1),
            reraise=True,
        )
        async def create(number: int) -> None:
            async with known, asyncio.timeout(30), session.post(PATH, json=tenants.fields(number)) as response:
                response.raise_for_status()
                await response.json()

        yield _Plain(create)


CLIENTS: Final[dict[str, Open]] = {
    GIVEN: partial(_ours, given=True),
    AUTO: partial(_ours, given=False),
    PLAIN: _plain,
}


def present() -> dict[str, Open]:
    """Return those that can be imported."""
    return {name: client for name, client in CLIENTS.items() if name != PLAIN or find_spec("aiolimiter")}


def missing() -> list[str]:
    """Say which cannot, and why."""
    return [f"{name} (aiolimiter is not installed; extra: bench)" for name in CLIENTS if name not in present()]
