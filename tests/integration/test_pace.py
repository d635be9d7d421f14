"""The pace, end to end: the client against the fake server, hours of it in virtual time."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from respan_async import (
    DOCUMENTED_LIMIT,
    AsyncRespan,
    CreatedKey,
    CreateKeyRequest,
    DeadlineExceededError,
    Issued,
    RateLimit,
    RateLimitError,
    RetryPolicy,
)
from respan_async.testing import FakeRespan, FixedWindow, SlidingLog
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


@asynccontextmanager
async def world(server: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server, a tenth of a second away unless said otherwise, and a client."""
    server = {"latency": 0.1, **(server or {})}
    async with FakeRespan(**server) as fake, AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan:
        yield fake, respan


def requests(number: int) -> Any:
    """Give requests one after the other, as a batch of unknown length."""
    return (CreateKeyRequest(name=f"tenant-{index}") for index in range(number))


async def finished(batch: Awaitable[Any]) -> Any:
    """Await a batch, where a coroutine is asked for."""
    return await batch


# ------------------------------------------------------------------------------------------------------ a limit given


@pytest.mark.parametrize(
    ("limit", "number"),
    [
        (SlidingLog(60, per=60), 2_000),
        pytest.param(SlidingLog(60, per=60), 10_000, marks=pytest.mark.long),
        pytest.param(FixedWindow(60, per=60), 10_000, marks=pytest.mark.long),
        (FixedWindow(60, per=60, offset=22), 1_200),
    ],
    ids=["sliding log", "sliding log, long", "fixed window, long", "fixed window"],
)
async def test_ten_thousand_tenants_take_as_long_as_the_limit_demands(limit: Any, number: int) -> None:
    """At 60 a minute, each tenant has one key after number seconds and hardly more, and not one request is refused."""
    async with world({"limit": limit, "latency": (0.05, 0.5)}, pace=DOCUMENTED_LIMIT) as (fake, respan):
        seen, began = set[str](), now()
        async with respan.temporary_keys.create_many(requests(number), max_in_flight=32) as batch:
            async for outcome in batch:
                assert isinstance(outcome, Issued)
                seen.add(outcome.key.name or "")
        took = now() - began

        assert took <= 1.03 * number
        assert (fake.counts.requests, fake.counts.refused) == (number, 0)
        assert len(seen) == fake.counts.alive == number
        assert fake.max_in_window(60) <= 60


@pytest.mark.parametrize("latency", [0.0, (0.0, 3.0), (5.0, 40.0)])
@pytest.mark.parametrize("max_in_flight", [3, 200])
async def test_the_server_never_counts_more_than_the_limit(latency: Any, max_in_flight: int) -> None:
    """Single calls and a batch together stay within the limit, however long answers take."""
    async with world(
        {"limit": SlidingLog(20, per=30), "latency": latency},
        pace=RateLimit(20, per=30),
        max_in_flight=max_in_flight,
        timeout=300.0,
    ) as (fake, respan):

        async def singles() -> None:
            for index in range(40):
                await respan.temporary_keys.create(name=f"single-{index}")
                await respan.temporary_keys.list()

        await asyncio.gather(singles(), finished(respan.temporary_keys.create_many(requests(100))))

        assert fake.counts.refused == 0
        assert fake.max_in_window(30) <= 20
        assert fake.counts.max_in_flight <= max_in_flight
        assert fake.counts.created == 140


async def test_every_operation_counts() -> None:
    """The limit is the account's, not the create's: all five operations wait for it."""
    async with world({"limit": SlidingLog(5, per=60)}, pace=RateLimit(5, per=60)) as (fake, respan):
        keys = respan.temporary_keys
        for _ in range(4):
            key = await keys.create()
            await keys.retrieve(key.id)
            await keys.update(key.id, name="b")
            await keys.list()
            await keys.delete(key.id)

        assert fake.counts.requests == 20
        assert fake.counts.refused == 0
        assert fake.max_in_window(60) == 5


async def test_the_bound_on_requests_in_the_air_holds_for_all_together() -> None:
    """Single calls and two batches never have more than `max_in_flight` requests in the air."""
    async with world({"latency": (0.1, 2.0)}, max_in_flight=6) as (fake, respan):
        keys = respan.temporary_keys
        singles = [asyncio.create_task(keys.create()) for _ in range(30)]

        await asyncio.gather(
            *singles,
            finished(keys.create_many(requests(50))),
            finished(keys.create_many(requests(50), max_in_flight=40)),
        )

        assert fake.counts.max_in_flight == 6
        assert fake.counts.created == 130


