"""What a server says when nothing was asked is nobody's answer."""

import asyncio
from typing import cast

import aiohttp
import pytest
from aiohttp.abc import AbstractStreamWriter

from respan_async import AsyncRespan
from respan_async._http.transport import TrackedBody
from tests.hostile.misbehaviours import ANSWERS, NAME
from tests.hostile.scenarios import AGAIN, ONCE, OPERATIONS
from tests.integration.raw_server import (
    API_KEY,
    Act,
    Connection,
    RawServer,
    Seen,
    key,
    message,
)

virtual = pytest.mark.virtual

STRAYS = {
    "another's key": message(201, b'{"id":"stray","name":"stray","api_key":"%s"}' % API_KEY.encode()),
    "another's page": message(200, b'{"results":[{"id":"stray"}],"count":1,"next":null}'),
    "a refusal": message(429, b'{"retry_after":100}'),
    "a farewell": message(408, b""),
    "no content": message(204),
    "half an answer": message(201, b"{}")[:30],
    "the head of an answer": message(201, b"{}", {"Content-Length": "1000"}),
    "an interim answer": b"HTTP/1.1 103 Hints\r\n\r\n",
    "garbage": b"garbage\r\n\r\n",
}
"""What a server may say on a connection on which nothing is asked."""
VERBS = ("create", "update", "delete", "retrieve", "list")


def speaks_later(data: bytes, after: float = 0.5) -> Act:
    """Answer well, and say something more when nobody asks."""
    good = key(id="key-1", name=NAME)

    async def do(connection: Connection, seen: Seen) -> None:
        await good.do(connection, seen)
        await asyncio.sleep(after)
        await connection.send(data)

    return Act("speaks later", do)


@virtual
@pytest.mark.parametrize("verb", VERBS)
async def test_what_a_server_says_unasked_is_nobodys_answer(verb: str) -> None:
    """On an idle connection: the next call of any kind does not take it for its own, and is not shifted by it."""
    for name, stray in STRAYS.items():
        async with (
            RawServer(speaks_later(stray), key(id="second", name=NAME)) as server,
            AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
        ):
            await respan.temporary_keys.create()
            await asyncio.sleep(1)
            result = await OPERATIONS[verb].run(respan.temporary_keys)

            assert len(server.requests) == 2, name
            shown = result.results[0] if verb == "list" else result
            assert verb == "delete" or shown.id == "second", name
            assert respan.suspects == ()


@virtual
@pytest.mark.parametrize("verb", ["create", "update"])
async def test_what_a_server_says_unasked_is_nobodys_answer_in_a_session_of_ones_own(verb: str) -> None:
    """A request that could make or change something is not sent on such a connection, and is then sent on another."""
    for name, stray in STRAYS.items():
        async with (
            RawServer(speaks_later(stray), key(id="second", name=NAME)) as server,
            aiohttp.ClientSession() as session,
            AsyncRespan("token", base_url=server.url, session=session, retry=AGAIN) as respan,
        ):
            await respan.temporary_keys.create()
            await asyncio.sleep(1)
            result = await OPERATIONS[verb].run(respan.temporary_keys)

            assert (result.id, len(server.requests)) == ("second", 2), name
            assert respan.suspects == ()


async def test_a_request_does_not_leave_on_a_connection_on_which_the_server_has_spoken() -> None:
    """What it says is no answer to this, so not a byte goes out, and that is certain."""

    class Spoken:
        should_close = True

    class Writer:
        protocol = Spoken()

    flight = TrackedBody(b"{}")
    assert flight.size == 2

    with pytest.raises(ConnectionAbortedError):
        await flight.write_with_length(cast("AbstractStreamWriter", Writer()), 2)
    assert not flight.may_have_left


@virtual
async def test_two_answers_for_one_request() -> None:
    """Sent at once: the first counts, and the second is given to nobody."""
    twice = {"another's key", "another's page", "a refusal", "no content", "an interim answer"}
    for name in twice:
        status, body = ANSWERS["create"]
        both = message(status, body) + STRAYS[name]

        async def do(connection: Connection, _: Seen, data: bytes = both) -> None:
            await connection.send(data)

        async with (
            RawServer(Act("twice", do), key(id="second")) as server,
            AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
        ):
            ids = [(await respan.temporary_keys.create()).id for _ in range(2)]

        assert ids == ["key-1", "second"], name
