"""Canaries for every secret, driven through every operation and every outcome; then looked for everywhere.

What `tests/integration/test_secrets.py` does for the errors of a client is done here for whatever else there is: more
ways to write a secret, callables that give tokens, extra headers, issuing, its files, and what a debugger shows.
"""

import asyncio
import base64
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from respan_async import AsyncRespan, ConfigurationError, CreateKeyRequest, RateLimit, RetryPolicy, Secret
from respan_async.errors import RespanError
from respan_async.issuing import AESGCMCipher, Issuer, PostgresLedger, SQLiteLedger, Ticket
from respan_async.issuing.postgres._dsn import Settings
from respan_async.redis import RedisWindow
from tests.hostile.canaries import (
    API_KEY,
    BEARER,
    CIPHER_KEY,
    HEADER,
    OLD_CIPHER_KEY,
    OTHER_BEARER,
    PROXY,
    Seeker,
    Witness,
)
from tests.integration.raw_server import Act, Connection, RawServer, Seen, key, message
from tests.unit.test_redaction import WAYS, fold

QUICK = RetryPolicy(max_attempts=2, max_refusals=1, initial=0.001, maximum=0.001)
ONCE = RetryPolicy(max_attempts=1, max_refusals=0)

Verb = Callable[[AsyncRespan], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "create": lambda respan: respan.temporary_keys.create(name="tenant-42"),
    "list": lambda respan: respan.temporary_keys.list(),
    "retrieve": lambda respan: respan.temporary_keys.retrieve("key-1"),
    "update": lambda respan: respan.temporary_keys.update("key-1", name="other"),
    "delete": lambda respan: respan.temporary_keys.delete("key-1"),
    "create_many": lambda respan: respan.temporary_keys.create_many([CreateKeyRequest()] * 2),
    "sweep": lambda respan: respan.temporary_keys.sweep(grace=0),
}


async def fail(verb: Verb, respan: AsyncRespan, witness: Witness) -> None:
    """Make a call, and take down how it ends."""
    try:
        witness.look("a result", await verb(respan))
    except (RespanError, asyncio.CancelledError) as error:
        witness.catch(error)
    witness.look("the client", respan, respan.pace, respan.temporary_keys, *respan.suspects)


# ------------------------------------------------------------ the seeker itself


@pytest.mark.parametrize("way", WAYS)
def test_the_seeker_finds_a_secret_however_it_is_written(way: str) -> None:
    """Or it would find nothing anywhere; escapes that only JSON or HTML reads are looked for by their readers."""
    written = WAYS[way](BEARER)

    if "escaped" not in way and "HTML" not in way and "small" not in way:
        assert Seeker(BEARER).find(f"abc {written} def") is not None
    assert Seeker(BEARER).find(f"abc {WAYS[way](OTHER_BEARER)} def") is None


def test_the_seeker_minds_no_public_prefix() -> None:
    """By which people tell keys apart."""
    assert Seeker(API_KEY).find(f"Secret('{API_KEY[:9]}***')") is None
    assert Seeker(API_KEY).find(API_KEY[9:21]) is not None
    assert Seeker(API_KEY).find(API_KEY[9:20]) is None


async def test_the_witness_hears_what_is_logged(witness: Witness) -> None:
    """By the library, and by an event loop in debug mode."""
    asyncio.get_running_loop().call_soon(lambda name: None, Secret(API_KEY))
    await asyncio.sleep(0)
    witness.check(API_KEY, least=1)  # the loop has told of that

    logging.getLogger("respan_async.some.module").debug("%s", API_KEY)

    with pytest.raises(AssertionError, match="a log record of respan_async"):
        witness.check(API_KEY, least=1)


# --------------------------------------------------- what a server says back

ECHOED = ["in a URL, in small letters", "in base64, after one byte", "in hexadecimals", "in lines", "the middle"]
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": json.dumps,
    "in a URL": quote,
    "in two lines": lambda text: fold(text, 25, "\n"),
    "in two lines of JSON": lambda text: fold(text, 22, "\\n"),
}


