"""The five operations, against a server that behaves; and how long they may take."""

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import attrs
import pytest

from respan_async import (
    UNSET,
    APITimeoutError,
    AsyncRespan,
    BadRequestError,
    CreatedKey,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    KeyPage,
    LimitPolicy,
    Listing,
    NotFoundError,
    RateLimit,
    RespanError,
    RetryPolicy,
    TemporaryKey,
    TemporaryKeys,
    UpdateKeyRequest,
)
from respan_async._calls.call_service import CallService
from respan_async._http.operations import Request
from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async.testing import FakeRespan
from tests.integration.raw_server import FIN, RST, STALL, Act, Connection, RawServer, Seen, answer, key, message

SOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def keys(respan: AsyncRespan) -> TemporaryKeys:
    """The operations of a client of the fake server."""
    return respan.temporary_keys


def on_the_servers_clock(respan: AsyncRespan, fake: FakeRespan) -> TemporaryKeys:
    """Give a client's operations with the wall clock of a server in virtual time."""
    context = respan._service.context
    return TemporaryKeys(CallService(attrs.evolve(context, clock=fake.now), respan._service.options))


# -------------------------------------------------------------------- create


@pytest.mark.parametrize("shape", ["a", "b"])
async def test_both_documented_answers_are_keys(shape: Any) -> None:
    """Everything the server says of a key is read, and the secret is there."""
    async with (
        FakeRespan(shape=shape) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
    ):
        made = await respan.temporary_keys.create(name="tenant-42", max_usage=5, rate_limit=100, spending_limit=2.5)
        (record,) = fake.keys.values()

    assert isinstance(made, CreatedKey)
    assert (made.id, made.api_key.reveal(), made.prefix) == (record.id, record.api_key, record.prefix)
    assert (made.name, made.max_usage, made.rate_limit, made.spending_limit) == ("tenant-42", 5, 100, 2.5)
    assert made.created_at == record.created
    assert (made.expiry_date, made.last_used, made.key_usage) == (None, None, 0)
    assert not made.expired


async def test_create_sends_exactly_what_is_given(keys: TemporaryKeys, fake_respan: FakeRespan) -> None:
    """Nothing, everything as keywords, or everything as one value."""
    policy = LimitPolicy(max_value=10, period="day", metric="cost")
    everything: dict[str, Any] = {
        "name": "tenant-42",
        "expiry_date": SOON,
        "max_usage": 5,
        "rate_limit": None,
        "spending_limit": 2.5,
        "is_test": True,
        "limit_policies": [policy],
    }

    await keys.create()
    await keys.create(**everything)
    await keys.create(CreateKeyRequest(**everything))

    sent = [record.body for record in fake_respan.keys.values()]
    assert sent[0] == {}
    assert (
        sent[1]
        == sent[2]
        == {
            **everything,
            "expiry_date": "2030-01-31T12:00:00Z",
            "limit_policies": [{"max_value": 10, "period": "day", "metric": "cost"}],
        }
    )


async def test_every_field_of_a_request_is_a_keyword() -> None:
    """Spelled out, UNSET by default, for create and for update."""
    for method, model in ((TemporaryKeys.create, CreateKeyRequest), (TemporaryKeys.update, UpdateKeyRequest)):
        parameters = inspect.signature(method).parameters
        keywords = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

        assert list(keywords) == [field.name for field in attrs.fields(model)]
        assert set(keywords.values()) == {UNSET}


async def test_a_request_and_keywords_are_not_given_together(keys: TemporaryKeys) -> None:
    """One of them would have to lose."""
    with pytest.raises(InvalidRequestError, match="either a request or keywords, got also name"):
        await keys.create(CreateKeyRequest(), name="x")
    with pytest.raises(InvalidRequestError, match="either a request or keywords, got also name"):
        await keys.update("i", UpdateKeyRequest(max_usage=1), name="x")


