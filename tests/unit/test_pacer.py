"""The one place before which every request waits: the real pacer on a clock that jumps."""

import asyncio
import itertools
from typing import Any

import pytest

from respan_async import ClientStateError
from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, Slot, SlotOutcome
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

INTERACTIVE, BATCH, SWEEP = Priority


def pacer(limit: RateLimit | None = None, max_in_flight: int = 64, **settings: Any) -> Pacer:
    """Make a pacer with a local window."""
    return Pacer(LocalWindow(limit), max_in_flight, **settings)


class Line:
    """Callers who stand in line, and the order in which they were served."""

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.order = list[str]()
        self.times = dict[str, float]()
        self.slots = dict[str, Slot]()
        self.tasks = dict[str, asyncio.Task[None]]()

    async def _wait(self, name: str, priority: Priority, hold: float) -> None:
        slot = self.slots[name] = await self.pacer.acquire(priority)
        self.order.append(name)
        self.times[name] = now()
        if hold >= 0:
            await asyncio.sleep(hold)
            self.pacer.release(slot, SlotOutcome.ANSWERED, caller=name)

    def join(self, name: str, priority: Priority = INTERACTIVE, hold: float = 0.0) -> asyncio.Task[None]:
        """Let somebody stand in line, and hold the slot for so long; with -1 for ever."""
        task = self.tasks[name] = asyncio.create_task(self._wait(name, priority, hold))
        return task

    async def all_served(self) -> None:
        """Wait until everybody was."""
        await asyncio.gather(*self.tasks.values())


async def answered(pacer: Pacer, number: int, priority: Priority = INTERACTIVE) -> None:
    """Take so many slots, each answered at once."""
    for _ in range(number):
        pacer.release(await pacer.acquire(priority), SlotOutcome.ANSWERED, caller=object())


async def refused(pacer: Pacer, retry_after: float | None, times: int = 2) -> None:
    """Let a request be refused, and the probe after it."""
    for _ in range(times):
        pacer.release(await pacer.acquire(INTERACTIVE), SlotOutcome.REFUSED, caller=object(), retry_after=retry_after)


# ------------------------------------------------------------------------------------------------------------- the line


async def test_first_come_first_served_within_a_class() -> None:
    """Nobody overtakes."""
    line = Line(pacer(RateLimit(1, per=10)))
    for index in range(10):
        line.join(f"{index}")
        await asyncio.sleep(0.1)

    await line.all_served()

    assert line.order == [f"{index}" for index in range(10)]


async def test_a_higher_class_goes_first() -> None:
    """Interactive calls before batches, and those before the sweep, whoever came first."""
    line = Line(pacer(RateLimit(1, per=10)))
    line.join("first")
    await asyncio.sleep(0)
    for name, priority in (("s", SWEEP), ("b", BATCH), ("i", INTERACTIVE)):
        for index in range(2):
            line.join(f"{name}{index}", priority)
    await line.all_served()

    assert line.order == ["first", "i0", "i1", "b0", "b1", "s0", "s1"]


@pytest.mark.parametrize("low", [BATCH, SWEEP])
async def test_a_lower_class_gets_every_twentieth_slot(low: Priority) -> None:
    """Nineteen may pass it by, and no more, however many interactive calls there are."""
    line = Line(pacer(RateLimit(1, per=1)))
    line.join("first")
    await asyncio.sleep(0)
    for index in range(100):
        line.join(f"i{index}")
        line.join(f"low{index}", low)
    await asyncio.sleep(90)

    turns = [position for position, name in enumerate(line.order) if name.startswith("low")]
    assert turns == [20, 40, 60, 80]
    for task in line.tasks.values():
        task.cancel()


async def test_a_lower_class_gets_its_slot_also_after_a_burst_of_interactive_calls() -> None:
    """What interactive calls took out of turn is no debt that a lower class has to pay while they go on."""
    line = Line(pacer(RateLimit(60, per=60)))
    line.pacer.announce()
    for index in range(400):
        line.join(f"i{index}")
    for index in range(20):
        line.join(f"low{index}", BATCH)
    await asyncio.sleep(290)

    turns = [position for position, name in enumerate(line.order) if name.startswith("low")]
    assert len(turns) >= 10
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 20
    for task in line.tasks.values():
        task.cancel()


