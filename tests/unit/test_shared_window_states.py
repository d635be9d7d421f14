"""What a shared window tells the pacer: by what the log said last, and while the log is away."""

import asyncio
import contextvars
import gc
import math
import warnings
from collections.abc import AsyncIterator

import attrs
import pytest

from respan_async import ConfigurationError
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.log_client import LEASE
from respan_async._pacing.shared.log_protocol import ReserveReply, ReserveRequest, SlotStatus, Unreachable
from respan_async._pacing.shared.window import SharedWindow
from respan_async._pacing.slots import SlotOutcome
from tests.virtual import VirtualLoop
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

INTERACTIVE, BATCH, _ = Priority
LIMIT = RateLimit(10, per=60)
ANSWER = ReserveReply(epoch="e", used=1, held=0, at=1.0, soonest=0.0, again=0.0, full=0.0, begins=())


class Log:
    """A log that says what is put into it.

    Attributes:
        says: What, of the next asks; grants of everything at once when there is nothing left.
        heard: When it was asked what.
        callers: In whose context.
        trip: Seconds that an answer takes.
        epoch: Which log it is.
        away: Whether it cannot be reached.
        closed: Whether it was closed.
    """

    loss_hint = "it was switched off"

    def __init__(self) -> None:
        self.says = list[ReserveReply]()
        self.heard = list[tuple[float, ReserveRequest]]()
        self.callers = set[str]()
        self.trip = 0.01
        self.epoch = "e"
        self.away = self.closed = False

    async def exchange(self, request: ReserveRequest) -> ReserveReply:
        """Note it, and answer."""
        self.heard.append((now(), request))
        self.callers.add(CALLER.get())
        await asyncio.sleep(self.trip)
        if self.away:
            raise Unreachable("it is away")
        number = request.urgent + request.patient
        if number and self.says:
            return self.says.pop(0)
        return attrs.evolve(ANSWER, epoch=self.epoch, begins=(0.0,) * number)

    def leave_loop(self) -> None:
        """Have nothing that belongs to a loop."""

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True

    @property
    def asks(self) -> list[ReserveRequest]:
        """What it was asked."""
        return [request for _, request in self.heard]

    def told(self, fate: SlotStatus) -> int:
        """Count the slots that were reported so."""
        return len({report.slot for _, request in self.heard for report in request.reports if report.status is fate})


CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("CALLER", default="nobody")


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    """Give a log, at a time that is not 0, where times and spans look alike; nothing may fail in the background."""
    unseen = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    await asyncio.sleep(1000)
    yield Log()
    gc.collect(1)  # a task that failed unseen is told when it is thrown away
    assert unseen == []


@pytest.fixture
async def window(log: Log) -> AsyncIterator[SharedWindow]:
    """Give a window on it."""
    window = SharedWindow(log, LIMIT, 0.5, timeout=1.0)
    yield window
    await window.aclose()


@pytest.fixture
async def pacer(window: SharedWindow) -> Pacer:
    """Give a pacer with that window."""
    return Pacer(window, max_in_flight=64)


async def send(
    pacer: Pacer, end: SlotOutcome = SlotOutcome.ANSWERED, priority: Priority = INTERACTIVE, **facts: float
) -> None:
    """Take a slot, and release it a tenth of a second later."""
    slot = await pacer.acquire(priority)
    await asyncio.sleep(0.1)
    pacer.release(slot, end, caller=object(), retry_after=facts.get("retry_after"), sendings=int(facts.get("n", 1)))


async def fallen_back(log: Log, pacer: Pacer) -> None:
    """Let the log be away for so long that the process goes on by itself."""
    log.away = True
    await asyncio.gather(*(send(pacer) for _ in range(2)))
    assert not pacer.window.shared


# --------------------------------------------------------------------------------------------------------- the log


async def test_how_many_slots_are_taken_is_what_the_log_said_last(log: Log, pacer: Pacer) -> None:
    """Of all processes together."""
    log.says = [attrs.evolve(ANSWER, used=7, begins=(0.0,))]

    await send(pacer)

    assert pacer.window.used(now()) == 7


async def test_a_newcomer_waits_for_the_slot_that_comes_back_first(log: Log, window: SharedWindow) -> None:
    """As the log foresees it; one period later for each limit of others before it."""
    log.says = [attrs.evolve(ANSWER, used=10, soonest=20.0, again=5.0)]
    window.request_slots(1, 0, 0)
    await asyncio.sleep(1)

    assert window.delay(now()) == pytest.approx(20 - 1 + 0.01)
    assert window.delay(now(), ahead=9) == pytest.approx(20 - 1 + 0.01)
    assert window.delay(now(), ahead=10) == pytest.approx(80 - 1 + 0.01)


