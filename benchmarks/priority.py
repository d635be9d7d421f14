"""How long an interactive create waits behind a full batch."""

import asyncio
import random
from pathlib import Path
from typing import Final, Literal

from benchmarks.figures import Figure, Report
from benchmarks.limited import Scenario, virtually
from respan_async import AsyncRespan, CreateKeyRequest, RateLimit

_SCENARIO: Final = Scenario(kind="log", limit=60, per=60, latency=(0.05, 0.15))
_BATCH: Final = 10_000
_MEAN_PAUSE: Final = 20.0
_TARGET: Final = 2.0
_FIRST: Final = "ours, interactive"
_FIFO: Final = "first come, first served"

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
    figures = []
    for name, both in waits.items():
        values = [wait for wait, _ in both]
        alone = [wait for wait, behind in both if not behind]
        target, note = (_TARGET if name == _FIRST else None), ""
        if name != _FIFO:
            note = f"{len(both) - len(alone)} came behind another interactive call; of the others {max(alone):.2f}"
        figures.append(Figure(name=f"{name}: longest", unit="P/N", samples=[max(values)], at_most=target, note=note))
        figures.append(Figure(name=f"{name}: each", unit="P/N", samples=values))
    return Report(
        name="priority",
        title="How long an interactive create() waits behind a full batch.",
        conditions=f"a batch of {_BATCH:,} keys at {_SCENARIO.label}, {count} single keys at random moments, one in "
        f"{_MEAN_PAUSE:g} s on average; from the call to the key, its round trip of 0.05 to 0.15 s included; "
        "virtual time; P/N is 1 s",
        figures=figures,
        draw=_draw,
    )


def _waits(count: int, pace: RateLimit | Literal["auto"], priority: Literal["interactive", "batch"]) -> Waits:
    unit = _SCENARIO.per / _SCENARIO.limit
    rng = random.Random(0)

    async def work() -> Waits:
        loop = asyncio.get_running_loop()
        waits: Waits = []
        async with _SCENARIO.fake() as fake, AsyncRespan(fake.api_key, base_url=fake.url, pace=pace) as respan:
            single = respan.with_options(priority=priority).temporary_keys

            async def ask() -> None:
                began, behind = loop.time(), respan.pace.waiting["interactive"] > 0
                await single.create(name="now")
                waits.append(((loop.time() - began) / unit, behind))

            requests = (CreateKeyRequest(name=f"tenant-{number}") for number in range(_BATCH))
            async with respan.temporary_keys.create_many(requests) as batch, asyncio.TaskGroup() as group:

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


def _draw(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(7, 3.2), layout="constrained")
    axes = picture.subplots()
    for figure in report.figures:
        name, _, kind = figure.name.rpartition(": ")
        if kind == "each":
            values = sorted(figure.samples)
            shares = [(place + 1) / len(values) for place in range(len(values))]
            axes.step(values, shares, where="post", label=name, color="tab:gray" if name == _FIFO else None)
    axes.set_xscale("log")
    axes.set_xlabel("wait in units of P/N (log scale)")
    axes.set_ylabel("share of calls")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=150)
