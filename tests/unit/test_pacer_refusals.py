"""What the pacer makes of refusals, pauses and deadlines, once a clock has run for a while."""

import asyncio

import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, Slot, SlotOutcome
from tests.unit.test_pacer import BATCH, INTERACTIVE, SWEEP, Line, answered, pacer, refused
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

MINUTE = RateLimit(60, per=60)


@pytest.fixture(autouse=True)
async def _later() -> None:
    """Let the clock not begin at 0, where times and spans look alike."""
    await asyncio.sleep(1000)


async def flight(paced: Pacer, number: int) -> list[Slot]:
    """Take so many slots at the same time."""
    return [await paced.acquire(INTERACTIVE) for _ in range(number)]


# --------------------------------------------------------------------------------------------------------- refusals


async def test_nothing_is_sent_until_the_flight_of_a_refusal_has_come_back() -> None:
    """What was sent with it tells what it means; then a probe goes."""
    paced = pacer()
    first, second = await flight(paced, 2)
    paced.release(first, SlotOutcome.REFUSED, caller="a", retry_after=30.0)
    asyncio.get_running_loop().call_later(0.4, paced.release, second, SlotOutcome.LOST)
    began = now()

    await paced.acquire(INTERACTIVE)

    assert now() - began == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("end", [SlotOutcome.ANSWERED, SlotOutcome.REFUSED, SlotOutcome.LOST, SlotOutcome.UNUSED])
async def test_requests_that_stall_hold_no_probe_up(end: SlotOutcome) -> None:
    """No longer than a second is waited for them, and they leave the probe's place to it, now and later."""
    paced = pacer()
    refused_one, *stalled = await flight(paced, 4)
    paced.release(refused_one, SlotOutcome.REFUSED, caller="a", retry_after=30.0)
    began = now()

    probe = await paced.acquire(INTERACTIVE)
    assert now() - began == pytest.approx(1.1, abs=0.01)
    for slot in stalled[:2]:
        paced.release(slot, end, caller=slot, retry_after=30.0 if end is SlotOutcome.REFUSED else None)
    paced.release(probe, SlotOutcome.ANSWERED)
    line = Line(paced)
    for index in range(4):
        line.join(f"{index}", hold=1)
    await asyncio.sleep(0.5)

    # The probe's success lets two be in the air, beside what stalls still.
    assert len(line.order) == 2
    await line.all_served()


async def test_where_the_limit_is_known_a_refusal_beside_others_let_in_is_one_calls_own() -> None:
    """Others were let in by the same flight, so there are slots."""
    paced = pacer(MINUTE)
    first, second = await flight(paced, 2)
    await asyncio.sleep(0.1)
    paced.release(first, SlotOutcome.ANSWERED, caller="a")
    paced.release(second, SlotOutcome.REFUSED, caller="b", retry_after=30.0)

    assert paced.paused_until(now()) is None


async def test_where_a_probe_confirms_it_a_refusal_is_everybodys() -> None:
    """Also where the limit is known; what was let in by an earlier flight proves nothing."""
    paced = pacer(MINUTE)
    await answered(paced, 5)
    await asyncio.sleep(1)
    await refused(paced, 30.0, times=1)
    assert paced.paused_until(now()) is None
    await refused(paced, 30.0, times=1)
    until = now() + 30

    assert paced.paused_until(now()) == until
    await asyncio.sleep(29.9)
    assert paced.paused_until(now()) == until
    assert paced.paused_until(until) is None
    assert paced.refused == 2


# -------------------------------------------------------------------------------------------------------- deadlines


async def test_a_deadline_ends_with_the_least_wait_that_was_left() -> None:
    """So the caller can be told when it makes sense to come again."""
    paced = pacer(RateLimit(1, per=60))
    slot = await paced.acquire(INTERACTIVE)
    waiter = asyncio.create_task(paced.acquire(INTERACTIVE, deadline=now() + 100))
    await asyncio.sleep(50)
    paced.release(slot, SlotOutcome.ANSWERED, caller="a")

    with pytest.raises(DeadlineUnreachable) as caught:
        await waiter

    assert now() == pytest.approx(1100, abs=0.01)
    assert caught.value.wait == pytest.approx(10, abs=0.01)
    assert caught.value.args == (caught.value.wait,)


async def test_a_pause_counts_for_a_deadline_by_what_is_left_of_it() -> None:
    """Not by the time of day at which it ends."""
    paced = pacer()
    await refused(paced, 50.0)
    until = now() + 50
    await asyncio.sleep(20)

    with pytest.raises(DeadlineUnreachable) as caught:
        await paced.acquire(INTERACTIVE, deadline=now() + 29.9)

    assert caught.value.wait == pytest.approx(30)
    assert (await paced.acquire(INTERACTIVE, deadline=now() + 30.1)).granted_at == pytest.approx(until, abs=0.01)


