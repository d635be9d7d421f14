"""The server's id of a request is on what its answer became, for whoever talks to the server's support."""

from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, CreateKeyRequest, InvalidResponseError, Issued, KeyPage, RetryPolicy, TemporaryKey
from respan_async.events import AttemptEvent
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.issuing.jsonlines_sink import line_of
from tests.integration.raw_server import API_KEY, Act, RawServer, answer

UUID = "3f0c9a7e-1b2c-4d5e-8f90-a1b2c3d4e5f6"
KEY = {"id": "key-1", "name": "tenant-42"}


def told(status: int, payload: Any, request_id: str = UUID) -> Act:
    """Answer with a request id."""
    return answer(status, payload, {"X-Request-ID": request_id})


async def test_every_result_carries_the_id_of_its_request() -> None:
    """A new key, one that was read or changed, a page, and each key on it."""
    page = {"results": [KEY, {**KEY, "id": "key-2"}], "count": 2, "next": None}
    script = (
        told(201, {**KEY, "api_key": API_KEY}, "r-1"),
        told(200, KEY, "r-2"),
        told(200, KEY, "r-3"),
        told(200, None, "r-4"),
        told(200, page, "r-5"),
        told(200, page["results"], "r-6"),
    )
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url) as respan:
        keys = respan.temporary_keys
        one_each = [await keys.create(), await keys.retrieve("key-1")]
        one_each += [await keys.update("key-1", name="x"), await keys.update("key-1", name="y")]
        pages = [await keys.list(), await keys.list()]

    assert [result.request_id for result in one_each] == ["r-1", "r-2", "r-3", "r-4"]
    assert [page.request_id for page in pages] == ["r-5", "r-6"]
    assert [key.request_id for page in pages for key in page.results] == ["r-5"] * 2 + ["r-6"] * 2


async def test_keys_of_several_pages_carry_that_of_their_own() -> None:
    """So who iterates knows it too, without a page in hand."""
    first = {"results": [KEY], "count": 1, "next": "https://elsewhere.example/?page=2"}
    second = {"results": [{**KEY, "id": "key-2"}], "count": 1, "next": None}
    async with (
        RawServer(told(200, first, "r-1"), told(200, second, "r-2")) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        read = [(key.id, key.request_id) async for key in respan.temporary_keys.list()]

    assert read == [("key-1", "r-1"), ("key-2", "r-2")]


async def test_outcomes_of_a_batch_carry_it() -> None:
    """On their keys."""
    made = (told(201, {"id": f"key-{n}", "api_key": API_KEY}, f"r-{n}") for n in range(3))
    async with RawServer(*made) as server, AsyncRespan("token", base_url=server.url) as respan:
        outcomes = await respan.temporary_keys.create_many([CreateKeyRequest()] * 3, max_in_flight=1)

    assert [outcome.key.request_id for outcome in outcomes if isinstance(outcome, Issued)] == ["r-0", "r-1", "r-2"]


async def test_an_answer_without_it_leaves_it_open(respan: AsyncRespan) -> None:
    """None, and no empty text."""
    key = await respan.temporary_keys.create()
    page = await respan.temporary_keys.list()

    assert key.request_id is page.request_id is page.results[0].request_id is None


def test_it_is_no_part_of_what_a_key_or_a_page_is() -> None:
    """Two answers that say the same are equal, print alike, and are alike in a file of keys."""
    for one, other in (
        (TemporaryKey(id="key-1", request_id="r-1"), TemporaryKey(id="key-1", request_id="r-2")),
        (KeyPage(request_id="r-1"), KeyPage(request_id="r-2")),
    ):
        assert one == other
        assert repr(one) == repr(other)
    assert b"request_id" not in line_of(TemporaryKey(id="key-1", request_id="r-1"))


async def test_hooks_are_told_it_also_of_a_request_that_gives_nothing_back() -> None:
    """A delete has no result to carry it; nor has what a sweep does."""
    heard: list[Any] = []
    script = (
        told(201, {**KEY, "api_key": API_KEY}, "r-1"),
        told(204, None, "r-2"),
        told(404, {"detail": "No."}, "r-3"),
    )
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url, hooks=[heard.append]) as respan:
        await respan.temporary_keys.create()
        await respan.temporary_keys.delete("key-1")
        await respan.temporary_keys.delete("key-1", missing_ok=True)

    assert [event.request_id for event in heard if isinstance(event, AttemptEvent)] == ["r-1", "r-2", "r-3"]


@pytest.mark.parametrize("request_id", [UUID, "req_0123456789", "r" * 40, "a/b c"])
async def test_it_comes_as_the_server_wrote_it(request_id: str) -> None:
    """Whatever form it has, as long as it holds no secret."""
    async with (
        RawServer(told(201, {**KEY, "api_key": API_KEY}, request_id)) as server,
        AsyncRespan("token-of-an-organisation", base_url=server.url) as respan,
    ):
        assert (await respan.temporary_keys.create()).request_id == request_id


@pytest.mark.parametrize("secret", ["0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d", "bearer+token/1234", "abc%41defghijklmnop"])
async def test_a_secret_in_it_is_not_shown(secret: str) -> None:
    """Neither the token nor that of the key which was just made, whole or in part, also in the form of a UUID."""
    for made, api_key, echoed in (
        ("another", secret, secret),
        (secret, API_KEY, secret),
        (secret, API_KEY, secret[:13]),
    ):
        async with (
            RawServer(told(201, {**KEY, "api_key": api_key}, echoed)) as server,
            AsyncRespan(made, base_url=server.url, retry=RetryPolicy(max_attempts=1)) as respan,
        ):
            key = await respan.temporary_keys.create()

        assert key.request_id == "***"
        assert secret[:13] not in str(attrs.asdict(key))


async def test_a_key_that_arrives_dead_is_told_with_it() -> None:
    """It is an error of this client's own, about an answer all the same."""
    dead = {**KEY, "api_key": API_KEY, "created": "2030-01-02T00:00:00Z", "expiry_date": "2030-01-01T00:00:00Z"}
    headers = {"X-Request-ID": "r-1", "Date": "Wed, 02 Jan 2030 00:00:00 GMT"}
    async with (
        RawServer(answer(201, dead, headers)) as server,
        AsyncRespan("token", base_url=server.url, retry=RetryPolicy(max_attempts=1)) as respan,
    ):
        with pytest.raises(InvalidResponseError, match="arrived dead") as caught:
            await respan.temporary_keys.create(expiry_date="2030-01-01T00:00:00Z")

    assert (caught.value.status, caught.value.request_id) == (201, "r-1")


async def test_a_key_out_of_a_ledger_has_none() -> None:
    """No request was made for it now."""
    ticket = Ticket("tenant-42", CreateKeyRequest())
    async with (
        RawServer(told(201, {**KEY, "api_key": API_KEY}, "r-1")) as server,
        AsyncRespan("token", base_url=server.url) as respan,
        Issuer(respan, SQLiteLedger(":memory:")) as issuer,
    ):
        issued, replayed = await issuer.issue(ticket), await issuer.issue(ticket)

    assert (issued.key.request_id, replayed.replayed, replayed.key.request_id) == ("r-1", True, None)
    assert issued.key == replayed.key
