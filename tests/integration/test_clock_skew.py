"""A machine whose clock is wrong: keys live as long as they should by the server's clock, which is what counts."""

import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from respan_async import AsyncRespan, CreateKeyRequest, Effect, InvalidResponseError, Issued, RetryPolicy
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan
from tests.integration.raw_server import API_KEY, RawServer, answer

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


@asynccontextmanager
async def world(ahead: timedelta, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server whose clock is ahead of this machine's, and a client."""
    async with FakeRespan(latency=0.01) as fake:
        fake._epoch += ahead
        async with AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan:
            yield fake, respan


def skew_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what the log says of the clock."""
    return [message for message in caplog.messages if "this machine's clock" in message]


@pytest.mark.parametrize("ahead", [2 * HOUR, -2 * HOUR, timedelta(days=400), 10 * SECOND])
async def test_lifetimes_are_counted_from_the_servers_clock(ahead: timedelta, caplog: pytest.LogCaptureFixture) -> None:
    """From the first answer on; the log says once by how much the clocks differ.

    A list says it as well, but for a clock that is fast, which only a key's own time proves.
    """
    async with world(ahead) as (fake, respan):
        await respan.temporary_keys.list()
        if ahead < timedelta(0):
            first = await respan.temporary_keys.create(expires_in=HOUR)
            assert first.created_at is not None
            assert first.expiry_date is not None
            assert abs(first.expiry_date - first.created_at - HOUR + ahead) < 3 * SECOND
            await respan.temporary_keys.delete(first.id)
        keys = [await respan.temporary_keys.create(expires_in=HOUR) for _ in range(3)]

        for key in keys:
            assert key.created_at is not None
            assert key.expiry_date is not None
            assert abs(key.expiry_date - key.created_at - HOUR) < 3 * SECOND
        assert fake.counts.alive == 3
    (told,) = skew_told(caplog)
    (seconds,) = map(int, re.findall(r"clock is (\d+) s", told))
    assert abs(seconds - abs(ahead.total_seconds())) <= 1  # a `Date` has whole seconds
    assert ("behind" in told) is (ahead > timedelta(0))


async def test_an_old_answer_without_a_date_says_nothing_of_this_clock(caplog: pytest.LogCaptureFixture) -> None:
    """As a canned one has none, and one out of a cache may: its key was made long ago, for whoever asked then."""
    canned = answer(201, {"id": "key-1", "api_key": API_KEY, "created": "2025-03-16T01:19:18Z"})
    async with RawServer(canned) as server, AsyncRespan("token", base_url=server.url) as respan:
        for _ in range(3):
            await respan.temporary_keys.create(expires_in=HOUR)

    assert skew_told(caplog) == []
    for request in server.requests:
        assert datetime.fromisoformat(request.json["expiry_date"]) > datetime.now(UTC)


async def test_a_key_that_is_dead_on_arrival_tells_what_the_answer_told(caplog: pytest.LogCaptureFixture) -> None:
    """The request's id and the body, for whoever talks to support."""
    made = datetime.now(UTC) + 2 * HOUR
    body = {"id": "key-1", "api_key": API_KEY, "created": made.isoformat()}
    act = answer(201, body, {"Date": format_datetime(made, usegmt=True), "X-Request-ID": "req-77"})
    async with RawServer(act) as server, AsyncRespan("token", base_url=server.url) as respan:
        with pytest.raises(InvalidResponseError, match="arrived dead") as caught:
            await respan.temporary_keys.create(expiry_date=datetime.now(UTC) + HOUR)

    assert (caught.value.status, caught.value.request_id) == (201, "req-77")
    assert "key-1" in (caught.value.body or "")
    assert API_KEY not in (caught.value.body or "")


@pytest.mark.parametrize("ahead", [timedelta(0), 3 * SECOND, -3 * SECOND])
async def test_a_difference_of_a_few_seconds_is_none(ahead: timedelta, caplog: pytest.LogCaptureFixture) -> None:
    """It is no more than what an answer takes."""
    async with world(ahead) as (fake, respan):
        await respan.temporary_keys.list()
        before = datetime.now(UTC)
        await respan.temporary_keys.create(expires_in=HOUR)
        (record,) = fake.keys.values()

        assert record.body["expiry_date"] is not None
        ends = datetime.fromisoformat(str(record.body["expiry_date"]))
        assert timedelta(0) <= ends - before - HOUR < 2 * SECOND
        assert respan._service.context.skew.ahead == timedelta(0)
    assert skew_told(caplog) == []


async def test_the_first_key_of_a_slow_clock_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """It was dead when it was made, which its answer shows; the second lives as long as it should."""
    async with world(2 * HOUR) as (fake, respan):
        key = await respan.temporary_keys.create(expires_in=HOUR)

        assert [record.id for record in fake.alive()] == [key.id]
        assert (fake.counts.created, respan.suspects) == (2, ())
    assert len(skew_told(caplog)) == 1


async def test_a_batch_on_a_slow_clock_hands_out_living_keys() -> None:
    """Only those that were in the air before the first answer are made again."""
    async with world(2 * HOUR) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many([CreateKeyRequest(expires_in=HOUR)] * 50)

        assert {outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)} == {it.id for it in fake.alive()}
        assert fake.counts.alive == 50
        assert fake.counts.created < 60


