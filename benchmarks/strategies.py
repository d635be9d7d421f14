"""Ways to make keys against a limit: ours, and those one would write by hand."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import aiohttp
import tenacity

from benchmarks.limited import Strategy
from respan_async import AsyncRespan, CreateKeyRequest, Issued, RateLimit

_API_KEY: Final = "test-key"  # the one that FakeRespan accepts
_PATH: Final = "/api/temporary-keys/"


def _requests(count: int) -> Iterator[CreateKeyRequest]:
    return (CreateKeyRequest(name=f"tenant-{number}") for number in range(count))


def ours(pace: RateLimit | Literal["auto"]) -> Strategy:
    """`create_many`, streamed."""

    async def run(url: str, count: int) -> None:
        async with (
            AsyncRespan(_API_KEY, base_url=url, pace=pace) as respan,
            respan.temporary_keys.create_many(_requests(count)) as batch,
        ):
            issued = 0
            async for outcome in batch:
                issued += isinstance(outcome, Issued)
        assert issued == count

    return run


class _Refused(Exception):
    def __init__(self, retry_after: str | None) -> None:
        super().__init__()
        self.retry_after = retry_after


async def _post(session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    async with session.post(_PATH, json={"name": f"tenant-{number}"}) as response:
        if response.status == 429:
            raise _Refused(response.headers.get("Retry-After"))
        response.raise_for_status()
        key: dict[str, Any] = await response.json()
        return key


def _gathered(create: Callable[[aiohttp.ClientSession, int], Any]) -> Strategy:
    async def run(url: str, count: int) -> None:
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {_API_KEY}"}) as session:
            keys = await asyncio.gather(*(create(session, number) for number in range(count)))
            assert len(keys) == count

    return run


async def _own_retry_after(session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    while True:
        try:
            return await _post(session, number)
        except _Refused as refused:
            await asyncio.sleep(float(refused.retry_after or 1))


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(_Refused), wait=tenacity.wait_random_exponential(multiplier=1, max=60)
)
async def _exponential(session: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    return await _post(session, number)


def _bounded(create: Callable[[aiohttp.ClientSession, int], Any]) -> Strategy:
    async def run(url: str, count: int) -> None:
        semaphore = asyncio.Semaphore(64)

        async def one(session: aiohttp.ClientSession, number: int) -> Any:
            async with semaphore:
                return await create(session, number)

        await _gathered(one)(url, count)

    return run


BY_HAND: Final[dict[str, Strategy]] = {
    "each waits its own Retry-After, all at once": _gathered(_own_retry_after),
    "the same, 64 at a time": _bounded(_own_retry_after),
    "tenacity, exponential with jitter": _bounded(_exponential),
}
