"""Cancelling a call, or a batch, at every single turn of the event loop, and what is left afterwards: nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import aiohttp.abc
import attrs
import pytest

from respan_async import AsyncRespan, ConflictError, CreatedKey, CreateKeyRequest, Issued, RateLimit
from respan_async.testing import FakeRespan
from tests.stepped import Place, SteppedLoop, run, turns_until

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

PLACES = ["before", pytest.param("after", marks=pytest.mark.hostile)]


class SlowResolver(aiohttp.abc.AbstractResolver):
    """Takes its time to find out that every name is this machine's."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[aiohttp.abc.ResolveResult]:
        await asyncio.sleep(1)
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def slow_token() -> str:
    """Give the token, after a while."""
    await asyncio.sleep(1)
    return "test-key"


@attrs.frozen(kw_only=True)
class Scenario:
    """How a call goes when nobody touches it.

    Attributes:
        server: The fake's settings.
        client: The client's settings.
        script: The faults its creates meet.
        before: Calls made before it.
        slow_name: The server's name takes long to look up.
        ways: How the call can end, each of which some turn must bring about.
    """

    server: Mapping[str, Any] = {}
    client: Mapping[str, Any] = {}
    script: Sequence[str] = ()
    before: int = 0
    slow_name: bool = False
    ways: frozenset[str] = frozenset({"nothing sent", "revoked", "handed out"})


SCENARIOS = {
    "plain": Scenario(),
    "on a warm connection": Scenario(before=1),
    "slow answer": Scenario(server={"latency": 2.0}),
    "waiting for the pace": Scenario(client={"pace": RateLimit(1, per=60)}, before=1),
    "refused, then let in": Scenario(script=["refuse:2"]),
    "refused for nothing, then let in": Scenario(script=["refuse_bare", "refuse_bare"]),
    "unavailable, then well": Scenario(script=["unavailable_503"]),
    "answer lost, then well": Scenario(script=["reset"]),
    "slow token": Scenario(client={"api_key": slow_token}),
    "slow connect": Scenario(slow_name=True),
    "with a deadline": Scenario(client={"deadline": 500.0}, script=["refuse:2"]),
    "a client error": Scenario(script=["conflict_409"], ways=frozenset({"nothing sent", "nothing made"})),
}


@contextlib.asynccontextmanager
async def world(scenario: Scenario) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server and a client."""
    async with FakeRespan(**scenario.server) as fake:
        session, url = None, fake.url
        if scenario.slow_name:
            connector = aiohttp.TCPConnector(resolver=SlowResolver(), use_dns_cache=False)
            session = aiohttp.ClientSession(connector=connector)
            url = url.replace("127.0.0.1", "respan.example")
        settings = {"api_key": "test-key", **scenario.client}
        respan = AsyncRespan(base_url=url, session=session, allow_http=True, **settings)
        try:
            yield fake, respan
        finally:
            await respan.aclose(grace=10_000)
            if session is not None:
                await session.close()


def creates(fake: FakeRespan) -> int:
    """Count the creates that the server saw."""
    return fake.counts.by_operation.get("create", 0)


async def see_it_well(respan: AsyncRespan) -> None:
    """See that another call gets its key, once the script has run out."""
    with contextlib.suppress(ConflictError):
        await respan.temporary_keys.create(name="next")
    assert (await respan.temporary_keys.create(name="next")).name == "next"


@attrs.frozen
class Ending:
    """What came of a call that was cancelled at some turn.

    Attributes:
        way: In one word or two.
        untouched: The call was over before its turn came.
    """

    way: str
    untouched: bool


async def cancel_create(scenario: Scenario, turn: int, place: Place) -> Ending:
    """Cancel a create at a turn, wait for all that goes on afterwards, and check what is left."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    async with world(scenario) as (fake, respan):
        held = [(await respan.temporary_keys.create(name="earlier")).id for _ in range(scenario.before)]
        fake.script(*scenario.script)
        sent_before = creates(fake)
        seen_then = [sent_before]
        task = asyncio.create_task(respan.temporary_keys.create(name="wanted"))

        def cancel() -> None:
            seen_then[0] = creates(fake)
            task.cancel()

        loop.interrupt(turn, place, cancel)
        await asyncio.wait({task})
        untouched = not loop.leave_alone()
        handed_out = not task.cancelled() and task.exception() is None
        if handed_out:
            held.append(task.result().id)
        await asyncio.sleep(500)

        # Nothing is left over: no slot, nobody who waits, no key that nobody holds.
        assert respan.pace.in_flight == 0
        assert not any(respan.pace.waiting.values())
        assert fake.unheld(held) == []
        made = [record for record in fake.keys.values() if record.name == "wanted"]
        assert len(made) <= 1
        if not handed_out:
            # What was in the air then, or about to be, is all that came of it: nothing was repeated for nobody.
            assert creates(fake) <= seen_then[0] + 1
            # What came of an answer that was lost is remembered; anything else is known for sure.
            assert len(respan.suspects) <= sum(name in ("reset", "unavailable_503") for name in scenario.script)
        way = "nothing made" if creates(fake) > sent_before else "nothing sent"
        # The client goes on as if nothing had been.
        await see_it_well(respan)
        way = "handed out" if handed_out else "revoked" if made else way
        if way == "revoked":
            assert all(record.revoked for record in made)
    return Ending(way, untouched)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_create_can_be_cancelled_at_every_turn_of_the_loop(name: str, place: Place) -> None:
    """Whenever its caller is cancelled, no slot, no waiter, no task and no key is left, and the next call goes on."""
    ways = set[str]()

    def is_over(turn: int) -> bool:
        ending: Ending = run(cancel_create(SCENARIOS[name], turn, place))
        ways.add(ending.way)
        return ending.untouched

    assert turns_until(is_over) > 5
    assert ways >= SCENARIOS[name].ways