@pytest.mark.parametrize("wrong", [{"name": "x"}, "x", LimitPolicy(max_value=1, period="day"), 5])
async def test_what_is_no_request_is_refused(keys: TemporaryKeys, fake_respan: FakeRespan, wrong: Any) -> None:
    """A dictionary, say: by its type, and nothing is sent."""
    with pytest.raises(InvalidRequestError, match=f"got {type(wrong).__name__}"):
        await keys.create(wrong)
    with pytest.raises(InvalidRequestError):
        await keys.update("i", wrong)

    assert fake_respan.counts.requests == 0


async def test_a_wrong_field_is_told_before_anything_is_sent(keys: TemporaryKeys, fake_respan: FakeRespan) -> None:
    """By the same names as in a request."""
    with pytest.raises(InvalidRequestError, match="name: expected at most 50 characters, got 51"):
        await keys.create(name="x" * 51)
    with pytest.raises(InvalidRequestError, match="max_usage"):
        await keys.update("i", max_usage=0)

    assert fake_respan.counts.requests == 0


async def test_what_only_the_server_can_know_is_told_in_its_words(keys: TemporaryKeys) -> None:
    """Here: a name may not be blank."""
    with pytest.raises(BadRequestError, match="name: This field may not be blank") as caught:
        await keys.create(name=" ")

    assert (caught.value.status, caught.value.effect, caught.value.attempts) == (400, Effect.NONE, 1)


async def test_a_past_expiry_is_sent_with_a_warning(
    keys: TemporaryKeys, fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture
) -> None:
    """The documentation's own sample has one; the key is dead when it arrives."""
    made = await keys.create(expiry_date=datetime(2020, 1, 1, tzinfo=UTC))

    assert made.expired
    assert [record.levelno for record in caplog.records if "in the past" in record.message] == [logging.WARNING]
    assert fake_respan.counts.created == 1


async def test_a_life_is_counted_from_the_request(keys: TemporaryKeys) -> None:
    """In whole seconds, never shorter than asked."""
    before = datetime.now(UTC)
    made = await keys.create(expires_in=timedelta(hours=1))

    assert made.expiry_date is not None
    assert timedelta(hours=1) <= made.expiry_date - before < timedelta(hours=1, seconds=3)


