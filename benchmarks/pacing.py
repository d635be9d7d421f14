"""How close a batch comes to what the limit allows, and how many refusals that takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from benchmarks.figures import TIMES, Figure, Report
from benchmarks.limited import Outcome, Scenario, in_real_time, in_virtual_time
from benchmarks.strategies import BY_HAND, ours
from respan_async import RateLimit

_FAR: Final = (0.05, 0.15)
_MINUTE: Final = (
    Scenario(kind="log", limit=60, per=60, latency=_FAR),
    Scenario(kind="window", limit=60, per=60, latency=_FAR),
)
_SHORT: Final = (
    Scenario(kind="log", limit=100, per=2, latency=(0.01, 0.03)),
    Scenario(kind="window", limit=100, per=2, latency=(0.01, 0.03)),
)
_BUCKETS: Final = (
    Scenario(kind="bucket", limit=50, per=1, burst=10, latency=_FAR),
    Scenario(kind="bucket", limit=500, per=1, burst=100, latency=(0.02, 0.06)),
)
_KNOWN: Final = 1.03
_LEARNED: Final = 1.15
_REFUSED: Final = 5.0
_OURS: Final = 'ours, pace="auto"'


def run(quick: bool) -> Report:
    """Compare with a known limit, then with one to be learned."""
    seeds = range(1 if quick else 3)
    return Report(
        name="pacing",
        title="How close a batch comes to what the limit allows, and how many refusals that takes.",
        conditions="time as a multiple of n·P/N, for a bucket of (n - burst)·P/N; n = 10 N where not said otherwise, "
        "for a bucket what it lets in during 10 s; by hand: 64 at a time, or all at once over aiohttp's pool of 100; "
        "whole seconds as retry_after; virtual time where not said otherwise; "
        f"{len(seeds)} draws of latencies and of where a fixed window begins",
        figures=(*_known(quick, seeds), *_learned(quick, seeds, "both"), *_learned(quick, seeds, "none")),
        draw=_draw,
    )


def _known(quick: bool, seeds: Sequence[int]) -> Iterator[Figure]:
    for scenario in _MINUTE:
        for count in (600, 10_000):
            strategy = ours(RateLimit(scenario.limit, per=scenario.per))
            outcomes = [in_virtual_time(drawn, strategy, count) for drawn in _drawn(scenario, seeds)]
            yield from _ours(f"ours, limit given: {scenario.label}, {count:,} keys", outcomes, _KNOWN, 0.0)
    for scenario in _SHORT:
        near = attrs.evolve(scenario, latency=(0.01 * scenario.per, 0.01 * scenario.per))
        rounds, count = (1, 300) if quick else (3, 10 * scenario.limit)
        strategy = ours(RateLimit(scenario.limit, per=scenario.per))
        outcomes = [in_real_time(near, strategy, count) for _ in range(rounds)]
        yield from _ours(f"ours, limit given: {scenario.label}, {count:,} keys, real time", outcomes, _KNOWN, 0.0)


def _learned(quick: bool, seeds: Sequence[int], retry_after: Literal["both", "none"]) -> Iterator[Figure]:
    """Say how ours learns; where the server says how long to wait, beside what one writes by hand."""
    told = retry_after == "both"
    for scenario in (*_MINUTE, *_SHORT, *_BUCKETS):
        silent = attrs.evolve(scenario, retry_after=retry_after)
        count = 10 * scenario.limit
        drawn = list(_drawn(silent, seeds))
        label = scenario.label if told else f"{scenario.label}, no retry_after"
        bounded = told and scenario.kind != "bucket"
        yield from _ours(
            f"{_OURS}: {label}",
            [in_virtual_time(one, ours("auto"), count) for one in drawn],
            _LEARNED if bounded else None,
            _REFUSED if bounded else None,
        )
        for name, strategy in BY_HAND.items() if told else ():
            outcomes = [in_virtual_time(one, strategy, count) for one in drawn[: 1 if quick else 2]]
            refused = sum(outcome.refused for outcome in outcomes) / len(outcomes)
            yield Figure(
                name=f"{name}: {label}",
                unit=f"{TIMES} ideal",
                samples=[outcome.ratio for outcome in outcomes],
                note=f"{100 * refused:.0f} % of n refused",
            )


def _drawn(scenario: Scenario, seeds: Sequence[int]) -> Iterator[Scenario]:
    for seed in seeds:
        yield attrs.evolve(scenario, seed=seed, offset=0.37 * seed * scenario.per % scenario.per)


def _ours(name: str, outcomes: Sequence[Outcome], ratio: float | None, refused: float | None) -> Iterator[Figure]:
    yield Figure(name=name, unit=f"{TIMES} ideal", samples=[outcome.ratio for outcome in outcomes], at_most=ratio)
    shares = [100 * outcome.refused for outcome in outcomes]
    yield Figure(name=f"{name}: refused", unit="% of n", samples=shares, at_most=refused)


def _draw(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure as Picture

    labels = [scenario.label for scenario in (*_MINUTE, *_SHORT, *_BUCKETS)]
    names = [_OURS, *BY_HAND]
    picture = Picture(figsize=(9, 6.5), layout="constrained")
    axes = picture.subplots()
    height = 0.8 / len(names)
    for row, name in enumerate(names):
        shown = [report.median(f"{name}: {label}") for label in labels]
        places = [place + (row - (len(names) - 1) / 2) * height for place in range(len(labels))]
        colour = "tab:blue" if name == _OURS else str(0.3 + 0.15 * row)
        bars = axes.barh(places, shown, height=0.9 * height, label=name, color=colour)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of what the limit allows")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=150)
