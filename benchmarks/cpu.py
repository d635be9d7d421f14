"""Client CPU a created key. As a module, it takes one sample: `python -m benchmarks.cpu CLIENT URL WARM_UP COUNT`."""

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Final

from benchmarks.clients import CLIENTS, IN_FLIGHT
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.processes import canned_server, sample

BASELINE: Final = "bare"
TARGET: Final = 0.95
LABELS: Final = {
    "create_many": "ours: create_many, streamed",
    "create_many_hooked": "ours: create_many with a hook",
    "create": "ours: create() gathered",
    "bare": "bare aiohttp: post(json=), semaphore, gather",
    "naive": "naive full: tenacity, cattrs, asyncio.timeout",
    "floor": "floor: a hand-written protocol",
}


def run(quick: bool) -> Report:
    """Take samples of every client in turn, so that what else the machine does meets all of them."""
    rounds, count = (3, 5_000) if quick else (9, 20_000)
    used: dict[str, list[float]] = {name: [] for name in CLIENTS}
    with canned_server() as url:
        for turn in range(rounds):
            for name in list(CLIENTS) if turn % 2 else list(CLIENTS)[::-1]:
                used[name].append(1e6 * sample("cpu", name, url, 2_000, count) / count)
    figures = [
        Figure(
            name=f"{LABELS[name]}, against bare",
            unit=TIMES,
            samples=[mine / bare for mine, bare in zip(used[name], used[BASELINE], strict=True)],
            at_most=TARGET if name == "create_many" else None,
            note="median of the ratios within a round",
        )
        for name in LABELS
        if name != BASELINE
    ]
    figures += [Figure(name=LABELS[name], unit="µs a key", samples=used[name]) for name in LABELS]
    return Report(
        name="cpu",
        title="What a created key costs the client in CPU time.",
        conditions=f"{count:,} keys a sample, {IN_FLIGHT} in flight, plain HTTP on loopback, user and system time of a "
        f"fresh process after a warm-up, {rounds} interleaved rounds, glibc's allocator pinned, default settings "
        '(pace="auto", retries, timeouts)',
        figures=figures,
        draw=_draw,
    )


def _draw(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(8, 3.2), layout="constrained")
    axes = picture.subplots()
    names = list(LABELS)[::-1]
    values = [report.median(LABELS[name]) for name in names]
    colours = ["tab:blue" if name.startswith("create") else "tab:gray" for name in names]
    bars = axes.barh([LABELS[name] for name in names], values, color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("µs of client CPU a key, median")
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=150)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _sample(name: str, url: str, warm_up: int, count: int) -> float:
    async with CLIENTS[name](url) as run_client:
        await run_client(warm_up)
        before = _cpu()
        await run_client(count)
        return _cpu() - before


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sample(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))))