@pytest.mark.virtual
async def test_a_life_begins_when_its_slot_comes() -> None:
    """After an hour in the queue, a key for an hour still lives for an hour."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=3600)) as respan,
    ):
        keys = on_the_servers_clock(respan, fake)
        await keys.create()
        made = await keys.create(expires_in=timedelta(hours=1))
        waited = fake.now() - next(iter(fake.keys.values())).created

        assert waited >= timedelta(hours=1)
        assert len(fake.alive()) == 2
        assert made.expiry_date is not None
        assert timedelta(minutes=59) < made.expiry_date - fake.now() <= timedelta(hours=1, seconds=1)


@pytest.mark.virtual
async def test_a_life_begins_anew_with_each_attempt() -> None:
    """The second attempt comes a minute later, and so does the end."""
    async with FakeRespan() as fake:
        fake.script("lose_answer_after_create", "refuse:60")
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            await on_the_servers_clock(respan, fake).create(expires_in=timedelta(hours=1))

        lost, made = fake.keys.values()
        assert lost.expiry_date is not None
        assert made.expiry_date is not None
        assert timedelta(seconds=60) <= made.expiry_date - lost.expiry_date < timedelta(seconds=65)


# --------------------------------------------------- retrieve, update, delete


async def test_a_key_is_read_without_its_secret(keys: TemporaryKeys) -> None:
    """A TemporaryKey, equal in everything else."""
    made = await keys.create(name="tenant-42", expires_in=timedelta(days=1))

    read = await keys.retrieve(made.id)

    assert type(read) is TemporaryKey
    assert attrs.asdict(read) == attrs.asdict(made, filter=lambda field, _: field.name != "api_key")


async def test_an_update_changes_what_is_given(keys: TemporaryKeys) -> None:
    """UNSET leaves a field as it is; None clears a limit."""
    made = await keys.create(name="old", rate_limit=100, spending_limit=5, max_usage=3)

    changed = await keys.update(made.id, name="new", rate_limit=None)
    again = await keys.update(made.id, UpdateKeyRequest(expiry_date=SOON, max_usage=-1))

    assert (changed.name, changed.rate_limit, changed.spending_limit, changed.max_usage) == ("new", None, 5, 3)
    assert (again.name, again.rate_limit, again.spending_limit, again.max_usage) == ("new", None, 5, -1)
    assert again.expiry_date == SOON
    assert await keys.retrieve(made.id) == again


async def test_an_update_of_nothing_is_a_mistake(keys: TemporaryKeys, fake_respan: FakeRespan) -> None:
    """It is told, and nothing is sent."""
    with pytest.raises(InvalidRequestError, match="at least one field"):
        await keys.update("i")
    with pytest.raises(InvalidRequestError, match="at least one field"):
        await keys.update("i", UpdateKeyRequest())

    assert fake_respan.counts.requests == 0


async def test_a_deleted_key_is_gone(keys: TemporaryKeys, fake_respan: FakeRespan) -> None:
    """A second DELETE does not find it, unless that is all right."""
    made = await keys.create()

    await keys.delete(made.id)

    assert fake_respan.counts.alive == 0
    for call in (keys.delete(made.id), keys.retrieve(made.id), keys.update(made.id, name="x")):
        with pytest.raises(NotFoundError, match="Not found"):
            await call
    await keys.delete(made.id, missing_ok=True)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_page_for_a_missing_route_does_not_say_that_a_key_is_gone(lost: bool) -> None:
    """Not even where a missing key would be all right, or where the first DELETE may have arrived."""
    page = answer(404, b"<h1>deploying</h1>", headers={"Content-Type": "text/html"})
    async with (
        RawServer(*[RST] * lost, page) as server,
        AsyncRespan("token", base_url=server.url, retry=RetryPolicy(initial=0.001)) as respan,
    ):
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.delete("key-1", missing_ok=True)


IDS = [
    "vcjRcdm8.pbkdf2_sha256$1$a+b/c==",
    "100%",
    "a%2Fb",
    "?page=1#x",
    "schlüssel \U0001f511",
    "a..b",
    "...",
    "a;b,c:d@e!",
]


@pytest.mark.parametrize("key_id", IDS)
async def test_an_id_arrives_as_it_is(key_id: str) -> None:
    """As one segment of the path, whatever it holds."""
    async with RawServer(key()) as server, AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.retrieve(key_id)
        await respan.temporary_keys.update(key_id, name="x")
        await respan.temporary_keys.delete(key_id)

    for seen in server.requests:
        segment = seen.target.removeprefix("/api/temporary-keys/").removesuffix("/")
        assert "/" not in segment
        assert unquote(segment) == key_id


@pytest.mark.parametrize("shape", ["a", "b"])
async def test_ids_of_both_shapes_go_round(shape: Any) -> None:
    """A hundred random ones, with dots, pluses and slashes in shape a."""
    async with FakeRespan(shape=shape) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        keys = respan.temporary_keys
        ids = [(await keys.create()).id for _ in range(100)]
        for key_id in ids:
            assert (await keys.update(key_id, name="x")).id == (await keys.retrieve(key_id)).id == key_id
            await keys.delete(key_id)

        assert (fake.counts.alive, fake.counts.by_status.get(404)) == (0, None)
    assert shape == "b" or any("/" in key_id for key_id in ids)


@pytest.mark.parametrize("key_id", ["", " ", ".", "..", "a/../b", "../temporary-keys", None, 5])
async def test_an_id_that_leads_elsewhere_is_refused(keys: TemporaryKeys, fake_respan: FakeRespan, key_id: Any) -> None:
    """Before anything is sent."""
    for call in (keys.retrieve(key_id), keys.update(key_id, name="x"), keys.delete(key_id, missing_ok=True)):
        with pytest.raises(InvalidRequestError, match="id: expected"):
            await call

    assert fake_respan.counts.requests == 0


# ---------------------------------------------------------------------- list


async def test_a_page_is_awaited(keys: TemporaryKeys, fake_respan: FakeRespan) -> None:
    """The newest first, as many as were asked for, and where it goes on."""
    ids = [(await keys.create()).id for _ in range(5)]

    first = await keys.list(page_size=2)
    last = await keys.list(page=3, page_size=2)

    assert isinstance(first, KeyPage)
    assert [key.id for key in first.results] == ids[:2:-1]
    assert (first.count, first.next_page) == (2, 2)
    assert ([key.id for key in last.results], last.count, last.next_page) == (ids[:1], 1, None)
    assert fake_respan.counts.by_operation["list"] == 2


@pytest.mark.parametrize("list_shape", ["page", "array"])
async def test_every_key_on_every_page_is_iterated_over(list_shape: Any) -> None:
    """Also when the server gives all of them in one bare array."""
    async with (
        FakeRespan(list_shape=list_shape) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
    ):
        ids = [(await respan.temporary_keys.create()).id for _ in range(7)]
        listed = [key.id async for key in respan.temporary_keys.list(page_size=3)]
        requests = fake.counts.by_operation["list"]

    assert listed == ids[::-1]
    assert requests == (3 if list_shape == "page" else 1)


async def test_an_iteration_may_begin_later_and_be_made_twice(keys: TemporaryKeys) -> None:
    """A Listing is a question; each answer is fresh."""
    ids = [(await keys.create()).id for _ in range(5)]
    listing = keys.list(page=2, page_size=2)

    assert [key.id async for key in listing] == ids[2::-1]
    assert [key.id async for key in listing] == ids[2::-1]
    assert len((await listing).results) == 2


async def test_nothing_is_listed_of_nothing(keys: TemporaryKeys) -> None:
    """An empty account has one empty page."""
    assert await keys.list() == KeyPage()
    assert [key async for key in keys.list()] == []


@pytest.mark.parametrize("number", [0, -1, 1.5, "1", True])
async def test_a_page_has_a_number(keys: TemporaryKeys, number: Any) -> None:
    """From 1; told at once, before anything is awaited."""
    with pytest.raises(InvalidRequestError, match=r"^page: expected"):
        keys.list(page=number)
    with pytest.raises(InvalidRequestError, match=r"^page_size: expected"):
        keys.list(page_size=number)


async def test_a_page_past_the_end_is_not_found(keys: TemporaryKeys) -> None:
    """Asked for by number, that is an error."""
    with pytest.raises(NotFoundError, match="Invalid page"):
        await keys.list(page=2)
    with pytest.raises(NotFoundError, match="Invalid page"):
        await anext(aiter(keys.list(page=2)))


async def test_a_page_that_vanishes_meanwhile_is_the_end(keys: TemporaryKeys) -> None:
    """Somebody deletes keys while the list is read: then there is no third page any more."""
    ids = [(await keys.create()).id for _ in range(6)]

    listed = []
    async for found in keys.list(page_size=2):
        listed.append(found.id)
        if len(listed) == 4:
            for key_id in ids[:4]:
                await keys.delete(key_id)

    assert listed == ids[:1:-1]


def pages(following: Callable[[int], object]) -> Act:
    """Serve pages of one key, each with a link of one's own to the next."""

    async def do(connection: Connection, seen: Seen) -> None:
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        data = {"results": [{"id": f"key-{number}"}], "count": 1, "next": following(number)}
        await connection.send(message(200, json.dumps(data).encode()))

    return Act("pages", do)


