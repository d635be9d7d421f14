"""How long a web request waits for its key behind a full batch."""

import asyncio
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from benchmarks import ours, peers, pictures
from benchmarks.figures import Figure, Report
from benchmarks.limited import Scenario
from benchmarks.peers import MANY, PEERS, Create, evening
from benchmarks.virtual import virtually
from respan_async import AsyncRespan, RateLimit

_SCENARIO: Final = Scenario(kind="log", limit=60, per=60, latency=(0.05, 0.15))
_SLOT: Final = _SCENARIO.per / _SCENARIO.limit
_BATCH: Final = 10_000
_MEAN_PAUSE: Final = 20.0
_TARGET: Final = 2 * _SLOT
_FIRST: Final = "ours, interactive, limit given"
_FIFO: Final = "ours, first come, first served"
_EVENING: Final = "an evening's own with aiolimiter at the limit"
_FEW: Final = 5

Waits = list[tuple[float, bool]]
"""Of each call, how long it took, and whether another interactive one was waiting before it."""


def run(quick: bool) -> Report:
    """Ask for single keys at random moments while a batch is under way."""
    count = 50 if quick else 250
    waits = {
        _FIRST: _waits(count, RateLimit(60, per=60), "interactive"),
        'ours, interactive, pace="auto"': _waits(count, "auto", "interactive"),
        _FIFO: _waits(count, RateLimit(60, per=60), "batch"),
    }
    if not PEERS["evening"].missing:
        waits[_EVENING] = virtually(_behind_a_limiter)
    return Report(
        name="priority",
        title="How long a web request waits for its key behind a full batch.",
        conditions=f"a batch of {_BATCH:,} keys at {_SCENARIO.label}, {count} single keys at random moments, one in "
        f"{_MEAN_PAUSE:g} s on average, of the evening's own {_FEW}; from the call to the key, its round trip of 0.05 "
        f"to 0.15 s included; virtual time; P/N is {_SLOT:g} s{peers.left_out()}",
        figures=(figure for name, both in waits.items() for figure in _figures(name, both)),
        draw=_draw,
    )


def _figures(name: str, both: Waits) -> Iterator[Figure]:
    values = [wait for wait, _ in both]
    alone = [wait for wait, behind in both if not behind]
    note = ""
    if "interactive" in name:
        note = f"{len(both) - len(alone)} came behind another web request; of the others {max(alone):.2f} s"
    target = _TARGET if "interactive" in name else None
    yield Figure(name=f"{name}: longest", unit="s", samples=[max(values)], at_most=target, note=note)
    yield Figure(name=f"{name}: median", unit="s", samples=[statistics.median(values)])
    yield Figure(name=f"{name}: each", unit="s", samples=values)


def _waits(count: int, pace: RateLimit | Literal["auto"], priority: Literal["interactive", "batch"]) -> Waits:
    rng = random.Random(0)

    async def work() -> Waits:
        loop = asyncio.get_running_loop()
        waits: Waits = []
        async with _SCENARIO.fake() as fake, AsyncRespan(fake.api_key, base_url=fake.url, pace=pace) as respan:
            single = respan.with_options(priority=priority).temporary_keys

            async def ask() -> None:
                began, behind = loop.time(), respan.pace.waiting["interactive"] > 0
                await single.create(name="now")
                waits.append((loop.time() - began, behind))

            async with (
                respan.temporary_keys.create_many(ours.requests(_BATCH)) as batch,
                asyncio.TaskGroup() as group,
            ):

                async def take() -> None:
                    async for _ in batch:
                        pass

                taking = group.create_task(take())
                await asyncio.sleep(3 * _SCENARIO.per)  # the burst of the beginning is over, and the limit learned
                asked = []
                for _ in range(count):
                    await asyncio.sleep(rng.expovariate(1 / _MEAN_PAUSE))
                    asked.append(group.create_task(ask()))
                await asyncio.wait(asked)
                assert batch.progress.done < _BATCH
                taking.cancel()
        return waits

    return virtually(work)


async def _behind_a_limiter() -> Waits:
    """Ask a few times behind all the others of an evening's own, who wait before one limiter."""
    loop = asyncio.get_running_loop()
    waits: Waits = []
    async with (
        _SCENARIO.fake() as fake,
        evening(fake.url, MANY, (_SCENARIO.limit, _SCENARIO.per)) as create,
        asyncio.TaskGroup() as group,
    ):
        for number in range(_BATCH):
            group.create_task(create(number))
        await asyncio.sleep(3 * _SCENARIO.per)
        for number in range(_FEW):
            group.create_task(_timed(create, _BATCH + number, waits))
            await asyncio.sleep(_MEAN_PAUSE)
        assert loop.time() < _BATCH * _SLOT
    return waits


async def _timed(create: Create, number: int, waits: Waits) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await create(number)
    waits.append((loop.time() - began, False))


def _draw(report: Report, path: Path) -> None:
    with pictures.drawing(path, (7, 3.2)) as axes:
        for figure in report.figures:
            name, _, kind = figure.name.rpartition(": ")
            if kind == "each":
                values = sorted(figure.samples)
                shares = [(place + 1) / len(values) for place in range(len(values))]
                axes.step(values, shares, where="post", label=name)
        axes.axvline(_TARGET, color="black", linewidth=0.6)
        axes.set_xscale("log")
        axes.set_xlabel("wait in s (log scale)")
        axes.set_ylabel("share of calls")
        axes.legend(frameon=False, fontsize=7)
