"""Cancellations that come from unexpected places, and exceptions out of the user's own code."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from respan_async import (
    AsyncRespan,
    ClientStateError,
    CreatedKey,
    CreateKeyRequest,
    Failed,
    Issued,
    RateLimit,
    RespanError,
    RetryPolicy,
)
from respan_async.events import AttemptEvent, Event, IssuedEvent
from respan_async.testing import FakeRespan, SlidingLog
from tests.stepped import SteppedLoop, run, turns_until

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


class BodyError(Exception):
    """Something in the user's own code."""


def raises_cancelled() -> None:
    """Do as a hook does that asks a cancelled future for its result."""
    raise asyncio.CancelledError


def cancels_its_task() -> None:
    """Do as a hook does that wants to end it all."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("kind", [AttemptEvent, IssuedEvent])
@pytest.mark.parametrize("act", [raises_cancelled, cancels_its_task])
async def test_a_hook_that_cancels_does_not_cost_a_key(act: Callable[[], None], kind: type[Event]) -> None:
    """The key that has arrived is handed out, whatever a hook does when it is told; a batch ends, and says so."""

    def hook(event: Any) -> None:
        if isinstance(event, kind):
            act()

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url, hooks=[hook]) as respan:
        key = await respan.temporary_keys.create()
        outcomes = await respan.temporary_keys.create_many([CreateKeyRequest() for _ in range(5)], max_in_flight=2)

        assert len(outcomes) == 5
        held = [outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)]
        assert fake.unheld([key.id, *held]) == []
        assert len(held) == (5 if act is raises_cancelled else 2)
        assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)} <= {ClientStateError}


async def test_a_batch_whose_tasks_are_cancelled_behind_its_back_says_so() -> None:
    """It does not end as if it were through: the items that nobody works on any more are not lost unsaid."""
    async with FakeRespan(latency=1.0) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        ours = asyncio.all_tasks()
        outcomes = list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]]()

        async def consume() -> None:
            requests = [CreateKeyRequest() for _ in range(9)]
            async with respan.temporary_keys.create_many(requests, max_in_flight=3) as batch:
                await asyncio.sleep(0.25)
                for task in asyncio.all_tasks() - ours:
                    if "_work" in repr(task.get_coro()):
                        task.cancel()
                async for outcome in batch:
                    outcomes.append(outcome)

        with pytest.raises(ClientStateError, match="cancelled from outside"):
            await consume()

        assert len(outcomes) == 3
        assert len(respan.suspects) == fake.counts.requests == 2  # they were in the air


async def test_a_batch_that_is_cancelled_behind_its_back_while_it_asks_for_an_item_says_so() -> None:
    """What its input would still have given is not lost unsaid either."""
    asked = asyncio.Event()

    async def give() -> AsyncIterator[CreateKeyRequest]:
        yield CreateKeyRequest()
        asked.set()
        await asyncio.Event().wait()

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        ours = asyncio.all_tasks()
        outcomes = list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]]()

        async def consume() -> None:
            async with respan.temporary_keys.create_many(give(), max_in_flight=1) as batch:
                async for outcome in batch:
                    outcomes.append(outcome)
                    await asked.wait()
                    for task in asyncio.all_tasks() - ours:
                        task.cancel()

        with pytest.raises(ClientStateError, match="cancelled from"):
            await consume()

        assert len(outcomes) == 1
        assert fake.counts.requests == 1


def test_a_key_is_reported_whose_revocation_is_cancelled_before_it_begins() -> None:
    """When every task is cancelled in the turn in which a key arrives that nobody awaits, it is known to be alive."""

    async def world(turn: int) -> bool:
        async with FakeRespan(latency=1.0) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            before = asyncio.all_tasks()
            caller = asyncio.create_task(respan.temporary_keys.create())
            await asyncio.sleep(0.5)
            caller.cancel()
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SteppedLoop)

            def cancel_all() -> None:
                for task in asyncio.all_tasks() - before:
                    if "RequestHandler" not in repr(task.get_coro()):
                        task.cancel()

            loop.interrupt(turn, "before", cancel_all)
            await asyncio.sleep(10)

            assert len(fake.keys) == 1
            known = {suspect.id for suspect in respan.suspects}
            if not any(suspect.id is None for suspect in respan.suspects):  # cut off while it was in the air
                assert {record.id for record in fake.alive()} <= known
            return not loop.leave_alone()

    assert turns_until(lambda turn: bool(run(world(turn)))) > 4


@pytest.mark.parametrize("number", range(4))
async def test_an_exception_in_the_body_of_a_batch_at_any_outcome_leaves_no_key(number: int) -> None:
    """The error comes out as it is, and the keys that were not taken before it are revoked."""
    held = list[str]()

    async def body(respan: AsyncRespan) -> None:
        async with respan.temporary_keys.create_many([CreateKeyRequest() for _ in range(4)], max_in_flight=2) as batch:
            async for outcome in batch:
                assert isinstance(outcome, Issued)
                if len(held) == number:
                    raise BodyError
                held.append(outcome.key.id)

    async with FakeRespan(latency=0.2) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        with pytest.raises(BodyError):
            await body(respan)
        await asyncio.sleep(10)

        taken = set(fake.keys) - set(held)
        assert {record.id for record in fake.alive()} - set(held) <= taken
        # The outcome that was being looked at is the caller's already: only it can say what became of that key.
        assert len(fake.unheld(held)) == 1
        assert respan.pace.in_flight == 0


@pytest.mark.parametrize("number", range(5))
async def test_a_list_that_is_not_read_to_its_end_leaves_nothing(number: int) -> None:
    """Its generator can be closed after every key: GeneratorExit at each yield."""
    async with FakeRespan(page_size=2) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        for _ in range(5):
            await respan.temporary_keys.create()
        requests = fake.counts.requests

        async with contextlib.aclosing(aiter(respan.temporary_keys.list())) as keys:  # type: ignore[type-var]  # one is
            for _ in range(number):
                await anext(keys)

        await asyncio.sleep(1)
        assert fake.counts.requests - requests == (number + 1) // 2
        assert respan.pace.in_flight == 0


async def test_a_shielded_create_goes_on_and_hands_its_key_to_the_one_who_holds_it() -> None:
    """`asyncio.shield` keeps the cancellation from the call: its key stays with the inner task."""
    async with FakeRespan(latency=1.0) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        inner = asyncio.ensure_future(respan.temporary_keys.create())

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.5)

        assert fake.unheld([(await inner).id]) == []


async def test_waiting_for_a_batch_outcome_by_outcome_with_timeouts_loses_none() -> None:
    """`asyncio.wait_for(anext(batch), ...)` that gives up again and again still gets every outcome in the end."""
    held = list[str]()
    async with FakeRespan(latency=(0.3, 2.0), seed=3) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        async with respan.temporary_keys.create_many([CreateKeyRequest() for _ in range(20)], max_in_flight=3) as batch:
            while len(held) < 20:
                with contextlib.suppress(TimeoutError):
                    outcome = await asyncio.wait_for(anext(batch), 0.01)
                    assert isinstance(outcome, Issued)
                    held.append(outcome.key.id)

        assert (fake.unheld(held), fake.counts.created) == ([], 20)


@contextlib.asynccontextmanager
async def line_of(*priorities: Any) -> AsyncIterator[tuple[FakeRespan, list[asyncio.Task[CreatedKey]]]]:
    """Let callers of these classes stand in line before a limit of one at a time; each key has its caller's number."""
    pace = RateLimit(1, per=10)
    async with (
        FakeRespan(latency=1.0, limit=SlidingLog(1, per=10)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=pace) as respan,
    ):
        await respan.temporary_keys.create(name="before")
        callers = list[asyncio.Task[CreatedKey]]()
        for number, priority in enumerate(priorities):
            keys = respan.with_options(priority=priority).temporary_keys
            callers.append(asyncio.create_task(keys.create(name=f"{number}")))
            await asyncio.sleep(0)
        yield fake, callers
        await asyncio.gather(*callers, return_exceptions=True)