def echo(way: Callable[[str], str], status: int, place: str) -> Act:
    """Say the bearer token back that came, and a header."""

    async def do(connection: Connection, seen: Seen) -> None:
        token = seen.headers["authorization"].removeprefix("Bearer ")
        said = f"You sent {way(token)} and {way(seen.headers['x-canary'])}, did you?"
        match place:
            case "text":
                data = message(status, said.encode(), {"Content-Type": "text/html"})
            case "detail":
                data = message(status, json.dumps({"detail": f"You sent {way(token)}"}).encode())
            case "cut":
                data = message(status, (f"{way(token)} " * 200)[: 5_000 + len(way(token)) // 2].encode())
            case _:
                one_line = quote(way(token), safe="/+=-_%;&#\\\"' ")
                data = message(status, b"{}", {place: f"https://a.example/{one_line}"})
        await connection.send(data)

    return Act(place, do)


async def test_no_way_of_writing_gets_a_token_past(witness: Witness) -> None:
    """Lines of base64, say, which nothing but a program reads."""
    async with RawServer(*(echo(WAYS[way], 400, "text") for way in ECHOED)) as server:
        respan = AsyncRespan(BEARER, base_url=server.url, hooks=[witness], retry=QUICK)
        for _ in ECHOED:
            await fail(VERBS["create"], respan.with_options(extra_headers={"X-Canary": BEARER}), witness)
        await respan.aclose()

    assert len(server.requests) == len(ECHOED)


PLACES = ["text", "detail", "cut", "X-Request-ID", "Location", "Retry-After"]


@pytest.mark.hostile
@pytest.mark.parametrize("way", WAYS)
async def test_no_way_of_writing_gets_a_token_past_any_operation(way: str, witness: Witness) -> None:
    """Every operation, and every kind of status; the places of an answer take turns."""

    async def token() -> str:
        return BEARER

    places = itertools.cycle(PLACES)
    for status in (201, 302, 401, 429, 500):
        for verb in VERBS.values():
            async with RawServer(echo(WAYS[way], status, next(places))) as server:
                respan = AsyncRespan(token, base_url=server.url, hooks=[witness], retry=ONCE, tag_names=True)
                await fail(verb, respan.with_options(extra_headers={"X-Canary": BEARER}), witness)
                await respan.aclose(grace=0)


@pytest.mark.parametrize("form", FORMS)
async def test_a_key_that_an_error_holds_is_not_shown(form: str, witness: Witness) -> None:
    """A crash after the fact shows what it has just made, in the local variables of its page, say."""
    said = FORMS[form](API_KEY).encode()
    acts = [
        Act("", lambda connection, _, status=status: connection.send(message(status, b"<b>" + said + b" </b>")))  # type: ignore[misc]
        for status in (201, 400, 500)
    ]
    async with RawServer(*acts, acts[-1]) as server:
        respan = AsyncRespan(BEARER, base_url=server.url, hooks=[witness], retry=RetryPolicy(max_attempts=1))
        for _ in acts:
            await fail(VERBS["create"], respan, witness)
        await respan.aclose()

    witness.check(API_KEY)


async def test_a_key_that_an_answer_says_twice_is_not_shown(witness: Witness) -> None:
    """Under names that nobody knows, where everything else is kept as it came."""
    twice = {"key": API_KEY, "nested": {"deep": [API_KEY]}, "line": f"export KEY={API_KEY}", "other": "shown"}
    async with RawServer(key(api_key=API_KEY, **twice)) as server, AsyncRespan(BEARER, base_url=server.url) as respan:
        made = await respan.temporary_keys.create()
        witness.look("a key", made, made.extra)

    assert made.api_key.reveal() == API_KEY
    assert made.extra["other"] == "shown"
    assert made.extra["key"] == Secret(API_KEY)
    witness.check(API_KEY)


# ------------------------------------------------------------- what is given


async def test_tokens_of_a_callable_and_headers_are_not_shown(witness: Witness) -> None:
    """Through a success, a timeout, a cancelled call, and settings that are wrong beside them."""
    tokens = [OTHER_BEARER]

    async def token() -> str:
        return tokens[0]

    silent = Act("silent", lambda connection, _: connection.reader.read())  # type: ignore[arg-type,return-value]
    async with RawServer(key(), silent) as server:
        respan = AsyncRespan(token, base_url=server.url, hooks=[witness], retry=QUICK)
        view = respan.with_options(extra_headers={"X-Canary": HEADER, "X-Empty": ""})
        witness.look("a view", view, vars(view))
        await fail(VERBS["create"], view, witness)
        await fail(VERBS["create"], view.with_options(timeout=0.01), witness)
        await fail(VERBS["list"], view.with_options(deadline=0.01), witness)
        calling = asyncio.ensure_future(fail(VERBS["delete"], view, witness))
        await asyncio.sleep(0.01)
        witness.tasks()
        calling.cancel()
        await calling
        await respan.aclose(grace=0)

    assert server.requests[0].headers["x-canary"] == HEADER
    assert server.requests[0].headers["x-empty"] == ""
    assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {OTHER_BEARER}"}


WRONG: list[Callable[[], object]] = [
    lambda: AsyncRespan("k").with_options(extra_headers={"X-Canary": f"{HEADER}\n"}),
    lambda: AsyncRespan("k").with_options(extra_headers={"X-Canary": HEADER, "Host": HEADER}),
    lambda: AsyncRespan("k").with_options(extra_headers={"X-Canary": HEADER}, timeout=-1),
    lambda: AsyncRespan(BEARER, max_in_flight=0),
    lambda: AESGCMCipher(CIPHER_KEY[:-4]),
    lambda: AESGCMCipher(base64.b64decode(CIPHER_KEY) + b"x"),
    lambda: AESGCMCipher(CIPHER_KEY, old_keys=(f"{OLD_CIPHER_KEY}\n\n!",)),
    lambda: SQLiteLedger(":memory:", CIPHER_KEY),  # type: ignore[arg-type]
    lambda: PostgresLedger(f"postgresql+asyncpg://me:{PROXY}@localhost/db"),
    lambda: PostgresLedger(f"host=localhost password='{PROXY}"),
    lambda: PostgresLedger(f"postgresql://me:{PROXY}@localhost/db", lease=-1),
    lambda: PostgresLedger(f"postgresql://me:{PROXY}@localhost/db", schema="a; DROP"),
    lambda: PostgresLedger(f"{PROXY}+{PROXY}"),
    lambda: RedisWindow(f"http://:{PROXY}@localhost", RateLimit(1, per=1)),
    lambda: RedisWindow(f"redis://:{PROXY}@localhost/0?nonsense=1", RateLimit(1, per=1)),
    lambda: RedisWindow(f"redis://:{PROXY}@localhost/0", RateLimit(1, per=1), timeout=-1),
]


async def test_settings_that_are_wrong_do_not_show_what_is_secret_in_them(witness: Witness) -> None:
    """An error at the start goes straight into a log, with the locals of every frame where a tracker takes them."""
    for wrong in WRONG:
        with pytest.raises(ConfigurationError) as caught:
            wrong()
        witness.catch(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://me:{PROXY}@api.respan.ai", f"postgres://me:{PROXY}@host", f"https://me:{PROXY}@host:99999"),
        *(f"https://api.respan.ai/?token={PROXY}", f"https://api.respan.ai/#{PROXY}", PROXY, f"https://h/ {API_KEY}"),
    ],
)
def test_a_url_that_is_refused_is_shown_without_what_may_be_secret(url: str) -> None:
    """A password, a query, or the API key itself, in the wrong place."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        AsyncRespan("k", base_url=url)

    assert Seeker(PROXY, API_KEY).find(str(caught.value)) is None


def test_a_redis_in_the_wrong_place_is_shown_without_its_password() -> None:
    """As a pace, where a window is expected."""
    with pytest.raises(ConfigurationError, match="pace: expected") as caught:
        AsyncRespan("k", pace=f"redis://:{PROXY}@localhost")  # type: ignore[arg-type]

    assert Seeker(PROXY).find(str(caught.value)) is None


def test_what_libpq_is_told_does_not_show_itself() -> None:
    """The password is among it, and a local variable where a connection is made."""
    settings = Settings(host="db", password="hunter2")

    assert f"{settings} {settings!r}" == "Settings(***) Settings(***)"


async def test_things_that_are_at_work_do_not_show_what_they_were_given(witness: Witness) -> None:
    """Client, cipher, window, ledger, issuer; and what they hold in turn."""
    async with aiohttp.ClientSession(proxy=f"http://me:{PROXY}@127.0.0.1:1") as session:
        respan = AsyncRespan(BEARER, base_url="http://127.0.0.1:1", session=session, retry=QUICK)
        await fail(VERBS["create"], respan, witness)
        cipher = AESGCMCipher(CIPHER_KEY, old_keys=(OLD_CIPHER_KEY,))
        window = RedisWindow(f"redis://me:{PROXY}@127.0.0.1:1/0", RateLimit(1, per=1))
        ledger = PostgresLedger(f"postgresql://me:{PROXY}@127.0.0.1:1/db", cipher)
        issuer = Issuer(respan, ledger)
        witness.look("things", cipher, window, ledger, issuer, vars(ledger), vars(issuer), vars(window))
        witness.look("their insides", *vars(ledger).values(), *vars(window).values(), *vars(issuer).values())
        await respan.aclose()
        await window.aclose()


@pytest.mark.hostile
async def test_a_database_that_is_not_there_does_not_show_its_password(witness: Witness) -> None:
    """libpq's own messages and psycopg's exceptions hold what they were given."""
    respan = AsyncRespan(BEARER, base_url="http://127.0.0.1:1")
    issuer = Issuer(respan, PostgresLedger(f"postgresql://me:{PROXY}@127.0.0.1:1/db"))
    with pytest.raises(RespanError) as caught:
        await issuer.issue(Ticket("tenant-1"))
    witness.catch(caught.value)
    await respan.aclose()
