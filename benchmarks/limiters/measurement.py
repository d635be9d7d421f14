"""One client at one limiter: a batch, alone or beside single calls."""

import asyncio
import contextlib
import itertools
from typing import Final

import attrs

from benchmarks.limiters.clients import Client, Open
from benchmarks.limiters.limiter import Counts, Limiter

BETWEEN: Final = 0.5
"""Seconds from one single call to the next, whatever becomes of the one before."""

PATIENCE: Final = 6
"""A batch, or a single call, is given up after so many times the seconds that the batch takes at the limit's rate."""


@attrs.frozen(kw_only=True)
class Measurement:
    """What came of it.

    Attributes:
        took: Seconds until the last key of the batch.
        keys: Those that were created by then, of the batch and of the single calls.
        failed: Keys and single calls that came to nothing.
        waits: Seconds that each single call took that succeeded.
        counts: As the server counted them.
    """

    took: float
    keys: int
    failed: int
    waits: list[float]
    counts: Counts


@attrs.define
class _Tally:
    """What happens while a batch is made.

    Attributes:
        longest: Seconds after which the batch, or a single call, is given up.
        issued: Keys of the batch.
        waits: Seconds that single calls took.
        failed: Single calls that came to nothing.
    """

    longest: float
    issued: int = 0
    waits: list[float] = attrs.field(factory=list)
    failed: int = 0

    def issue(self) -> None:
        self.issued += 1


def measure(limiter: Limiter, client: Open, count: int, *, beside: bool) -> Measurement:
    """Start the server, let a client create `count` keys, with single calls beside them or alone, and count."""
    server = limiter.start(limiter.limit)
    tally = _Tally(longest=PATIENCE * limiter.even(count))
    try:
        took, keys = asyncio.run(_run(limiter, client, server.url, count, tally, beside=beside))
    finally:
        counts = server.stop()
    return Measurement(
        took=took, keys=keys, failed=count - tally.issued + tally.failed, waits=tally.waits, counts=counts
    )


async def _run(
    limiter: Limiter, opened: Open, url: str, count: int, tally: _Tally, *, beside: bool
) -> tuple[float, int]:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    async with opened(limiter, url) as client, asyncio.TaskGroup() as group:
        began = loop.time()
        if beside:
            group.create_task(_ask(client, count, tally, done))
        with contextlib.suppress(TimeoutError):  # what is missing then is counted as failed
            async with asyncio.timeout(tally.longest):
                await client.batch(count, tally.issue)
        took, keys = loop.time() - began, tally.issued + len(tally.waits)
        done.set()
    return took, keys


async def _ask(client: Client, count: int, tally: _Tally, done: asyncio.Event) -> None:
    """Make single calls until the batch is done; then wait for those that are under way."""
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number in itertools.count(1):
            try:
                async with asyncio.timeout_at(began + number * BETWEEN):
                    await done.wait()
            except TimeoutError:
                group.create_task(_single(client, count + number, tally))
            else:
                return


async def _single(client: Client, number: int, tally: _Tally) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(tally.longest):
            succeeded = await client.single(number)
    except TimeoutError:
        succeeded = False
    if succeeded:
        tally.waits.append(loop.time() - began)
    else:
        tally.failed += 1