async def test_batches_leave_one_slot_free_where_interactive_calls_come() -> None:
    """The next one then does not wait at all; where none has come for five periods, batches take all."""
    line = Line(pacer(RateLimit(50, per=60)))
    line.pacer.announce()
    line.join("first")
    for index in range(1000):
        line.join(f"low{index}", BATCH)
    await asyncio.sleep(280)
    assert line.pacer.window.used(now()) == 49
    begun = now()
    await line.join("second")

    assert line.times["second"] == begun
    await asyncio.sleep(360)
    assert line.pacer.window.used(now()) == 50
    for task in line.tasks.values():
        task.cancel()


async def test_a_small_limit_spares_nothing() -> None:
    """One of fewer than fifty would cost batches more than it is worth."""
    line = Line(pacer(RateLimit(49, per=60)))
    line.pacer.announce()
    line.join("first")
    for index in range(100):
        line.join(f"low{index}", BATCH)
    await asyncio.sleep(119)

    assert line.pacer.window.used(now()) == 49
    for task in line.tasks.values():
        task.cancel()


async def test_no_more_are_in_the_air_than_is_allowed() -> None:
    """The next goes when one has come back, the highest class first."""
    line = Line(pacer(max_in_flight=2))
    for name in ("a", "b"):
        line.join(name, hold=10)
    await asyncio.sleep(0)
    line.join("batch", BATCH, hold=10)
    line.join("single", hold=10)
    await asyncio.sleep(1)
    assert line.pacer.in_air == 2
    assert line.pacer.waiting(BATCH) == line.pacer.waiting(INTERACTIVE) == 1

    await line.all_served()

    assert line.order == ["a", "b", "single", "batch"]
    assert line.pacer.in_air == 0


async def test_an_unknown_limit_holds_no_single_call_back() -> None:
    """Everybody goes at once, up to what may be in the air."""
    line = Line(pacer(max_in_flight=50))
    for index in range(50):
        line.join(f"{index}", hold=1)

    await asyncio.sleep(0.5)

    assert len(line.order) == 50
    await line.all_served()


async def test_a_batch_feels_its_way_while_the_limit_is_unknown() -> None:
    """It begins with two in the air, and widens with each answer."""
    line = Line(pacer(max_in_flight=50))
    for index in range(200):
        line.join(f"{index}", BATCH, hold=1)
    widths = list[int]()
    for _ in range(12):
        await asyncio.sleep(0.5)
        widths.append(line.pacer.in_air)
        await asyncio.sleep(0.5)
    await line.all_served()

    assert widths[0] == 2
    assert widths == sorted(widths)
    assert 4 < widths[-1] <= 50


async def test_sixteen_answers_let_one_more_of_a_batch_be_in_the_air() -> None:
    """Beside the two of the beginning, while the limit is unknown; after a refusal it begins anew."""
    paced = pacer()
    await answered(paced, 32, BATCH)

    async def at_once() -> int:
        flying = [asyncio.create_task(paced.acquire(BATCH)) for _ in range(20)]
        await asyncio.sleep(0.01)
        granted = [task for task in flying if task.done()]
        for task in flying:
            if task in granted:
                paced.release(await task, SlotOutcome.UNUSED)
            task.cancel()
        await asyncio.sleep(0)
        return len(granted)

    assert await at_once() == 4
    await refused(paced, None, times=1)
    await asyncio.sleep(1)
    await answered(paced, 2, INTERACTIVE)
    assert await at_once() == 3


async def test_interactive_calls_take_any_free_slot() -> None:
    """They are not spread: a whole period's slots may go at once."""
    line = Line(pacer(RateLimit(20, per=60)))
    for index in range(21):
        line.join(f"{index}")
    await line.all_served()

    assert [time for time in line.times.values() if time < 1] == [0.0] * 20
    assert line.times["20"] == pytest.approx(60, abs=0.01)


async def test_a_batch_takes_one_slot_an_interval() -> None:
    """A batch of unknown length is spread evenly from the start."""
    line = Line(pacer(RateLimit(20, per=60)))
    line.pacer.announce()
    for index in range(20):
        line.join(f"{index}", BATCH)
    await line.all_served()

    assert list(line.times.values())[1:] == pytest.approx([3.0 * index for index in range(19)], abs=0.05)


