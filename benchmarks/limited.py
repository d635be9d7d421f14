"""The fake Respan behind a limit: on a clock that jumps, or on a real clock in a process of its own.

As a module, it is that process: `python -m benchmarks.limited SCENARIO COUNT`, where the scenario is JSON.
"""

import asyncio
import json
import signal
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import attrs

from benchmarks.processes import Server, python
from benchmarks.virtual import virtually
from respan_async.testing import Bucket, FakeRespan, FixedWindow, Limit, SlidingLog

Strategy = Callable[[str, int], Awaitable[int]]
"""Makes so many keys at this URL; returns how many it has in the end."""

Told = Literal["body", "header", "none"]
"""Where a refusal says, in whole seconds, how long to wait."""


@attrs.define
class Changing:
    """A sliding log whose limit becomes another one after so many requests."""

    log: SlidingLog
    then: int
    left: int

    def admit(self, now: float) -> float | None:
        """See `respan_async.testing.Limit`."""
        wait = self.log.admit(now)
        if wait is None:
            self.left -= 1
            if self.left == 0:
                self.log.limit = self.then
        return wait


@attrs.frozen(kw_only=True)
class Scenario:
    """A server with a limit, and how far away it is.

    Attributes:
        kind: Of the limit.
        limit: Requests in `per` seconds.
        per: Seconds.
        then: The limit from the half of the keys on; None when it stays. Of a sliding log only.
        burst: Tokens that the bucket holds.
        latency: Seconds of a round trip, drawn between the two.
        strays: The share of requests that are refused though the limit would let them in, for a second.
        told: Where a refusal says how long to wait.
        offset: Seconds by which fixed windows begin late.
        seed: For the latencies.
    """

    kind: Literal["log", "window", "bucket"]
    limit: int
    per: float
    then: int | None = None
    burst: int = 0
    latency: tuple[float, float]
    strays: float = 0.0
    told: Told = "body"
    offset: float = 0.0
    seed: int = 0

    @property
    def label(self) -> str:
        """The limit, in words."""
        names = {"log": "sliding log", "window": "fixed window", "bucket": "bucket"}
        then = f", half-way {self.then}/{self.per:g} s" if self.then else ""
        burst = f", burst {self.burst}" if self.kind == "bucket" else ""
        told = {"body": "", "header": ", told in a header", "none": ", not told"}[self.told]
        strays = f", {100 * self.strays:g} % refused astray" if self.strays else ""
        return f"{names[self.kind]} {self.limit}/{self.per:g} s{then}{burst}{strays}{told}"

    def ideal(self, count: int) -> float:
        """Return the seconds that `count` keys take at the rate of the limit."""
        if self.then is not None:
            half = count // 2
            return half * self.per / self.limit + (count - half) * self.per / self.then
        return (count - self.burst) * self.per / self.limit

    def fake(self, count: int = 0) -> FakeRespan:
        """Make the server, of which `count` keys will be asked."""
        limit: Limit
        if self.kind == "window":
            limit = FixedWindow(self.limit, per=self.per, offset=self.offset)
        elif self.kind == "bucket":
            limit = Bucket(self.limit, per=self.per, burst=self.burst)
        else:
            log = SlidingLog(self.limit, per=self.per)
            limit = log if self.then is None else Changing(log, self.then, count // 2)
        fake = FakeRespan(limit=limit, latency=self.latency, retry_after=self.told, seed=self.seed)
        fake.chance("refuse:1", self.strays)
        return fake

    def drawn(self, seeds: Sequence[int]) -> list["Scenario"]:
        """Return it with other latencies, and other beginnings of its windows."""
        return [attrs.evolve(self, seed=seed, offset=0.37 * seed * self.per % self.per) for seed in seeds]


@attrs.frozen
class Outcome:
    """What came of a strategy.

    Attributes:
        ratio: Its time, as a multiple of the ideal one.
        refused: Requests that were turned away, as a share of the keys.
        issued: Keys that it has in the end, as a share of those it was to make.
    """

    ratio: float
    refused: float
    issued: float

    @classmethod
    def median(cls, outcomes: Sequence["Outcome"]) -> "Outcome":
        """Return the medians of several."""
        return cls(
            *(statistics.median(getattr(outcome, field.name) for outcome in outcomes) for field in attrs.fields(cls))
        )


def in_virtual_time(scenario: Scenario, strategy: Strategy, count: int) -> Outcome:
    """Run a strategy on an event loop whose clock jumps to the next event."""

    async def work() -> Outcome:
        async with scenario.fake(count) as fake:
            loop = asyncio.get_running_loop()
            began = loop.time()
            issued = await strategy(fake.url, count)
            took = loop.time() - began
            return Outcome(took / scenario.ideal(count), fake.counts.refused / count, issued / count)

    return virtually(work)


def in_real_time(scenario: Scenario, strategy: Strategy, count: int) -> Outcome:
    """Run a strategy against a server in another process."""
    server = Server(python("limited", json.dumps(attrs.asdict(scenario)), count))
    try:

        async def work() -> tuple[float, int]:
            loop = asyncio.get_running_loop()
            began = loop.time()
            issued = await strategy(server.url, count)
            return loop.time() - began, issued

        took, issued = asyncio.run(work())
    finally:
        refused = int(server.stop())
    return Outcome(took / scenario.ideal(count), refused / count, issued / count)


async def _serve(scenario: Scenario, count: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with scenario.fake(count) as fake:
        print(fake.url.rpartition(":")[2], flush=True)
        await stopped.wait()
        print(fake.counts.refused, flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given["latency"] = tuple(given["latency"])
    asyncio.run(_serve(Scenario(**given), int(sys.argv[2])))