async def test_a_link_to_another_host_is_not_followed() -> None:
    """Its number is taken, and the token stays where it belongs."""
    async with RawServer(key()) as elsewhere:
        act = pages(lambda number: f"{elsewhere.url}/api/temporary-keys/?page={number + 1}" if number < 3 else None)
        async with RawServer(act) as server, AsyncRespan("token", base_url=server.url) as respan:
            listed = [found.id async for found in respan.temporary_keys.list()]

        assert listed == ["key-1", "key-2", "key-3"]
        assert len(server.requests) == 3
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "following", [lambda number: number, lambda number: max(number - 1, 1), lambda _: 0, lambda _: 1]
)
async def test_pages_that_go_in_circles_are_told(following: Callable[[int], int]) -> None:
    """A page that names itself, or one before it, as the next: InvalidResponseError, and no endless loop."""
    act = pages(lambda number: f"?page={following(number) if number > 1 else 2}")
    async with RawServer(act) as server, AsyncRespan("token", base_url=server.url) as respan:
        listed = []
        with pytest.raises(InvalidResponseError, match="page 2 of the list names page"):  # noqa: PT012
            async for found in respan.temporary_keys.list():
                listed.append(found.id)  # noqa: PERF401  a comprehension would lose what came before the error

    assert listed == ["key-1", "key-2"]
    assert len(server.requests) == 2


