"""What someone would pick instead: each peer creates one key at a time, as its own documentation has it.

A peer is imported only when it is opened: one whose packages are not installed is left out, and none is paid for by the
others. Nothing here imports what a peer does not need.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any, Final, NamedTuple

from benchmarks.tenants import API_KEY, IN_FLIGHT, MAX_USAGE, PATH, expiry, fields, name

MANY: Final = 200
"""Retries of a peer that was told to be patient."""

Create = Callable[[int], Coroutine[Any, Any, str]]
"""Creates a key for the tenant with this number, and returns its id; raises when it does not succeed."""


class Peer(NamedTuple):
    """One way to create keys.

    Attributes:
        label: What it is called.
        modules: What it imports, and what must be installed.
        open: Opens it at a URL, with so many retries; None for what it does by default.
        note: What is to be known about it, in a few words.
        slow: It takes milliseconds of CPU a key, and so fewer keys a sample.
    """

    label: str
    modules: tuple[str, ...]
    open: Callable[[str, int | None], AbstractAsyncContextManager[Create]]
    note: str = ""
    slow: bool = False

    @property
    def missing(self) -> bool:
        """Whether it cannot be imported here."""
        try:
            for module in self.modules:
                import_module(module)
        except ImportError:
            return True
        return False


_AUTHORIZATION: Final = f"Bearer {API_KEY}"


@asynccontextmanager
async def official(url: str, retries: int | None) -> AsyncIterator[Create]:
    """The official SDK's own method; two retries by default, that read a Retry-After header."""
    respan: Any = import_module("respan")
    httpx: Any = import_module("httpx")
    options = None if retries is None else {"max_retries": retries}
    # The SDK has no way to close the client that it makes by itself: this is the same one, handed in.
    async with httpx.AsyncClient(timeout=60, follow_redirects=True) as session:
        client = respan.AsyncRespanClient(
            base_url=url, authorization=_AUTHORIZATION, respan_api_key=API_KEY, httpx_client=session
        )

        async def create(number: int) -> str:
            key = await client.temporary_api_keys.create_api_key(
                name=name(number), expiry_date=expiry(), max_usage=MAX_USAGE, request_options=options
            )
            return str(key.id)

        yield create


@asynccontextmanager
async def openai(url: str, retries: int | None) -> AsyncIterator[Create]:
    """The generic request of the `openai` SDK; two retries by default, that read a Retry-After header."""
    module: Any = import_module("openai")
    settings = {} if retries is None else {"max_retries": retries}
    async with module.AsyncOpenAI(base_url=url, api_key=API_KEY, **settings) as client:

        async def create(number: int) -> str:
            key = await client.post(PATH, body=fields(number), cast_to=dict[str, Any])
            return str(key["id"])

        yield create


@asynccontextmanager
async def stripe(url: str, retries: int | None) -> AsyncIterator[Create]:
    """The generic request of the `stripe` SDK; two retries by default, none of them after a 429."""
    module: Any = import_module("stripe")
    settings = {} if retries is None else {"max_network_retries": retries}
    http = module.HTTPXClient()
    client = module.StripeClient(API_KEY, base_addresses={"api": url}, http_client=http, **settings)
    # It writes JSON rather than a form below /v2 only; httpx takes the detour out of the path.
    path = f"/v2/..{PATH}"
    try:

        async def create(number: int) -> str:
            answer = await client.raw_request_async("post", path, **fields(number))
            return str(answer.data["id"])

        yield create
    finally:
        await http.close_async()


def _repeated(module: Any, errors: tuple[type[BaseException], ...], retries: int | None) -> Any:
    """Return the decorator that tenacity's documentation leads to; five attempts are what one would write."""
    return module.retry(
        retry=module.retry_if_exception_type(errors),
        wait=module.wait_random_exponential(max=30),
        stop=module.stop_after_attempt(5 if retries is None else retries + 1),
        reraise=True,
    )


@asynccontextmanager
async def httpx_tenacity(url: str, retries: int | None) -> AsyncIterator[Create]:
    """An `httpx` client, and tenacity around the request."""
    httpx: Any = import_module("httpx")
    tenacity: Any = import_module("tenacity")
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": _AUTHORIZATION}, timeout=30) as client:

        @_repeated(tenacity, (httpx.HTTPError,), retries)  # type: ignore[untyped-decorator]  # imported by name
        async def create(number: int) -> str:
            response = await client.post(PATH, json=fields(number))
            response.raise_for_status()
            return str(response.json()["id"])

        yield create


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[Any]:
    aiohttp: Any = import_module("aiohttp")
    async with aiohttp.ClientSession(url, headers={"Authorization": _AUTHORIZATION}) as session:
        yield session