async def test_when_a_slot_is_free_a_newcomer_can_hope_for_it(log: Log, window: SharedWindow) -> None:
    """It has yet to be asked for, which takes no time that could be foretold."""
    log.says = [attrs.evolve(ANSWER, again=5.0)]
    window.request_slots(1, 0, 0)
    await asyncio.sleep(1)

    assert 0 < window.delay(now(), ahead=50) < 0.001


async def test_a_refusal_holds_newcomers_back_as_long_as_it_said(log: Log, window: SharedWindow) -> None:
    """And what was held goes back, for the others to have after the pause."""
    log.says = [attrs.evolve(ANSWER, begins=(0.0, 0.0, 0.0))]
    window.request_slots(3, 0, 0)
    await asyncio.sleep(0.1)
    window.take(now())

    window.refused(now(), now() - 0.1, 30.0)

    assert window.delay(now()) == pytest.approx(30)
    await asyncio.sleep(0.1)
    window.request_slots(0, 0, 0)
    await asyncio.sleep(1)
    assert log.told(SlotStatus.UNUSED) == 3
    assert [r.slot for r in log.heard[-1][1].reports if r.status is SlotStatus.PAUSE] == [""]


async def test_a_shorter_pause_does_not_end_a_longer_one(log: Log, window: SharedWindow) -> None:
    """Two refusals of one flight may ask for different times."""
    log.says = [attrs.evolve(ANSWER, begins=(0.0, 0.0))]
    window.request_slots(2, 0, 0)
    await asyncio.sleep(0.1)
    window.take(now())
    window.take(now())

    window.refused(now(), now() - 0.1, 50.0)
    window.refused(now(), now() - 0.1, 30.0)

    assert window.delay(now()) == pytest.approx(50)


@pytest.mark.parametrize(("limit", "bound"), [(LIMIT, 3.0), (RateLimit(10, per=1), 2.0)])
async def test_a_refusal_binds_by_the_limit_of_all(limit: RateLimit, bound: float) -> None:
    """Whole seconds are taken at their word where the period is long."""
    window = SharedWindow(Log(), limit, 0.5, timeout=1.0)
    paced = Pacer(window, 64)

    await send(paced, SlotOutcome.REFUSED, retry_after=3.0)

    assert window.paused_until(now()) == now() + bound
    await window.aclose()


async def test_what_was_sent_more_often_than_once_is_told_as_often(log: Log, pacer: Pacer) -> None:
    """The server counted each."""
    await send(pacer, n=3)
    await asyncio.sleep(10)

    assert log.told(SlotStatus.ANSWERED) == 3


async def test_what_was_sent_more_often_and_never_answered_is_told_as_often(log: Log, pacer: Pacer) -> None:
    """Each may have been let in as late as the grace after it was given up."""
    slot = await pacer.acquire(INTERACTIVE)
    pacer.release(slot, SlotOutcome.LOST, sendings=3)
    await pacer.window.aclose()

    reports = log.asks[-1].reports
    assert [report.status for report in reports] == [SlotStatus.ANSWERED] * 3
    assert [report.seconds for report in reports] == pytest.approx([-2.0] * 3, abs=0.01)
    assert len({report.slot for report in reports}) == 3


async def test_what_was_not_sent_is_told_to_be_free(log: Log, pacer: Pacer) -> None:
    """Somebody else may have it at once."""
    await send(pacer, SlotOutcome.UNUSED)
    await asyncio.sleep(10)

    assert (log.told(SlotStatus.UNUSED), log.told(SlotStatus.ANSWERED)) == (1, 0)