async def test_a_batch_catches_up_by_as_much_as_timers_are_late() -> None:
    """Two hundredths of a second, where slots are closer together than that."""
    line = Line(pacer(RateLimit(1000, per=1)))
    line.pacer.announce()
    for index in range(100):
        line.join(f"{index}", BATCH)
    await line.all_served()

    assert sum(time == 0.0 for time in line.times.values()) in (20, 21)


async def test_a_batch_that_fits_into_the_free_slots_is_not_spread() -> None:
    """What it says it still wants, and those of it who wait, are what has to fit."""
    line = Line(pacer(RateLimit(20, per=60)))
    pending = line.pacer.announce()
    pending.more = 0
    await answered(line.pacer, 5)
    for index in range(15):
        line.join(f"{index}", BATCH)
    await line.all_served()
    assert set(line.times.values()) == {0.0}

    line.join("one too many", BATCH)
    await line.all_served()
    assert line.times["one too many"] == pytest.approx(60, abs=0.01)


async def test_a_batch_that_is_not_to_be_spread_takes_what_is_free_until_an_interactive_call_comes() -> None:
    """From a period after that call it does so again, if nothing else is to be spread."""
    line = Line(pacer(RateLimit(20, per=60)))
    line.pacer.announce(spread=False)
    for index in range(60):
        line.join(f"{index}", BATCH)
    await asyncio.sleep(0.1)
    assert len(line.order) == 20

    await asyncio.sleep(40)
    line.join("single")
    await asyncio.sleep(20)
    assert line.order[20] == "single"
    assert len(line.order) == 22
    await asyncio.sleep(30.5)
    assert len(line.order) == 32
    await asyncio.sleep(13)
    assert len(line.order) == 40

    pending = line.pacer.announce()
    await asyncio.sleep(21)
    assert len(line.order) < 50
    line.pacer.withdraw(pending)
    for task in line.tasks.values():
        task.cancel()


async def test_what_an_interactive_call_takes_out_of_turn_the_batch_leaves() -> None:
    """Beside a batch that is spread, single calls do not make the whole faster than the limit."""
    line = Line(pacer(RateLimit(60, per=60)))
    line.pacer.announce()
    for index in range(100):
        line.join(f"{index}", BATCH)
    await asyncio.sleep(10.5)
    before = len(line.order)
    for index in range(5):
        line.join(f"single-{index}")
    await asyncio.sleep(0.1)
    assert line.order[-5:] == [f"single-{index}" for index in range(5)]

    await asyncio.sleep(9.9)
    assert len(line.order) - before <= 12
    for task in line.tasks.values():
        task.cancel()


async def test_a_call_that_was_refused_goes_before_newcomers() -> None:
    """It asked for its first slot before they did."""
    paced = pacer(RateLimit(1, per=10))
    await answered(paced, 1)
    order = list[str]()

    async def wait(name: str, since: float | None) -> None:
        slot = await paced.acquire(INTERACTIVE, since=since)
        order.append(name)
        paced.release(slot, SlotOutcome.ANSWERED)

    tasks = [asyncio.create_task(wait(name, since)) for name, since in (("new", None), ("second", 2.0), ("first", 1.0))]
    await asyncio.gather(*tasks)

    assert order == ["first", "second", "new"]


async def test_a_call_that_is_promoted_waits_on_in_a_higher_class() -> None:
    """Behind those who were there; one that does not wait, or not lower, stays as it is."""
    paced = pacer(RateLimit(1, per=10))
    await answered(paced, 1)
    order = list[str]()

    async def wait(name: str, priority: Priority) -> None:
        slot = await paced.acquire(priority, caller=name)
        order.append(name)
        paced.release(slot, SlotOutcome.ANSWERED)

    waiting = (("sweep", SWEEP), ("batch", BATCH), ("other", BATCH), ("single", INTERACTIVE))
    tasks = [asyncio.create_task(wait(*each)) for each in waiting]
    await asyncio.sleep(1)

    for caller in ("other", "single", "nobody"):
        paced.promote(caller, INTERACTIVE)
    paced.promote("batch", SWEEP)
    assert [paced.waiting(priority) for priority in Priority] == [2, 1, 1]
    await asyncio.gather(*tasks)

    assert order == ["single", "other", "batch", "sweep"]