async def test_pages_without_an_end_have_one() -> None:
    """After ten thousand."""
    read: list[str] = []

    class Endless:
        context = SimpleNamespace(pacer=Pacer(LocalWindow(None), 1))

        async def send(self, request: Request[KeyPage], _: Priority = Priority.INTERACTIVE) -> KeyPage:
            read.append(request.path)
            return KeyPage(next_page=len(read) + 1)

    with pytest.raises(InvalidResponseError, match="page 10000 of the list"):
        _ = [key async for key in Listing(cast("CallService", Endless()), 1, None)]

    assert len(set(read)) == 10_000


async def test_a_list_that_fails_in_the_middle_is_told() -> None:
    """What was read before has been given already."""
    script = (pages(lambda _: "?page=2"), answer(403, {"detail": "no"}))
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url) as respan:
        listing = aiter(respan.temporary_keys.list())
        assert (await anext(listing)).id == "key-1"
        with pytest.raises(Exception, match="403: no"):
            await anext(listing)


# ------------------------------------------------------------------ with_options


@pytest.mark.virtual
async def test_a_view_shares_the_pace() -> None:
    """What one of them uses up, the others wait for."""
    loop = asyncio.get_running_loop()
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=60)) as respan,
    ):
        view = respan.with_options(timeout=5)
        began = loop.time()
        await respan.temporary_keys.create()
        await view.temporary_keys.create()
        await respan.temporary_keys.create()

        assert 120 <= loop.time() - began < 121
        assert view.pace == respan.pace
        assert fake.counts.connections <= 3


async def test_closing_a_view_closes_nothing(fake_respan: FakeRespan) -> None:
    """Neither by aclose() nor by leaving it."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        async with respan.with_options(deadline=5) as view:
            await view.temporary_keys.create()
        await view.aclose()

        await view.temporary_keys.create()
        await respan.temporary_keys.create()

    assert fake_respan.counts.created == 3
    assert fake_respan.counts.connections == 1


async def test_a_view_changes_only_what_is_named() -> None:
    """And a view of a view keeps the rest."""
    async with RawServer(answer(500), answer(500), key()) as server:
        slow = RetryPolicy(max_attempts=1)
        async with AsyncRespan("token", base_url=server.url, retry=slow) as respan:
            quick = respan.with_options(retry=RetryPolicy(max_attempts=3, initial=0.001))
            await quick.with_options(extra_headers={"X-Team": "blue"}).temporary_keys.create()

    assert len(server.requests) == 3
    assert all(seen.headers["x-team"] == "blue" for seen in server.requests)


# --------------------------------------------------------------------- deadlines


@pytest.fixture
async def slow() -> AsyncIterator[FakeRespan]:
    """Run a server that takes ten seconds for everything."""
    async with FakeRespan(latency=10) as fake:
        yield fake


@pytest.mark.virtual
@pytest.mark.parametrize("verb", ["create", "list", "retrieve", "update", "delete"])
async def test_a_deadline_that_cannot_be_met_is_told_at_once(verb: str) -> None:
    """It says when a slot would come, and takes none."""
    loop = asyncio.get_running_loop()
    async with FakeRespan() as fake:
        async with AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=60)) as respan:
            await respan.temporary_keys.create()
            used, began = respan.pace.used, loop.time()
            view = respan.with_options(deadline=30).temporary_keys
            calls: dict[str, Callable[[], Any]] = {
                "create": view.create,
                "list": view.list,
                "retrieve": lambda: view.retrieve("i"),
                "update": lambda: view.update("i", name="x"),
                "delete": lambda: view.delete("i"),
            }
            with pytest.raises(DeadlineExceededError, match=f"{verb}: .*no room for 60.0 s") as caught:
                await calls[verb]()

            assert loop.time() == began
            assert respan.pace.used == used
            assert fake.counts.requests == 1
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.effect, error.attempts, error.suspects) == (Effect.NONE, 0, ())
        assert error.retry_at is not None
        assert abs(error.retry_at - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=5)


@pytest.mark.virtual
async def test_a_slot_that_no_calendar_has_a_day_for_has_no_time() -> None:
    """It would come after the year 9999, behind all those who wait."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=31_536_000_000)) as respan,
    ):
        await respan.temporary_keys.create()
        waiting = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(10)]
        await asyncio.sleep(1)
        with pytest.raises(DeadlineExceededError, match="no room for") as caught:
            await respan.with_options(deadline=30).temporary_keys.create()

        assert caught.value.retry_at is None
        for call in waiting:
            call.cancel()


