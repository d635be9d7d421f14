"""Ways in through what a server answers: nothing leads elsewhere, and nothing is forged."""

import asyncio
import logging
from typing import Any

import aiohttp
import pytest

from respan_async import AsyncRespan, InvalidResponseError, RetryPolicy
from respan_async.errors import APIConnectionError, APIStatusError, RespanError
from tests.integration.raw_server import Act, Connection, RawServer, Seen, answer, key

ONCE = RetryPolicy(max_attempts=1)
PATH = "/api/temporary-keys/"

# ------------------------------------------------- where a server wants us to go


@pytest.fixture
async def elsewhere() -> Any:
    """A server to which nothing should come."""
    async with RawServer() as server:
        yield server
    assert server.connections == 0


def page(*, next: object, results: tuple[dict[str, Any], ...] = ({"id": "key-1", "name": "a"},)) -> Act:  # noqa: A002  the API's own name for it
    """Answer one page of a list."""
    return answer(200, {"results": list(results), "count": 1, "next": next})


async def test_a_next_link_to_another_host_is_not_followed(elsewhere: RawServer) -> None:
    """Its page number is taken, and asked of the host we know; the sweep reads the same pages."""
    theirs = f"{elsewhere.url}/api/temporary-keys/?page=2&page_size=1000000&token=x"
    async with RawServer(page(next=theirs), page(next=None)) as server, AsyncRespan("k", base_url=server.url) as respan:
        assert len([found.id async for found in respan.temporary_keys.list()]) == 2

    assert [seen.target for seen in server.requests] == [f"{PATH}?page=1", f"{PATH}?page=2"]


INSANE: list[object] = [
    *("http://evil.example/", "?page=", "?page=-1", "?page=1e9", "?page=0x2", "?page=%0d%0aHost:x"),
    *("?page=\uff12", "?page=2;1"),
    *("?page=2%00", "?page=../2", "?page[]=2", "file:///etc/passwd"),
    *("?page=1", "?page=0", 5, ["?page=2"], {"page": 2}),
    *("http://[", "?" + "&".join(f"a{n}=" for n in range(2000)) + "&page=x"),
]


async def test_a_next_link_without_a_sane_page_is_no_page() -> None:
    """It is told, and the list does not go round and round."""
    async with (
        RawServer(*(page(next=link) for link in INSANE)) as server,
        AsyncRespan("k", base_url=server.url) as respan,
    ):
        for _link in INSANE:
            with pytest.raises(InvalidResponseError):
                _ = [found async for found in respan.temporary_keys.list()]

    assert [seen.target for seen in server.requests] == [f"{PATH}?page=1"] * len(INSANE)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int, elsewhere: RawServer) -> None:
    """On no operation, by no session: the token, and the key that is asked for, would go there."""
    theirs = {"Location": f"{elsewhere.url}{PATH}", "Refresh": f"0; url={elsewhere.url}"}
    theirs |= {"Link": f'<{elsewhere.url}>; rel="next"'}
    theirs |= {"Alt-Svc": f'h2="{elsewhere.url.removeprefix("http://")}"; ma=86400', "Content-Location": elsewhere.url}
    async with aiohttp.ClientSession() as own, RawServer(answer(status, None, theirs)) as server:
        for session in (None, own):
            async with AsyncRespan("k", base_url=server.url, session=session, retry=ONCE) as respan:
                keys = respan.temporary_keys
                for call in (
                    keys.create(),
                    keys.list(),
                    keys.retrieve("a"),
                    keys.update("a", name="b"),
                    keys.delete("a"),
                ):
                    with pytest.raises(APIStatusError, match="never followed"):
                        await call

    assert len(server.requests) == 10


async def test_headers_that_lead_elsewhere_are_not_obeyed_on_a_success(elsewhere: RawServer) -> None:
    """Alt-Svc and Link, with a good answer."""
    address = elsewhere.url.removeprefix("http://")
    theirs = {"Alt-Svc": f'http/1.1="{address}"', "Link": f"<{elsewhere.url}>; rel=next", "Location": elsewhere.url}
    theirs |= {"Set-Cookie": f"session=evil; Domain={address}; Path=/", "Strict-Transport-Security": "max-age=9"}
    async with (
        RawServer(answer(201, {"id": "a", "api_key": "b"}, theirs)) as server,
        AsyncRespan("k", base_url=server.url) as respan,
    ):
        for _ in range(3):
            await respan.temporary_keys.create()

    assert [seen.target for seen in server.requests] == [PATH] * 3
    assert not [seen for seen in server.requests if "cookie" in seen.headers]


