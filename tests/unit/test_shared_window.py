"""A limit shared through a log: the real pacer and window on a clock that jumps, and a log that can be away."""

import asyncio
import itertools
import logging
from collections import deque

import pytest

from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.log_client import LEASE
from respan_async._pacing.shared.log_protocol import ReserveReply, ReserveRequest, SlotStatus, Unreachable
from respan_async._pacing.shared.window import SharedWindow
from respan_async._pacing.slots import DeadlineUnreachable, SlotOutcome
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

INTERACTIVE, BATCH, SWEEP = Priority
LIMIT = RateLimit(10, per=60)


class ScriptedLog:
    """A log that grants what it is told to, and notes what it hears.

    Attributes:
        asks: All that it was asked, whether or not it answered.
        away: Whether it cannot be reached.
        deaf: Whether it hears, and its answer is lost.
        epoch: Which log it is.
        trip: Seconds that an answer takes.
        leads: Seconds until the next slots begin; at once when there are none left.
        again: Seconds to wait, without a grant, for each of the next asks.
        held: Slots that other processes hold ahead of their time.
        closed: Whether it was closed.
    """

    loss_hint = "it was switched off"

    def __init__(self) -> None:
        self.asks = list[ReserveRequest]()
        self.away = self.deaf = self.closed = False
        self.epoch = "e"
        self.trip = 0.01
        self.leads = deque[float]()
        self.again = deque[float]()
        self.held = 0

    async def exchange(self, request: ReserveRequest) -> ReserveReply:
        """Grant everything at once, unless told otherwise."""
        self.asks.append(request)
        await asyncio.sleep(self.trip)
        if self.away or self.deaf:
            raise Unreachable("it is away")
        number = request.urgent + request.patient
        if number and self.again:
            return self._grants(self.again.popleft(), ())
        lead = self.leads.popleft() if self.leads and number else 0.0
        return self._grants(0.0, (lead,) if lead else (0.0,) * number)

    def _grants(self, again: float, begins: tuple[float, ...]) -> ReserveReply:
        return ReserveReply(
            epoch=self.epoch, used=1, held=self.held, at=1.0, soonest=0.0, again=again, full=0.0, begins=begins
        )

    def leave_loop(self) -> None:
        """Have nothing that belongs to a loop."""

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True

    def heard(self, fate: SlotStatus) -> list[str]:
        """Name the slots that were reported so, each once."""
        return list(dict.fromkeys(r.slot for request in self.asks for r in request.reports if r.status is fate))


class World:
    """A pacer on a shared window, its log, and what has gone out."""

    def __init__(self, limit: RateLimit = LIMIT, share: float = 0.2) -> None:
        self.log = ScriptedLog()
        self.window = SharedWindow(self.log, limit, share, timeout=1.0)
        self.pacer = Pacer(self.window, max_in_flight=64)
        self.sent = list[float]()

    async def send(
        self, priority: Priority = INTERACTIVE, end: SlotOutcome = SlotOutcome.ANSWERED, deadline: float | None = None
    ) -> None:
        """Take a slot, and release it a tenth of a second later."""
        slot = await self.pacer.acquire(priority, None if deadline is None else now() + deadline)
        self.sent.append(now())
        await asyncio.sleep(0.1)
        self.pacer.release(slot, end, caller=object())

    async def send_many(self, number: int, priority: Priority = INTERACTIVE) -> None:
        """Send so many at the same time."""
        await asyncio.gather(*(self.send(priority) for _ in range(number)))


# --------------------------------------------------------------------------------------------------------- one process


async def test_a_call_asks_for_its_slot() -> None:
    """One word with the log, and it goes."""
    world = World()

    await world.send()

    (request,) = world.log.asks
    assert (request.urgent, request.patient, request.limit) == (1, 0, LIMIT)
    await world.window.aclose()


async def test_many_calls_ask_together() -> None:
    """Those that wait at the same time need one word, if all their slots are free."""
    world = World()

    await world.send_many(30)

    assert len(world.log.asks) <= 2
    await world.window.aclose()


async def test_what_was_answered_is_told_with_the_next_word() -> None:
    """As an age, by this process's own clock."""
    world = World()
    await world.send()
    await asyncio.sleep(0.5)

    await world.send()

    (report,) = world.log.asks[1].reports
    assert report.status is SlotStatus.ANSWERED
    assert report.seconds == pytest.approx(0.5, abs=0.001)
    await world.window.aclose()