async def test_an_issuer_on_a_slow_clock_records_living_keys() -> None:
    """The attempt that made a dead one has left nothing."""
    async with world(2 * HOUR) as (fake, respan), Issuer(respan, SQLiteLedger(":memory:")) as issuer:
        issued = await issuer.issue(Ticket("t", CreateKeyRequest(expires_in=HOUR)))

        assert [record.id for record in fake.alive()] == [issued.key.id]
        assert await issuer._ledger.suspects() == []


async def test_a_key_that_arrives_dead_is_not_handed_out() -> None:
    """Where no other attempt is allowed: the error says why, and that nothing is left."""
    async with world(2 * HOUR, retry=RetryPolicy(max_attempts=1)) as (_, respan):
        with pytest.raises(InvalidResponseError, match="the key arrived dead: it was made at") as caught:
            await respan.temporary_keys.create(expires_in=HOUR)

        assert (caught.value.effect, caught.value.retryable, caught.value.status) == (Effect.NONE, True, 201)
        assert "this machine's clock is 72" in str(caught.value)
        assert respan.suspects == ()


async def test_a_date_that_was_given_is_never_changed() -> None:
    """In an hour, by a clock that is two hours slow: it is sent as it is, and its key is dead, which is told."""
    async with world(2 * HOUR) as (fake, respan):
        ends = datetime.now(UTC) + HOUR
        for number in (1, 2):
            with pytest.raises(InvalidResponseError, match="the key arrived dead") as caught:
                await respan.temporary_keys.create(expiry_date=ends)

            assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, False)
            assert fake.counts.created == number
        assert {str(record.body["expiry_date"])[:19] for record in fake.keys.values()} == {f"{ends:%Y-%m-%dT%H:%M:%S}"}


async def test_a_date_in_the_past_is_what_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """It only warns: the documentation's own sample has one."""
    async with world(timedelta(0)) as (_, respan):
        with caplog.at_level(logging.WARNING):
            key = await respan.temporary_keys.create(expiry_date=datetime.now(UTC) - HOUR)

        assert key.expired
    assert "is in the past" in caplog.text


# -------------------------------------------------------- answers that disagree


def made(now: datetime, created: datetime | None, ends: str | None, **headers: str) -> Any:
    """Answer a create with these dates."""
    shown = {"id": "key-1", "api_key": API_KEY, "created": created and created.isoformat(), "expiry_date": ends}
    return answer(201, json.dumps(shown).encode(), {"Date": f"{now:%a, %d %b %Y %H:%M:%S} GMT", **headers})


@asynccontextmanager
async def raw_world(act: Any) -> AsyncIterator[tuple[RawServer, AsyncRespan]]:
    """Run a server that answers as it is told, and a client."""
    async with RawServer(act) as server, AsyncRespan("token", base_url=server.url) as respan:
        yield server, respan