# --------------------------------------------------------------------------------------------------------- giving up


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    """Those behind it move up."""
    line = Line(pacer(RateLimit(1, per=10)))
    for name in ("a", "b", "c"):
        line.join(name)
    await asyncio.sleep(1)

    line.tasks.pop("b").cancel()
    await line.all_served()

    assert line.order == ["a", "c"]
    assert line.times["c"] == pytest.approx(10, abs=0.01)
    assert line.pacer.waiting(INTERACTIVE) == 0


async def test_a_waiter_cancelled_in_the_moment_of_the_grant_passes_the_slot_on() -> None:
    """The slot was granted, and the one it was for is gone before it could run: the next one has it at once."""
    line = Line(pacer(max_in_flight=1))
    line.join("a", hold=-1)
    await asyncio.sleep(0)
    line.join("b")
    line.join("c")
    await asyncio.sleep(0)

    line.pacer.release(line.slots["a"], SlotOutcome.ANSWERED)  # grants it to b, who has not noticed yet
    assert line.pacer.waiting(INTERACTIVE) == 1
    line.tasks.pop("b").cancel()
    await line.all_served()

    assert line.order == ["a", "c"]
    assert line.pacer.in_air == 0


async def test_a_slot_that_was_not_used_goes_to_the_next_without_a_wait() -> None:
    """The server knows nothing of it, so it costs nothing."""
    line = Line(pacer(RateLimit(1, per=1000)))
    slot = await line.pacer.acquire(INTERACTIVE)
    line.join("next")
    await asyncio.sleep(1)

    line.pacer.release(slot, SlotOutcome.UNUSED)
    await line.all_served()

    assert line.times["next"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        (SlotOutcome.ANSWERED, 60.0),
        (SlotOutcome.FAILED, 60.0),
        (SlotOutcome.LOST, 62.0),
        (SlotOutcome.UNREACHED, 0.0),
        (SlotOutcome.UNUSED, 0.0),
    ],
)
async def test_how_long_a_slot_is_taken_depends_on_how_it_ended(end: SlotOutcome, seconds: float) -> None:
    """A period after the answer; a grace longer without one; not at all if the server never saw it."""
    line = Line(pacer(RateLimit(1, per=60)))
    slot = await line.pacer.acquire(INTERACTIVE)
    await asyncio.sleep(5)
    line.pacer.release(slot, end, caller="a")

    line.join("next")
    await line.all_served()

    assert line.times["next"] == pytest.approx(5 + seconds, abs=0.01)


async def test_repeated_sendings_take_as_many_slots() -> None:
    """What the transport sent three times has met the limit three times."""
    paced = pacer(RateLimit(4, per=60))
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.ANSWERED, sendings=3)

    assert paced.window.used(now()) == 3


@pytest.mark.parametrize("sendings", [1, 2, 3])
@pytest.mark.parametrize(
    ("end", "last"),
    [(SlotOutcome.LOST, 1), (SlotOutcome.REFUSED, 0), (SlotOutcome.UNREACHED, 0), (SlotOutcome.UNUSED, 0)],
)
async def test_sendings_without_an_answer_take_their_slots_for_longer(
    end: SlotOutcome, last: int, sendings: int
) -> None:
    """What became of the last one is known; those before it may have been let in, and late."""
    paced = pacer(RateLimit(4, per=60))
    slot = await paced.acquire(INTERACTIVE)
    await asyncio.sleep(5)

    paced.release(slot, end, caller="a", sendings=sendings)

    taken = list[int]()
    for later in (0, 61.9, 0.2):
        await asyncio.sleep(later)
        taken.append(paced.window.used(now()))
    assert taken == [sendings - 1 + last] * 2 + [0]


# ---------------------------------------------------------------------------------------------------------- deadlines


