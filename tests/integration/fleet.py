"""Several replicas, in processes of their own or in this one, and what the server counts of them."""

import asyncio
import contextlib
import itertools
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from respan_async import AsyncRespan, CreateKeyRequest, RateLimit
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan

_REPLICA = Path(__file__).with_name("replica.py")


@attrs.define
class Fleet:
    """Replicas that are at work.

    Attributes:
        processes: Theirs.
    """

    processes: list[Process] = attrs.field(factory=list)

    async def stop(self) -> list[int]:
        """Let all of them finish; tell how many keys each has made."""
        return [await self._finish(process) for process in self.processes]

    async def _finish(self, process: Process) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(b"stop\n")
            await process.stdin.drain()
        said = await process.stdout.readline()
        assert await process.wait() == 0
        return int(json.loads(said)["made"])


@contextlib.asynccontextmanager
async def fleet(
    number: int, fake: FakeRespan, redis: str, limit: RateLimit, coroutines: int = 64, **options: Any
) -> AsyncIterator[Fleet]:
    """Start so many replicas, all at once; kill those that are left."""
    words = {
        "--redis": redis,
        "--url": fake.url,
        "--api-key": fake.api_key,
        "--limit": limit.limit,
        "--per": limit.per,
        "--coroutines": coroutines,
        **{f"--{name}": value for name, value in options.items()},
    }
    command = [str(_REPLICA), *(str(part) for pair in words.items() for part in pair)]
    replicas = Fleet()
    try:
        for _ in range(number):
            replicas.processes.append(
                await asyncio.create_subprocess_exec(sys.executable, *command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            )
        for process in replicas.processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        for process in replicas.processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        yield replicas
    finally:
        for process in replicas.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def made(fake: FakeRespan, number: int) -> None:
    """Wait until the server has made so many more keys."""
    target = fake.counts.created + number
    async with asyncio.timeout(30):
        while fake.counts.created < target:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def batches(number: int, fake: FakeRespan, where: str, limit: RateLimit, **settings: Any) -> AsyncIterator[None]:
    """Let so many replicas make keys without an end, each with a window of its own."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(number):
            window = RedisWindow(where, limit, timeout=0.3, **settings)
            client = await stack.enter_async_context(AsyncRespan(fake.api_key, base_url=fake.url, pace=window))
            endless = client.temporary_keys.create_many(CreateKeyRequest() for _ in itertools.count())
            batch = await stack.enter_async_context(endless)
            task = asyncio.create_task(_drain(batch))
            stack.callback(task.cancel)
        yield


async def _drain(batch: AsyncIterable[object]) -> None:
    async for _ in batch:
        pass
