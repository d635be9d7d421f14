"""What is found at all limiters, as figures and as a picture."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import pictures
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.limiters import clients
from benchmarks.limiters.catalogue import LIMITERS
from benchmarks.limiters.limiter import Limiter
from benchmarks.limiters.measurement import BETWEEN, PATIENCE, Measurement, measure
from benchmarks.peers import MANY
from benchmarks.tenants import IN_FLIGHT

_PERIODS: Final = 10
_FEW_PERIODS: Final = 3
_ALONE: Final = "alone"
_BESIDE: Final = "beside calls"

Runs = dict[str, dict[tuple[str, str], Measurement]]
"""For each limiter's label, what came of each client, alone and beside calls."""


def run(quick: bool) -> Report:
    """Let every client make a batch at every limiter that is installed."""
    periods = _FEW_PERIODS if quick else _PERIODS
    installed = [limiter for limiter in LIMITERS if not limiter.software().missing]
    present = clients.present()
    runs: Runs = {}
    figures: list[Figure] = []
    for limiter in installed:
        found = runs[limiter.label] = {}
        for situation in (_BESIDE,) if quick else (_ALONE, _BESIDE):
            for name, client in present.items():
                count = periods * limiter.limit.limit
                one = found[name, situation] = measure(limiter, client, count, beside=situation == _BESIDE)
                figures += _figures(limiter, f"{name}: {limiter.label}, {situation}", one)
        figures.append(_failed(limiter, found))
    missing = dict.fromkeys(filter(None, (limiter.software().missing for limiter in LIMITERS)))
    left_out = [*missing, *clients.missing()]
    versions = dict.fromkeys(version for limiter in installed for version in limiter.software().versions)
    return Report(
        name="limiters",
        title="The pace against rate limiters that nobody here wrote.",
        conditions=f"n = {periods} N; alone, or beside a single call every {BETWEEN:g} s, whose keys n then counts as "
        "well; the optimum is the time of a client that knows the limiter's state (benchmarks/limiters/optimum.py); "
        "refusals as the server counts them; a wait is from the call to the key; servers in processes of their own, "
        f"fresh for each run; loopback, real time, one run each, given up after {PATIENCE} n·P/N; the plain way is "
        "aiohttp, aiolimiter at the limit, and tenacity, which waits for Retry-After or else for a random time that "
        f"grows, {MANY + 1} attempts, {IN_FLIGHT} keys of the batch at a time; {', '.join(versions)}"
        + (f"; left out: {', '.join(left_out)}" if left_out else ""),
        figures=figures,
        draw=partial(_draw, runs),
    )


def _figures(limiter: Limiter, name: str, one: Measurement) -> Iterator[Figure]:
    notes = [f"{one.failed} failed"] if one.failed else []
    if one.counts.other:
        notes.append(f"{one.counts.other} answered otherwise")
    yield Figure(name=name, unit=f"{TIMES} n·P/N", samples=[one.took / limiter.even(one.keys)], note="; ".join(notes))
    yield Figure(
        name=f"{name}: against the optimum", unit=TIMES, samples=[one.took / limiter.optimum(limiter.limit, one.keys)]
    )
    yield Figure(name=f"{name}: refused", unit="% of n", samples=[100 * one.counts.refused / one.keys])
    if one.waits:
        yield Figure(
            name=f"{name}: wait",
            unit="s",
            samples=one.waits,
            note=f"longest of {len(one.waits)}: {max(one.waits):.2f} s",
        )


def _failed(limiter: Limiter, found: dict[tuple[str, str], Measurement]) -> Figure:
    failed = [one.failed for (name, _), one in found.items() if name in (clients.GIVEN, clients.AUTO)]
    return Figure(name=f"ours: {limiter.label}: failed", unit="keys", samples=[sum(failed)], at_most=0)


_MARKERS: Final = {clients.GIVEN: "*", clients.AUTO: "P", clients.PLAIN: "o"}
_COLORS: Final = {clients.GIVEN: pictures.OURS, clients.AUTO: "tab:cyan", clients.PLAIN: pictures.OTHERS}


def _draw(runs: Runs, _: Report, path: Path) -> None:
    """Show a row of marks for each limiter: time, refusals and the longest wait; runs beside calls are hollow."""
    by_label = {limiter.label: limiter for limiter in LIMITERS}
    rows = {name: 0.2 - 0.2 * row for row, name in enumerate(_MARKERS)}
    labels = list(runs)[::-1]
    with pictures.drawing(path, (11, 1.4 + 0.5 * len(labels)), 1, 3) as (times, refusals, waits):
        for place, label in enumerate(labels):
            limiter = by_label[label]
            for (name, situation), one in runs[label].items():
                mark = partial(_mark, name=name, place=place + rows[name], hollow=situation == _BESIDE)
                mark(times, value=one.took / limiter.optimum(limiter.limit, one.keys))
                mark(refusals, value=100 * one.counts.refused / one.keys)
                if one.waits:
                    mark(waits, value=max(one.waits))
        for axes, title in (
            (times, f"time, {TIMES} optimum"),
            (refusals, "refused, % of n (log scale)"),
            (waits, "longest wait, s (log scale)"),
        ):
            axes.set_yticks(range(len(labels)), labels if axes is times else [""] * len(labels), fontsize=8)
            axes.grid(axis="y", linewidth=0.3)
            axes.set_xlabel(title)
        times.axvline(1.0, color="black", linewidth=0.6)
        refusals.set_xscale("symlog", linthresh=1)
        refusals.set_xlim(-0.2, 120)
        waits.set_xscale("log")
        for name, marker in _MARKERS.items():
            times.plot([], [], linestyle="", marker=marker, color=_COLORS[name], label=name)
        times.plot([], [], linestyle="", marker="s", color="black", markerfacecolor="none", label=f"hollow: {_BESIDE}")
        times.legend(frameon=False, fontsize=7)


def _mark(axes: Any, *, name: str, place: float, value: float, hollow: bool) -> None:
    axes.plot(
        [value],
        [place],
        linestyle="",
        marker=_MARKERS[name],
        markersize=6,
        color=_COLORS[name],
        markerfacecolor="none" if hollow else None,
    )
