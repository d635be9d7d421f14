"""Getting keys through trouble: what is issued, and what is left alive that nobody holds."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from benchmarks import ours, peers, pictures
from benchmarks.figures import Figure, Report
from benchmarks.limited import Scenario
from benchmarks.peers import MANY, Peer, gathered
from benchmarks.tenants import API_KEY
from benchmarks.virtual import virtually
from respan_async import AsyncRespan, Issued, RateLimit
from respan_async._calls.sweep_policy import GRACE
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.testing import FakeRespan

_SCENARIO: Final = Scenario(kind="log", limit=600, per=60, latency=(0.05, 0.15))
_CHANCES: Final = {"lose_answer_after_create": 0.02, "html_502_after": 0.02, "late_create": 0.01}
_LATE: Final = 20.0
_FASTER: Final = 10.0
"""Ledgers write in a thread, which virtual time has no place for: theirs is real, and everything so much faster."""

_SWEEPS: Final = 3
_WITHOUT: Final = "without a key"
_UNHELD: Final = "alive unheld in the end"

Sweep = Callable[[], Awaitable[object]]
Work = Callable[[FakeRespan, int, "Ended"], Awaitable[None]]
"""Makes so many keys, and calls what it is given with what it holds, before it sweeps and after."""


@attrs.define
class Ended:
    """What a client ends with.

    Attributes:
        issued: Tenants that have a key.
        unheld: Keys alive that nobody holds, before and after a sweep.
        doubled: Tenants with more than one key alive, before and after.
        refused: Requests that the limit turned away.
    """

    issued: int = 0
    unheld: list[int] = attrs.field(factory=list)
    doubled: list[int] = attrs.field(factory=list)
    refused: int = 0

    def look(self, fake: FakeRespan, held: list[str]) -> None:
        """Compare what the server has with what the client holds."""
        self.issued = len(held)
        self.unheld.append(len(fake.unheld(held)))
        keys = Counter(record.name.partition(" ~")[0] for record in fake.alive())
        self.doubled.append(sum(number > 1 for number in keys.values()))
        self.refused = fake.counts.refused


def run(quick: bool) -> Report:
    """Let ours and every peer make keys on a server that loses answers."""
    count = 1_000 if quick else 5_000
    pace = RateLimit(_SCENARIO.limit, per=_SCENARIO.per)
    mine = {
        'ours: create_many, tag_names, sweep, pace="auto"': _virtually(count, _many(None)),
        "ours: create_many, tag_names, sweep, limit given": _virtually(count, _many(pace)),
        "ours: Issuer with a ledger, sweep, limit given": _really(
            count, _issuer(attrs.evolve(pace, per=pace.per / _FASTER))
        ),
    }
    theirs: dict[str, Ended] = {}
    for name, peer in peers.present().items():
        if name != "as_told":  # it has no number of retries
            theirs[f"{peer.label}, defaults"] = _virtually(count, _peer(peer, None))
        theirs[f"{peer.label}, patient"] = _virtually(count, _peer(peer, MANY))
    faults = ", ".join(f"{100 * chance:g} % {name}" for name, chance in _CHANCES.items())
    return Report(
        name="trouble",
        title="What is issued through trouble, and what is left alive that nobody holds.",
        conditions=f"{count:,} keys at {_SCENARIO.label}; of the creates {faults}, late by {_LATE:g} s; peers with "
        f"their defaults or with {MANY} retries, 64 at a time; virtual time, but with a ledger real time, {_FASTER:g} "
        f"times as fast{peers.left_out()}",
        figures=[
            *(figure for name, ended in mine.items() for figure in _ours(name, ended, count)),
            *(figure for name, ended in theirs.items() for figure in _theirs(name, ended, count)),
        ],
        draw=_draw,
    )


def _virtually(count: int, work: Work) -> Ended:
    random.seed(0)
    return virtually(lambda: _ended(_SCENARIO, _LATE, count, work))


def _really(count: int, work: Work) -> Ended:
    low, high = _SCENARIO.latency
    faster = attrs.evolve(_SCENARIO, per=_SCENARIO.per / _FASTER, latency=(low / _FASTER, high / _FASTER))
    return asyncio.run(_ended(faster, _LATE / _FASTER, count, work))


async def _ended(scenario: Scenario, late: float, count: int, work: Work) -> Ended:
    ended = Ended()
    async with scenario.fake() as fake:
        for name, chance in _CHANCES.items():
            fake.chance(f"{name}:{late:g}" if name == "late_create" else name, chance)
        await work(fake, count, ended)
    return ended


def _many(pace: RateLimit | None) -> Work:
    async def work(fake: FakeRespan, count: int, ended: Ended) -> None:
        async with AsyncRespan(API_KEY, base_url=fake.url, pace=pace or "auto", tag_names=True) as respan:
            held = await ours.stream(respan, count)
            await _swept(fake, held, respan.temporary_keys.sweep, ended)

    return work


def _issuer(pace: RateLimit) -> Work:
    async def work(fake: FakeRespan, count: int, ended: Ended) -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with (
                AsyncRespan(API_KEY, base_url=fake.url, pace=pace) as respan,
                Issuer(respan, SQLiteLedger(Path(folder) / "keys.db")) as issuer,
            ):
                outcomes = await issuer.issue_many(map(ours.ticket, range(count)))
                held = [outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)]
                await _swept(fake, held, partial(issuer.sweep, grace=GRACE / _FASTER), ended)

    return work


async def _swept(fake: FakeRespan, held: list[str], sweep: Sweep, ended: Ended) -> None:
    await fake.settle()
    ended.look(fake, held)
    for _ in range(_SWEEPS):
        await sweep()
    ended.look(fake, held)


def _peer(peer: Peer, retries: int | None) -> Work:
    async def work(fake: FakeRespan, count: int, ended: Ended) -> None:
        async with peer.open(fake.url, retries) as create:
            held = [key for key in await gathered(create, count) if isinstance(key, str)]
            await fake.settle()
            ended.look(fake, held)

    return work


def _ours(name: str, ended: Ended, count: int) -> Iterator[Figure]:
    before, after = ended.unheld
    yield Figure(
        name=f"{name}: {_WITHOUT}",
        unit="tenants",
        samples=[count - ended.issued],
        at_most=0,
        note=f"{100 * ended.issued / count:g} % issued; {100 * ended.refused / count:.1f} % of n refused",
    )
    yield Figure(name=f"{name}: with two keys, in the end", unit="tenants", samples=ended.doubled[-1:], at_most=0)
    yield Figure(name=f"{name}: alive unheld before a sweep", unit="keys", samples=[before])
    yield Figure(name=f"{name}: {_UNHELD}", unit="keys", samples=[after], at_most=0)


def _theirs(name: str, ended: Ended, count: int) -> Iterator[Figure]:
    yield Figure(
        name=f"{name}: {_WITHOUT}",
        unit="tenants",
        samples=[count - ended.issued],
        note=f"{100 * ended.issued / count:g} % issued; {100 * ended.refused / count:.0f} % of n refused; "
        f"{ended.doubled[-1]} tenants with two keys",
    )
    yield Figure(name=f"{name}: {_UNHELD}", unit="keys", samples=ended.unheld[-1:])


def _draw(report: Report, path: Path) -> None:
    series: dict[str, dict[str, float]] = {_WITHOUT: {}, _UNHELD: {}}
    for figure in report.figures:
        name, _, kind = figure.name.rpartition(": ")
        if kind in series:
            series[kind][name] = figure.median
    pictures.pairs(path, series, "tenants, and keys")