async def test_an_outage_counts_for_the_deadlines_of_the_lower_classes_only() -> None:
    """It holds nobody else back, which is told with it."""
    told = list[tuple[str, float, bool]]()
    paced = pacer(RateLimit(1000, per=1))
    paced.on_pause = lambda *event: told.append(event)
    for culprit in "abc":
        paced.release(await paced.acquire(BATCH), SlotOutcome.FAILED, caller=culprit)
    assert paced.outage
    assert told == [("outage", 0.5, True)]

    for priority in (BATCH, SWEEP):
        with pytest.raises(DeadlineUnreachable) as caught:
            await paced.acquire(priority, deadline=now() + 0.4)
        assert caught.value.wait == pytest.approx(0.5)
    assert (await paced.acquire(INTERACTIVE, deadline=now() + 0.01)).granted_at == now()


async def test_only_those_who_go_first_count_for_a_deadline() -> None:
    """A line of a lower class is no reason to give up."""
    paced = pacer(RateLimit(2, per=60))
    await answered(paced, 2)
    line = Line(paced)
    for index in range(4):
        line.join(f"b{index}", BATCH)
    await asyncio.sleep(1)

    slot = await paced.acquire(INTERACTIVE, deadline=now() + 59.1)

    assert slot.granted_at == pytest.approx(1060, abs=0.01)
    with pytest.raises(DeadlineUnreachable) as caught:
        await paced.acquire(BATCH, deadline=now() + 60)
    assert caught.value.wait > 60
    for task in line.tasks.values():
        task.cancel()


# ---------------------------------------------------------------------------------------------------------- demands


async def test_a_batch_that_is_withdrawn_no_longer_counts_for_the_others() -> None:
    """What it would still have asked for is asked for by nobody: what is left fits into what is free, unspread."""
    paced = pacer(MINUTE)
    pending = paced.announce()
    pending.more = 1000
    line = Line(paced)
    for index in range(5):
        line.join(f"{index}", BATCH)
    await asyncio.sleep(0.5)
    assert len(line.order) < 5

    paced.withdraw(pending)
    await asyncio.sleep(0.01)

    assert len(line.order) == 5


async def test_all_that_is_left_fits_or_does_not() -> None:
    """Into half of what is free, not of what the limit is; then it is not spread."""
    for left, at_once in ((15, ["0"]), (16, [])):
        paced = pacer(MINUTE)
        await answered(paced, 30)
        paced.announce().more = left
        line = Line(paced)
        line.join("0", BATCH)
        await asyncio.sleep(0.01)

        assert line.order == at_once
        line.tasks["0"].cancel()


# ------------------------------------------------------------------------------------------------- a shared window