@pytest.mark.virtual
async def test_a_deadline_that_can_be_met_is_met() -> None:
    """The same call with a minute and a bit waits for its slot."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(1, per=60)) as respan,
    ):
        await respan.temporary_keys.create()
        await respan.with_options(deadline=61).temporary_keys.create()

        assert fake.counts.created == 2


@pytest.mark.virtual
async def test_a_deadline_counts_the_waiting_between_attempts() -> None:
    """A server that asks for a minute, and half a minute left: told at once, with what was found out."""
    loop = asyncio.get_running_loop()
    async with FakeRespan() as fake:
        fake.script("lose_answer_after_create", "refuse:60")
        began = loop.time()
        async with AsyncRespan(fake.api_key, base_url=fake.url, deadline=30) as respan:
            with pytest.raises(DeadlineExceededError) as caught:
                await respan.temporary_keys.create()

        assert loop.time() - began < 5
        assert (caught.value.effect, caught.value.attempts, len(caught.value.suspects)) == (Effect.UNKNOWN, 2, 1)
        assert caught.value.retry_at is not None


def last_answer(error: RespanError) -> tuple[int | None, str | None, str | None]:
    """What an error says of the last answer."""
    return error.status, error.body, error.request_id


@pytest.mark.virtual
async def test_a_deadline_between_attempts_tells_the_last_answer() -> None:
    """Why the call was not done in time: the server's status, body and request id, also where it broke off since."""
    down = answer(503, {"detail": "Down."}, {"Retry-After": "60", "X-Request-ID": "r-1"})
    async with RawServer(down) as server, AsyncRespan("token", base_url=server.url, deadline=30) as respan:
        with pytest.raises(DeadlineExceededError, match="deadline of 30 s; the last answer was 503") as caught:
            await respan.temporary_keys.create()

    assert last_answer(caught.value) == (503, '{"detail": "Down."}', "r-1")
    assert len(server.requests) == caught.value.attempts == 1


@pytest.mark.virtual
async def test_a_deadline_in_the_air_tells_the_answer_before() -> None:
    """A 503, an attempt that is reset, and one that nobody answers; an attempt without an answer hides none."""
    down = answer(503, {"detail": "Down."}, {"X-Request-ID": "r-1"})
    async with RawServer(down, FIN, STALL) as server, AsyncRespan("token", base_url=server.url, deadline=10) as respan:
        with pytest.raises(
            DeadlineExceededError, match=r"no answer from .* within .* 10 s; the last answer was 503"
        ) as caught:
            await respan.temporary_keys.create()

    assert last_answer(caught.value) == (503, '{"detail": "Down."}', "r-1")
    assert len(server.requests) == caught.value.attempts == 3


@pytest.mark.virtual
async def test_a_deadline_before_any_answer_tells_none() -> None:
    """There was none."""
    async with RawServer(FIN, STALL) as server, AsyncRespan("token", base_url=server.url, deadline=10) as respan:
        with pytest.raises(
            DeadlineExceededError, match=r"deadline of 10 s; the last attempt failed: .* closed"
        ) as caught:
            await respan.temporary_keys.create()

    assert last_answer(caught.value) == (None, None, None)
    assert len(server.requests) == 2