@pytest.mark.parametrize(
    ("limit", "trip", "lead"),
    [
        (RateLimit(10, per=60), 0.01, 9.0),  # one and a half slots' time
        (RateLimit(10, per=60), 3.0, 15.0),  # five round trips
        (RateLimit(100_000, per=60), 0.001, 0.01),
    ],
)
async def test_a_batch_asks_so_late_that_it_will_hold_its_slot_for_a_short_time(
    log: Log, limit: RateLimit, trip: float, lead: float
) -> None:
    """What it had to wait for the last ones beyond that, it now waits before it asks; where slots are free, it asks."""
    window = SharedWindow(log, limit, 0.5, timeout=10.0)
    pacer = Pacer(window, max_in_flight=64)
    log.trip = trip
    log.says = [attrs.evolve(ANSWER, held=10_000, begins=(begins,)) for begins in (lead / 2, lead + 2, lead + 0.5, 0.0)]
    used = list[float]()

    async def use() -> None:
        slot = await pacer.acquire(BATCH)
        used.append(now())
        pacer.release(slot, SlotOutcome.ANSWERED)

    await asyncio.gather(*(use() for _ in range(5)))

    asked = [at for at, request in log.heard if request.patient]
    lingered = [after - before for before, after in zip(used, asked[1:], strict=False)]
    assert lingered[:4] == pytest.approx([0, 2, 0.9 * 2 + 0.5, 0], abs=0.005)
    await window.aclose()


async def test_a_word_says_all_that_the_log_needs(log: Log, pacer: Pacer) -> None:
    """Whose it is, for how long it holds, which log it knows and since when, and what waits and is left here."""
    pending = pacer.announce()
    pending.more = 10
    await asyncio.gather(send(pacer), send(pacer), send(pacer, priority=BATCH))

    first, second = log.asks[:2]
    assert (first.limit, first.lease, first.epoch, first.heard, first.away) == (LIMIT, LEASE, "", 0.0, 0.0)
    assert (first.urgent, first.patient, first.waiting, first.left, first.first) == (2, 0, 2, 11, 1)
    assert (second.urgent, second.patient, second.waiting, second.left, second.first) == (0, 1, 0, 11, 3)
    assert (second.epoch, second.heard, second.owner) == ("e", 1.0, first.owner)
    assert len(first.fresh) == len(second.fresh) == 16
    assert first.fresh != second.fresh


@pytest.mark.parametrize("priority", [INTERACTIVE, BATCH])
async def test_one_word_asks_for_a_hundred_slots_at_most(log: Log, window: SharedWindow, priority: Priority) -> None:
    """The log does one thing at a time, and others wait."""
    pacer = Pacer(window, max_in_flight=1000)

    await asyncio.gather(*(send(pacer, priority=priority) for _ in range(250)))

    assert [request.urgent + request.patient for request in log.asks][:3] == [100, 100, 50]


async def test_before_the_first_word_nothing_is_known(window: SharedWindow) -> None:
    """Nothing is taken, and nobody need wait for long."""
    assert window.used(now()) == 0
    assert 0 < window.delay(now()) < 0.001
    assert window.wakes_at(now()) is None
    assert window.room(now(), 0) == math.inf
    assert window.paused_until(now()) is None
    assert not window.learned


@pytest.mark.parametrize(("silent_for", "epoch"), [(139, "e"), (141, "")])
async def test_a_log_is_named_as_long_as_it_may_be_there(
    log: Log, window: SharedWindow, silent_for: float, epoch: str
) -> None:
    """Twice the time after which it forgets what nobody has spoken of."""
    window.request_slots(1, 0, 0)
    await asyncio.sleep(5)
    window.request_slots(0, 0, 0)
    await asyncio.sleep(5)  # what was granted was given back, and that was said last
    met_at = log.heard[-1][0] + log.trip
    await asyncio.sleep(met_at + silent_for - now())

    window.request_slots(1, 0, 0)
    await asyncio.sleep(1)

    assert log.asks[-1].urgent == 1
    assert log.asks[-1].epoch == epoch


async def test_what_a_call_waited_for_does_not_make_a_batch_wait(log: Log, pacer: Pacer) -> None:
    """Only what batches were granted ahead of time says how late a batch should ask."""
    log.says = [attrs.evolve(ANSWER, used=10, begins=(40.0,))]
    await send(pacer)
    began = now()

    await send(pacer, priority=BATCH)

    assert now() - began == pytest.approx(0.1 + log.trip, abs=0.005)


async def test_what_is_held_when_the_log_is_gone_is_given_back(log: Log, pacer: Pacer) -> None:
    """Until it is back nobody knows whether the slot is still held."""
    window = pacer.window
    flying = await pacer.acquire(INTERACTIVE)  # of which the log is told again and again
    log.says = [attrs.evolve(ANSWER, begins=(30.0,))]
    waiting = asyncio.create_task(send(pacer, priority=BATCH))
    await asyncio.sleep(1)
    assert window.wakes_at(now()) is not None
    log.away = True
    await asyncio.sleep(5)
    assert window.wakes_at(now()) is None

    log.away = False
    await waiting

    assert log.told(SlotStatus.UNUSED) == 1
    assert now() < 1012
    pacer.release(flying, SlotOutcome.ANSWERED)