async def test_a_date_of_creation_that_the_answers_own_date_contradicts_kills_no_key() -> None:
    """A server that shows local time without a zone: its `Date` is right, and so the key lives."""
    now = datetime.now(UTC)
    async with raw_world(made(now, now + 2 * HOUR, None)) as (server, respan):
        assert (await respan.temporary_keys.create(expires_in=HOUR)).id == "key-1"
        assert len(server.requests) == 1


async def test_a_later_expiry_than_the_one_that_was_sent_is_believed() -> None:
    """The server counts lifetimes from its own clock, say."""
    now = datetime.now(UTC) + 2 * HOUR
    async with raw_world(made(now, now, (now + HOUR).isoformat())) as (server, respan):
        assert (await respan.temporary_keys.create(expires_in=HOUR)).id == "key-1"
        assert len(server.requests) == 1


@pytest.mark.parametrize("shown", ["2020-01-01", "2020-01-01T00:00:00Z"])
async def test_an_expiry_that_is_shown_cut_kills_no_key(shown: str) -> None:
    """What was sent counts as well: a key is dead where everything says so."""
    now = datetime.now(UTC)
    async with raw_world(made(now, now, shown)) as (server, respan):
        assert (await respan.temporary_keys.create(expires_in=HOUR)).id == "key-1"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Thu, 01 Jun 9999 00:00:00 GMT"]
)
async def test_a_date_that_is_no_time_of_this_world_is_none(date: str) -> None:
    """No key is lost to it, and no lifetime is counted from it."""
    shown = {"id": "key-1", "api_key": API_KEY, "created": datetime.now(UTC).isoformat()}
    script = (answer(201, shown, {"Date": date}), answer(200, {"results": []}, {"Date": date}))
    async with (
        RawServer(*script, answer(201, shown, {"Date": date})) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        assert (await respan.temporary_keys.create()).id == "key-1"
        await respan.temporary_keys.list()
        await respan.temporary_keys.create(expires_in=HOUR)

        assert respan._service.context.skew.ahead == timedelta(0)
    ends = datetime.fromisoformat(json.loads(server.requests[-1].body)["expiry_date"])
    assert abs(ends - datetime.now(UTC) - HOUR) < 5 * SECOND


async def test_a_proxys_wrong_clock_makes_no_key_dead(caplog: pytest.LogCaptureFixture) -> None:
    """What the API itself says of when the key was made agrees with this machine's clock."""
    wrong = {"Date": format_datetime(datetime.now(UTC) - 2 * HOUR, usegmt=True)}
    shown = {"id": "key-1", "api_key": API_KEY, "created": datetime.now(UTC).isoformat()}
    async with RawServer(answer(201, shown, wrong)) as server, AsyncRespan("token", base_url=server.url) as respan:
        for _ in range(2):
            await respan.temporary_keys.create(expires_in=HOUR)

    for seen in server.requests:
        ends = datetime.fromisoformat(json.loads(seen.body)["expiry_date"])
        assert abs(ends - datetime.now(UTC) - HOUR) < 5 * SECOND
    assert skew_told(caplog) == []


async def test_a_date_that_a_key_has_shown_to_be_wrong_is_not_believed_of_a_list() -> None:
    """A fast proxy's lists do not make the next key live for longer."""
    wrong = {"Date": format_datetime(datetime.now(UTC) + 2 * HOUR, usegmt=True)}
    shown = {"id": "key-1", "api_key": API_KEY, "created": datetime.now(UTC).isoformat()}
    script = (answer(201, shown, wrong), answer(200, {"results": []}, wrong), answer(201, shown, wrong))
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.create(expires_in=HOUR)
        await respan.temporary_keys.list()
        await respan.temporary_keys.create(expires_in=HOUR)

    ends = datetime.fromisoformat(json.loads(server.requests[-1].body)["expiry_date"])
    assert abs(ends - datetime.now(UTC) - HOUR) < 5 * SECOND


async def test_a_key_whose_time_of_creation_is_none_is_handed_out() -> None:
    """What says nothing sensible proves nothing."""
    shown = {"id": "key-1", "api_key": API_KEY, "created": "9999-12-31T00:00:00Z"}
    absurd = {"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}
    async with RawServer(answer(201, shown, absurd)) as server, AsyncRespan("token", base_url=server.url) as respan:
        assert (await respan.temporary_keys.create(expires_in=HOUR)).id == "key-1"


@pytest.mark.parametrize("created", [None, 0, 3], ids=["no time of creation", "the right one", "another wrong one"])
async def test_a_date_in_the_past_makes_no_key_die_early(created: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """A list may be an old one out of a cache that does not say so, and a gateway's clock may be slow."""
    now = datetime.now(UTC)
    wrong = {"Date": format_datetime(now - 5 * HOUR, usegmt=True)}
    shown: dict[str, Any] = {"id": "key-1", "api_key": API_KEY}
    if created is not None:
        shown["created"] = (now - created * HOUR).isoformat()
    script = (answer(200, {"results": []}, wrong), answer(201, shown, wrong))
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.list()
        for _ in range(2):
            await respan.temporary_keys.create(expires_in=HOUR)

    assert server.methods == ["GET", "POST", "POST"]
    for seen in server.requests[1:]:
        ends = datetime.fromisoformat(json.loads(seen.body)["expiry_date"])
        assert abs(ends - datetime.now(UTC) - HOUR) < 5 * SECOND
    assert skew_told(caplog) == []


async def test_an_old_list_does_not_take_back_what_is_known_of_the_servers_clock() -> None:
    """The answer to a change does: no cache gives it."""
    now = datetime.now(UTC)
    late, right = ({"Date": format_datetime(now + hours * HOUR, usegmt=True)} for hours in (2, 0))
    script = (answer(200, {"results": []}, late), answer(200, {"results": []}, right), answer(204, None, right))
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url) as respan:
        skew = respan._service.context.skew
        for _ in range(2):
            await respan.temporary_keys.list()
            assert abs(skew.ahead - 2 * HOUR) < 5 * SECOND
        await respan.temporary_keys.delete("key-1")
        assert skew.ahead == timedelta(0)


async def test_a_gateways_own_clock_is_not_the_apis() -> None:
    """Its page says nothing of when a key dies."""
    wrong = {"Date": format_datetime(datetime.now(UTC) - 2 * HOUR, usegmt=True)}
    shown = {"id": "key-1", "api_key": API_KEY}
    script = (answer(502, "<html>Bad Gateway</html>", wrong), answer(201, shown))
    async with (
        RawServer(*script) as server,
        AsyncRespan("token", base_url=server.url, retry=RetryPolicy(initial=0.01)) as respan,
    ):
        await respan.temporary_keys.create(expires_in=HOUR)

    ends = datetime.fromisoformat(json.loads(server.requests[-1].body)["expiry_date"])
    assert abs(ends - datetime.now(UTC) - HOUR) < 5 * SECOND


async def test_a_cached_answer_tells_no_time() -> None:
    """Its `Date` is that of the answer in the cache."""
    old = datetime.now(UTC) - 2 * HOUR
    async with raw_world(answer(200, b"[]", {"Date": f"{old:%a, %d %b %Y %H:%M:%S} GMT", "Age": "7200"})) as (
        _,
        respan,
    ):
        await respan.temporary_keys.list()

        assert respan._service.context.skew.ahead == timedelta(0)


@pytest.mark.parametrize("date", ["", "soon", "Thu, 99 Foo 2026 00:00:00 GMT"])
async def test_an_answer_without_a_date_is_judged_by_its_key(date: str) -> None:
    """By when that was made."""
    there = datetime.now(UTC) + 2 * HOUR
    async with raw_world(made(there, there, None, Date=date)) as (server, respan):
        with pytest.raises(InvalidResponseError, match="arrived dead"):
            await respan.temporary_keys.create(expiry_date=datetime.now(UTC) + HOUR)
        assert abs(respan._service.context.skew.ahead - 2 * HOUR) < 3 * SECOND
        assert len(server.requests) == 1
