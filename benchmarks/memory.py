"""Memory and CPU of growing batches. As a module, it takes one sample: `python -m benchmarks.memory WHAT ...`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import ours, pictures
from benchmarks.clients import CLIENTS
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.processes import canned_server, peak, sample, spent
from benchmarks.tenants import API_KEY, IN_FLIGHT
from respan_async import AsyncRespan, Issued

GROWTH: Final = 3.0
"""MiB that the largest batch may need beside the first 10,000 keys."""

FLAT: Final = 1.05
"""What a key at the end of the largest batch may cost, as a multiple of one at its beginning."""

_BESIDE: Final = 10_000

Marks = dict[int, tuple[float, float]]
"""For each number of keys, the peak so far in MiB, and the µs of CPU a key since the mark before."""


def run(quick: bool) -> Report:
    """Let a stream run past its marks, and gathers of several sizes, each in a process of its own."""
    rounds, marks = (1, [1_000, 10_000, 100_000]) if quick else (3, [1_000, 10_000, 100_000, 1_000_000])
    gathers = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
    streamed: list[Marks] = []
    gathered: dict[int, list[float]] = {count: [] for count in gathers}
    with canned_server() as url:
        for _ in range(rounds):
            found = sample("memory", "stream", url, *marks, environment={})
            streamed.append({count: (peaks, cost) for count, (peaks, cost) in zip(marks, found, strict=True)})
            for count, samples in gathered.items():
                samples.append(sample("memory", "gather", url, count, environment={}))
    last = marks[-1]
    return Report(
        name="memory",
        title="What a batch needs in memory, and whether a key costs the same at its end.",
        conditions=f"peak resident memory, and user and system time, of one fresh process that streams {last:,} keys, "
        f"as it passes each mark; {IN_FLIGHT} in flight, {rounds} rounds; a gather keeps its keys, as gather does, a "
        "stream hands them on",
        figures=[
            Figure(
                name=f"create_many, {last:,} keys beside {_BESIDE:,}",
                unit="MiB more",
                samples=[each[last][0] - each[_BESIDE][0] for each in streamed],
                at_most=GROWTH,
            ),
            Figure(
                name=f"create_many, CPU a key up to {last:,}, against up to {_BESIDE:,}",
                unit=TIMES,
                samples=[each[last][1] / each[_BESIDE][1] for each in streamed],
                at_most=FLAT,
            ),
            *(Figure(name=_streamed(n), unit="MiB", samples=[each[n][0] for each in streamed]) for n in marks),
            *(
                Figure(
                    name=f"{_streamed(n)}, since the mark before", unit="µs a key", samples=[m[n][1] for m in streamed]
                )
                for n in marks
            ),
            *(Figure(name=_gathered(n), unit="MiB", samples=samples) for n, samples in gathered.items()),
        ],
        draw=_draw,
    )


def _streamed(count: int) -> str:
    return f"create_many, {count:,} keys"


def _gathered(count: int) -> str:
    return f"bare aiohttp, gather, {count:,} keys"


def _draw(report: Report, path: Path) -> None:
    values = {figure.name: figure.median for figure in report.figures if figure.unit == "MiB"}
    mine = [name for name in values if name.startswith("create_many")]
    pictures.bars(path, values, "MiB at the peak (log scale)", mine, log=True)


async def _stream(url: str, marks: list[int]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    left = iter(marks)
    mark, before, begun = next(left), 0, spent()
    count = 0
    async with (
        AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT) as respan,
        respan.temporary_keys.create_many(ours.requests(marks[-1])) as batch,
    ):
        async for outcome in batch:
            assert isinstance(outcome, Issued)
            count += 1
            if count == mark:
                found.append((peak(), 1e6 * (spent() - begun) / (count - before)))
                mark, before, begun = next(left, 0), count, spent()
    return found


async def _gather(url: str, count: int) -> float:
    async with CLIENTS["bare"](url) as run_client:
        await run_client(count)
    return peak()


def _sample(what: str, url: str, *counts: str) -> Any:
    numbers = [int(count) for count in counts]
    return asyncio.run(_stream(url, numbers) if what == "stream" else _gather(url, numbers[0]))


if __name__ == "__main__":
    print(json.dumps(_sample(*sys.argv[1:])))
