"""Callers of a shared pace that give up, and a closing that is cut short: no slot is held for nobody."""

import asyncio

import pytest

from respan_async._pacing.shared.log_protocol import SlotStatus
from respan_async._pacing.slots import DeadlineUnreachable
from tests.unit.test_shared_window import INTERACTIVE, World
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


@pytest.mark.parametrize("how", ["cancelled", "out of time"])
async def test_a_slot_that_was_to_come_is_given_back_when_nobody_waits_for_it_any_more(how: str) -> None:
    """Another process may use it when its time comes: it is told at the next word, not after it has passed."""
    world = World()
    await world.send()
    world.log.leads.append(40.0)
    waiting = asyncio.create_task(world.send(INTERACTIVE, deadline=None if how == "cancelled" else 5.0))
    await asyncio.sleep(1)
    if how == "cancelled":
        waiting.cancel()

    with pytest.raises((asyncio.CancelledError, DeadlineUnreachable)):
        await waiting
    await asyncio.sleep(10)

    assert len(world.log.heard(SlotStatus.UNUSED)) == 1
    assert now() < 20
    assert all(ask.urgent == 0 for ask in world.log.asks[2:])
    await world.window.aclose()


async def test_a_slot_that_was_to_come_stays_for_those_who_still_wait() -> None:
    """Of two who wait for one slot, the one that gives up leaves it to the other."""
    world = World()
    await world.send()
    world.log.leads.append(40.0)
    first, second = asyncio.create_task(world.send()), asyncio.create_task(world.send())
    await asyncio.sleep(1)

    first.cancel()
    await second

    assert world.sent[-1] == pytest.approx(40.2, abs=0.5)
    assert world.log.heard(SlotStatus.UNUSED) == []
    await world.window.aclose()


async def test_the_last_words_are_said_although_their_closing_was_cancelled() -> None:
    """What was answered and what was held is told, and the log is let go of, however often it is cancelled."""
    world = World()
    await world.send()
    world.log.trip = 0.5
    closing = asyncio.create_task(world.window.aclose())
    for _ in range(3):
        await asyncio.sleep(0)
        closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()

    await asyncio.sleep(1)

    assert len(world.log.heard(SlotStatus.ANSWERED)) == 1
    assert world.log.closed
