"""Load: an hour of mixed work in virtual time, and real sockets at full speed; nothing grows, and nothing is left."""

import asyncio
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from respan_async import AsyncRespan, CreatedKey, RateLimit
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.testing import FakeRespan, SlidingLog
from tests.hostile.far_server import FarServer
from tests.hostile.mixed_workload import TROUBLE, Size, Town
from tests.leftovers import nothing_left

HOUR = 3600.0


def assert_flat(samples: Sequence[Size]) -> None:
    """Compare the last third of the samples with the first one.

    Each was taken at rest, when only idle connections come and go, of which there may be 64, and the sixteen workers of
    a batch at its end. The least of a third has the fewest of them, and has everything that was left behind before, by
    any of some 1,000 calls.
    """
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    for what, room in {"tasks": 20, "files": 40, "objects": 400}.items():
        before, after = (min(getattr(sample, what) for sample in part) for part in (first, last))
        assert after <= before + room, f"{what} grew from {before} to {after}: {samples}"


@pytest.mark.hostile
@pytest.mark.virtual
@pytest.mark.parametrize("requests", [60, pytest.param(300, marks=pytest.mark.long)])
async def test_an_hour_of_mixed_work(requests: int) -> None:
    """Web requests, batches, sweeps, hang-ups and outages: the limit is kept, no key is unheld, and nothing grows."""
    async with FakeRespan(limit=SlidingLog(requests, per=60), latency=(0.05, 0.4)) as fake:
        for fault, probability in {**TROUBLE, "late_create:20": 0.005}.items():
            fake.chance(fault, probability)
        pace = RateLimit(requests, per=60)

        async def down(value: bool) -> None:
            fake.down = value

        with nothing_left():
            async with AsyncRespan(fake.api_key, base_url=fake.url, pace=pace, tag_names=True, timeout=10.0) as respan:
                town = Town(respan, 12.0, 700.0, down, down_every=900.0, down_for=60.0, still=12.0)
                samples = [size async for size in town.live(HOUR, samples=12)]
                for fault in TROUBLE:
                    fake.chance(fault, 0)
                await fake.settle()
                await respan.temporary_keys.sweep()
            await asyncio.sleep(20)

        assert_flat(samples)
        assert fake.max_in_window(60) <= requests
        assert fake.counts.refused == 0
        assert fake.counts.requests > requests * 56 * 0.95
        assert fake.unheld(town.held) == []
        assert statistics.median(town.waits) < 1.0
        assert town.given_up > 10


@pytest.mark.hostile
@pytest.mark.parametrize("seconds", [6.0, pytest.param(180.0, marks=pytest.mark.long)])
async def test_real_sockets_at_full_speed(seconds: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a ledger in a file beside it: tasks, open files and memory are the same at the end as at the beginning."""
    caplog.set_level(logging.CRITICAL, "respan_async")  # what is captured would be the memory that grows
    trouble = {**TROUBLE, "late_create:0.2": 0.005, "stall": 0.0005}
    async with FarServer(trouble) as far:
        files = Size.now().files

        async def down(value: bool) -> None:
            await far.tell("down" if value else "up")

        async def deliver(ticket_id: str, key: CreatedKey) -> None:
            pass

        with nothing_left():
            async with (
                AsyncRespan(far.api_key, base_url=far.url, tag_names=True, timeout=1.0) as respan,
                Issuer(respan, SQLiteLedger(tmp_path / "keys.db"), deliver=deliver) as issuer,
            ):
                town = Town(respan, 0.02, 2.0, down, down_every=2.5, down_for=0.25, issuer=issuer, keep=300, still=0.5)
                samples = [size async for size in town.live(seconds, samples=9)]
                await far.tell("calm")
                while sweeping := (
                    await respan.temporary_keys.sweep(grace=0),
                    await issuer.sweep(grace=0, taken_over=True),
                ):
                    if not any(report.revoked for report in sweeping):
                        break
                alive = set(await far.tell("alive")) - set(town.held)
                unheld = [key_id for key_id in alive if not await issuer._suspects.owns_key(key_id)]
            await asyncio.sleep(0)

        assert Size.now().files == files
        assert_flat(samples)
        # What the first third has warmed up; each suspect is remembered for as long as its key may live.
        warm, end = samples[len(samples) // 3], samples[-1]
        assert end.blocks <= warm.blocks + 100 * max(end.suspects - warm.suspects, 0) + 20_000, samples
        assert unheld == []
        assert len(town.waits) > 100