async def test_what_was_answered_is_told_without_a_next_word_too() -> None:
    """The others want to know when the slot comes back, though nobody asks for another here."""
    world = World()
    await world.send()

    await asyncio.sleep(10)

    assert len(world.log.heard(SlotStatus.ANSWERED)) == 1
    await world.window.aclose()


async def test_what_was_sent_again_on_the_way_counts_each_time() -> None:
    """The server let a request in three times, which aiohttp repeated by itself: the log hears of three slots."""
    world = World()
    slot = await world.pacer.acquire(INTERACTIVE)
    world.pacer.release(slot, SlotOutcome.ANSWERED, caller=object(), sendings=3)

    await world.window.aclose()

    assert len(world.log.heard(SlotStatus.ANSWERED)) == 3


async def test_what_is_long_in_the_air_is_not_forgotten() -> None:
    """The log hears of it well before it would take the slot back."""
    world = World()
    slot = await world.pacer.acquire(INTERACTIVE)

    await asyncio.sleep(60)

    flying = [
        request for request in world.log.asks if any(report.status is SlotStatus.FLYING for report in request.reports)
    ]
    assert len(flying) >= 60 / LEASE
    world.pacer.release(slot, SlotOutcome.ANSWERED)
    await world.window.aclose()


async def test_a_lost_answer_counts_for_longer() -> None:
    """The server may have let it in late: its slot comes back two seconds after that of an answered one."""
    world = World()
    await world.send(end=SlotOutcome.LOST)
    await asyncio.sleep(0.5)

    await world.send()

    (report,) = world.log.asks[1].reports
    assert report.status is SlotStatus.ANSWERED
    assert report.seconds == pytest.approx(0.5 - 2.0, abs=0.001)
    await world.window.aclose()


async def test_a_slot_that_lies_ahead_is_used_when_its_time_has_come() -> None:
    """And not before."""
    world = World()
    world.log.leads.append(7.0)

    await world.send()

    assert world.sent == [pytest.approx(7.01, abs=0.01)]
    assert len(world.log.asks) == 1
    await world.window.aclose()


async def test_a_slot_that_nobody_uses_is_given_back() -> None:
    """A caller that gives up leaves it to the other processes."""
    world = World()
    world.log.leads.append(7.0)
    call = asyncio.create_task(world.send())
    await asyncio.sleep(1)
    call.cancel()

    await asyncio.sleep(20)

    assert len(world.log.heard(SlotStatus.UNUSED)) == 1
    assert not world.log.heard(SlotStatus.ANSWERED)
    await world.window.aclose()


async def test_an_interactive_call_does_not_wait_for_the_slot_of_a_batch() -> None:
    """The one that lies ahead is given back for one that is free now."""
    world = World()
    world.log.leads.append(7.0)
    batch = asyncio.create_task(world.send(BATCH))
    await asyncio.sleep(1)

    await world.send()

    assert world.sent[0] == pytest.approx(1.0, abs=0.05)
    assert len(world.log.heard(SlotStatus.UNUSED)) == 1
    await batch
    await world.window.aclose()


async def test_who_was_told_to_come_again_does_not_come_before() -> None:
    """One word each time, and none in between."""
    world = World()
    world.log.again.extend([5.0, 6.0])

    await world.send()

    assert world.sent == [pytest.approx(11.03, abs=0.02)]
    assert len(world.log.asks) == 3
    await world.window.aclose()


async def test_an_interactive_call_asks_although_a_batch_was_told_to_wait() -> None:
    """What was said to a batch was not said to it."""
    world = World()
    world.log.again.append(30.0)
    batch = asyncio.create_task(world.send(BATCH))
    await asyncio.sleep(1)

    await world.send()

    assert world.sent[0] == pytest.approx(1.0, abs=0.05)
    await batch
    await world.window.aclose()


async def test_a_batch_asks_late_where_other_batches_hold_slots() -> None:
    """What it holds for long, an interactive call in another process must wait behind."""
    world = World(RateLimit(60, per=60))
    world.log.held = 4
    world.log.leads.extend([4.0] * 20)
    batch = asyncio.create_task(world.send_many(20, BATCH))
    await asyncio.sleep(60)

    asked = [request for request in world.log.asks if request.patient]
    assert 5 <= len(asked) <= 12  # every 4 s at first, and then ever later
    batch.cancel()
    await asyncio.wait({batch})
    await world.window.aclose()