# ------------------------------------------------------------------------------------------------------------ batches


async def cancel_batch(how: str, script: Sequence[str], turn: int, place: Place) -> bool:
    """Cancel whoever consumes a batch at a turn, and check what is left; tell whether it was over before."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    handed_out: list[str] = []
    taken: list[CreateKeyRequest] = []

    def source() -> Iterator[CreateKeyRequest]:
        for number in range(5):
            taken.append(CreateKeyRequest(name=f"tenant-{number}"))
            yield taken[-1]

    async with world(Scenario(server={"latency": 0.5})) as (fake, respan):
        fake.script(*script)

        async def consume() -> None:
            batch = respan.temporary_keys.create_many(source(), max_in_flight=2, ordered=how == "ordered")
            if how == "awaited":
                handed_out.extend(outcome.key.id for outcome in await batch if isinstance(outcome, Issued))
                return
            async with batch:
                async for outcome in batch:
                    if isinstance(outcome, Issued):
                        handed_out.append(outcome.key.id)
                    await asyncio.sleep(0.3)

        task = asyncio.create_task(consume())
        taken_then = list[int]()

        def cancel() -> None:
            taken_then.append(len(taken))
            task.cancel()

        loop.interrupt(turn, place, cancel)
        await asyncio.wait({task})
        untouched = not loop.leave_alone()
        await asyncio.sleep(500)

        assert respan.pace.in_flight == 0
        assert not any(respan.pace.waiting.values())
        assert sorted(record.id for record in fake.alive()) == sorted(handed_out)
        if untouched:
            assert len(handed_out) == 5
        else:
            # Those who were just about to take an item may still do so, and do nothing with it.
            assert len(taken) <= taken_then[0] + 2
        await see_it_well(respan)
    return untouched


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "script", [[], ["refuse:1"], pytest.param(["ok", "unavailable_503", "reset"], marks=pytest.mark.hostile)], ids=len
)
@pytest.mark.parametrize("how", ["streamed", "ordered", "awaited"])
def test_a_batch_can_be_cancelled_at_every_turn_of_the_loop(how: str, script: Sequence[str], place: Place) -> None:
    """Whenever a batch's consumer is cancelled, the keys that work are exactly those it was handed."""
    assert turns_until(lambda turn: run(cancel_batch(how, script, turn, place))) > 20


async def test_leaving_a_batch_can_itself_be_cancelled() -> None:
    """Cancelled a second time, while what is in the air is being finished, a batch still leaves no key behind."""
    scenario = Scenario(server={"latency": 4.0}, client={"pace": RateLimit(60, per=60)})
    async with world(scenario) as (fake, respan):

        async def consume() -> None:
            async with respan.temporary_keys.create_many(CreateKeyRequest() for _ in range(100)) as batch:
                async for _ in batch:
                    pytest.fail("nothing is ready yet")

        task = asyncio.create_task(consume())
        await asyncio.sleep(2.5)

        task.cancel()
        await asyncio.sleep(1)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

        await asyncio.sleep(100)
        assert task.cancelled()
        assert 1 < fake.counts.created < 9
        assert fake.counts.alive == 0


# -------------------------------------------------------------------------------------------------- one at a time


async def test_a_timeout_around_a_create_revokes_the_key_that_comes_too_late() -> None:
    """`asyncio.timeout` gives up at its time; the answer that comes later is waited for, and its key revoked."""
    async with world(Scenario(server={"latency": 10.0})) as (fake, respan):
        loop = asyncio.get_running_loop()
        began = loop.time()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await respan.temporary_keys.create()

        assert loop.time() - began == pytest.approx(7)
        assert respan.pace.in_flight == 1
        await asyncio.sleep(30)
        assert (fake.counts.created, fake.counts.revoked) == (1, 1)
        assert respan.suspects == ()


