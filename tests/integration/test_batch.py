"""Batches: many items, a few at a time, each with an outcome of its own."""

import asyncio
import itertools
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self

import pytest

from respan_async import (
    APIStatusError,
    AsyncRespan,
    AuthenticationError,
    ClientStateError,
    ConflictError,
    CreateKeyRequest,
    DeadlineExceededError,
    Failed,
    InvalidRequestError,
    Issued,
    PermissionDeniedError,
    RateLimit,
    RespanError,
    RetryPolicy,
)
from respan_async.testing import FakeRespan, SlidingLog
from tests.integration.raw_server import API_KEY, Act, Connection, RawServer, Seen, answer, message
from tests.waiting import until

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

Outcome = Issued[CreateKeyRequest] | Failed[CreateKeyRequest]


@asynccontextmanager
async def world(server: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server, a tenth of a second away unless said otherwise, and a client."""
    server = {"latency": 0.1, **(server or {})}
    async with FakeRespan(**server) as fake:
        settings = {"api_key": fake.api_key, **settings}
        async with AsyncRespan(base_url=fake.url, **settings) as respan:
            yield fake, respan


def tenants(number: int) -> list[CreateKeyRequest]:
    """Give requests with names that count from 0."""
    return [CreateKeyRequest(name=f"tenant-{index}") for index in range(number)]


async def slowly(items: Iterable[CreateKeyRequest], pause: float = 0.01) -> AsyncIterator[CreateKeyRequest]:
    """Give items one after the other, as a database would."""
    for item in items:
        await asyncio.sleep(pause)
        yield item


def issued(outcomes: Sequence[Outcome]) -> list[Issued[CreateKeyRequest]]:
    """Give the outcomes that are keys."""
    return [outcome for outcome in outcomes if isinstance(outcome, Issued)]


def failed(outcomes: Sequence[Outcome]) -> list[Failed[CreateKeyRequest]]:
    """Give the outcomes that are none."""
    return [outcome for outcome in outcomes if isinstance(outcome, Failed)]


def alive(fake: FakeRespan) -> list[str]:
    """Give the ids of the keys that work, sorted."""
    return sorted(record.id for record in fake.alive())


def held(outcomes: Sequence[Outcome]) -> list[str]:
    """Give the ids of the keys that were handed out, sorted."""
    return sorted(outcome.key.id for outcome in issued(outcomes))


# ------------------------------------------------------------------------------------------------------- what comes out


async def test_an_awaited_batch_is_a_list_in_the_order_of_the_input() -> None:
    """However long each answer takes, the list has one outcome for each item, at its place, with its own key."""
    requests = tenants(200)
    async with world({"latency": (0.01, 2.0)}) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(requests)

        assert [outcome.index for outcome in outcomes] == list(range(200))
        assert [outcome.item for outcome in outcomes] == requests
        assert [outcome.key.name for outcome in issued(outcomes)] == [request.name for request in requests]
        assert held(outcomes) == alive(fake)
        assert len(set(held(outcomes))) == 200


async def test_a_streamed_batch_yields_outcomes_as_they_come() -> None:
    """A fast answer does not wait for a slow one before it; in the end each item has had exactly one outcome."""
    async with world({"latency": (0.01, 2.0)}) as (fake, respan):
        async with respan.temporary_keys.create_many(tenants(100)) as batch:
            outcomes = [outcome async for outcome in batch]

        order = [outcome.index for outcome in outcomes]
        assert order != sorted(order)
        assert sorted(order) == list(range(100))
        assert held(outcomes) == alive(fake)


async def test_an_ordered_batch_yields_outcomes_in_the_order_of_the_input() -> None:
    """With `ordered=True` a fast answer waits for the slow ones before it."""
    async with world({"latency": (0.01, 2.0)}) as (fake, respan):
        fake.script("ok", "conflict_409", "reset")
        async with respan.temporary_keys.create_many(tenants(100), ordered=True) as batch:
            order = [outcome.index async for outcome in batch]

        assert order == list(range(100))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("source", ["list", "generator", "async generator", "tuple"])
async def test_any_iterable_will_do(source: str, ordered: bool) -> None:
    """Sequences, generators and async generators are all taken."""
    sources: dict[str, Any] = {
        "list": tenants(9),
        "generator": (request for request in tenants(9)),
        "async generator": slowly(tenants(9)),
        "tuple": tuple(tenants(9)),
    }
    async with world() as (_, respan):
        outcomes = await respan.temporary_keys.create_many(sources[source], ordered=ordered)

        assert [outcome.key.name for outcome in issued(outcomes)] == [f"tenant-{index}" for index in range(9)]


async def test_an_empty_batch_is_over_at_once() -> None:
    """Without items there are no outcomes, and no requests."""
    async with world() as (fake, respan):
        assert await respan.temporary_keys.create_many([]) == []
        assert await respan.temporary_keys.create_many(slowly([])) == []
        async with respan.temporary_keys.create_many(iter(())) as batch:
            assert [outcome async for outcome in batch] == []
        assert fake.counts.requests == 0


async def test_an_endless_batch_goes_on_until_it_is_left() -> None:
    """An iterable need not end; leaving the batch ends it."""
    endless = (CreateKeyRequest(name=f"tenant-{index}") for index in itertools.count())
    handed_out: list[Outcome] = []
    async with world() as (fake, respan):
        async with respan.temporary_keys.create_many(endless, max_in_flight=8) as batch:
            async for outcome in batch:
                handed_out.append(outcome)
                if len(handed_out) == 500:
                    break
        await respan.aclose()

        assert alive(fake) == held(handed_out)
        assert next(endless).name in {f"tenant-{index}" for index in range(500, 509)}


@pytest.mark.parametrize("items", [None, 3, "tenant-1", b"x", {"a": CreateKeyRequest()}, CreateKeyRequest()])
async def test_what_cannot_be_a_batch_is_refused(items: Any) -> None:
    """Something that is no iterable of requests is refused where it is given."""
    async with world() as (_, respan):
        with pytest.raises(InvalidRequestError, match="items: expected an iterable"):
            respan.temporary_keys.create_many(items)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "8"])
async def test_a_wrong_bound_is_refused(number: Any) -> None:
    """`max_in_flight` is a whole number from 1."""
    async with world() as (_, respan):
        with pytest.raises(InvalidRequestError, match="max_in_flight: expected a whole number, 1 or more"):
            respan.temporary_keys.create_many([], max_in_flight=number)


@pytest.mark.parametrize("spread", [1, None, "no"])
async def test_a_wrong_spread_is_refused(spread: Any) -> None:
    """`spread` is True or False."""
    async with world() as (_, respan):
        with pytest.raises(InvalidRequestError, match="spread: expected True or False"):
            respan.temporary_keys.create_many([], spread=spread)


# ---------------------------------------------------------------------------------------------------------- how much


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("bound", [1, 4, 30])
@pytest.mark.parametrize("is_async", [False, True])
async def test_no_more_is_taken_than_can_be_worked_on(is_async: bool, bound: int, in_order: bool) -> None:
    """What was taken from the input and not yet given out is never more than `max_in_flight`, however slow one is."""
    given = 0

    def source() -> Iterator[CreateKeyRequest]:
        nonlocal given
        for request in tenants(150):
            given += 1
            most.append(given - taken)
            yield request

    most, taken = list[int](), 0
    async with world({"latency": (0.01, 0.5)}, max_in_flight=50) as (fake, respan):
        items = slowly(source()) if is_async else source()
        async with respan.temporary_keys.create_many(items, max_in_flight=bound, ordered=in_order) as batch:
            async for _ in batch:
                taken += 1
                await asyncio.sleep(0.5 if taken % 10 == 0 else 0)

        assert taken == 150
        assert max(most) <= bound
        assert fake.counts.max_in_flight <= bound


async def test_nobody_taking_outcomes_stops_the_batch() -> None:
    """While nobody takes what is ready, nothing more is sent."""
    async with world() as (fake, respan), respan.temporary_keys.create_many(tenants(100), max_in_flight=7) as batch:
        await asyncio.sleep(1000)

        assert fake.counts.created == 7
        assert batch.progress.done == 7
        assert len([outcome async for outcome in batch]) == 100


async def test_a_batch_has_at_most_what_the_client_allows_in_the_air() -> None:
    """The client's own `max_in_flight` holds for a batch that would like more, and a part of it is not a batch's."""
    async with world({"latency": 0.1}, max_in_flight=5) as (fake, respan):
        batch = asyncio.ensure_future(respan.temporary_keys.create_many(tenants(100), max_in_flight=50))
        await asyncio.sleep(2)
        assert respan.pace.in_flight == fake.counts.max_in_flight == 4

        await asyncio.gather(*(respan.temporary_keys.list() for _ in range(5)))
        await batch

        assert fake.counts.max_in_flight == 5


@pytest.mark.parametrize("number", [2_000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_memory_does_not_grow_with_the_batch(number: int) -> None:
    """Of all the requests that ever went through, only a handful is alive at any time."""
    living = weakref.WeakSet[CreateKeyRequest]()
    most = 0

    def source() -> Iterator[CreateKeyRequest]:
        for index in range(number):
            request = CreateKeyRequest(name=f"tenant-{index}")
            living.add(request)
            yield request
            del request

    async with world({"latency": 0.01}) as (_, respan):
        async with respan.temporary_keys.create_many(source(), max_in_flight=10) as batch:
            async for _ in batch:
                most = max(most, len(living))

        assert batch.progress.done == number
        assert most <= 15


# -------------------------------------------------------------------------------------------------- what goes wrong


async def test_the_failure_of_one_item_is_its_own() -> None:
    """An item that the server does not want is `Failed`, with its error; the others have their keys."""
    async with world() as (fake, respan):
        fake.script("ok", "conflict_409", "ok", "unprocessable_422", "not_json")

        outcomes = await respan.temporary_keys.create_many(tenants(50), max_in_flight=1)

        assert [outcome.index for outcome in failed(outcomes)] == [1, 3, 4]
        assert isinstance(failed(outcomes)[0].error, ConflictError)
        assert failed(outcomes)[0].item.name == "tenant-1"
        assert len(issued(outcomes)) == 47


async def test_an_item_that_is_no_request_fails_by_itself() -> None:
    """Something else among the requests is `Failed`, says what it is, and nothing is sent for it."""
    items: list[Any] = [CreateKeyRequest(name="a"), "tenant-b", None, CreateKeyRequest(name="d")]
    async with world() as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(items)

        assert [outcome.index for outcome in failed(outcomes)] == [1, 2]
        assert all(isinstance(outcome.error, InvalidRequestError) for outcome in failed(outcomes))
        assert "got str" in str(failed(outcomes)[0].error)
        assert fake.counts.created == 2


async def test_trouble_on_the_way_costs_no_item_its_key() -> None:
    """With a third of all attempts failing in every way, each item still has exactly one key."""
    async with world({"seed": 7, "latency": (0.01, 0.3)}, retry=RetryPolicy(max_attempts=20)) as (fake, respan):
        for fault in ("reset", "unavailable_503", "html_502", "refuse:1", "lose_answer_after_create", "timeout_408"):
            fake.chance(fault, 0.05)

        outcomes = await respan.temporary_keys.create_many(tenants(300))

        assert failed(outcomes) == []
        assert len({outcome.key.id for outcome in issued(outcomes)}) == 300
        # Only attempts whose answers were lost left keys, and each of those is known as a suspect.
        assert len(fake.unheld(held(outcomes))) <= len(respan.suspects)


class SourceError(Exception):
    """What the tests' inputs raise."""


def broken(number: int) -> Iterator[CreateKeyRequest]:
    """Give some requests, then raise."""
    yield from tenants(number)
    raise SourceError


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_input_that_raises_ends_the_batch_after_its_last_outcome(is_async: bool, ordered: bool) -> None:
    """What was taken before is finished and yielded; then the error of the input is raised."""
    outcomes = list[Outcome]()

    async def consume() -> None:
        items = slowly(broken(10)) if is_async else broken(10)
        async with respan.temporary_keys.create_many(items, ordered=ordered) as batch:
            async for outcome in batch:
                outcomes.append(outcome)

    async with world() as (fake, respan):
        with pytest.raises(SourceError):
            await consume()

        assert len(issued(outcomes)) == 10
        assert held(outcomes) == alive(fake)


async def test_an_awaited_batch_whose_input_raises_keeps_no_key() -> None:
    """There is no list to hand the keys out in, so they are revoked."""
    async with world() as (fake, respan):
        batch = respan.temporary_keys.create_many(broken(10))
        with pytest.raises(SourceError):
            await batch

        await respan.aclose()
        assert (fake.counts.created, fake.counts.alive) == (10, 0)


async def test_an_input_that_raises_an_error_of_this_library_is_not_taken_for_the_end() -> None:
    """An input may ask the server itself; that it was refused must not look like a shorter input."""

    def source() -> Iterator[CreateKeyRequest]:
        yield from tenants(10)
        raise PermissionDeniedError

    async with world() as (fake, respan):
        batch = respan.temporary_keys.create_many(source())
        with pytest.raises(PermissionDeniedError):
            await batch

        await respan.aclose()
        assert (fake.counts.created, fake.counts.alive) == (10, 0)


async def test_a_key_that_is_not_accepted_ends_the_batch() -> None:
    """401 means that no item can succeed: the allowance is not burnt on all of them."""
    async with world(api_key="wrong") as (fake, respan):
        batch = respan.temporary_keys.create_many(tenants(1000))
        with pytest.raises(AuthenticationError):
            await batch

        assert fake.counts.requests <= 2


async def test_what_is_in_the_air_is_yielded_before_a_fatal_error() -> None:
    """When the key dies in the middle, what had been sent before has its outcomes first; then the error is raised."""
    outcomes = list[Outcome]()

    async def consume() -> None:
        async with respan.temporary_keys.create_many(tenants(1000), max_in_flight=10) as batch:
            async for outcome in batch:
                outcomes.append(outcome)

    async with world({"latency": (0.1, 3.0), "seed": 3}) as (fake, respan):
        fake.script(*["ok"] * 50, "unauthorized_401")
        with pytest.raises(AuthenticationError):
            await consume()

        assert fake.counts.requests < 70
        assert held(outcomes) == alive(fake)
        assert len(issued(outcomes)) == fake.counts.created > 50
        assert sorted(outcome.index for outcome in outcomes) == list(range(len(outcomes)))
        assert any(isinstance(outcome.error, AuthenticationError) for outcome in failed(outcomes))


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_awaited_batch_loses_no_key_to_a_fatal_error(is_async: bool) -> None:
    """Keys that were made are in the list; all that is left of the input has failed, for the same reason."""
    requests = tenants(300)
    async with world({"latency": (0.1, 3.0)}) as (fake, respan):
        fake.script(*["ok"] * 50, "unauthorized_401")

        items: Any = slowly(requests) if is_async else iter(requests)
        outcomes = await respan.temporary_keys.create_many(items, max_in_flight=10)

        assert [outcome.item for outcome in outcomes] == requests
        assert [outcome.index for outcome in outcomes] == list(range(300))
        assert held(outcomes) == alive(fake)
        assert len(issued(outcomes)) == fake.counts.created
        assert all(isinstance(outcome.error, AuthenticationError) for outcome in failed(outcomes))


async def test_an_item_that_was_on_its_way_when_the_batch_ended_fails_for_the_same_reason() -> None:
    """The input had been asked for it already; it is not sent any more, and does not go unmentioned."""
    requests = tenants(4)

    async def items() -> AsyncIterator[CreateKeyRequest]:
        for pause, request in zip((0, 0, 5, 0), requests, strict=True):
            await asyncio.sleep(pause)
            yield request

    async with world() as (fake, respan):
        fake.script("ok", "unauthorized_401")

        outcomes = await respan.temporary_keys.create_many(items(), max_in_flight=3)

        assert [outcome.item for outcome in outcomes] == requests
        assert held(outcomes) == alive(fake)
        assert [type(outcome.error) for outcome in failed(outcomes)] == [AuthenticationError] * 3
        assert fake.counts.requests == 2


async def test_keys_are_not_lost_to_an_input_that_raises_after_a_fatal_error() -> None:
    """Keys were made, the API key died, and then the input breaks too: what there is comes back all the same."""
    async with world() as (fake, respan):
        fake.script(*["ok"] * 5, "unauthorized_401")

        outcomes = await respan.temporary_keys.create_many(broken(20), max_in_flight=1)

        assert len(issued(outcomes)) == 5
        assert held(outcomes) == alive(fake)


async def test_a_forbidden_key_ends_a_batch() -> None:
    """403 to several in a row is about the API key."""
    async with world() as (fake, respan):
        fake.script(*["forbidden_403"] * 1000)
        batch = respan.temporary_keys.create_many(tenants(1000))
        with pytest.raises(PermissionDeniedError):
            await batch

        assert fake.counts.requests <= 8


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_key_that_is_revoked_in_the_middle_of_a_batch_ends_it(awaited: bool) -> None:
    """By 403, as by 401: what was made comes out, and the allowance is not burnt on the rest."""
    async with world(pace=RateLimit(60, per=60)) as (fake, respan):
        fake.script(*["ok"] * 10, *["forbidden_403"] * 1000)
        outcomes = list[Outcome]()
        if awaited:
            outcomes = await respan.temporary_keys.create_many(tenants(1000), max_in_flight=32)
            assert len(outcomes) == 1000
        else:
            async with respan.temporary_keys.create_many(tenants(1000), max_in_flight=32) as batch:
                with pytest.raises(PermissionDeniedError):  # noqa: PT012
                    async for outcome in batch:
                        outcomes.append(outcome)

        assert len(issued(outcomes)) == fake.counts.created == 10
        assert {type(outcome.error) for outcome in failed(outcomes)} == {PermissionDeniedError}
        assert fake.counts.requests <= 20


@pytest.mark.parametrize("others", [0, 3])
async def test_a_403_before_anything_was_made_may_be_the_items_own(others: int) -> None:
    """As it is when the first tenant of all wants what this account may not have."""
    async with world() as (fake, respan):
        fake.script(*["forbidden_403"] * 2, *["conflict_409"] * others)

        outcomes = await respan.temporary_keys.create_many(tenants(50), max_in_flight=1)

        assert [type(outcome.error) for outcome in failed(outcomes)][:2] == [PermissionDeniedError] * 2
        assert len(issued(outcomes)) == 48 - others


async def test_failures_of_other_kinds_prove_nothing_about_a_forbidden_key() -> None:
    """Only a key that is made does."""
    async with world() as (fake, respan):
        fake.script(*["ok", *["forbidden_403", "conflict_409"] * 500])

        outcomes = await respan.temporary_keys.create_many(tenants(500), max_in_flight=1)

        assert fake.counts.requests == 10
        assert len(issued(outcomes)) == 1


@pytest.mark.parametrize("number", [1, 3])
async def test_a_small_batch_of_which_all_was_forbidden_is_about_the_key(number: int) -> None:
    """There were not several; but nothing else was answered."""
    async with world() as (fake, respan):
        fake.script(*["forbidden_403"] * number)
        with pytest.raises(PermissionDeniedError):
            await respan.temporary_keys.create_many(tenants(number))


WRONG_HOSTS = {
    "a redirect": answer(308, b"", {"Location": "https://elsewhere.example/"}),
    "a page for a missing route": answer(404, b"<html>Not Found</html>"),
    "a method that is not allowed": answer(405, {"detail": "Method not allowed."}),
    "nobody pays": answer(402, {"detail": "Payment required."}),
    "a page under 200": answer(200, b"<html>Welcome</html>"),
    "no key in it": answer(201, {"status": "ok"}),
    "a method that is not implemented": answer(501),
}


@pytest.mark.parametrize("kind", WRONG_HOSTS)
async def test_a_batch_that_does_not_meet_the_api_ends(kind: str) -> None:
    """Nothing can succeed; a 2xx without a key may even cost a live key for each item."""
    async with RawServer(WRONG_HOSTS[kind]) as server, AsyncRespan("key", base_url=server.url) as respan:
        with pytest.raises(RespanError):
            await respan.temporary_keys.create_many(tenants(1000), max_in_flight=4)

        assert len(server.requests) <= 16


@pytest.mark.parametrize("fault", ["conflict_409", "unprocessable_422"])
async def test_what_is_wrong_with_items_ends_no_batch(fault: str) -> None:
    """However many there are in a row: each may be wrong in the same way."""
    async with world() as (fake, respan):
        fake.script(*[fault] * 50)

        outcomes = await respan.temporary_keys.create_many(tenants(60))

        assert len(failed(outcomes)) == 50


async def test_a_batch_that_is_stopped_while_the_server_fails_ends_without_an_error() -> None:
    """What was given up after a failure tells nothing of what another attempt would have met."""
    patient = RetryPolicy(initial=0.01, maximum=0.02, max_attempts=9)
    async with (
        world({"latency": 1.0}, pace=RateLimit(1000, per=1), retry=patient) as (fake, respan),
        respan.temporary_keys.create_many(tenants(200), max_in_flight=32, spread=False) as batch,
    ):

        async def stop() -> None:
            fake.chance("error_500", 1.0)
            await asyncio.sleep(3)
            fake.chance("error_500", 0.0)  # it is back, and the client comes back carefully
            await until(lambda: respan.pace.in_flight >= 10)
            fake.chance("error_500", 1.0)
            batch.stop()

        stopping = asyncio.create_task(stop())
        outcomes = [outcome async for outcome in batch]
        await stopping

    assert len(failed(outcomes)) >= 10


async def test_items_that_are_dead_when_they_are_made_end_no_batch() -> None:
    """A date of their own that has passed by the server's clock is no matter of the others."""
    ahead = timedelta(minutes=10)

    async def make(connection: Connection, seen: Seen) -> None:
        now = datetime.now(UTC) + ahead
        made = {"id": "key", "api_key": API_KEY, "created": now.isoformat(), "expiry_date": seen.json["expiry_date"]}
        date = {"Date": format_datetime(now, usegmt=True)}
        await connection.send(message(201, json.dumps(made).encode(), date))

    soon = datetime.now(UTC) + timedelta(minutes=5)
    requests = [CreateKeyRequest(name=f"short-{number}", expiry_date=soon) for number in range(6)]
    requests += [CreateKeyRequest(name=f"long-{number}", expires_in=timedelta(days=1)) for number in range(4)]
    async with RawServer(Act("makes keys", make)) as server, AsyncRespan("token", base_url=server.url) as respan:
        outcomes = await respan.temporary_keys.create_many(requests, max_in_flight=1)

    assert (len(failed(outcomes)), len(issued(outcomes))) == (6, 4)


async def test_an_input_that_is_cancelled_from_within_loses_no_key_after_a_fatal_error() -> None:
    """Nobody has cancelled the caller, so it gets its keys."""

    async def items() -> AsyncIterator[CreateKeyRequest]:
        for item in tenants(8):
            yield item
        raise asyncio.CancelledError

    async with world() as (fake, respan):
        fake.script(*["ok"] * 5, "unauthorized_401")
        outcomes = await respan.temporary_keys.create_many(items(), max_in_flight=1)

        assert held(outcomes) == alive(fake)
        assert len(held(outcomes)) == 5


async def test_a_caller_that_is_cancelled_while_the_rest_is_taken_leaves_no_key() -> None:
    """After a fatal error an awaited batch goes on taking items; that it waits for one holds no cancellation up."""

    async def items() -> AsyncIterator[CreateKeyRequest]:
        for item in tenants(6):
            yield item
        await asyncio.sleep(86_400)

    async with world() as (fake, respan):
        fake.script(*["ok"] * 5, "unauthorized_401")
        collecting = asyncio.ensure_future(respan.temporary_keys.create_many(items(), max_in_flight=1)._collect())
        await asyncio.sleep(60)
        collecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await collecting
        await asyncio.sleep(60)

        assert fake.counts.created == 5
        assert fake.alive() == []


async def test_a_fatal_error_ends_a_batch_whose_input_has_nothing_to_give() -> None:
    """An awaited one, of which nothing was made: the next item may come tomorrow, or never."""

    async def items() -> AsyncIterator[CreateKeyRequest]:
        yield CreateKeyRequest(name="first")
        await asyncio.sleep(86_400)
        yield CreateKeyRequest(name="second")

    async with world() as (fake, respan):
        fake.script("unauthorized_401")
        began = asyncio.get_running_loop().time()
        with pytest.raises(AuthenticationError):
            await respan.temporary_keys.create_many(items())

        assert asyncio.get_running_loop().time() - began < 10


async def test_a_forbidden_item_is_its_own_failure_once_others_have_succeeded() -> None:
    """403 after successes is about the item."""
    async with world() as (fake, respan):
        fake.script("ok", "ok", "ok", "ok", *["forbidden_403"] * 3)

        outcomes = await respan.temporary_keys.create_many(tenants(50))

        assert len(failed(outcomes)) == 3
        assert len(issued(outcomes)) == 47


# ------------------------------------------------------------------------------------------------------ leaving early


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("way", ["break", "raise", "cancel"])
async def test_leaving_early_takes_no_more_and_leaves_no_key_behind(way: str, ordered: bool) -> None:
    """However the body is left: nothing more is taken, and the keys that work are those that were handed out."""
    taken = 0
    outcomes = list[Outcome]()

    def source() -> Iterator[CreateKeyRequest]:
        nonlocal taken
        for request in tenants(1000):
            taken += 1
            yield request

    async def consume() -> None:
        async with respan.temporary_keys.create_many(source(), max_in_flight=16, ordered=ordered) as batch:
            async for outcome in batch:
                outcomes.append(outcome)
                if len(outcomes) == 40:
                    left_at.append(taken)
                    match way:
                        case "break":
                            break
                        case "raise":
                            raise SourceError
                        case _:
                            asyncio.current_task().cancel()  # type: ignore[union-attr]  # there is one

    left_at = list[int]()
    async with world({"latency": (0.1, 1.0)}) as (fake, respan):
        task = asyncio.create_task(consume())
        await asyncio.wait({task})
        assert task.cancelled() or isinstance(task.exception(), SourceError | None)
        requests_then = fake.counts.by_operation["create"]
        await respan.aclose()

        # A cancelled consumer goes on until it awaits something, and so does what is beside it.
        assert taken == left_at[0] or (way == "cancel" and taken <= left_at[0] + 16)
        assert len(outcomes) >= 40
        assert fake.counts.by_operation["create"] == requests_then <= taken
        assert fake.counts.created > 40
        assert alive(fake) == held(outcomes)
        assert respan.suspects == ()


async def test_a_batch_left_while_it_waits_for_the_pace_sends_nothing_more() -> None:
    """Items that wait for a slot when the batch is left are never sent."""
    async with world(pace=RateLimit(5, per=60)) as (fake, respan):
        async with respan.temporary_keys.create_many(tenants(100)) as batch:
            await anext(batch)
        assert respan.pace.waiting["batch"] == 0
        await asyncio.sleep(500)

        assert fake.counts.by_operation["create"] <= 2
        assert fake.counts.alive == 1


async def test_the_input_is_not_asked_again_once_the_batch_was_left() -> None:
    """An async input that is waiting for its next item is interrupted, and may clean up."""
    events = list[str]()

    async def source() -> AsyncGenerator[CreateKeyRequest, None]:
        try:
            yield CreateKeyRequest()
            await asyncio.sleep(10_000)
            yield CreateKeyRequest()
        finally:
            events.append("cleaned up")

    loop = asyncio.get_running_loop()
    async with world() as (fake, respan):
        async with aclosing(source()) as items, respan.temporary_keys.create_many(items) as batch:
            began = loop.time()
            await anext(batch)
        assert loop.time() - began < 1
        assert events == ["cleaned up"]
        assert fake.counts.created == 1


async def test_a_batch_runs_once() -> None:
    """Entering it again, or iterating over it or stopping it without entering, says so."""
    async with world() as (fake, respan):
        batch = respan.temporary_keys.create_many(tenants(3))
        with pytest.raises(ClientStateError, match="enter the batch"):
            await anext(batch)
        with pytest.raises(ClientStateError, match="enter the batch before stopping"):
            batch.stop()
        async with batch:
            with pytest.raises(ClientStateError, match="a batch runs once"):
                await batch
            assert len([outcome async for outcome in batch]) == 3
        with pytest.raises(ClientStateError, match="a batch runs once"):
            await batch.__aenter__()
        with pytest.raises(StopAsyncIteration):
            await anext(batch)

        assert fake.counts.created == 3


async def test_a_batch_that_was_never_run_does_nothing() -> None:
    """Making one takes nothing from the input; what was forgotten is told when it is collected."""
    items = iter(tenants(3))
    async with world() as (fake, respan):
        batch = respan.temporary_keys.create_many(items)
        await asyncio.sleep(10)

        assert batch.progress.done == 0
        assert batch.progress.eta is None
        assert len(list(items)) == 3
        assert fake.counts.requests == 0
        with pytest.warns(RuntimeWarning, match="a batch was neither awaited nor entered"):
            del batch


async def test_a_batch_that_was_run_or_could_not_be_made_or_entered_is_no_forgotten_one() -> None:
    """Nothing is warned of."""
    async with world() as (_, respan):
        await respan.temporary_keys.create_many(tenants(1))
        async with respan.temporary_keys.create_many(tenants(1)):
            pass
        with pytest.raises(InvalidRequestError):
            respan.temporary_keys.create_many(5)  # type: ignore[arg-type]
        await respan.aclose()
        with pytest.raises(ClientStateError):
            await respan.temporary_keys.create_many(tenants(1))


class Rows:
    """Rows of a database, with a cursor to be closed; it may fail at that."""

    def __init__(self, number: int, failing: bool = False) -> None:
        self.number, self.failing = number, failing
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[CreateKeyRequest, None]:
        """Give the rows."""
        try:
            for request in tenants(self.number):
                self.taken += 1
                await asyncio.sleep(0.01)
                yield request
        finally:
            await asyncio.sleep(0.01)
            self.closed = True
            if self.failing:
                raise SourceError


@pytest.mark.parametrize("way", ["break", "raise", "cancel"])
async def test_an_async_input_is_closed_when_the_batch_is_left(way: str) -> None:
    """By the time the batch is left, or soon after, where the one who leaves does not wait."""
    rows = Rows(1000)

    async def consume() -> None:
        async with respan.temporary_keys.create_many(rows, max_in_flight=4) as batch:
            async for outcome in batch:
                if outcome.index == 20:
                    match way:
                        case "break":
                            break
                        case "raise":
                            raise SourceError
                        case _:
                            asyncio.current_task().cancel()  # type: ignore[union-attr]  # there is one

    async with world() as (fake, respan):
        consuming = asyncio.create_task(consume())
        await asyncio.wait({consuming})
        if way == "cancel":
            await asyncio.sleep(1)
        assert rows.closed
        assert consuming.cancelled() or isinstance(consuming.exception(), SourceError | None)
        assert rows.taken < 60

    assert len(alive(fake)) < 30


async def test_an_input_that_is_closed_badly_costs_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """It is told in the log."""
    rows = Rows(1000, failing=True)
    async with world() as (fake, respan):
        async with respan.temporary_keys.create_many(rows, max_in_flight=4) as batch:
            first = await anext(batch)

        await respan.aclose()
        assert isinstance(first, Issued)
        assert alive(fake) == [first.key.id]
    assert "the input of a batch raised SourceError when it was closed" in caplog.messages


@pytest.mark.parametrize("fatal", [False, True])
async def test_an_awaited_batch_counts_its_whole_input_before_it_closes_it(fatal: bool) -> None:
    """Also where an API key that was refused ended it: each item has its outcome."""
    rows = Rows(100)
    async with world() as (fake, respan):
        if fatal:
            fake.script(*["ok"] * 10, "unauthorized_401")
        outcomes = await respan.temporary_keys.create_many(rows, max_in_flight=4)

        assert len(outcomes) == 100
        assert bool(failed(outcomes)) is fatal
        assert rows.closed


async def test_closing_the_client_ends_a_batch_and_loses_no_key() -> None:
    """What is in the air when the client is closed comes out; then the iteration says why it ends."""
    outcomes = list[Outcome]()

    async def consume() -> None:
        async with respan.temporary_keys.create_many(tenants(1000), max_in_flight=20) as batch:
            async for outcome in batch:
                outcomes.append(outcome)

    async with world({"latency": (0.5, 2.0)}) as (fake, respan):
        task = asyncio.create_task(consume())
        await asyncio.sleep(10)
        await respan.aclose()
        with pytest.raises(ClientStateError, match="closed before the batch was through"):
            await task

        assert alive(fake) == held(outcomes)
        assert respan.suspects == ()


async def test_closing_the_client_gives_an_awaited_batch_what_it_has() -> None:
    """The list then has the keys that were made, and says of the others that the client was closed."""
    async with world({"latency": (0.5, 2.0)}) as (fake, respan):

        async def issue() -> list[Outcome]:
            return await respan.temporary_keys.create_many(tenants(1000))

        waiting = asyncio.create_task(issue())
        await asyncio.sleep(10)
        await respan.aclose()
        outcomes = await waiting

        assert len(outcomes) == 1000
        assert alive(fake) == held(outcomes)
        assert all(isinstance(outcome.error, ClientStateError) for outcome in failed(outcomes))


# ---------------------------------------------------------------------------------------------------------- progress


async def test_progress_counts_what_has_been_done() -> None:
    """The numbers are those of the batch at the moment, and final ones once it is over."""
    async with world({"latency": 1.0}, pace=RateLimit(60, per=60)) as (fake, respan):
        fake.script(*["ok"] * 5, "conflict_409")
        async with respan.temporary_keys.create_many(tenants(120)) as batch:
            before = batch.progress
            async for _ in batch:
                now = batch.progress
                assert now.total == 120 >= now.done
                assert now.in_flight <= 64
            after = batch.progress
        await asyncio.sleep(1000)

        assert (before.done, before.elapsed, before.rate, before.eta) == (0, 0.0, 0.0, 120.0)
        assert (after.done, after.failed, after.in_flight, after.refused, after.replayed) == (120, 1, 0, 0, 0)
        assert after.eta == 0.0
        assert after.elapsed == pytest.approx(120, rel=0.05)
        assert after.rate == pytest.approx(1, rel=0.05)
        assert batch.progress == after


async def test_the_eta_of_a_known_limit_comes_true() -> None:
    """From the first tenth on, the time that is left is foretold within a tenth of all."""
    loop = asyncio.get_running_loop()
    said = dict[int, float]()
    async with world(pace=RateLimit(30, per=60)) as (_, respan):
        async with respan.temporary_keys.create_many(tenants(300)) as batch:
            async for _ in batch:
                done, eta = batch.progress.done, batch.progress.eta
                assert eta is not None
                said[done] = loop.time() + eta
        end = loop.time()

        assert batch.progress.elapsed == pytest.approx(600, rel=0.05)
        assert all(abs(then - end) < 60 for done, then in said.items() if done > 30)


async def test_the_eta_of_a_learned_limit_comes_true_once_it_is_learned() -> None:
    """The first minute's rate would promise a wonder; what the limit allows is told as soon as it is known."""
    loop = asyncio.get_running_loop()
    said = list[float]()
    async with world({"limit": SlidingLog(90, per=60)}) as (fake, respan):
        async with respan.temporary_keys.create_many(tenants(900)) as batch:
            async for _ in batch:
                if respan.pace.learned:
                    assert batch.progress.eta is not None
                    said.append(loop.time() + batch.progress.eta)
        end = loop.time()

        assert batch.progress.refused == fake.counts.refused > 0
        assert len(said) > 750
        assert all(abs(then - end) < 90 for then in said)


async def test_a_batch_of_unknown_length_has_no_eta() -> None:
    """A generator does not tell how much is left."""
    async with world() as (_, respan), respan.temporary_keys.create_many(iter(tenants(20))) as batch:
        async for _ in batch:
            assert batch.progress.total is None
            assert batch.progress.eta is None


# ------------------------------------------------------------------------------------------------- beside each other


async def test_two_batches_share_the_pace() -> None:
    """Two batches of the same width come along equally fast, and each item has its own key."""
    async with world(pace=RateLimit(60, per=60)) as (fake, respan):
        first = respan.temporary_keys.create_many(tenants(200), max_in_flight=16)
        second = respan.temporary_keys.create_many(tenants(200), max_in_flight=16)

        async def consume(batch: Any) -> list[Outcome]:
            async with batch:
                return [outcome async for outcome in batch]

        tasks = [asyncio.create_task(consume(batch)) for batch in (first, second)]
        await asyncio.sleep(200)
        assert first.progress.done == pytest.approx(second.progress.done, rel=0.1)
        assert first.progress.done + second.progress.done == pytest.approx(200, rel=0.05)
        outcomes = [outcome for task in tasks for outcome in await task]

        assert fake.max_in_window(60) <= 60
        assert len(set(held(outcomes))) == fake.counts.created == 400


async def test_a_narrow_batch_is_not_starved_by_a_wide_one() -> None:
    """First come, first served: each batch has a share that corresponds to its width."""
    async with world(pace=RateLimit(60, per=60)) as (_, respan):
        async with (
            respan.temporary_keys.create_many(itertools.repeat(CreateKeyRequest()), max_in_flight=60) as wide,
            respan.temporary_keys.create_many(itertools.repeat(CreateKeyRequest()), max_in_flight=4) as narrow,
        ):

            async def drain(batch: Any) -> None:
                async for _ in batch:
                    pass

            tasks = [asyncio.create_task(drain(batch)) for batch in (wide, narrow)]
            await asyncio.sleep(600)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            counts = wide.progress.done, narrow.progress.done

        assert sum(counts) == pytest.approx(600, rel=0.15)
        assert counts[1] > counts[0] / 25


async def test_a_deadline_holds_for_each_item() -> None:
    """A view with a deadline gives each item that long, from the moment it is taken."""
    async with world(pace=RateLimit(10, per=60)) as (fake, respan):
        hasty = respan.with_options(deadline=45.0)

        outcomes = await hasty.temporary_keys.create_many(tenants(40), max_in_flight=40)

        assert {type(outcome.error) for outcome in failed(outcomes)} == {DeadlineExceededError}
        assert 5 <= len(issued(outcomes)) <= 12
        assert held(outcomes) == alive(fake)


async def test_a_deadline_that_passes_in_the_air_leaves_no_key() -> None:
    """The item has failed; the key that comes afterwards is revoked."""
    async with world({"latency": 8.0}, pace=RateLimit(60, per=60)) as (fake, respan):
        outcomes = await respan.with_options(deadline=5.0).temporary_keys.create_many(tenants(6))

        assert len(failed(outcomes)) == 6
        await asyncio.sleep(60)
        assert (fake.counts.created, fake.counts.alive) == (6, 0)


# ------------------------------------------------- what came up in a review


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_cancellation_that_nobody_asked_for_fails_no_item(fake_respan: FakeRespan, *, ordered: bool) -> None:
    """A token callable that awaits something cancelled has failed, as one that raises has, and is asked again."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise asyncio.CancelledError
        return fake_respan.api_key

    async with AsyncRespan(token, base_url=fake_respan.url) as respan, asyncio.timeout(10):
        requests = [CreateKeyRequest(name=str(number)) for number in range(20)]
        async with respan.temporary_keys.create_many(requests, max_in_flight=4, ordered=ordered) as batch:
            outcomes = [outcome async for outcome in batch]

    assert len(outcomes) == 20
    assert all(isinstance(outcome, Issued) for outcome in outcomes)


async def test_an_input_that_was_cancelled_from_within_is_told(respan: AsyncRespan) -> None:
    """An input that ends early by somebody else's cancellation does not look like one that is through."""

    async def requests() -> AsyncIterator[CreateKeyRequest]:
        yield CreateKeyRequest(name="first")
        raise asyncio.CancelledError

    outcomes: list[object] = []

    async def take() -> None:
        async with respan.temporary_keys.create_many(requests()) as batch:
            async for outcome in batch:
                outcomes.append(outcome)  # noqa: PERF401  the error comes after the outcomes

    with pytest.raises(ClientStateError, match="input was cancelled"):
        await take()
    assert len(outcomes) == 1


async def test_two_may_take_outcomes_from_one_batch(respan: AsyncRespan) -> None:
    """Both get their part, and both see the end."""
    requests = [CreateKeyRequest(name=str(number)) for number in range(6)]

    async with asyncio.timeout(10), respan.temporary_keys.create_many(requests, max_in_flight=2) as batch:

        async def take() -> int:
            return len([outcome async for outcome in batch])

        taken = await asyncio.gather(take(), take())

    assert sum(taken) == 6


async def test_a_stopped_batch_with_a_deadline_ends_without_an_error(fake_respan: FakeRespan) -> None:
    """What was given up is an outcome; the batch itself did not fail. Stopped at once, it has sent nothing."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, deadline=30) as respan:
        requests = [CreateKeyRequest(name=str(number)) for number in range(50)]
        async with respan.temporary_keys.create_many(requests, max_in_flight=3) as batch:
            await asyncio.sleep(0)
            batch.stop()
            outcomes = [outcome async for outcome in batch]

    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert fake_respan.counts.requests == 0


async def test_an_empty_batch_leaves_nothing_behind(respan: AsyncRespan) -> None:
    """It is over at once, and the pace does not count on it any more."""
    for _ in range(5):
        assert await respan.temporary_keys.create_many([]) == []

    assert not respan._service.context.pacer._pending


class Abort(BaseException):
    """Raised past everything that waits for exceptions, as a test runner's own is."""


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_ends_a_worker_ends_the_batch_and_is_told(*, ordered: bool) -> None:
    """What is no exception to be handled comes out where the outcomes do, and nobody waits for ever."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Abort
        return "test-key"

    async with world(api_key=token) as (fake, respan):
        outcomes = list[Outcome]()

        async def take() -> None:
            async with respan.temporary_keys.create_many(tenants(100), max_in_flight=4, ordered=ordered) as batch:
                async for outcome in batch:
                    outcomes.append(outcome)

        with pytest.raises(Abort):
            await take()

        assert held(outcomes) == alive(fake)
        assert 3 <= len(outcomes) == fake.counts.requests < 20


async def test_a_loop_that_ends_takes_a_batch_with_it_wherever_its_workers_are() -> None:
    """As `asyncio.run` ends: whoever is in the air, asks the input or waits for a place is cancelled, and is gone."""
    requests = tenants(2)

    async def items() -> AsyncIterator[CreateKeyRequest]:
        for request in requests:
            yield request
        await asyncio.sleep(3600)

    async with world() as (fake, respan):
        fake.script("ok", "stall")
        before = asyncio.all_tasks()

        async with respan.temporary_keys.create_many(items(), max_in_flight=3) as batch:
            await asyncio.sleep(1)
            tasks = asyncio.all_tasks() - before
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            outcome = await anext(batch)

        assert [outcome.item for outcome in issued([outcome])] == requests[:1]
        assert len(respan.suspects) == 1
        assert fake.counts.requests == 2
        assert asyncio.all_tasks() == before


# ---------------------------------------------------------------- what ends it, and what does not


@pytest.mark.parametrize("status", [429, 503])
async def test_an_exhausted_quota_ends_a_batch_however_it_is_refused(status: int) -> None:
    """What a proxy refuses by, where `refusal_statuses` says so, is a refusal as any other."""
    refusing = RawServer(answer(status, b"", {"Retry-After": "1"}))
    policy = RetryPolicy(max_refusals=2, refusal_statuses={503})
    async with refusing as server, AsyncRespan("token", base_url=server.url, retry=policy) as respan:
        with pytest.raises(APIStatusError) as caught:
            async with respan.temporary_keys.create_many(tenants(30), max_in_flight=2) as batch:
                _ = [outcome async for outcome in batch]

        assert caught.value.status == status
        assert len(server.requests) <= 10


async def test_one_long_refusal_ends_no_batch_of_an_interactive_view() -> None:
    """An interactive call does not wait for so long; that is its own failure, and the others go on."""
    async with world() as (fake, respan):
        fake.script("refuse:130")
        view = respan.with_options(priority="interactive")

        outcomes = await view.temporary_keys.create_many(tenants(20), max_in_flight=1)

        assert len(outcomes) == 20
        assert [type(outcome) for outcome in outcomes].count(Failed) == 1


class Channel:
    """An async input whose length is how much waits in it now."""

    def __init__(self, number: int) -> None:
        self._left = tenants(number)

    def __len__(self) -> int:
        return 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CreateKeyRequest:
        await asyncio.sleep(0.01)
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def test_the_length_of_an_async_input_says_nothing_of_what_comes() -> None:
    """A channel that is empty now is not at its end."""
    async with world() as (_, respan):
        assert len(await respan.temporary_keys.create_many(Channel(5))) == 5