async def test_what_another_log_had_granted_is_given_back(log: Log, pacer: Pacer) -> None:
    """The one that is there now knows nothing of it."""
    window = pacer.window
    flying = await pacer.acquire(INTERACTIVE)  # of which the log is told again and again
    log.says = [attrs.evolve(ANSWER, begins=(30.0,))]
    waiting = asyncio.create_task(send(pacer, priority=BATCH))
    await asyncio.sleep(1)
    assert window.wakes_at(now()) is not None

    log.epoch = "f"
    await waiting

    assert now() < 1012
    assert log.told(SlotStatus.UNUSED) == 1
    pacer.release(flying, SlotOutcome.ANSWERED)


@pytest.mark.parametrize(("used", "asks"), [(9, True), (10, False)])
async def test_an_interactive_call_asks_for_a_slot_of_its_own_only_if_there_are_free_ones(
    log: Log, pacer: Pacer, used: int, asks: bool
) -> None:
    """Else the one that a batch holds ahead is the first that comes; it goes to the call."""
    log.says = [attrs.evolve(ANSWER, used=used, begins=(30.0,))]
    waiting = asyncio.create_task(send(pacer, priority=BATCH))
    await asyncio.sleep(1)

    call = asyncio.create_task(send(pacer))
    await asyncio.sleep(1)

    assert any(request.urgent for request in log.asks) is asks
    await asyncio.gather(waiting, call)


async def test_the_pause_after_refusals_that_say_nothing_begins_anew_after_an_answer(
    log: Log, window: SharedWindow
) -> None:
    """It doubles, and one that was let in ends that."""
    log.says = [attrs.evolve(ANSWER, begins=(0.0,) * 4)]
    window.request_slots(4, 0, 0)
    await asyncio.sleep(0.1)
    for _ in range(4):
        window.take(now())
    waits = list[float]()
    for _ in range(2):
        window.refused(now(), now() - 0.1, None)
        waits.append(window.delay(now()))
    await asyncio.sleep(30)
    window.answered(now(), now() - 0.1, 1)

    window.refused(now(), now() - 0.1, None)

    assert [*waits, window.delay(now())] == pytest.approx([7.5, 15, 7.5])


@pytest.mark.parametrize(("per", "within"), [(1.0, 0.5), (60.0, LEASE / 3)])
async def test_news_is_told_after_half_a_period_or_a_while(log: Log, per: float, within: float) -> None:
    """The others want to know before the slot would have come back anyway."""
    window = SharedWindow(log, RateLimit(10, per=per), 0.5, timeout=1.0)
    pacer = Pacer(window, max_in_flight=64)
    await send(pacer)
    answered_at = now()

    await asyncio.sleep(10)

    ((told_at, _),) = [(at, request) for at, request in log.heard if request.reports]
    assert told_at - answered_at == pytest.approx(within, abs=0.01)
    await window.aclose()


async def test_no_caller_is_behind_a_word_with_the_log(log: Log, pacer: Pacer) -> None:
    """Whoever happens to wait when it is said would else have its traces and settings in it."""
    CALLER.set("somebody")

    await send(pacer)
    await asyncio.sleep(10)

    assert log.callers == {"nobody"}


# --------------------------------------------------------------------------------------------------------- the end


async def test_a_window_is_one_clients(window: SharedWindow, pacer: Pacer) -> None:
    """Two pacers would not know of each other's slots."""
    assert pacer.window is window

    with pytest.raises(ConfigurationError, match=r"^pace: this window belongs to another client; make one for each$"):
        Pacer(window, max_in_flight=64)


async def test_closing_with_nothing_to_say_says_nothing(log: Log, window: SharedWindow) -> None:
    """And afterwards nothing is asked any more."""
    await window.aclose()

    window.request_slots(1, 0, 0)
    await asyncio.sleep(10)

    assert log.closed
    assert log.heard == []


async def test_closing_waits_for_the_word_that_is_being_said_and_gives_back_what_it_brings(
    log: Log, window: SharedWindow
) -> None:
    """Nobody here has use for it any more; nothing new is wanted."""
    window.request_slots(2, 0, 0)

    await window.aclose()

    assert [(request.urgent, request.patient, request.waiting) for request in log.asks] == [(2, 0, 2), (0, 0, 0)]
    assert log.told(SlotStatus.UNUSED) == 2


