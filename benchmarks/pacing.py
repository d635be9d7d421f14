"""How close a batch comes to what the limit allows, and how many refusals that takes."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import peers, pictures
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.limited import Outcome, Scenario, Strategy, Told, in_real_time, in_virtual_time
from benchmarks.strategies import LIMITED, by_peers, limited, streamed
from respan_async import RateLimit

_FAR: Final = (0.05, 0.15)
_KNOWN: Final = 1.02
_LEARNED: Final = 1.10
_BUCKET: Final = 1.30
_REFUSED: Final = 4.0
_TOLD: Final[tuple[Told, ...]] = ("body", "header", "none")
_AUTO: Final = 'ours, pace="auto"'
_GIVEN: Final = "ours, limit given"


@attrs.frozen
class _Server:
    """A server, and what the client is told of its limit.

    Attributes:
        scenario: The server.
        given: The limit that the client is given.
        wrong: That limit is twice the real one.
        peers: Peers are measured here too, which takes long.
    """

    scenario: Scenario
    given: RateLimit
    wrong: bool = False
    peers: bool = False

    @property
    def leaking(self) -> tuple[float, float]:
        """The same for a limiter that is a bucket itself: with the burst of this one, where this is one."""
        burst = self.scenario.burst or self.given.limit
        return burst, burst * self.given.per / self.given.limit


_MINUTE: Final = Scenario(kind="log", limit=60, per=60, latency=_FAR)
_SHORT: Final = Scenario(kind="log", limit=100, per=2, latency=(0.01, 0.03))
_SERVERS: Final = (
    _Server(_MINUTE, RateLimit(60, per=60), peers=True),
    _Server(attrs.evolve(_MINUTE, kind="window"), RateLimit(60, per=60), peers=True),
    _Server(_SHORT, RateLimit(100, per=2)),
    _Server(attrs.evolve(_SHORT, kind="window"), RateLimit(100, per=2)),
    _Server(Scenario(kind="bucket", limit=50, per=1, burst=10, latency=_FAR), RateLimit(50, per=1), peers=True),
    _Server(Scenario(kind="bucket", limit=500, per=1, burst=100, latency=(0.02, 0.06)), RateLimit(500, per=1)),
    _Server(_MINUTE, RateLimit(120, per=60), wrong=True),
    _Server(attrs.evolve(_MINUTE, kind="window"), RateLimit(120, per=60), wrong=True),
    _Server(attrs.evolve(_MINUTE, limit=120, then=60), RateLimit(120, per=60), wrong=True, peers=True),
    _Server(attrs.evolve(_MINUTE, strays=0.01), RateLimit(60, per=60), peers=True),
    _Server(attrs.evolve(_MINUTE, limit=600, strays=0.01), RateLimit(600, per=60)),
)

Runs = dict[str, dict[str, Outcome]]
"""For each server, what came of each strategy."""


def run(quick: bool) -> Report:
    """Let ours and every peer make keys on every server."""
    seeds = range(1 if quick else 3)
    figures: list[Figure] = []
    runs: Runs = {}
    for server in _SERVERS:
        for told in _TOLD[:1] if server.scenario.strays else _TOLD[::2] if quick else _TOLD:
            figures += _compare(server, told, seeds, quick, runs)
    figures += _long(seeds[:1])
    figures += _real(quick)
    return Report(
        name="pacing",
        title="How close a batch comes to what the limit allows, and how many refusals that takes.",
        conditions="time as a multiple of n·P/N, for a bucket of (n - burst)·P/N, for a limit that changes of the sum "
        "of both halves; n = 10 N where not said otherwise, for a bucket what it lets in during 10 s; peers 64 at a "
        f"time, with their defaults or with {peers.MANY} retries; whole seconds as retry_after, in the body where not "
        f"said otherwise; virtual time where not said otherwise; {len(seeds)} draws of latencies and of where a fixed "
        f"window begins, of the peers one{peers.left_out()}",
        figures=figures,
        draw=partial(_draw, runs),
    )


def _compare(server: _Server, told: Told, seeds: Sequence[int], quick: bool, runs: Runs) -> Iterator[Figure]:
    scenario = attrs.evolve(server.scenario, told=told)
    count = 10 * (scenario.then or scenario.limit)
    drawn = scenario.drawn(seeds)
    label = f"{scenario.label}, given {server.given.limit}" if server.wrong else scenario.label
    found = runs[label] = {}
    bound = _BUCKET if scenario.kind == "bucket" else _LEARNED
    strategies: dict[str, tuple[Strategy, float, float | None]] = {}
    if server.wrong or scenario.strays:
        strategies[_GIVEN] = streamed(server.given), bound, _REFUSED
    elif told == "body":  # where nothing is refused, nothing is told
        strategies[_GIVEN] = streamed(server.given), _KNOWN, 0.0
    if not server.wrong or scenario.then:
        strategies[_AUTO] = streamed("auto"), bound, None if scenario.kind == "bucket" else _REFUSED
    for name, (strategy, ratio, refused) in strategies.items():
        outcomes = [in_virtual_time(one, strategy, count) for one in drawn]
        found[name] = Outcome.median(outcomes)
        yield from _ours(f"{name}: {label}", outcomes, ratio, refused)
    if not server.peers or (told != "body" and (quick or scenario.kind != "log" or server.wrong)):
        return
    others = limited(*server.leaking)
    if not server.wrong or scenario.then:
        others |= {
            name: strategy for name, strategy in by_peers().items() if told == "body" or not name.endswith("defaults")
        }
    for name, strategy in others.items():
        outcome = found[name] = in_virtual_time(drawn[0], strategy, count)
        yield _theirs(f"{name}: {label}", outcome)
    for name in strategies:
        ahead = _ahead(found[name], {other: found[other] for other in others}, knowing=name == _GIVEN)
        yield Figure(
            name=f"{name}: peers that are ahead in time and in refusals: {label}",
            unit="",
            samples=[len(ahead)],
            at_most=0,
            note="; ".join(ahead),
        )


def _ahead(mine: Outcome, others: dict[str, Outcome], *, knowing: bool) -> list[str]:
    """Return who issued everything, no later and with no more refusals, and better in one of the two.

    Whoever is given the limit competes with whoever is.
    """
    return [
        name
        for name, other in others.items()
        if other.issued == 1.0
        and (knowing or name != LIMITED)
        and other.ratio <= mine.ratio
        and other.refused <= mine.refused
        and (other.ratio < mine.ratio - 0.005 or other.refused < mine.refused)
    ]


def _ours(name: str, outcomes: Sequence[Outcome], ratio: float, refused: float | None) -> Iterator[Figure]:
    assert all(outcome.issued == 1.0 for outcome in outcomes), f"{name}: {outcomes}"
    yield Figure(name=name, unit=f"{TIMES} ideal", samples=[outcome.ratio for outcome in outcomes], at_most=ratio)
    shares = [100 * outcome.refused for outcome in outcomes]
    yield Figure(name=f"{name}: refused", unit="% of n", samples=shares, at_most=refused)


def _theirs(name: str, outcome: Outcome) -> Figure:
    refused = f"{100 * outcome.refused:.0f} % of n refused"
    if outcome.issued == 1.0:
        return Figure(name=name, unit=f"{TIMES} ideal", samples=[outcome.ratio], note=refused)
    note = f"after {outcome.ratio:.2f} {TIMES} the ideal time; {refused}"
    return Figure(name=f"{name}: issued in the end", unit="% of n", samples=[100 * outcome.issued], note=note)


def _long(seeds: Sequence[int]) -> Iterator[Figure]:
    """Let ten thousand keys meet a limit that is given."""
    for server in _SERVERS[:2]:
        outcomes = [in_virtual_time(one, streamed(server.given), 10_000) for one in server.scenario.drawn(seeds)]
        yield from _ours(f"{_GIVEN}: {server.scenario.label}, 10,000 keys", outcomes, _KNOWN, 0.0)


def _real(quick: bool) -> Iterator[Figure]:
    """Do it on a real clock."""
    rounds, count = (1, 300) if quick else (3, 1_000)
    for server in _SERVERS[2:4]:
        outcomes = [in_real_time(server.scenario, streamed(server.given), count) for _ in range(rounds)]
        yield from _ours(f"{_GIVEN}: {server.scenario.label}, {count:,} keys, real time", outcomes, _KNOWN, 0.0)


def _draw(runs: Runs, _: Report, path: Path) -> None:
    """Show the servers on which peers were measured, and whoever issued everything."""
    shown = {label: found for label, found in runs.items() if "told" not in label and len(found) > 3}
    labels = list(
        dict.fromkeys(name for found in shown.values() for name, outcome in found.items() if outcome.issued == 1.0)
    )
    rows = -(-len(shown) // 2)
    with pictures.drawing(path, (11, 1 + 3.4 * rows), rows, 2) as all_axes:
        for spare in all_axes.flat[len(shown) :]:
            spare.remove()
        for axes, (label, found) in zip(all_axes.flat, shown.items(), strict=False):
            for name, outcome in found.items():
                if outcome.issued == 1.0:
                    _mark(axes, labels.index(name), name, outcome)
            axes.set_title(label, fontsize=9)
            axes.axhline(1.0, color="black", linewidth=0.6)
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(-0.2, 3_000)
            axes.set_xlabel("refused, % of n (log scale)")
            axes.set_ylabel(f"time, {TIMES} ideal")
            axes.legend(frameon=False, fontsize=6)


def _mark(axes: Any, place: int, name: str, outcome: Outcome) -> None:
    mine = name.startswith("ours")
    axes.plot(
        [100 * outcome.refused],
        [outcome.ratio],
        linestyle="",
        marker="*" if mine else "osD^vPX<>ph"[place % 11],
        markersize=12 if mine else 6,
        color=pictures.OURS if mine else f"C{1 + place % 9}",
        markerfacecolor="none" if name == _GIVEN else None,
        label=name,
    )