async def test_a_deadline_that_cannot_be_met_is_told_at_once() -> None:
    """The least wait is known: for the slot, and for those who are ahead."""
    paced = pacer(RateLimit(2, per=60))
    await answered(paced, 2)

    with pytest.raises(DeadlineUnreachable) as alone:
        await paced.acquire(INTERACTIVE, deadline=59.0)
    ahead = [asyncio.create_task(paced.acquire(INTERACTIVE)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(DeadlineUnreachable) as third:
        await paced.acquire(INTERACTIVE, deadline=119.0)

    assert now() == 0
    assert alone.value.wait == pytest.approx(60)
    assert third.value.wait == pytest.approx(120)
    for task in ahead:
        task.cancel()


async def test_a_deadline_is_not_held_against_one_who_can_make_it() -> None:
    """A slot that is free in time is waited for."""
    paced = pacer(RateLimit(1, per=60))
    await answered(paced, 1)

    await paced.acquire(INTERACTIVE, deadline=60.5)

    assert now() == pytest.approx(60, abs=0.001)


async def test_a_deadline_ends_a_wait_that_nobody_could_foretell() -> None:
    """While somebody holds the only place, it is not known for how long."""
    paced = pacer(max_in_flight=1)
    slot = await paced.acquire(INTERACTIVE)

    with pytest.raises(DeadlineUnreachable):
        await paced.acquire(INTERACTIVE, deadline=7.0)

    assert now() == pytest.approx(7)
    assert paced.waiting(INTERACTIVE) == 0
    paced.release(slot, SlotOutcome.ANSWERED)
    assert paced.in_air == 0


async def test_a_slot_that_comes_in_the_moment_of_the_deadline_is_granted() -> None:
    """It is not taken back in the same turn of the loop, nor lost."""
    paced = pacer(max_in_flight=1)
    held = await paced.acquire(INTERACTIVE)
    asyncio.get_running_loop().call_at(7.0, paced.release, held, SlotOutcome.ANSWERED)

    slot = await paced.acquire(INTERACTIVE, deadline=7.0)

    assert now() == pytest.approx(7)
    assert paced.in_air == 1
    paced.release(slot, SlotOutcome.ANSWERED)
    assert paced.in_air == 0


async def test_a_pause_counts_for_a_deadline() -> None:
    """While everybody is held back, nobody can be served earlier than that."""
    paced = pacer()
    await refused(paced, 50.0)

    with pytest.raises(DeadlineUnreachable) as caught:
        await paced.acquire(INTERACTIVE, deadline=now() + 40.0)

    assert caught.value.wait == pytest.approx(50)


# --------------------------------------------------------------------------------------------------------- refusals


async def test_a_refusal_that_a_probe_confirms_holds_everybody_back() -> None:
    """For as long as it said; then one goes first."""
    line = Line(pacer())
    await refused(line.pacer, 30.0)
    began = now()
    for index in range(10):
        line.join(f"{index}", hold=1)
    assert line.pacer.paused_until(now()) == began + 30

    await asyncio.sleep(29.9)
    assert line.order == []
    await asyncio.sleep(0.6)
    assert len(line.order) == 1
    await line.all_served()

    assert line.pacer.paused_until(now()) is None
    # One by one at first: nobody stampedes.
    assert [time - began for time in sorted(line.times.values())[:3]] == pytest.approx([30, 31, 31], abs=0.01)


async def test_a_refusal_that_a_probe_disproves_holds_nobody_back() -> None:
    """A tenth of a second after it one request goes, and all others when that is let in."""
    line = Line(pacer())
    await refused(line.pacer, 30.0, times=1)
    for index in range(10):
        line.join(f"{index}", hold=0.2)
    await line.all_served()

    times = sorted(line.times.values())
    assert times[:2] == pytest.approx([0.1, 0.3], abs=0.01)
    assert times[-1] <= 1.0


async def test_refusals_without_a_wait_pause_longer_and_longer() -> None:
    """Half a second, then twice as long each time that a probe confirms one, and never more than half a minute."""
    paced = pacer()
    pauses = list[float]()
    paced.on_pause = lambda reason, seconds, lower_only: pauses.append(seconds)

    await refused(paced, None, times=18)

    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert paced.window.limit is None


async def test_the_refusals_of_one_flight_make_one_pause() -> None:
    """Fifty refusals that come back together are one piece of news."""
    paced = pacer()
    pauses = list[tuple[str, float, bool]]()
    paced.on_pause = lambda *told: pauses.append(told)
    slots = [await paced.acquire(INTERACTIVE) for _ in range(50)]

    for slot in slots:
        paced.release(slot, SlotOutcome.REFUSED, caller=slot, retry_after=20.0)

    assert pauses == [("refused", 20.0, False)]
    assert paced.refused == 50


async def test_a_wait_beyond_reason_pauses_for_a_bounded_time() -> None:
    """It may be nonsense: a probe finds out, again and again."""
    paced = Pacer(LocalWindow(None, longest_pause=50.0), max_in_flight=64)
    told = list[tuple[str, float, bool]]()
    paced.on_pause = lambda *event: told.append(event)
    await refused(paced, 1e9)
    began = now()

    await paced.acquire(INTERACTIVE)

    assert now() - began == pytest.approx(50, abs=0.001)
    assert told == [("refused", 50.0, False)]
    assert paced.window.limit is None


async def test_what_was_let_in_is_known_for_each_operation() -> None:
    """A refusal of one says nothing of another."""
    paced = pacer()
    assert not paced.let_in_since(0.0, "create")
    await asyncio.sleep(5)
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.ANSWERED, let_in="create")
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.REFUSED)

    assert paced.let_in_since(5.0, "create")
    assert not paced.let_in_since(5.1, "create")
    assert not paced.let_in_since(0.0, "list")


