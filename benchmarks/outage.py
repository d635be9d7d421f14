"""A minute without the server in the middle of a batch: who loses tenants, and how many connections are refused."""

import asyncio
import random
from pathlib import Path
from typing import Final

import attrs

from benchmarks import ours, peers, pictures
from benchmarks.figures import Figure, Report
from benchmarks.limited import Strategy
from benchmarks.peers import MANY
from benchmarks.strategies import by_peers, streamed
from benchmarks.tenants import API_KEY
from benchmarks.virtual import refused_connections, virtually
from respan_async import AsyncRespan
from respan_async.testing import FakeRespan

_LATENCY: Final = (0.05, 0.15)
_BEGINS: Final = 1.0
_LASTS: Final = 60.0
_WEB: Final = 2_200
"""Web requests within the outage, which try five times each and are refused: ten thousand connections."""

_OURS: Final = "ours"
_STORMED: Final = f"ours, beside {_WEB:,} web requests with the same client"
_HOUR: Final = "ours, an hour's outage"


@attrs.frozen
class Survived:
    """What came of a batch.

    Attributes:
        lost: Tenants without a key.
        refused: Connections that were refused.
        late: Seconds from the end of the outage to the end of the batch.
    """

    lost: int
    refused: int
    late: float


def run(quick: bool) -> Report:
    """Take the server away in the middle of a batch, and from the beginning under ten thousand calls at once."""
    count = 2_000 if quick else 10_000
    found = {
        _OURS: _through(streamed("auto"), count),
        _STORMED: _through(_beside_the_web, count),
        _HOUR: _through(streamed("auto"), count, 60 * _LASTS),
        **{name: _through(strategy, count) for name, strategy in by_peers().items()},
    }
    figures: list[Figure] = []
    for name, survived in found.items():
        lost = Figure(
            name=f"{name}: lost",
            unit="tenants",
            samples=[survived.lost],
            at_most=0 if name in (_OURS, _STORMED, _HOUR) else None,
            note=f"{survived.refused:,} connections refused; done {survived.late:+.0f} s from the end of the outage",
        )
        figures.append(lost)
    return Report(
        name="outage",
        title="What a minute without the server does to a batch.",
        conditions=f"{count:,} keys, {_LATENCY[0]:g} to {_LATENCY[1]:g} s away, no limit; after {_BEGINS:g} s every "
        f"connection is reset and every new one refused, for {_LASTS:g} s; peers with their defaults or with {MANY} "
        f"retries, 64 at a time; virtual time{peers.left_out()}",
        figures=figures,
        draw=_draw,
    )


async def _beside_the_web(url: str, count: int) -> int:
    """Run a batch, and web requests that come at random moments of the outage and may fail."""
    rng = random.Random(0)
    async with AsyncRespan(API_KEY, base_url=url) as respan:

        async def ask() -> None:
            await asyncio.sleep(_BEGINS + rng.uniform(0.0, _LASTS))
            await respan.temporary_keys.create(name="now")

        asking = [asyncio.ensure_future(ask()) for _ in range(_WEB)]
        issued = await ours.stream(respan, count)
        await asyncio.gather(*asking, return_exceptions=True)
        return len(issued)


def _through(strategy: Strategy, count: int, lasts: float = _LASTS) -> Survived:
    async def work() -> Survived:
        loop = asyncio.get_running_loop()
        async with FakeRespan(latency=_LATENCY) as fake:
            making = asyncio.create_task(_timed(strategy, fake.url, count))
            await asyncio.sleep(_BEGINS)
            fake.down = True
            await asyncio.sleep(lasts)
            fake.down = False
            up = loop.time()
            issued, ended = await making
            return Survived(count - issued, refused_connections(), ended - up)

    random.seed(0)
    return virtually(work)


async def _timed(strategy: Strategy, url: str, count: int) -> tuple[int, float]:
    issued = await strategy(url, count)
    return issued, asyncio.get_running_loop().time()


def _draw(report: Report, path: Path) -> None:
    values = {figure.name: figure.median for figure in report.figures}
    pictures.bars(path, values, "tenants without a key", [f"{name}: lost" for name in (_OURS, _STORMED, _HOUR)])
