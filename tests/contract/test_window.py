"""What a pacer relies on, of every window there is, on a real clock and with a short period."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.slots import DeadlineUnreachable, SlotOutcome
from respan_async._pacing.window import Window
from respan_async.redis import RedisWindow
from tests.waiting import now

INTERACTIVE, BATCH, SWEEP = Priority
LIMIT = RateLimit(10, per=0.5)
ALL: dict[str, Callable[[pytest.FixtureRequest], Window]] = {
    "local": lambda _: LocalWindow(LIMIT),
    "redis": lambda request: RedisWindow(request.getfixturevalue("redis_url"), LIMIT),
}


@pytest.fixture(params=ALL)
async def pacer(request: pytest.FixtureRequest) -> AsyncIterator[Pacer]:
    """Give a pacer on a window of each kind."""
    window = ALL[request.param](request)
    yield Pacer(window, max_in_flight=64)
    await window.aclose()


async def send(pacer: Pacer, times: list[float], priority: Priority, end: SlotOutcome = SlotOutcome.ANSWERED) -> None:
    """Take a slot, note when, and release it a little later."""
    slot = await pacer.acquire(priority)
    times.append(now())
    await asyncio.sleep(0.005)
    pacer.release(slot, end, caller=object())


async def send_many(
    pacer: Pacer, number: int, priority: Priority = INTERACTIVE, end: SlotOutcome = SlotOutcome.ANSWERED
) -> list[float]:
    """Send so many at the same time; tell when each began."""
    times = list[float]()
    await asyncio.gather(*(send(pacer, times, priority, end) for _ in range(number)))
    return times


def busiest(times: list[float]) -> int:
    """Count the most that began within one period."""
    return max(sum(1 for time in times if begin <= time < begin + LIMIT.per) for begin in times)


@pytest.mark.parametrize("priority", Priority)
async def test_no_period_has_more_than_the_limit(pacer: Pacer, priority: Priority) -> None:
    """Of whichever class they are."""
    times = await send_many(pacer, 35, priority)

    assert busiest(times) <= LIMIT.limit


async def test_lost_answers_count_for_longer(pacer: Pacer) -> None:
    """The server may have let them in late."""
    (*_, last) = await send_many(pacer, LIMIT.limit, end=SlotOutcome.LOST)

    (after,) = await send_many(pacer, 1)

    assert after - last >= LIMIT.per + 2.0


@pytest.mark.parametrize("end", [SlotOutcome.UNUSED, SlotOutcome.UNREACHED])
async def test_what_the_server_knows_nothing_of_does_not_count(pacer: Pacer, end: SlotOutcome) -> None:
    """Its slot is free again at once."""
    begin = now()
    await send_many(pacer, LIMIT.limit, end=end)

    await send_many(pacer, LIMIT.limit)

    assert now() - begin < LIMIT.per


async def test_interactive_calls_take_what_is_free_at_once(pacer: Pacer) -> None:
    """They are not spread."""
    times = await send_many(pacer, LIMIT.limit)

    assert times[-1] - times[0] < LIMIT.per / 2


async def test_a_small_batch_is_not_spread(pacer: Pacer) -> None:
    """All it has left fits into what is free."""
    times = await send_many(pacer, 5, BATCH)

    assert times[-1] - times[0] < 2 * LIMIT.interval


async def test_a_batch_that_does_not_fit_is_spread(pacer: Pacer) -> None:
    """One slot every interval, or an interactive call would find none for a period."""
    pending = pacer.announce()  # without an end

    times = await send_many(pacer, 8, BATCH)

    pacer.withdraw(pending)
    assert times[-1] - times[0] >= 5.5 * LIMIT.interval  # one may catch up


async def test_an_interactive_call_goes_before_a_batch_that_waits(pacer: Pacer) -> None:
    """Whoever came first."""
    pending = pacer.announce()
    batch = asyncio.create_task(send_many(pacer, 1000, BATCH))
    await asyncio.sleep(2 * LIMIT.per)

    begin = now()
    await send_many(pacer, 1)

    assert now() - begin < 3 * LIMIT.per  # of the hundred that the batch takes
    pacer.withdraw(pending)
    batch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await batch


async def test_a_deadline_is_kept_and_takes_no_slot(pacer: Pacer) -> None:
    """Who cannot have a slot in time is told so in time."""
    await send_many(pacer, LIMIT.limit)
    begin = now()

    with pytest.raises(DeadlineUnreachable):
        await pacer.acquire(INTERACTIVE, begin + LIMIT.per / 3)

    assert now() - begin < LIMIT.per / 2
    assert pacer.waiting(INTERACTIVE) == pacer.in_air == 0


async def test_a_caller_that_gives_up_leaves_its_place(pacer: Pacer) -> None:
    """The next in line gets the slot it would have had."""
    await send_many(pacer, LIMIT.limit)
    gone = asyncio.create_task(pacer.acquire(INTERACTIVE))
    await asyncio.sleep(LIMIT.per / 4)
    gone.cancel()

    begin = now()
    await send_many(pacer, 1)

    assert now() - begin < LIMIT.per


async def test_a_refusal_holds_everybody_for_as_long_as_it_says(pacer: Pacer) -> None:
    """Where the next request is refused as well."""
    await send_many(pacer, 1)
    begin = 0.0
    for _ in range(2):
        slot = await pacer.acquire(INTERACTIVE)
        begin = now()
        pacer.release(slot, SlotOutcome.REFUSED, caller=object(), retry_after=0.4)

    await send_many(pacer, 1)

    assert now() - begin >= 0.4


async def test_a_window_that_is_told_its_limit_has_it(pacer: Pacer) -> None:
    """And has learned nothing."""
    await send_many(pacer, 3)

    assert pacer.window.limit == LIMIT
    assert not pacer.window.learned
    assert pacer.window.used(now()) >= 2
    assert pacer.window.paused_until(now()) is None
    assert pacer.window.others(now()) == 0
    assert pacer.window.free(now()) <= LIMIT.limit - 2
    assert pacer.window.spread_interval() == pytest.approx(LIMIT.interval)
    assert pacer.window.room(now(), 0) >= 1