@asynccontextmanager
async def aiohttp_retry(url: str, retries: int | None) -> AsyncIterator[Create]:
    """`aiohttp-retry`; by default three attempts, for a 5xx only."""
    aiohttp: Any = import_module("aiohttp")
    module: Any = import_module("aiohttp_retry")
    options = None
    if retries is not None:
        options = module.ExponentialRetry(
            attempts=retries + 1, statuses={429}, exceptions={aiohttp.ClientError, TimeoutError}
        )
    async with _session(url) as session:
        client = module.RetryClient(client_session=session, retry_options=options, raise_for_status=True)

        async def create(number: int) -> str:
            async with client.post(PATH, json=fields(number)) as response:
                return str((await response.json())["id"])

        yield create


@asynccontextmanager
async def evening(url: str, retries: int | None, limit: tuple[float, float] = (1e6, 1.0)) -> AsyncIterator[Create]:
    """An evening's own loop: aiohttp, a tenacity decorator, default cattrs, aiolimiter, `asyncio.timeout`."""
    aiohttp: Any = import_module("aiohttp")
    tenacity: Any = import_module("tenacity")
    aiolimiter: Any = import_module("aiolimiter")
    models: Any = import_module("benchmarks.model")
    limiter = aiolimiter.AsyncLimiter(*limit)
    async with _session(url) as session:

        @_repeated(tenacity, (aiohttp.ClientError, TimeoutError), retries)  # type: ignore[untyped-decorator]  # as above
        async def create(number: int) -> str:
            async with limiter, asyncio.timeout(30), session.post(PATH, json=fields(number)) as response:
                response.raise_for_status()
                return str(models.structured(await response.json()).id)

        yield create


@asynccontextmanager
async def as_told(url: str, retries: int | None) -> AsyncIterator[Create]:
    """Bare aiohttp, and a loop that waits as long as a 429 says, in its header or its body, or else a second."""
    async with _session(url) as session:

        async def create(number: int) -> str:
            while True:
                async with session.post(PATH, json=fields(number)) as response:
                    answer = await response.json()
                    if response.status != 429:
                        response.raise_for_status()
                        return str(answer["id"])
                    told = response.headers.get("Retry-After", answer.get("retry_after"))
                await asyncio.sleep(float(told or 1.0))

        yield create


PEERS: Final[dict[str, Peer]] = {
    "official": Peer(
        "respan-api (the official SDK)",
        ("respan", "httpx"),
        official,
        "AsyncRespanClient.temporary_api_keys.create_api_key",
        slow=True,
    ),
    "openai": Peer(
        "openai", ("openai",), openai, "AsyncOpenAI.post(cast_to=dict): the SDK's machinery at this API", slow=True
    ),
    "stripe": Peer(
        "stripe", ("stripe", "httpx"), stripe, "StripeClient.raw_request_async: the SDK's machinery at this API", True
    ),
    "httpx": Peer("httpx + tenacity", ("httpx", "tenacity"), httpx_tenacity, slow=True),
    "aiohttp_retry": Peer("aiohttp-retry", ("aiohttp_retry",), aiohttp_retry),
    "evening": Peer(
        "an evening's own: aiohttp, tenacity, cattrs, aiolimiter",
        ("aiohttp", "tenacity", "cattrs", "aiolimiter"),
        evening,
    ),
    "as_told": Peer("an evening's own: aiohttp, waits as told", ("aiohttp",), as_told),
}
"""All of them, by the names that samples go by."""


def present() -> dict[str, Peer]:
    """Return those that can be imported."""
    return {key: peer for key, peer in PEERS.items() if not peer.missing}


def left_out() -> str:
    """Say which cannot, as the end of a sentence; nothing when all can."""
    labels = [peer.label for peer in PEERS.values() if peer.missing]
    return f"; left out, because they are not installed (extra: bench): {', '.join(labels)}" if labels else ""


async def gathered(create: Create, count: int) -> list[str | BaseException]:
    """Create so many keys, 64 at a time behind a semaphore; return each tenant's id, or why there is none."""
    semaphore = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int) -> str:
        async with semaphore:
            return await create(number)

    return await asyncio.gather(*map(one, range(count)), return_exceptions=True)