async def test_those_in_line_behind_one_who_is_cancelled_are_unhurt() -> None:
    """They move up, class by class and in order, nobody is overtaken, and no slot is spent on who has gone."""
    async with line_of("batch", "interactive", "sweep", "interactive", "batch", "interactive") as (fake, callers):
        await asyncio.sleep(5)
        for gone in (0, 3):
            callers[gone].cancel()
        await asyncio.sleep(60)

        assert [record.name for record in fake.keys.values()] == ["before", "1", "5", "4", "2"]
        assert fake.counts.refused == 0
        # One every period and a round trip: nobody has waited for a slot that was lost.
        assert fake.admissions[-1] - fake.admissions[0] == pytest.approx(4 * 11.0, abs=0.1)


def test_a_slot_granted_in_the_turn_of_a_cancellation_goes_to_the_next_in_line() -> None:
    """Whichever turn it is in which the first in line is cancelled, the others are served in order, and no later."""

    async def world(turn: int) -> bool:
        async with line_of(*["interactive"] * 3) as (fake, callers):
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SteppedLoop)
            loop.interrupt(turn, "before", callers[0].cancel)
            await asyncio.sleep(45)

            spent = "0" in {record.name for record in fake.keys.values()}
            at = [time - fake.admissions[0] for time in fake.admissions]
            assert [record.name for record in fake.keys.values()][1 + spent :] == ["1", "2"]
            assert at[:3] == pytest.approx([0.0, 11.0, 22.0], abs=0.01)  # a period and a round trip
            assert fake.counts.refused == 0
            return not loop.leave_alone()

    assert turns_until(lambda turn: bool(run(world(turn)))) > 5


async def test_a_repetition_underneath_takes_a_slot_of_its_own_whatever_becomes_of_it() -> None:
    """aiohttp sends a GET again when its connection drops: two requests for the server, also if none is answered."""
    settings: dict[str, Any] = {"pace": RateLimit(4, per=60), "retry": RetryPolicy(max_attempts=1)}
    async with (
        FakeRespan(limit=SlidingLog(4, per=60)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan,
    ):
        await respan.temporary_keys.create()
        fake.script("reset", "reset", operation="list")
        with pytest.raises(RespanError):
            await respan.temporary_keys.list()
        assert len(fake.admissions) == 3

        assert respan.pace.used == 3
        await respan.temporary_keys.list()
        await respan.temporary_keys.list()
        assert fake.counts.refused == 0