async def test_a_lost_answer_holds_its_slot_for_a_period_and_a_grace() -> None:
    """A request that was never answered may have been let in, and late: its slot comes back later than the others."""
    async with world(pace=RateLimit(2, per=60), retry=RetryPolicy(initial=0.01)) as (fake, respan):
        fake.script("lose_answer_after_create", "ok", "ok", "ok")
        began = now()

        await respan.temporary_keys.create()  # two requests, the first of which was lost
        assert respan.pace.used == 2
        await respan.temporary_keys.create()
        third = now() - began
        await respan.temporary_keys.create()

        assert third == pytest.approx(60.2, abs=0.5)
        assert now() - began == pytest.approx(62.2, abs=0.5)


async def test_what_aiohttp_sends_again_by_itself_is_charged() -> None:
    """A GET that met a dead connection went out twice, and takes two slots."""
    async with world(pace=RateLimit(10, per=600)) as (fake, respan):
        key = await respan.temporary_keys.create()
        fake.script("disconnect_after_create", operation="retrieve")

        await respan.temporary_keys.retrieve(key.id)

        assert fake.counts.by_operation["retrieve"] == 2
        assert respan.pace.used == 3


async def test_a_small_batch_that_fits_is_not_spread() -> None:
    """Where all of a batch fits into half of the free slots there is nothing to be spread for."""
    async with world(pace=DOCUMENTED_LIMIT) as (_, respan):
        began = now()
        await respan.temporary_keys.create_many([CreateKeyRequest()] * 30)
        assert now() - began < 1

        began = now()
        await respan.temporary_keys.create_many([CreateKeyRequest()] * 30)
        assert 28 < now() - began < 62  # the first batch's slots are left out of the spread


async def test_a_large_batch_is_spread_evenly() -> None:
    """No second of a batch has more than a few requests: a burst would come back as a burst."""
    async with world({"latency": 0.02}, pace=DOCUMENTED_LIMIT) as (fake, respan):
        await respan.temporary_keys.create_many([CreateKeyRequest()] * 300)

        assert fake.max_in_window(1) <= 3
        assert fake.max_in_window(10) <= 13


async def test_a_web_request_hardly_waits_behind_a_batch_of_ten_thousand() -> None:
    """Single calls beside a batch at 60 a minute have their key within two seconds and the round trip."""
    async with world({"limit": SlidingLog(60, per=60)}, pace=DOCUMENTED_LIMIT) as (fake, respan):
        async with respan.temporary_keys.create_many(requests(10_000)) as batch:

            async def drain() -> None:
                async for _ in batch:
                    pass

            task = asyncio.create_task(drain())
            await asyncio.sleep(300)
            waits = list[float]()
            for index in range(100):
                await asyncio.sleep(7 + index % 10)
                began = now()
                await respan.temporary_keys.create()
                waits.append(now() - began)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert max(waits) <= 2.15
        assert sorted(waits)[50] <= 1.1
        assert fake.counts.refused == 0


# ---------------------------------------------------------------------------------------------------- a limit learned


@pytest.mark.parametrize(("where", "digits"), [("body", 0), ("header", 0), ("both", 3)])
@pytest.mark.parametrize(
    "limit",
    [SlidingLog(60, per=60), FixedWindow(60, per=60), FixedWindow(60, per=60, offset=25), SlidingLog(30, per=10)],
    ids=str,
)
async def test_an_unknown_limit_is_learned(limit: Any, where: str, digits: int) -> None:
    """Nothing is held back until the server refuses; after that, nearly nothing is refused, and little time is lost."""
    number = 10 * limit.limit
    # A limit is given a fresh log for each test.
    fresh = type(limit)(**{name: getattr(limit, name) for name in ("limit", "per", "offset") if hasattr(limit, name)})
    async with world({"limit": fresh, "retry_after": where, "retry_after_digits": digits}) as (fake, respan):
        began = now()
        outcomes = await respan.temporary_keys.create_many(requests(number))
        took = now() - began

        assert len({outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)}) == number
        assert took <= 1.15 * number / limit.limit * limit.per
        assert fake.counts.refused <= 0.05 * number
        assert fake.unheld(outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)) == []