@pytest.mark.parametrize(("end", "told"), [(SlotOutcome.ANSWERED, 20), (SlotOutcome.REFUSED, 0)])
async def test_what_an_answer_states_of_the_limit_is_heard(end: SlotOutcome, told: int) -> None:
    """Of a refusal it is not: that there is nothing left, it says itself."""
    paced = pacer(RateLimit(60, per=60))

    paced.release(await paced.acquire(INTERACTIVE), end, hint=RateHint(remaining=39, reset=30.0))

    assert paced.window.others(now()) == told


async def test_the_last_problem_is_remembered() -> None:
    """An answer does not make it undone."""
    paced = pacer()
    assert paced.last_problem is None
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.UNREACHED, problem="no route to host")
    paced.release(await paced.acquire(INTERACTIVE), SlotOutcome.ANSWERED)

    assert paced.last_problem == "no route to host"


# ------------------------------------------------------------------------------------------------------------ outages


async def fail(paced: Pacer, caller: object, priority: Priority = BATCH, end: SlotOutcome = SlotOutcome.FAILED) -> None:
    """Let one call fail."""
    paced.release(await paced.acquire(priority), end, caller=caller)


async def test_failures_of_different_calls_in_a_row_hold_the_lower_classes_back() -> None:
    """Three of them are an outage: batches pause, and an interactive call still goes."""
    paced = pacer(RateLimit(1000, per=1))
    for caller in ("a", "b", "c"):
        await fail(paced, caller, INTERACTIVE)
    assert paced.outage

    began = now()
    await fail(paced, "d", INTERACTIVE)
    assert now() == began
    await paced.acquire(BATCH)
    assert now() - began == pytest.approx(0.5, abs=0.01)


async def test_one_call_that_keeps_failing_is_no_outage() -> None:
    """Something the server cannot take is that call's own trouble."""
    paced = pacer(RateLimit(1000, per=1))

    for _ in range(20):
        await fail(paced, "a", INTERACTIVE)

    assert not paced.outage


async def test_that_nothing_can_be_reached_is_nobodys_own_trouble() -> None:
    """Refused connections are an outage, whoever meets them."""
    paced = pacer(RateLimit(1000, per=1))

    for _ in range(3):
        await fail(paced, "a", INTERACTIVE, SlotOutcome.UNREACHED)

    assert paced.outage