async def test_a_cookie_of_a_server_is_sent_to_nobody() -> None:
    """Neither back to it, nor to another: by its name, as aiohttp keeps no cookies of addresses anyway."""
    cookie = {"Set-Cookie": "session=evil; Path=/; Max-Age=9999"}
    async with RawServer(answer(200, {"id": "a"}, cookie)) as server, RawServer() as other:
        first = AsyncRespan("k", base_url=server.url.replace("127.0.0.1", "localhost"))
        second = AsyncRespan("l", base_url=other.url.replace("127.0.0.1", "localhost"))
        for respan in (first, first, second):
            await respan.temporary_keys.retrieve("a")
        await first.aclose()
        await second.aclose()

    assert not [seen for seen in (*server.requests, *other.requests) if "cookie" in seen.headers]
    assert [seen.headers["authorization"] for seen in other.requests] == ["Bearer l"]


# --------------------------------------------------------- what a hostile list does


async def test_a_hostile_list_does_not_forge_log_lines_nor_stop_a_sweep(caplog: pytest.LogCaptureFixture) -> None:
    """Keys with the tag of a suspect and an id that is none: not revoked, not logged, and the rest goes on."""
    caplog.set_level(logging.DEBUG, "respan_async")
    names: list[str] = []

    async def do(connection: Connection, seen: Seen) -> None:
        if seen.method == "POST":
            names.append(seen.json["name"])
            await answer(500).do(connection, seen)
        elif "?" in seen.target:
            ids = ("..", "a/../..", "key\n2026-01-01 ERROR forged", "key\x1b[2J", "k" * 600, "", "good")
            results = [{"id": key_id or "x", "name": names[0]} for key_id in ids]
            await answer(200, {"results": results, "next": None}).do(connection, seen)
        elif seen.method == "GET":
            await answer(200, {"id": "good", "name": names[0]}).do(connection, seen)
        else:
            await answer(204).do(connection, seen)

    async with (
        RawServer(Act("hostile", do)) as server,
        AsyncRespan("k", base_url=server.url, tag_names=True, retry=ONCE) as respan,
    ):
        with pytest.raises(RespanError):
            await respan.temporary_keys.create(name="a")
        report = await respan.temporary_keys.sweep(grace=0)
        deleted = [seen.target for seen in server.requests if seen.method == "DELETE"]

    assert set(report.revoked) == {"good", "x"}
    assert sorted(deleted) == [f"{PATH}good/", f"{PATH}x/"]
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_an_id_that_goes_elsewhere_does_not_stop_a_sweep() -> None:
    """An id that leads to the whole collection is none: its suspect is told without, and the others are revoked."""
    lost = [answer(201, {"id": key_id}) for key_id in ("..", "key-2")]
    async with RawServer(*lost, key()) as server, AsyncRespan("k", base_url=server.url, retry=ONCE) as respan:
        for _ in lost:
            with pytest.raises(InvalidResponseError):
                await respan.temporary_keys.create()
        report = await respan.temporary_keys.sweep(grace=0)

    assert set(report.revoked) <= {"key-2"}  # or the client was faster, by itself
    assert {seen.target for seen in server.requests if seen.method == "DELETE"} == {f"{PATH}key-2/"}
    assert [suspect.id for suspect in respan.suspects] == [None]


async def test_an_error_of_the_server_does_not_forge_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Line breaks, escape sequences and letters that run backwards: in messages, events and log lines, written out."""
    caplog.set_level(logging.DEBUG, "respan_async")
    evil = "no\r\n2026-01-01 ERROR forged\x1b]0;title\x07\x9b2J\u202edesrever\u2028\x00"
    events: list[object] = []
    bodies = [
        {"detail": evil},
        {"errors": {evil: [evil]}},
        {"error": {"message": evil}},
        {"id": evil},
        {"id": evil, "api_key": "k"},
    ]
    for status in (201, 400, 500):
        for body in bodies:
            async with RawServer(answer(status, body, {"X-Request-ID": "a\x1b[2J"})) as server:
                async with AsyncRespan("k", base_url=server.url, retry=ONCE, hooks=[events.append]) as respan:
                    with pytest.raises(RespanError) as caught:
                        await respan.temporary_keys.create(name="a")
                assert str(caught.value).isprintable()
                assert repr(caught.value).isprintable()
                assert caught.value.request_id is None

    assert all(repr(event).isprintable() for event in events)
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_server_that_answers_before_it_is_asked_is_not_believed() -> None:
    """A second answer, sent along with the first, is not taken for the answer to the next request."""
    smuggled = b'HTTP/1.1 201 Created\r\nContent-Length: 34\r\n\r\n{"id":"evil","api_key":"evil-evil"}'

    async def do(connection: Connection, seen: Seen) -> None:
        await key().do(connection, seen)
        await connection.send(smuggled)

    async with RawServer(Act("twice", do)) as server, AsyncRespan("k", base_url=server.url, retry=ONCE) as respan:
        made = []
        for _ in range(5):
            try:
                made.append(await respan.temporary_keys.create())
            except (APIConnectionError, InvalidResponseError):
                continue
            await asyncio.sleep(0.01)

    assert "evil" not in {one.id for one in made}