async def test_a_word_that_is_said_for_news_does_not_ask_for_a_batchs_slot_before_its_time() -> None:
    """Else a batch of a large fleet would hold its next slot from the moment it tells of the last one."""
    world = World()
    world.log.held = 5
    world.log.leads.extend([30.0] * 3)
    batch = asyncio.create_task(world.send_many(3, BATCH))
    asked = list[tuple[int, int]]()
    for later in (45, 7):  # used at 30, told of 3 s later, and the next is asked for 21 s after the use of it
        await asyncio.sleep(later)
        asked.append((len(world.log.asks) - 1, len([request for request in world.log.asks if request.patient])))

    assert asked == [(1, 1), (2, 2)]
    batch.cancel()
    await asyncio.wait({batch})
    await world.window.aclose()


async def test_a_refusal_is_told_at_once_and_holds_everybody_here() -> None:
    """The others learn it by the log; those who wait here are not sent."""
    world = World()
    await world.send(end=SlotOutcome.REFUSED)
    slot = await world.pacer.acquire(INTERACTIVE)
    world.pacer.release(slot, SlotOutcome.REFUSED, retry_after=30.0)
    refused_at = now()

    await world.send()

    pauses = [
        report.seconds for request in world.log.asks for report in request.reports if report.status is SlotStatus.PAUSE
    ]
    assert any(pause == pytest.approx(30.0, abs=0.1) for pause in pauses)
    assert world.sent[-1] - refused_at >= 30.0
    await world.window.aclose()


async def test_a_wait_beyond_reason_is_told_as_a_bounded_one() -> None:
    """It may be nonsense: nobody is held back for longer than a probe should wait."""
    world = World()
    slot = await world.pacer.acquire(INTERACTIVE)
    world.pacer.release(slot, SlotOutcome.REFUSED, caller=object(), retry_after=1e9)

    await world.send()

    assert [
        report.seconds for request in world.log.asks for report in request.reports if report.status is SlotStatus.PAUSE
    ] == [pytest.approx(120, abs=0.1)]
    assert world.sent == [pytest.approx(120, abs=0.1)]
    await world.window.aclose()


async def test_refusals_that_say_nothing_hold_back_longer_and_longer() -> None:
    """From an eighth of a period on, twice as long each time, up to a period."""
    world = World(RateLimit(60, per=60))
    for _ in range(4):
        await world.send(end=SlotOutcome.REFUSED)
    await world.send()

    pauses = [
        report.seconds for request in world.log.asks for report in request.reports if report.status is SlotStatus.PAUSE
    ]
    assert sorted({round(pause) for pause in pauses}) == [8, 15, 30, 60]
    await world.window.aclose()


async def test_closing_tells_what_is_left_and_closes_the_log() -> None:
    """Nothing is left for the others to wait for."""
    world = World()
    await world.send()

    await world.window.aclose()
    await world.window.aclose()

    assert len(world.log.heard(SlotStatus.ANSWERED)) == 1
    assert world.log.closed


async def test_closing_while_it_is_asking_gives_back_what_is_granted_meanwhile() -> None:
    """The answer is waited for: a slot that nobody will use any more does not stay taken."""
    world = World()
    call = asyncio.create_task(world.send())
    await asyncio.sleep(world.log.trip / 2)

    await world.window.aclose()

    assert len(world.log.asks) == 2
    assert len(world.log.heard(SlotStatus.UNUSED)) == 1
    assert world.sent == []
    call.cancel()


# ------------------------------------------------------------------------------------------------------ without a log


async def test_away_it_waits_and_then_goes_on_with_its_share() -> None:
    """One period and what others may hold, then 2 in a minute of the 10: never more."""
    world = World()
    world.log.away = True

    await world.send_many(6)

    assert world.sent[0] >= 62
    assert all(later - earlier >= 60 for earlier, later in zip(world.sent, world.sent[2:], strict=False))
    assert world.sent[5] <= 62 + 2 * 61
    assert not world.window.shared
    assert world.window.limit == RateLimit(2, per=60)
    await world.window.aclose()


