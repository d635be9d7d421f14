"""Sweeping by itself goes on, whatever a sweep meets."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from respan_async import Effect, Suspect
from respan_async._calls.auto_sweep import AutoSweep
from respan_async._calls.lifecycle import Lifecycle
from respan_async._calls.suspect_store import InMemorySuspectStore
from respan_async._calls.sweep_policy import SweepPolicy, SweepReport
from respan_async._pacing.loop_clock import LoopClock

pytestmark = pytest.mark.virtual

HOUR = 3600.0
SUSPECT = Suspect(
    name="x", tag="abcdefghijk2", effect=Effect.LOST, sent_at=datetime(2026, 1, 31, tzinfo=UTC), sent={}, reason=""
)


class Damaged(InMemorySuspectStore):
    """A store that cannot be read at first."""

    fails = 2

    async def pending(self) -> Sequence[Suspect]:
        """Fail, or return all suspects."""
        self.fails -= 1
        if self.fails >= 0:
            raise OverflowError("a secret")
        return await super().pending()


async def sweeping(store: InMemorySuspectStore, failures: Sequence[type[Exception]]) -> list[float]:
    """Sweep by itself for a day; give the times of the sweeps. The first ones fail."""
    loop, lifecycle = asyncio.get_running_loop(), Lifecycle()
    began, times, left = loop.time(), list[float](), list(failures)
    lifecycle.check()

    async def once(_: float) -> SweepReport:
        times.append(loop.time() - began)
        if left:
            raise left.pop(0)("a secret")
        store.dismiss(SUSPECT)
        return SweepReport(revoked=("key-1",), expired=(), left=())

    store.add(SUSPECT)
    AutoSweep(once, store, SweepPolicy(), lifecycle, lambda: datetime.now(UTC), LoopClock()).wake()
    await asyncio.sleep(24 * HOUR)
    await lifecycle.aclose(0)
    return times


async def test_an_unexpected_failure_is_told_once_and_the_sweeps_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """Ever more rarely, as after any failure; the log has the type, and not the text."""
    times = await sweeping(InMemorySuspectStore(), [OverflowError] * 3)

    assert times == pytest.approx([0, 600, 1800, 4200], abs=1)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "sweeping has failed unexpectedly, and is tried again later: OverflowError")
    ]


async def test_suspects_that_cannot_be_read_are_read_again(caplog: pytest.LogCaptureFixture) -> None:
    """Ten minutes later, and so on."""
    times = await sweeping(Damaged(), [])

    assert times == pytest.approx([1200], abs=1)
    assert caplog.text.count("OverflowError") == 1
    assert "a secret" not in caplog.text