async def test_the_pace_can_be_looked_at_in_each_phase() -> None:
    """Unknown at first; then a pause, then a learned limit; and who waits, at any time."""
    async with world({"limit": SlidingLog(90, per=60)}) as (_, respan):
        fresh = respan.pace
        task = asyncio.create_task(finished(respan.temporary_keys.create_many(requests(300), max_in_flight=8)))
        seen = list[Any]()
        for _ in range(400):
            await asyncio.sleep(0.25)
            seen.append(respan.pace)
        single = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0)
        waiting = respan.pace
        await asyncio.gather(task, single)
        after = respan.pace

        assert (fresh.limit, fresh.learned, fresh.used, fresh.in_flight) == (None, False, 0, 0)
        assert (fresh.refused, fresh.paused_until, fresh.outage) == (0, None, False)
        assert fresh.waiting == {"interactive": 0, "batch": 0, "sweep": 0}
        paused = [pace for pace in seen if pace.paused_until is not None]
        assert paused
        assert all(pace.refused > 0 for pace in paused)
        assert all(pace.paused_until > datetime.now(UTC) for pace in paused[:3])
        assert seen[-1].limit == RateLimit(90, per=60)
        assert seen[-1].learned
        assert 50 <= seen[-1].used <= 97
        assert waiting.waiting["batch"] + waiting.waiting["interactive"] >= 1
        assert (after.in_flight, after.waiting) == (0, {"interactive": 0, "batch": 0, "sweep": 0})


async def test_a_limit_that_was_given_is_not_learned() -> None:
    """As long as nothing contradicts it, it is what the settings say."""
    async with world(pace=RateLimit(7, per=3)) as (_, respan):
        await respan.temporary_keys.create()

        assert respan.pace.limit == RateLimit(7, per=3)
        assert not respan.pace.learned
        assert respan.pace.used == 1


@pytest.mark.parametrize("fault", ["refuse:5", "refuse_bare"])
async def test_a_refusal_of_the_very_first_request_teaches_nothing(fault: str) -> None:
    """Nothing was let in, so nothing can be counted: a pause, a probe, and no limit."""
    async with world() as (fake, respan):
        fake.script(fault, fault, fault)
        began = now()

        await respan.temporary_keys.create()

        assert respan.pace.limit is None
        assert fake.counts.refused == 3
        assert now() - began < 25
        if fault == "refuse:5":
            assert now() - began > 15


async def test_after_a_refusal_for_everybody_one_probes_and_the_rest_follow() -> None:
    """While nobody gets through, one request at a time finds out, and its success lets the others in."""
    async with world({"latency": 0.2}) as (fake, respan):
        fake.script(*["refuse:10"] * 4)
        tasks = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(40)]
        await asyncio.sleep(5)
        first = fake.counts
        await asyncio.sleep(6)
        second = fake.counts.requests
        await asyncio.gather(*tasks)

        assert first.requests == 40
        assert second >= first.requests
        assert fake.counts.created == 40


async def test_one_refusal_among_successes_holds_back_only_its_own_call() -> None:
    """With a limit known, and others let in at the same time, nobody else is kept waiting for it."""
    async with world(pace=RateLimit(1000, per=60)) as (fake, respan):
        await asyncio.gather(*(respan.temporary_keys.create() for _ in range(5)))
        fake.script("ok", "ok", "refuse:50", "ok", "ok")
        began = now()
        tasks = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(5)]

        done, pending = await asyncio.wait(tasks, timeout=1)
        assert (len(done), len(pending)) == (4, 1)
        await asyncio.gather(*tasks)
        assert 50 <= now() - began <= 61


@pytest.mark.parametrize("where", ["body", "header"])
async def test_a_server_that_asks_for_ages_fails_the_call_at_once(where: str) -> None:
    """Longer than `max_retry_after` is not waited for: the error says how long it would be."""
    async with world({"retry_after": where}) as (fake, respan):
        fake.script("refuse:100000")
        began = now()

        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

        assert now() - began < 1
        assert caught.value.retry_after == 100_000
        assert caught.value.attempts == 1
        assert respan.pace.limit is None


async def test_a_server_that_asks_for_ages_does_not_stop_the_client_for_ages() -> None:
    """The next call finds out whether that was meant; where it was, others wait for a bounded time, and try again."""
    async with world(retry=RetryPolicy(max_retry_after=30.0)) as (fake, respan):
        fake.script("refuse:100000", "refuse:100000")
        for _ in range(2):
            with pytest.raises(RateLimitError):
                await respan.temporary_keys.create()
        began = now()

        await respan.temporary_keys.create()

        assert now() - began == pytest.approx(30, abs=1)


@pytest.mark.parametrize("nonsense", ["-5", "1e400", "null", "true", '"soon"', "[]", "{}", "NaN"])
async def test_a_nonsensical_wait_counts_as_none(nonsense: str) -> None:
    """What is no number of seconds is not obeyed: the call goes on after a wait of its own choosing."""
    answers = iter(range(10))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(2)
            if next(answers) < 2:
                status, body = "429 Too Many Requests", f'{{"detail": "no", "retry_after": {nonsense}}}'
            else:
                status, body = "201 Created", '{"id": "a", "api_key": "b"}'
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            if status == "201 Created":
                writer.close()
                return

    server = await asyncio.start_server(serve, "127.0.0.1", 8000)
    async with server, AsyncRespan("test-key", base_url="http://127.0.0.1:8000") as respan:
        began = now()
        key = await respan.temporary_keys.create()

        assert isinstance(key, CreatedKey)
        assert now() - began < 10
        assert respan.pace.refused == 2