class Asked(LocalWindow):
    """One that has slots only while it is told so, and notes what is wanted."""

    def __init__(self) -> None:
        super().__init__(RateLimit(1000, per=1))
        self.open = True
        self.wanted = (0, 0, 0.0)

    @property
    def shared(self) -> bool:
        """Say so."""
        return True

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Note it."""
        self.wanted = urgent, patient, left

    def delay(self, now: float, ahead: int = 0) -> float:
        """Give everybody a slot, or nobody."""
        return 0.0 if self.open else 1e6


async def test_no_more_is_wanted_than_could_go() -> None:
    """As many as there is room for in the air, whoever they are; and how much is left altogether."""
    window = Asked()
    paced = Pacer(window, max_in_flight=3)
    pending = paced.announce()
    pending.more = 10
    await paced.acquire(INTERACTIVE)
    window.open = False
    line = Line(paced)
    for index in range(5):
        line.join(f"i{index}")
        line.join(f"b{index}", BATCH)
    line.join("s", SWEEP)
    await asyncio.sleep(0)

    assert window.wanted == (2, 2, 16)
    for task in line.tasks.values():
        task.cancel()
    await asyncio.sleep(0)


async def test_who_gives_up_wants_nothing_any_more() -> None:
    """It is told at once: another process may have use for the slot that was to come. By a deadline too."""
    window = Asked()
    window.open = False
    paced = Pacer(window, max_in_flight=9)
    cancelled = asyncio.create_task(paced.acquire(INTERACTIVE))
    await asyncio.sleep(1)
    assert window.wanted == (1, 0, 0)

    cancelled.cancel()
    await asyncio.wait({cancelled})

    assert cancelled.cancelled()
    assert window.wanted == (0, 0, 0)


async def test_after_a_pause_one_is_wanted_and_then_more() -> None:
    """During it none; then as many as slow start lets be in the air beside those that are."""
    window = Asked()
    paced = Pacer(window, max_in_flight=9)
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.REFUSED, caller="a", retry_after=30.0)
    line = Line(paced)
    for index in range(5):
        line.join(f"i{index}")
        line.join(f"b{index}", BATCH)
    await asyncio.sleep(0)
    assert window.wanted[:2] == (0, 0)

    window.open = False
    await asyncio.sleep(31)
    assert window.wanted[:2] == (1, 1)

    for task in line.tasks.values():
        task.cancel()
    await asyncio.sleep(0)


async def test_who_is_in_the_air_after_trouble_leaves_less_room() -> None:
    """Two may be there after one success: one is, so one more is wanted."""
    for end, priority, other in ((SlotOutcome.REFUSED, INTERACTIVE, 1), (SlotOutcome.FAILED, BATCH, 5)):
        window = Asked()
        paced = Pacer(window, max_in_flight=9)
        for culprit in "abc":
            said = 0.5 if end is SlotOutcome.REFUSED else None
            paced.release(await paced.acquire(priority), end, caller=culprit, retry_after=said)
        await asyncio.sleep(1)
        paced.release(await paced.acquire(priority), SlotOutcome.ANSWERED)
        await paced.acquire(priority)
        window.open = False
        line = Line(paced)
        for index in range(5):
            line.join(f"i{index}")
            line.join(f"b{index}", BATCH)
        await asyncio.sleep(0)

        assert window.wanted[:2] == (other, 1)
        for task in line.tasks.values():
            task.cancel()
        await asyncio.sleep(0)


async def test_in_an_outage_only_the_lower_classes_are_wanted_one_by_one() -> None:
    """After its pause; an interactive call is not held back by it."""
    window = Asked()
    paced = Pacer(window, max_in_flight=9)
    for culprit in "abc":
        paced.release(await paced.acquire(BATCH), SlotOutcome.FAILED, caller=culprit)
    window.open = False
    line = Line(paced)
    for index in range(5):
        line.join(f"i{index}")
        line.join(f"b{index}", BATCH)
    await asyncio.sleep(0)
    assert window.wanted[:2] == (5, 0)

    await asyncio.sleep(0.6)
    assert window.wanted[:2] == (5, 1)
    for task in line.tasks.values():
        task.cancel()
    await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------------------ slots


@pytest.mark.parametrize(
    ("end", "callers", "outage"),
    [
        (SlotOutcome.FAILED, "abc", True),
        (SlotOutcome.LOST, "abc", True),
        (SlotOutcome.UNREACHED, "aaa", True),
        (SlotOutcome.FAILED, "aaa", False),
        (SlotOutcome.LOST, "aaa", False),
        (SlotOutcome.UNUSED, "abc", False),
        (SlotOutcome.ANSWERED, "abc", False),
    ],
)
async def test_an_outage_is_told_by_how_slots_ended(end: SlotOutcome, callers: str, outage: bool) -> None:
    """Failed or lost, of different calls; that nobody can be reached is no call's own trouble."""
    paced = pacer(MINUTE)

    for caller in callers:
        paced.release(await paced.acquire(INTERACTIVE), end, caller=caller)

    assert paced.outage is outage


async def test_a_slot_says_whose_it_is_and_when_it_was_asked_for_and_granted() -> None:
    """From the moment of standing in line."""
    paced = pacer(RateLimit(1, per=60))
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.ANSWERED)
    await asyncio.sleep(10)

    slot = await paced.acquire(BATCH)

    assert slot.priority is BATCH
    assert slot.asked_at == pytest.approx(1010, abs=0.01)
    assert slot.granted_at == pytest.approx(1060, abs=0.01)


async def test_where_no_interactive_calls_come_nothing_is_left_free_for_them() -> None:
    """A batch alone uses the whole limit."""
    paced = pacer(MINUTE)
    paced.announce()
    line = Line(paced)
    for index in range(70):
        line.join(f"{index}", BATCH)

    await asyncio.sleep(59.5)

    assert len(line.order) == 60
    for task in line.tasks.values():
        task.cancel()
    await asyncio.sleep(0)


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    """Neither a place in line, nor a slot that was granted in the same moment."""
    paced = pacer(RateLimit(1, per=60))
    slot = await paced.acquire(INTERACTIVE)
    assert slot.asked_at == slot.granted_at == now()
    first, second = (asyncio.create_task(paced.acquire(INTERACTIVE)) for _ in range(2))
    await asyncio.sleep(0)
    assert paced.waiting(INTERACTIVE) == 2

    second.cancel()
    await asyncio.sleep(0)
    assert paced.waiting(INTERACTIVE) == 1

    paced.release(slot, SlotOutcome.UNUSED)  # which grants it to the first
    first.cancel()
    await asyncio.wait({first, second})

    assert first.cancelled()
    assert (paced.waiting(INTERACTIVE), paced.in_air, paced.window.used(now())) == (0, 0, 0)


async def test_where_an_interactive_call_came_one_slot_is_left_free_for_the_next() -> None:
    """However long the batch: when all but one are taken, the next call does not wait."""
    paced = pacer(MINUTE)
    paced.announce()
    await answered(paced, 1)
    line = Line(paced)
    for index in range(70):
        line.join(f"{index}", BATCH)

    await asyncio.sleep(59.5)

    assert paced.window.used(now()) == 59
    assert (await paced.acquire(INTERACTIVE)).granted_at == now()
    for task in line.tasks.values():
        task.cancel()
    await asyncio.sleep(0)