async def test_a_share_of_less_than_one_is_one_in_a_longer_time() -> None:
    """5 % of 10 in a minute is one in two minutes."""
    world = World(share=0.05)
    world.log.away = True

    await world.send_many(3)

    assert world.sent[2] - world.sent[1] >= 120
    await world.window.aclose()


async def test_away_a_slot_ends_as_one_of_a_limit_of_its_own_does() -> None:
    """Unused it is free again; lost it counts for longer; a refusal is looked into by a probe, a slot later."""
    world = World(share=0.5)
    world.log.away = True

    await world.send(end=SlotOutcome.UNUSED)
    assert (world.window.limit, world.window.used(now())) == (RateLimit(5, per=60), 0)
    await world.send(end=SlotOutcome.LOST)
    await asyncio.sleep(61)
    assert world.window.used(now()) == 1
    await asyncio.sleep(2)
    assert world.window.used(now()) == 0
    refused = await world.pacer.acquire(INTERACTIVE)
    world.pacer.release(refused, SlotOutcome.REFUSED, caller=object(), retry_after=30.0)
    refused_at = now()
    await world.send()

    assert world.sent[-1] - refused_at == pytest.approx(12, abs=0.1)
    await world.window.aclose()


async def test_away_what_is_in_the_air_takes_a_slot_of_the_share() -> None:
    """It was sent while the log could be reached, and its answer may be long in coming."""
    world = World(share=0.2)
    slow = await world.pacer.acquire(INTERACTIVE)
    world.log.away = True

    await world.send_many(2)

    assert world.sent[0] >= 62
    assert world.sent[1] - world.sent[0] >= 60
    world.pacer.release(slow, SlotOutcome.ANSWERED, caller=object())
    await world.window.aclose()


async def test_away_it_warns_once_and_tells_the_hooks_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it tries."""
    world = World()
    told = list[tuple[str, float, bool]]()
    world.pacer.on_pause = lambda *pause: told.append(pause)
    world.log.away = True

    with caplog.at_level(logging.WARNING, "respan_async"):
        await world.send_many(4)

    assert len(world.log.asks) > 10
    assert [record.getMessage() for record in caplog.records] == [
        "the shared pace cannot be reached (it is away): waiting for 60 s, then going on with 2/60s until it can"
    ]
    assert told == [("unreachable", 60.0, False)]
    await world.window.aclose()


async def test_back_it_tells_what_it_did_meanwhile() -> None:
    """What was sent without the log counts in it afterwards, be it answered or in the air."""
    world = World()
    world.log.away = True
    await world.send_many(2)
    slot_later = asyncio.create_task(world.pacer.acquire(INTERACTIVE))
    await asyncio.sleep(61)
    slot = await slot_later
    world.log.away = False
    await asyncio.sleep(3)

    assert world.window.shared
    assert len(world.log.heard(SlotStatus.ANSWERED)) == 2
    assert len(world.log.heard(SlotStatus.FLYING)) == 1
    world.pacer.release(slot, SlotOutcome.ANSWERED)
    await world.window.aclose()


async def test_a_deadline_holds_while_the_log_is_away() -> None:
    """No call hangs for longer than it may."""
    world = World()
    world.log.away = True

    with pytest.raises(DeadlineUnreachable):
        await world.send(deadline=5.0)

    assert now() == pytest.approx(5.0, abs=0.01)
    await world.window.aclose()


async def test_slots_of_which_no_answer_told_are_given_back() -> None:
    """The log may have granted them, and nobody knows when they would begin."""
    world = World()
    world.log.deaf = True
    call = asyncio.create_task(world.send())
    await asyncio.sleep(0.05)
    world.log.deaf = False
    await call

    first = f"{world.log.asks[0].owner}:{world.log.asks[0].first}"
    assert world.log.heard(SlotStatus.UNUSED) == [first]
    assert world.log.asks[-1].first > world.log.asks[0].first
    await world.window.aclose()


async def test_news_that_may_not_have_been_heard_is_told_again() -> None:
    """Said twice, it means the same; not said at all, a slot would be missing to everybody."""
    world = World()
    await world.send()
    world.log.away = True
    await asyncio.sleep(40)
    world.log.away = False
    await asyncio.sleep(5)

    ages = [
        report.seconds
        for request in world.log.asks
        for report in request.reports
        if report.status is SlotStatus.ANSWERED
    ]
    assert len(ages) > 2
    assert max(ages) > 40
    await world.window.aclose()


async def test_with_nothing_to_say_nothing_is_said() -> None:
    """An idle process leaves the log alone."""
    world = World()
    await world.send()
    await asyncio.sleep(100)
    said = len(world.log.asks)

    await asyncio.sleep(10_000)

    assert len(world.log.asks) == said
    await world.window.aclose()


async def test_one_word_that_fails_is_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Networks hiccup; what is told is that the second try has failed as well."""
    world = World()
    world.log.deaf = True
    call = asyncio.create_task(world.send())
    await asyncio.sleep(0.05)
    world.log.deaf = False
    await call

    assert caplog.text == ""
    assert not any(request.away for request in world.log.asks)
    await world.window.aclose()


