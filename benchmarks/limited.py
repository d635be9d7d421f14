"""The fake Respan behind a limit: on a real clock in a process of its own, or on a clock that jumps.

As a module, it is that process: `python -m benchmarks.limited SCENARIO`, where the scenario is JSON.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, TypeVar
from unittest import mock

import async_solipsism
import attrs

from benchmarks.processes import Server
from respan_async.testing import FakeRespan
from respan_async.testing.limits import Bucket, FixedWindow, Limit, SlidingLog
from tests.virtual import VirtualLoop

T = TypeVar("T")

Strategy = Callable[[str, int], Awaitable[None]]
"""Makes so many keys at this URL."""


@attrs.frozen(kw_only=True)
class Scenario:
    """A server with a limit, and how far away it is.

    Attributes:
        kind: Of the limit.
        limit: Requests in `per` seconds.
        per: Seconds.
        burst: Tokens that the bucket holds.
        latency: Seconds of a round trip, drawn between the two.
        retry_after: Where a refusal says, in whole seconds, how long to wait; "none" when it does not say.
        offset: Seconds by which fixed windows begin late.
        seed: For the latencies.
    """

    kind: Literal["log", "window", "bucket"]
    limit: int
    per: float
    burst: int = 0
    latency: tuple[float, float]
    retry_after: Literal["both", "none"] = "both"
    offset: float = 0.0
    seed: int = 0

    @property
    def label(self) -> str:
        """The limit, in words."""
        names = {"log": "sliding log", "window": "fixed window", "bucket": "bucket"}
        burst = f", burst {self.burst}" if self.kind == "bucket" else ""
        return f"{names[self.kind]} {self.limit}/{self.per:g} s{burst}"

    def ideal(self, count: int) -> float:
        """Return the seconds that `count` keys take at the rate of the limit."""
        return (count - self.burst) * self.per / self.limit

    def fake(self) -> FakeRespan:
        """Make the server."""
        limit: Limit
        if self.kind == "log":
            limit = SlidingLog(self.limit, per=self.per)
        elif self.kind == "window":
            limit = FixedWindow(self.limit, per=self.per, offset=self.offset)
        else:
            limit = Bucket(self.limit, per=self.per, burst=self.burst)
        return FakeRespan(limit=limit, latency=self.latency, retry_after=self.retry_after, seed=self.seed)


@attrs.frozen
class Outcome:
    """What came of a strategy.

    Attributes:
        ratio: Its time, as a multiple of the ideal one.
        refused: Requests that were turned away, as a share of the keys.
    """

    ratio: float
    refused: float


def in_virtual_time(scenario: Scenario, strategy: Strategy, count: int) -> Outcome:
    """Run a strategy on an event loop whose clock jumps to the next event: exact, and free of this machine's noise."""

    async def work() -> Outcome:
        async with scenario.fake() as fake:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await strategy(fake.url, count)
            took = loop.time() - began
            assert fake.counts.created == count
            return Outcome(took / scenario.ideal(count), fake.counts.refused / count)

    return virtually(work)


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time, with sockets in memory."""
    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        mock.patch(
            "aiohttp.connector.aiohappyeyeballs.start_connection", async_solipsism.aiohappyeyeballs_start_connection
        ),
    ):
        return runner.run(work())


def in_real_time(scenario: Scenario, strategy: Strategy, count: int) -> Outcome:
    """Run a strategy against a server in another process."""
    server = Server("limited", json.dumps(attrs.asdict(scenario)))
    try:

        async def work() -> float:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await strategy(server.url, count)
            return loop.time() - began

        took = asyncio.run(work())
    finally:
        counts = json.loads(server.stop())
    assert counts["created"] == count
    return Outcome(took / scenario.ideal(count), counts["refused"] / count)


async def _serve(scenario: Scenario) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with scenario.fake() as fake:
        print(fake.url.rpartition(":")[2], flush=True)
        await stopped.wait()
        print(json.dumps({"created": fake.counts.created, "refused": fake.counts.refused}), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given["latency"] = tuple(given["latency"])
    asyncio.run(_serve(Scenario(**given)))