async def test_when_the_loop_ends_nothing_is_asked_any_more(log: Log, window: SharedWindow) -> None:
    """Its tasks are cancelled then, though nobody has closed the client."""
    window.request_slots(1, 0, 0)
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others)

    window.request_slots(1, 0, 0)
    await asyncio.sleep(10)

    assert len(log.heard) <= 1


# ------------------------------------------------------------------------------------------------------ without it


async def test_on_its_own_a_process_counts_by_itself(log: Log, pacer: Pacer) -> None:
    """By its share, beginning with what was in the air when it fell back."""
    early = await pacer.acquire(INTERACTIVE)
    await fallen_back(log, pacer)

    assert pacer.window.limit == RateLimit(5, per=60)
    assert pacer.window.used(now()) == 3
    pacer.release(early, SlotOutcome.UNUSED)
    assert pacer.window.used(now()) == 2


async def test_on_its_own_a_lost_answer_counts_for_longer(log: Log, pacer: Pacer) -> None:
    """As it does anywhere else."""
    await fallen_back(log, pacer)
    await asyncio.sleep(61)
    await send(pacer, SlotOutcome.LOST)

    await asyncio.sleep(61)
    assert pacer.window.used(now()) == 1
    await asyncio.sleep(2)
    assert pacer.window.used(now()) == 0


async def test_on_its_own_what_was_sent_again_without_an_answer_counts_each_time(log: Log, pacer: Pacer) -> None:
    """Until a period and the grace are over."""
    await fallen_back(log, pacer)
    window = pacer.window
    before = window.used(now())

    slot = await pacer.acquire(INTERACTIVE)
    pacer.release(slot, SlotOutcome.LOST, sendings=2)

    assert window.used(now()) == before + 2


async def test_on_its_own_a_process_learns_from_refusals_what_others_hold(log: Log, pacer: Pacer) -> None:
    """Of the share that is its own, others hold what it does not; the share stays what it is."""
    await fallen_back(log, pacer)
    await asyncio.sleep(1)
    ours = pacer.window.used(now())
    for _ in range(2):
        await send(pacer, SlotOutcome.REFUSED, retry_after=30.0)

    assert pacer.window.others(now()) == 5 - ours
    assert pacer.window.limit == RateLimit(5, per=60)
    assert not pacer.window.learned


async def test_on_its_own_a_process_heeds_what_answers_state(log: Log, pacer: Pacer) -> None:
    """While the log is there, it knows better; alone, the process leaves out what others hold."""
    hint = RateHint(limit=None, per=None, remaining=0, reset=30.0)
    pacer.window.told(now(), hint)
    assert pacer.window.others(now()) == 0
    await fallen_back(log, pacer)
    ours = pacer.window.used(now())

    pacer.window.told(now(), hint)

    assert pacer.window.others(now()) == 5 - ours


async def test_away_a_newcomer_waits_for_the_next_try(log: Log, pacer: Pacer) -> None:
    """The log may be back by then."""
    log.away = True
    waiting = asyncio.create_task(send(pacer))
    await asyncio.sleep(10)

    assert 0.001 < pacer.window.delay(now()) <= 2.0
    log.away = False
    await waiting


async def test_on_its_own_a_newcomer_waits_for_its_share(log: Log, pacer: Pacer) -> None:
    """With as many before it as there are; and no word says that somebody waits, for the log could not help."""
    await fallen_back(log, pacer)
    began = now()
    log.heard.clear()

    assert pacer.window.delay(began, ahead=2) == 0.0
    assert pacer.window.delay(began, ahead=3) == pytest.approx(59.9, abs=0.2)
    await asyncio.sleep(5)
    assert {(request.urgent, request.patient, request.waiting) for request in log.asks} == {(0, 0, 0)}


def test_a_closing_whose_loop_was_closed_begins_anew_on_the_next() -> None:
    """Nobody waits for the end of a closing that will never come."""
    log = Log()
    log.trip = 1000.0
    window = SharedWindow(log, LIMIT, 0.5, timeout=5000.0)
    left = list[asyncio.Future[None]]()

    async def leave() -> None:
        window.request_slots(1, 0, 0)
        await asyncio.sleep(1)
        left.append(asyncio.ensure_future(window.aclose()))
        await asyncio.sleep(1)

    first = VirtualLoop()
    first.run_until_complete(leave())
    first.close()
    assert not log.closed

    async def close() -> None:
        window.leave_loop()
        async with asyncio.timeout(10):
            await window.aclose()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(close())
    assert log.closed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python complains of the tasks that were dropped with their loop
        left.clear()
        gc.collect()
