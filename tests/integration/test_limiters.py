"""The pace against rate limiters of other projects, each in a server of its own, which counts what it let in."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import attrs
import pytest

from respan_async import AsyncRespan, CreateKeyRequest, Issued, RateLimit
from tests.servers.wheels import require

LIMIT = RateLimit(20, per=1)  # slowapi knows whole seconds only
COUNT = 30
"""More than one period's worth: the client must wait for the limit."""


@attrs.define
class Limiter:
    """A server with a limit.

    Attributes:
        module: What it runs.
        package: What it takes.
        arguments: What comes before the limit and its period.
    """

    module: str
    package: str
    arguments: tuple[str, ...] = ()
    url: str = ""
    statuses: dict[str, int] = attrs.field(factory=dict)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Give it a process; in the end, learn how many answers had which status."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.servers.{self.module}", *self.arguments),
            *(str(LIMIT.limit), f"{LIMIT.per:g}"),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                self.url = f"http://127.0.0.1:{int(await process.stdout.readline())}"
                yield
                process.terminate()
                self.statuses = json.loads(await process.stdout.read())
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture(
    params=[
        Limiter("slowapi_server", "slowapi", ("fixed-window",)),
        Limiter("slowapi_server", "slowapi", ("moving-window",)),
        Limiter("drf_server", "rest_framework"),
    ],
    ids=["slowapi-fixed-window", "slowapi-moving-window", "django-rest-framework"],
)
def limiter(request: pytest.FixtureRequest) -> Limiter:
    """One of the limiters, not running yet."""
    chosen: Limiter = attrs.evolve(request.param)
    require(chosen.package)
    return chosen


async def issue(limiter: Limiter, pace: RateLimit | Literal["auto"]) -> set[str]:
    """Create keys in a batch; give the ids of those that were issued, as the server made them up."""
    async with (
        limiter.run(),
        AsyncRespan("test-key", base_url=limiter.url, pace=pace) as respan,
        respan.temporary_keys.create_many(CreateKeyRequest() for _ in range(COUNT)) as batch,
    ):
        return {outcome.key.id async for outcome in batch if isinstance(outcome, Issued)}


async def test_a_limit_that_is_given_is_kept(limiter: Limiter) -> None:
    """The client knows the limit: the server refuses nothing, and every key is issued."""
    ids = await issue(limiter, LIMIT)

    assert len(ids) == COUNT
    assert limiter.statuses == {"201": COUNT}


async def test_a_limit_is_learned(limiter: Limiter) -> None:
    """Nobody tells the client the limit: every key is issued, and less than a period's worth of requests is refused."""
    ids = await issue(limiter, "auto")

    assert len(ids) == COUNT
    assert limiter.statuses.pop("201") == COUNT
    assert limiter.statuses.pop("429", 0) < LIMIT.limit
    assert not limiter.statuses