async def test_only_who_was_away_for_long_says_so() -> None:
    """Then others may have gone on by themselves as well."""
    world = World()
    world.log.away = True
    await asyncio.wait({asyncio.create_task(world.send())}, timeout=20)
    world.log.away = False
    await asyncio.sleep(3)

    (*_, last) = [request for request in world.log.asks if request.away]
    assert last.away == pytest.approx(4.0)
    assert not world.log.asks[0].away
    await world.window.aclose()


async def test_while_the_log_is_away_nothing_is_asked_of_it() -> None:
    """A slot that was granted to nobody's knowledge would be missing to everybody."""
    world = World()
    world.log.deaf = True
    call = asyncio.create_task(world.send_many(20))
    await asyncio.sleep(30)

    assert [request.urgent for request in world.log.asks] == [20] + [0] * (len(world.log.asks) - 1)
    assert max(len(request.reports) for request in world.log.asks) == 20
    world.log.deaf = False
    await call
    await world.window.aclose()


async def test_after_a_refusal_no_more_is_asked_for_than_may_go() -> None:
    """A pacer that lets one request at a time through has no use for the slots of all who wait."""
    world = World(RateLimit(100, per=60))
    slot = await world.pacer.acquire(INTERACTIVE)
    world.pacer.release(slot, SlotOutcome.REFUSED, retry_after=2.0)
    await world.send_many(30)

    wanted = [request.urgent for request in world.log.asks if request.urgent]
    assert wanted[1] == 1
    assert all(later <= 2 * earlier for earlier, later in itertools.pairwise(wanted[1:]))
    await world.window.aclose()


async def test_a_log_that_has_changed_hears_of_what_is_in_the_air() -> None:
    """It knows nothing of slots that another one has granted."""
    world = World()
    slot = await world.pacer.acquire(INTERACTIVE)
    world.log.epoch = "another"
    await asyncio.sleep(0.1)
    await world.send()
    await asyncio.sleep(0.1)

    assert len(world.log.heard(SlotStatus.FLYING)) == 1
    world.pacer.release(slot, SlotOutcome.ANSWERED)
    await world.window.aclose()


async def test_a_call_that_could_go_is_not_failed_for_a_slot_that_a_batch_holds() -> None:
    """There are free ones, whatever lies ahead for the batch."""
    world = World()
    world.log.leads.append(7.0)
    batch = asyncio.create_task(world.send(BATCH))
    await asyncio.sleep(1)

    await world.send(deadline=now() + 2)

    batch.cancel()
    await asyncio.wait({batch})
    await world.window.aclose()


async def test_a_log_that_is_known_for_too_long_is_not_named() -> None:
    """It has expired by itself, and its absence means nothing."""
    world = World()
    await world.send()
    await asyncio.sleep(10)
    await world.send()
    await asyncio.sleep(10_000)
    await world.send()

    assert [request.epoch for request in world.log.asks if request.urgent] == ["", "e", ""]
    await world.window.aclose()


@pytest.mark.parametrize("asking", [True, False])
async def test_on_a_loop_that_ends_nothing_is_asked_any_more(asking: bool) -> None:
    """Neither what is being asked for, nor what would be later."""
    world = World()
    world.log.trip = 50.0 if asking else 0.01
    if not asking:
        world.log.again.extend([30.0] * 9)
    waiting = asyncio.ensure_future(world.pacer.acquire(INTERACTIVE))
    await asyncio.sleep(1)

    await world.window.park()
    asked = len(world.log.asks)
    await asyncio.sleep(100)

    assert len(world.log.asks) == asked
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
