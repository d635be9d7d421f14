"""Peak memory of large batches. As a module, it takes one sample: `python -m benchmarks.memory CLIENT URL COUNT`."""

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Final

from benchmarks.clients import CLIENTS
from benchmarks.figures import Figure, Report
from benchmarks.processes import canned_server, sample

TARGET: Final = 5.0
"""MiB that a batch of a hundred times the keys may need beside the smaller one."""


def run(quick: bool) -> Report:
    """Let each batch run in a process of its own, small and large in turn."""
    rounds, large = (1, 20_000) if quick else (3, 200_000)
    plans = [("create_many", 2_000), ("create_many", large), ("bare", 2_000), ("bare", 20_000)]
    peaks: dict[tuple[str, int], list[float]] = {plan: [] for plan in plans}
    with canned_server() as url:
        for _ in range(rounds):
            for name, count in plans:
                peaks[name, count].append(sample("memory", name, url, count, environment={}))
    small = peaks["create_many", 2_000]
    return Report(
        name="memory",
        title="What a batch needs in memory.",
        conditions=f"peak resident memory of a fresh process, 64 in flight, {rounds} rounds; "
        "a gather keeps its keys, as gather does, a stream hands them on",
        figures=[
            Figure(
                name=f"create_many, {large:,} keys beside 2,000",
                unit="MiB more",
                samples=[more - less for more, less in zip(peaks["create_many", large], small, strict=True)],
                at_most=TARGET,
            ),
            *(Figure(name=_label(name, count), unit="MiB", samples=values) for (name, count), values in peaks.items()),
        ],
        draw=_draw,
    )


def _label(name: str, count: int) -> str:
    return f"{'create_many' if name == 'create_many' else 'bare aiohttp, gather'}, {count:,} keys"


def _draw(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(7, 2.4), layout="constrained")
    axes = picture.subplots()
    shown = [figure for figure in report.figures if figure.unit == "MiB"][::-1]
    colours = ["tab:blue" if figure.name.startswith("create_many") else "tab:gray" for figure in shown]
    bars = axes.barh([figure.name for figure in shown], [figure.median for figure in shown], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("MiB at the peak")
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=150)


def _peak() -> float:
    """Return this process's peak so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that starts from what the parent had when it forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


async def _sample(name: str, url: str, count: int) -> float:
    async with CLIENTS[name](url) as run_client:
        await run_client(count)
    return _peak()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sample(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
