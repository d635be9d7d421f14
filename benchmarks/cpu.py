"""Client CPU a created key. As a module, it takes one sample: `python -m benchmarks.cpu CLIENT URL WARM_UP COUNT`."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import peers, pictures
from benchmarks.clients import CLIENTS
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.processes import canned_server, sample, spent
from benchmarks.tenants import IN_FLIGHT

BASELINE: Final = "bare"
OURS: Final = "create_many"
TARGET: Final = 0.85
OFFICIAL: Final = 0.1
"""Of the official SDK's CPU time."""

_LABELS: Final = {
    OURS: "ours: create_many, streamed",
    BASELINE: "bare aiohttp: post(json=), semaphore, gather",  # right after the one it is compared with
    "create_many_hooked": "ours: create_many with a hook",
    "create": "ours: create() gathered",
    **{name: peer.label for name, peer in peers.PEERS.items() if name != "as_told"},  # that is bare, but for a 429
    "floor": "floor: a hand-written protocol",
}


def run(quick: bool) -> Report:
    """Take samples of every client in turn, so that what else the machine does meets all of them."""
    rounds, count = (3, 5_000) if quick else (9, 20_000)
    slow = count // 10
    absent = {name for name, peer in peers.PEERS.items() if peer.missing}
    names = [name for name in _LABELS if name not in absent]
    used: dict[str, list[float]] = {name: [] for name in names}
    with canned_server() as url:
        for turn in range(rounds):
            for name in names if turn % 2 else names[::-1]:
                some = slow if name in peers.PEERS and peers.PEERS[name].slow else count
                used[name].append(1e6 * sample("cpu", name, url, some // 5, some) / some)
    return Report(
        name="cpu",
        title="What a created key costs the client in CPU time.",
        conditions=f"{count:,} keys a sample, of slow peers {slow:,}, {IN_FLIGHT} in flight, plain HTTP on loopback, "
        f"user and system time of a fresh process after a warm-up, {rounds} interleaved rounds, glibc's allocator "
        'pinned, default settings (pace="auto", retries, timeouts); ratios are medians of the ratios within a round'
        f"{peers.left_out()}",
        figures=_figures(used),
        draw=_draw,
    )


def _figures(used: dict[str, list[float]]) -> Iterator[Figure]:
    for name, samples in used.items():
        if name != BASELINE:
            yield Figure(
                name=f"{_LABELS[name]}, against bare",
                unit=TIMES,
                samples=[mine / bare for mine, bare in zip(samples, used[BASELINE], strict=True)],
                at_most=TARGET if name == OURS else None,
                note=_note(name),
            )
    for name in used:
        if name in peers.PEERS:
            yield Figure(
                name=f"{_LABELS[OURS]}, against {_LABELS[name]}",
                unit=TIMES,
                samples=[mine / theirs for mine, theirs in zip(used[OURS], used[name], strict=True)],
                at_most=OFFICIAL if name == "official" else None,
            )
    for name, samples in used.items():
        yield Figure(name=_LABELS[name], unit="µs a key", samples=samples)


def _note(name: str) -> str:
    return peers.PEERS[name].note if name in peers.PEERS else ""


def _draw(report: Report, path: Path) -> None:
    values = {figure.name: figure.median for figure in report.figures if figure.unit == "µs a key"}
    mine = [label for name, label in _LABELS.items() if name.startswith("create")]
    pictures.bars(path, values, "µs of client CPU a key, median (log scale)", mine, log=True)


async def _sample(name: str, url: str, warm_up: int, count: int) -> float:
    async with CLIENTS[name](url) as run_client:
        await run_client(warm_up)
        before = spent()
        await run_client(count)
        return spent() - before


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_sample(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))))