@pytest.mark.virtual
async def test_a_key_that_arrives_after_the_deadline_is_revoked(slow: FakeRespan) -> None:
    """The caller is told at once that something may have been made; then it is unmade."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with AsyncRespan(slow.api_key, base_url=slow.url, deadline=7) as respan:
        with pytest.raises(
            DeadlineExceededError, match=r"no answer from 127\.0\.0\.1:\d+ within the deadline of 7 s"
        ) as caught:
            await respan.temporary_keys.create(name="late")

        assert loop.time() - began == pytest.approx(7)
        assert slow.counts.alive == 1
        await asyncio.sleep(20)
        assert (slow.counts.created, slow.counts.alive) == (1, 0)
        assert respan.suspects == ()
    assert (caught.value.effect, caught.value.attempts, caught.value.retryable) == (Effect.UNKNOWN, 1, True)


@pytest.mark.virtual
async def test_a_key_that_arrives_while_closing_is_revoked_before_the_end(slow: FakeRespan) -> None:
    """aclose() waits for it, within its grace."""
    async with AsyncRespan(slow.api_key, base_url=slow.url, deadline=7) as respan:
        with pytest.raises(DeadlineExceededError):
            await respan.temporary_keys.create()
        await respan.aclose(grace=30)

    assert (slow.counts.created, slow.counts.alive) == (1, 0)


@pytest.mark.virtual
async def test_an_attempt_that_the_deadline_overtook_is_not_repeated() -> None:
    """It fails in the end: nobody waits for another."""
    async with FakeRespan(latency=10) as fake:
        fake.script("reset")
        async with AsyncRespan(fake.api_key, base_url=fake.url, deadline=7) as respan:
            with pytest.raises(DeadlineExceededError):
                await respan.temporary_keys.create()
            await asyncio.sleep(60)

            assert fake.counts.by_operation == {"create": 1}
            assert [suspect.effect for suspect in respan.suspects] == [Effect.UNKNOWN]


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("verb", "effect"), [("retrieve", Effect.NONE), ("update", Effect.UNKNOWN), ("delete", Effect.UNKNOWN)]
)
async def test_a_deadline_of_another_call(slow: FakeRespan, verb: str, effect: Effect) -> None:
    """A read changes nothing; a change may have been made."""
    async with AsyncRespan(slow.api_key, base_url=slow.url) as respan:
        made = await respan.temporary_keys.create()
        view = respan.with_options(deadline=7).temporary_keys
        calls: dict[str, Callable[[], Any]] = {
            "retrieve": lambda: view.retrieve(made.id),
            "update": lambda: view.update(made.id, name="x"),
            "delete": lambda: view.delete(made.id),
        }
        with pytest.raises(DeadlineExceededError) as caught:
            await calls[verb]()

    assert (caught.value.effect, caught.value.suspects) == (effect, ())


async def test_a_deadline_while_connecting_means_that_nothing_was_made() -> None:
    """No byte has left: there is nothing to revoke and nobody to suspect."""
    reading = Act("never", lambda connection, _: connection.reader.read(), unread=True)  # type: ignore[arg-type,return-value]
    async with RawServer(reading) as server:
        url = server.url.replace("http:", "https:")
        async with AsyncRespan("token", base_url=url, deadline=0.02) as respan:
            with pytest.raises(DeadlineExceededError) as caught:
                await respan.temporary_keys.create()

            assert (caught.value.effect, respan.suspects) == (Effect.NONE, ())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert respan.pace.in_flight == 0


@pytest.mark.virtual
async def test_a_deadline_passes_in_the_queue() -> None:
    """Nothing says beforehand how long the one place in the air is taken; nothing is sent when it is too late."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url, max_in_flight=1) as respan:
        fake.script("stall")
        patient = respan.with_options(timeout=20, retry=RetryPolicy(max_attempts=1))
        first = asyncio.ensure_future(patient.temporary_keys.create())
        await asyncio.sleep(1)
        with pytest.raises(DeadlineExceededError) as caught:
            await respan.with_options(deadline=5).temporary_keys.create()
        with pytest.raises(APITimeoutError):
            await first

        assert (caught.value.effect, caught.value.attempts) == (Effect.NONE, 0)
        assert fake.counts.requests == 1
