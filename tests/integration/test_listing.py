"""Lists of keys that change, or break off, while they are read."""

import json

import pytest

from respan_async import AsyncRespan, NotFoundError, TemporaryKeys
from respan_async.testing import FakeRespan
from tests.integration.raw_server import Act, Connection, RawServer, Seen, answer, message


@pytest.fixture
def keys(respan: AsyncRespan) -> TemporaryKeys:
    """The operations of a client of the fake server."""
    return respan.temporary_keys


def pages_then(third: Act) -> Act:
    """Serve two pages of one key each, and whatever comes as the third."""

    async def do(connection: Connection, seen: Seen) -> None:
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        if number == 3:
            await third.do(connection, seen)
        else:
            page = {"results": [{"id": f"key-{number}"}], "count": 1, "next": f"?page={number + 1}"}
            await connection.send(message(200, json.dumps(page).encode()))

    return Act("pages", do)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>404 Not Found</h1></html>",
        b"",
        b'{"detail": "Not found."}',
        b'"Invalid page."',
        b'{"message": "Invalid page."}',
        b"Invalid page.",
    ],
    ids=repr,
)
async def test_a_404_in_the_middle_that_is_not_about_the_page_is_told(body: bytes) -> None:
    """A missing route, as during a deployment, must not make half a list look complete."""
    listed = []
    async with (
        RawServer(pages_then(answer(404, body))) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        with pytest.raises(NotFoundError):  # noqa: PT012
            async for key in respan.temporary_keys.list():
                listed.append(key.id)  # noqa: PERF401  a comprehension would lose what came before the error
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.list().all()

    assert listed == ["key-1", "key-2"]


@pytest.mark.parametrize("detail", ["Invalid page.", "Invalid page (3): That page contains no results."])
async def test_a_page_past_the_end_ends_the_list(detail: str) -> None:
    """In the words of Django REST Framework, its own or an application's."""
    async with (
        RawServer(pages_then(answer(404, {"detail": detail}))) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        assert [key.id for key in await respan.temporary_keys.list().all()] == ["key-1", "key-2"]


async def test_an_empty_link_to_the_next_page_is_none(respan: AsyncRespan) -> None:
    """As some serializers write null."""
    last = answer(200, {"results": [{"id": "key-1"}], "count": 1, "next": ""})
    async with RawServer(last) as server, AsyncRespan("token", base_url=server.url) as client:
        assert [key.id async for key in client.temporary_keys.list()] == ["key-1"]
        assert (await client.temporary_keys.list()).next_page is None


async def test_all_keys_of_a_list_can_be_revoked(fake_respan: FakeRespan, keys: TemporaryKeys) -> None:
    """The whole list is read before the first of them is."""
    made = [(await keys.create()).id for _ in range(25)]

    listed = await keys.list(page_size=10).all()
    for key in listed:
        await keys.delete(key.id)

    assert [key.id for key in listed] == made[::-1]
    assert fake_respan.counts.alive == 0


async def test_keys_created_meanwhile_make_none_come_twice() -> None:
    """The newest are listed first, so that each new key moves another to the next page."""

    async def do(connection: Connection, seen: Seen) -> None:
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        shown = [{"id": f"key-{index}"} for index in ((9, 8, 7), (7, 6, 5), (5, 4))[number - 1]]
        page = {"results": shown, "count": len(shown), "next": f"?page={number + 1}" if number < 3 else None}
        await connection.send(message(200, json.dumps(page).encode()))

    async with RawServer(Act("growing", do)) as server, AsyncRespan("token", base_url=server.url) as respan:
        listed = await respan.temporary_keys.list().all()

    assert [key.id for key in listed] == ["key-9", "key-8", "key-7", "key-6", "key-5", "key-4"]


async def test_all_begins_where_the_list_does(keys: TemporaryKeys) -> None:
    """At another page than the first, where that was asked for."""
    made = [(await keys.create()).id for _ in range(5)]

    assert [key.id for key in await keys.list(page=2, page_size=2).all()] == made[2::-1]