async def test_an_outage_is_probed_by_one_at_a_time_and_ends_with_a_success() -> None:
    """Pauses grow up to ten seconds; the first success lets one more go, and so on."""
    paced = pacer(RateLimit(1000, per=1))
    for caller in range(3):
        await fail(paced, caller)
    times = list[float]()
    for caller in range(8):
        await fail(paced, caller)
        times.append(now())
    gaps = [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)]
    assert gaps == [1, 2, 4, 8, 10, 10, 10]

    line = Line(paced)
    for index in range(20):
        line.join(f"{index}", BATCH, hold=1)
    await line.all_served()
    assert not paced.outage
    rounds = [sum(1 for time in line.times.values() if int(time - line.times["0"]) == n) for n in range(4)]
    assert rounds == [1, 2, 4, 8]


async def test_a_server_that_fails_and_asks_to_wait_is_left_alone_by_all() -> None:
    """For so long; it is no outage, and is told as what it is."""
    paced = pacer(RateLimit(1000, per=1))
    told = list[tuple[str, float, bool]]()
    paced.on_pause = lambda *event: told.append(event)
    slots = [await paced.acquire(INTERACTIVE) for _ in range(2)]
    for slot in slots:
        paced.release(slot, SlotOutcome.FAILED, caller=slot, retry_after=20.0)
    assert paced.paused_until(now()) == 20

    assert told == [("asked", 20.0, False)]
    assert not paced.outage
    with pytest.raises(DeadlineUnreachable) as caught:
        await paced.acquire(INTERACTIVE, deadline=now() + 19)
    assert caught.value.wait == pytest.approx(20)
    line = Line(paced)
    for index in range(3):
        line.join(f"{index}", hold=1)
    await line.all_served()
    assert sorted(line.times.values()) == pytest.approx([20, 21, 21], abs=0.01)


# ------------------------------------------------------------------------------------------------------------ closing


async def test_closing_fails_those_who_wait_and_those_who_come() -> None:
    """Nobody waits for a client that is closed."""
    line = Line(pacer(max_in_flight=1))
    in_the_air = line.join("a", hold=5)
    await asyncio.sleep(0)
    waiting = [line.join(name, priority) for name, priority in (("b", INTERACTIVE), ("c", BATCH), ("d", SWEEP))]
    await asyncio.sleep(0)

    line.pacer.close()

    for task in waiting:
        with pytest.raises(ClientStateError, match="closed while the call waited"):
            await task
    with pytest.raises(ClientStateError, match="the client is closed"):
        await line.pacer.acquire(INTERACTIVE)
    await in_the_air
    assert now() == pytest.approx(5)


async def test_closing_leaves_alone_who_has_just_given_up() -> None:
    """It still stands in line, and is cancelled already."""
    line = Line(pacer(max_in_flight=1))
    line.join("a", hold=5)
    waiting = line.join("b")
    await asyncio.sleep(0)

    waiting.cancel()
    line.pacer.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_closing_can_leave_the_lowest_class_open() -> None:
    """That is where keys nobody holds are revoked."""
    paced = pacer()
    paced.close(below=SWEEP)

    with pytest.raises(ClientStateError):
        await paced.acquire(BATCH)
    paced.release(await paced.acquire(SWEEP), SlotOutcome.ANSWERED)
    assert paced.in_air == 0


async def test_who_waits_in_a_class_that_is_left_open_still_has_its_turn() -> None:
    """The alarm that is set for it rings, though others were failed."""
    line = Line(pacer(RateLimit(1, per=60)))
    await answered(line.pacer, 1)
    line.join("sweep", SWEEP)
    line.join("batch", BATCH)
    await asyncio.sleep(1)

    line.pacer.close(below=SWEEP)

    with pytest.raises(ClientStateError):
        await line.tasks.pop("batch")
    await line.all_served()
    assert line.times["sweep"] == pytest.approx(60, abs=0.01)


async def test_who_comes_to_a_class_that_is_left_open_has_its_turn_when_the_failed_would_have_had_it() -> None:
    """An alarm that went with them is set anew."""
    line = Line(pacer(RateLimit(1, per=60)))
    await answered(line.pacer, 1)
    line.join("batch", BATCH)
    await asyncio.sleep(1)
    line.pacer.close(below=SWEEP)
    with pytest.raises(ClientStateError):
        await line.tasks.pop("batch")

    line.join("sweep", SWEEP)
    await line.all_served()

    assert line.times["sweep"] == pytest.approx(60, abs=0.01)