async def test_a_caller_that_gives_up_waiting_costs_nothing() -> None:
    """A call cancelled before its bytes left has used no slot, nor has one that waits for its token."""
    scenario = Scenario(client={"api_key": slow_token, "pace": RateLimit(1, per=1000), "max_in_flight": 1})
    async with world(scenario) as (fake, respan):
        loop = asyncio.get_running_loop()
        gives_up = asyncio.create_task(respan.temporary_keys.create(name="gives up"))
        await asyncio.sleep(0.5)
        next_one = asyncio.create_task(respan.temporary_keys.create(name="next"))
        await asyncio.sleep(0)
        assert respan.pace.used == 0

        gives_up.cancel()
        began = loop.time()
        await next_one

        assert loop.time() - began == pytest.approx(0.5, abs=0.01)  # what was left of its token, and no period
        assert [record.name for record in fake.keys.values()] == ["next"]


async def test_a_name_still_being_looked_up_is_before_sending() -> None:
    """Cancelled while there is no connection yet, a call never reaches the server, and leaves no suspect."""
    async with world(Scenario(slow_name=True)) as (fake, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)
        assert respan.pace.in_flight == 1

        task.cancel()
        await asyncio.sleep(0.001)

        assert respan.pace.in_flight == 0
        await asyncio.sleep(100)
        assert fake.counts.requests == 0
        assert respan.suspects == ()


@pytest.mark.parametrize("fault", ["unavailable_503", "reset", "refuse:5", "refuse_bare", "html_502_after"])
async def test_a_call_nobody_awaits_any_more_is_not_repeated(fault: str) -> None:
    """A failure that comes after the caller has gone is the end of the call."""
    async with world(Scenario(server={"latency": 2.0})) as (fake, respan):
        fake.script(fault)
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.5)

        task.cancel()
        await asyncio.sleep(500)

        assert fake.counts.requests == 1
        assert len(respan.suspects) == (not fault.startswith("refuse"))


async def test_callers_cancelled_all_at_once_leave_the_line_empty() -> None:
    """A hundred calls at ten a minute, cancelled together: those in the air are revoked, and nobody waits."""
    scenario = Scenario(server={"latency": 1.0}, client={"pace": RateLimit(10, per=60)})
    async with world(scenario) as (fake, respan):
        tasks = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(100)]
        await asyncio.sleep(0.6)
        assert respan.pace.waiting["interactive"] == 90

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert respan.pace.waiting["interactive"] == 0
        await asyncio.sleep(200)
        assert (fake.counts.created, fake.counts.alive) == (10, 0)
        assert respan.pace.in_flight == 0


async def test_a_task_group_that_fails_keeps_no_key() -> None:
    """When one of a group fails, the keys of those it cancels are revoked: nobody holds them."""
    async with world(Scenario(server={"latency": (1.0, 3.0)})) as (fake, respan):
        fake.script("ok", "ok", "ok", "conflict_409")

        tasks = list[asyncio.Task[CreatedKey]]()

        async def issue_together() -> None:
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(respan.temporary_keys.create()) for _ in range(20))

        with pytest.raises(ExceptionGroup) as caught:
            await issue_together()

        assert caught.group_contains(ConflictError)
        await asyncio.sleep(100)
        assert fake.counts.created == 19
        through = [task for task in tasks if not task.cancelled() and task.exception() is None]
        assert {record.id for record in fake.alive()} == {task.result().id for task in through}
        assert len(through) < 19


async def test_a_repeated_cancellation_does_not_stop_the_revocation() -> None:
    """A caller that is cancelled over and over has its key revoked once."""
    async with world(Scenario(server={"latency": 1.0})) as (fake, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.3)

        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0.3)
        await asyncio.sleep(100)

        assert (fake.counts.created, fake.counts.revoked) == (1, 1)
        assert fake.counts.by_operation["delete"] == 1


@pytest.mark.parametrize("operation", ["list", "retrieve", "delete"])
def test_other_calls_can_be_cancelled_at_every_turn_too(operation: str) -> None:
    """Cancelling a call that makes no key leaves nothing behind either."""

    async def cancel(turn: int) -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        async with world(Scenario()) as (fake, respan):
            key = await respan.temporary_keys.create()
            fake.script("refuse:1", "unavailable_503", operation=operation)
            calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "list": lambda: listed(respan),
                "retrieve": lambda: respan.temporary_keys.retrieve(key.id),
                "delete": lambda: respan.temporary_keys.delete(key.id),
            }
            task = asyncio.create_task(calls[operation]())
            loop.interrupt(turn, "before", task.cancel)
            await asyncio.wait({task})
            untouched = not loop.leave_alone()
            await asyncio.sleep(0.1)
            assert respan.pace.in_flight == 0
            assert not any(respan.pace.waiting.values())
            assert respan.suspects == ()
            await see_it_well(respan)
            return untouched

    assert turns_until(lambda turn: run(cancel(turn))) > 8


async def listed(respan: AsyncRespan) -> list[Any]:
    """Read the list to its end."""
    return [key async for key in respan.temporary_keys.list()]