# ----------------------------------------------------------------------------------------------------------- deadlines


async def test_a_deadline_that_cannot_be_met_fails_at_once_and_takes_no_slot() -> None:
    """When even the least wait is too long, the call says so right away, and when it could be made."""
    async with world(pace=RateLimit(2, per=60)) as (fake, respan):
        await asyncio.gather(respan.temporary_keys.create(), respan.temporary_keys.create())
        began = now()

        with pytest.raises(DeadlineExceededError) as caught:
            await respan.with_options(deadline=20.0).temporary_keys.create()

        assert now() == began
        assert caught.value.retry_at is not None
        left = (caught.value.retry_at - datetime.now(UTC)).total_seconds()
        assert left == pytest.approx(60, abs=1)
        assert respan.pace.used == 2
        assert fake.counts.requests == 2


async def test_a_deadline_that_can_be_met_is_waited_for() -> None:
    """Enough time for the next slot is enough."""
    async with world(pace=RateLimit(2, per=60)) as (fake, respan):
        await asyncio.gather(respan.temporary_keys.create(), respan.temporary_keys.create())

        await respan.with_options(deadline=62.0).temporary_keys.create()

        assert fake.counts.created == 3


async def test_a_deadline_counts_those_who_are_ahead() -> None:
    """The least wait is that of one's place in the line."""
    async with world(pace=RateLimit(1, per=10)) as (_, respan):
        await respan.temporary_keys.create()
        ahead = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(3)]
        await asyncio.sleep(0)
        began = now()

        with pytest.raises(DeadlineExceededError):
            await respan.with_options(deadline=25.0).temporary_keys.create()
        assert now() == began
        await respan.with_options(deadline=60.0).temporary_keys.create()
        await asyncio.gather(*ahead)


async def test_a_deadline_passes_for_one_who_waits() -> None:
    """Where the wait could not be foretold, it ends at the deadline all the same, and nothing is sent."""
    async with world({"latency": 50.0}, max_in_flight=1, timeout=100.0) as (fake, respan):
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0)
        began = now()

        with pytest.raises(DeadlineExceededError):
            await respan.with_options(deadline=20.0).temporary_keys.create()

        assert now() - began == pytest.approx(20, abs=0.01)
        assert respan.pace.waiting["interactive"] == 0
        await task
        assert fake.counts.created == 1


# ----------------------------------------------------------------------------------------------------------- priority


async def test_a_view_may_choose_another_place_in_the_line() -> None:
    """A single call can be of the batch's class, and a batch of the interactive one."""
    order = list[str]()
    async with world(pace=RateLimit(1, per=10)) as (_, respan):
        await respan.temporary_keys.create()

        async def call(priority: Any, name: str) -> None:
            await respan.with_options(priority=priority).temporary_keys.create(name=name)
            order.append(name)

        calls = itertools.product(range(2), ["sweep", "batch", "interactive"])
        tasks = [asyncio.create_task(call(priority, f"{priority}-{index}")) for index, priority in calls]
        await asyncio.gather(*tasks)

    assert order == ["interactive-0", "interactive-1", "batch-0", "batch-1", "sweep-0", "sweep-1"]


@pytest.mark.parametrize("at", [9, 300])
async def test_one_refusal_that_the_limit_does_not_explain_costs_nothing(at: int) -> None:
    """A given limit is not overturned by a whim: a thousand keys take as long as the limit demands."""
    limit = RateLimit(600, per=60)
    async with world({"limit": SlidingLog(600, per=60)}, pace=limit) as (fake, respan):
        fake.script(*["ok"] * (at - 1), "refuse:1")
        began = now()
        await finished(respan.temporary_keys.create_many(requests(1000)))

        assert now() - began <= 1.03 * 100
        assert (fake.counts.created, fake.counts.refused) == (1000, 1)
        assert respan.pace.limit == limit


async def test_too_early_is_no_limit() -> None:
    """A 425 is tried again by its own call, uses up no attempt, and teaches the pace nothing."""
    async with world() as (fake, respan):
        fake.chance("too_early_425", 0.05)
        outcomes = await finished(respan.temporary_keys.create_many(requests(1_000)))

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.by_status[425] > 20
        assert respan.pace.limit is None
        assert respan.pace.refused == 0
        assert now() < 20
