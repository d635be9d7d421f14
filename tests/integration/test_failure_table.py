"""What happened, and what it means: every row of the failure table, on real sockets, byte by byte."""

import asyncio
import contextlib
import gzip
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
import attrs
import pytest

from respan_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncRespan,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    Effect,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RespanError,
    RetryPolicy,
    TemporaryKeys,
    UnprocessableEntityError,
)
from respan_async._http.content_encoding import decoded
from tests.integration.raw_server import (
    API_KEY,
    FIN,
    FIN_AT_ONCE,
    RST,
    RST_AT_ONCE,
    STALL,
    Act,
    Connection,
    RawServer,
    Seen,
    answer,
    cut_body,
    cut_chunk,
    cut_head,
    gzip_bomb,
    key,
    message,
    oversize,
    raw,
    unread,
)

NONE, UNKNOWN, LOST = Effect.NONE, Effect.UNKNOWN, Effect.LOST
MOMENT = 0.1
"""Seconds: the timeout where the server is not going to answer."""
PATH = "/api/temporary-keys/"

Verb = Callable[[TemporaryKeys], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "create": lambda keys: keys.create(name="tenant-42"),
    "list": lambda keys: keys.list(),
    "retrieve": lambda keys: keys.retrieve("key-1"),
    "update": lambda keys: keys.update("key-1", name="other"),
    "delete": lambda keys: keys.delete("key-1"),
}
READS = ("list", "retrieve")
CHANGES = ("update", "delete")


@attrs.frozen
class Row:
    """One row of the table.

    Attributes:
        act: What the server does.
        error: The class of the error.
        effect: What that means for a create.
        change: What that means for an update or a delete.
        retryable: Whether trying again may mend it.
        status: What the error says.
        silent: The server never answers, so that the timeout is to be short.
    """

    act: Act
    error: type[RespanError]
    effect: Effect
    change: Effect
    retryable: bool
    status: int | None = None
    silent: bool = False

    def __str__(self) -> str:
        return self.act.name


def status(number: int, error: type[RespanError], effect: Effect, retryable: bool, payload: object = None) -> Row:
    """Give the row of an answer that is whole, and no 2xx."""
    headers = {"Retry-After": "0.001"} if number in (429, 425) else {}
    act = answer(number, payload or {"detail": "Because."}, headers)
    return Row(act, error, effect, effect, retryable, number)


REFUSALS = [
    status(429, RateLimitError, NONE, True),
    status(425, APIStatusError, NONE, True),
]
ERRORS = [
    status(400, BadRequestError, NONE, False),
    status(401, AuthenticationError, NONE, False),
    status(402, APIStatusError, NONE, False),
    status(403, PermissionDeniedError, NONE, False),
    status(404, NotFoundError, NONE, False),
    status(405, APIStatusError, NONE, False),
    status(409, ConflictError, NONE, False),
    status(418, APIStatusError, NONE, False),
    status(422, UnprocessableEntityError, NONE, False),
]
FAILURES = [
    status(408, APIStatusError, UNKNOWN, True),
    status(500, InternalServerError, UNKNOWN, True),
    status(502, InternalServerError, UNKNOWN, True, b"<html><h1>502 Bad Gateway</h1></html>"),
    status(503, InternalServerError, UNKNOWN, True),
    status(504, InternalServerError, UNKNOWN, True),
    status(508, InternalServerError, UNKNOWN, True),
    status(520, InternalServerError, UNKNOWN, True),
    status(522, InternalServerError, UNKNOWN, True, b"<title>522: Connection timed out</title>"),
    status(524, InternalServerError, UNKNOWN, True),
    status(527, InternalServerError, UNKNOWN, True),
    status(599, InternalServerError, UNKNOWN, True),
]
NOT_PROCESSED = [status(number, InternalServerError, NONE, False) for number in (501, 505, 511)]
NOT_REACHED = [
    status(number, InternalServerError, NONE, True, b"<title>Web server is down</title>")
    for number in (521, 523, 525, 526, 530)
]
REDIRECTS = [
    Row(
        answer(number, None, {"Location": f"{PATH}elsewhere/"}), APIStatusError, UNKNOWN, UNKNOWN, False, number
    )
    for number in (300, 301, 302, 303, 304, 307, 308)
]  # fmt: skip
NO_ANSWERS = [
    Row(FIN, APIConnectionError, UNKNOWN, UNKNOWN, True),
    Row(RST, APIConnectionError, UNKNOWN, UNKNOWN, True),
    Row(STALL, APITimeoutError, UNKNOWN, UNKNOWN, True, silent=True),
    Row(cut_head(201, "fin"), APIConnectionError, UNKNOWN, UNKNOWN, True),
    Row(cut_head(201, "rst"), APIConnectionError, UNKNOWN, UNKNOWN, True),
    Row(cut_head(201, "stall"), APITimeoutError, UNKNOWN, UNKNOWN, True, silent=True),
]
CUT_SHORT = [
    Row(cut_body(201), APIConnectionError, LOST, UNKNOWN, True, 201),
    Row(cut_body(200), APIConnectionError, LOST, UNKNOWN, True, 200),
    Row(cut_body(201, "rst"), APIConnectionError, LOST, UNKNOWN, True, 201),
    Row(cut_body(201, "stall"), APITimeoutError, LOST, UNKNOWN, True, 201, silent=True),
    Row(cut_chunk(201), APIConnectionError, LOST, UNKNOWN, True, 201),
    Row(cut_chunk(201, "rst"), APIConnectionError, LOST, UNKNOWN, True, 201),
    Row(cut_chunk(201, "stall"), APITimeoutError, LOST, UNKNOWN, True, 201, silent=True),
]
CUT_REFUSALS = [
    # What a refusal says is in its status: that its body broke off changes nothing.
    Row(cut_body(400), BadRequestError, NONE, NONE, False, 400),
    Row(cut_body(401, "rst"), AuthenticationError, NONE, NONE, False, 401),
    Row(cut_body(429, headers={"Retry-After": "0.001"}), RateLimitError, NONE, NONE, True, 429),
    Row(cut_body(503, "stall"), InternalServerError, UNKNOWN, UNKNOWN, True, 503, silent=True),
    Row(cut_chunk(500), InternalServerError, UNKNOWN, UNKNOWN, True, 500),
]
OK = b"HTTP/1.1 201 Created\r\n"
NOT_HTTP = [
    Row(raw("speaks TLS", b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"), InvalidResponseError, UNKNOWN, UNKNOWN, False),
    Row(raw("speaks SSH", b"SSH-2.0-OpenSSH_9.6\r\n", then="fin"), InvalidResponseError, UNKNOWN, UNKNOWN, False),
    Row(raw("says HTTP/9", b"HTTP/9 yes\r\n\r\n", then="fin"), InvalidResponseError, UNKNOWN, UNKNOWN, False),
    Row(raw("gives no number", b"HTTP/1.1 OK OK\r\n\r\n", then="fin"), InvalidResponseError, UNKNOWN, UNKNOWN, False),
    Row(
        raw("gives two lengths", OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", then="fin"),
        *(InvalidResponseError, UNKNOWN, UNKNOWN, False),
    ),
    Row(
        raw("gives a header of 100 kB", OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n{}", then="fin"),
        *(InvalidResponseError, UNKNOWN, UNKNOWN, False),
    ),
]  # fmt: skip
TOO_LARGE = [
    Row(oversize(201), InvalidResponseError, LOST, UNKNOWN, False, 201),
    Row(gzip_bomb(201), InvalidResponseError, LOST, UNKNOWN, False, 201),
    Row(oversize(400), BadRequestError, NONE, NONE, False, 400),
]
TABLE = [
    *REFUSALS, *ERRORS, *FAILURES, *NOT_PROCESSED, *NOT_REACHED, *REDIRECTS,
    *NO_ANSWERS, *CUT_SHORT, *CUT_REFUSALS, *NOT_HTTP, *TOO_LARGE,
]  # fmt: skip
NO_KEYS = {
    "an empty object": {},
    "no api_key": {"id": "key-1"},
    "null for an api_key": {"id": "key-1", "api_key": None},
    "a number for an api_key": {"id": "key-1", "api_key": 12345},
    "an empty api_key": {"id": "key-1", "api_key": ""},
    "a blank api_key": {"id": "key-1", "api_key": "  "},
    "no id": {"api_key": API_KEY},
    "null for an id": {"id": None, "api_key": API_KEY},
    "a list": [{"id": "key-1", "api_key": API_KEY}],
    "the page of a list": {"results": [], "count": 0, "next": None},
    "nothing": None,
    "null": b"null",
    "HTML": b"<!doctype html><title>Welcome</title>",
    "half of a JSON": b'{"id": "key-1", "api_k',
    "NaN": b'{"id": "key-1", "api_key": NaN}',
    "no UTF-8": b'{"id": "\xff", "api_key": "x"}',
    "a thousand brackets": b"[" * 5000,
}


named = pytest.mark.parametrize("row", TABLE, ids=str)


@contextlib.asynccontextmanager
async def world(
    row: Row | None,
    *script: Act,
    attempts: int = 3,
    on_unknown: Literal["replace", "raise"] = "replace",
    **settings: Any,
) -> AsyncIterator[tuple[RawServer, AsyncRespan]]:
    """Give a server that does what a row and a script say, and a client that is quick to try again."""
    acts = ((row.act, *script) if row else script) or (key(),)
    settings.setdefault("timeout", aiohttp.ClientTimeout(sock_read=MOMENT) if row and row.silent else 5.0)
    settings.setdefault(
        "retry", RetryPolicy(max_attempts=attempts, initial=0.001, maximum=0.001, on_unknown=on_unknown)
    )
    async with (
        RawServer(*acts) as server,
        AsyncRespan("token", base_url=settings.pop("base_url", server.url), **settings) as respan,
    ):
        yield server, respan  # fmt: skip


# --------------------------------------------------------------- one attempt


@named
async def test_one_failed_create_tells_what_it_means(row: Row) -> None:
    """The class says what was seen; effect, retryable and suspects say what may have been made."""
    policy = RetryPolicy(max_attempts=1, max_refusals=0, initial=0.001)
    async with world(row, retry=policy) as (server, respan):
        with pytest.raises(RespanError) as caught:
            await VERBS["create"](respan.temporary_keys)
        suspects = respan.suspects

    error = caught.value
    assert type(error) is row.error
    assert (error.effect, error.retryable, error.status) == (row.effect, row.retryable, row.status)
    assert server.methods == ["POST"]
    assert error.attempts == 1
    assert error.suspects == suspects
    assert [suspect.effect for suspect in suspects] == [row.effect] * (row.effect is not NONE)
    assert all((suspect.name, suspect.tag) == ("tenant-42", None) for suspect in suspects)


@pytest.mark.parametrize("verb", ["retrieve", *CHANGES])
@named
async def test_one_failed_call_of_another_kind_leaves_no_suspect(row: Row, verb: str) -> None:
    """A read changes nothing, whatever happens to its answer; a change may have been made; no key ever is."""
    policy = RetryPolicy(max_attempts=1, max_refusals=0, initial=0.001)
    async with world(row, retry=policy) as (server, respan):
        with pytest.raises(RespanError) as caught:
            await VERBS[verb](respan.temporary_keys)
        suspects = respan.suspects

    error = caught.value
    assert type(error) is row.error
    assert error.retryable == row.retryable
    assert error.attempts == len(server.requests)  # aiohttp's own repetitions included
    assert suspects == error.suspects == ()
    # A DELETE that aiohttp repeated may have been done the first time.
    repeated = verb == "delete" and len(server.requests) > 1
    assert error.effect is (NONE if verb in READS else UNKNOWN if repeated else row.change)


# ------------------------------------------------------------ trying again


@named
async def test_a_failed_create_is_replaced(row: Row) -> None:
    """on_unknown="replace": a new key is made where that may help, handed out alone, and the doubtful attempt named."""
    async with world(row, key()) as (server, respan):
        if row.retryable:
            made = await respan.temporary_keys.create(name="tenant-42")
            assert made.api_key.reveal() == API_KEY
        else:
            with pytest.raises(row.error):
                await respan.temporary_keys.create(name="tenant-42")
        suspects = respan.suspects

    assert len(server.requests) == 1 + row.retryable
    assert [suspect.effect for suspect in suspects] == [row.effect] * (row.effect is not NONE)


@named
async def test_a_doubtful_create_is_told_instead(row: Row) -> None:
    """on_unknown="raise": only what surely made nothing is tried again."""
    mended = row.retryable and row.effect is NONE
    async with world(row, key(), on_unknown="raise") as (server, respan):
        if mended:
            await respan.temporary_keys.create()
        else:
            with pytest.raises(row.error) as caught:
                await respan.temporary_keys.create()
            assert caught.value.effect is row.effect
            assert caught.value.suspects == respan.suspects

    assert len(server.requests) == 1 + mended


@pytest.mark.parametrize("verb", ["retrieve", *CHANGES])
@named
async def test_the_other_verbs_are_simply_repeated(row: Row, verb: str) -> None:
    """Also under on_unknown="raise": repeating them does no harm."""
    script = [row.act, key()]
    async with world(row, *script[1:], on_unknown="raise") as (server, respan):
        if row.retryable:
            await VERBS[verb](respan.temporary_keys)
        else:
            with pytest.raises(row.error):
                await VERBS[verb](respan.temporary_keys)
        suspects = respan.suspects

    assert len(server.requests) == 1 + row.retryable
    assert len(set(server.methods)) == 1
    assert suspects == ()


@pytest.mark.parametrize("row", [*FAILURES, *NOT_REACHED, *NO_ANSWERS, *CUT_SHORT], ids=str)
async def test_a_call_gives_up_after_max_attempts(row: Row) -> None:
    """Three attempts, a suspect for each that may have made a key, and the error of the last."""
    async with world(row, attempts=3) as (server, respan):
        with pytest.raises(row.error) as caught:
            await respan.temporary_keys.create()

    assert caught.value.attempts == len(server.requests) == 3
    assert [suspect.effect for suspect in caught.value.suspects] == [row.effect] * 3 * (row.effect is not NONE)


async def test_the_worst_effect_of_all_attempts_is_told() -> None:
    """LOST, UNKNOWN, then a plain refusal: the error is the refusal's, and means LOST."""
    script = (cut_body(201), FIN, answer(400, {"name": ["Not a valid string."]}))
    async with world(None, *script) as (server, respan):
        with pytest.raises(BadRequestError, match="name: Not a valid string") as caught:
            await respan.temporary_keys.create()

    assert caught.value.effect is LOST
    assert caught.value.attempts == len(server.requests) == 3
    assert [suspect.effect for suspect in caught.value.suspects] == [LOST, UNKNOWN]
    assert not caught.value.retryable


# ----------------------------------------------------------------- refusals


async def test_refusals_use_up_no_attempts() -> None:
    """Seven refusals, and a call of one attempt still gets its key."""
    script = (*(answer(429, {"retry_after": 0.001}) for _ in range(7)), key())
    async with world(None, *script, attempts=1) as (server, respan):
        await respan.temporary_keys.create()

    assert len(server.requests) == 8


async def test_an_endless_refusal_ends() -> None:
    """max_refusals=3: the fourth refusal is raised."""
    policy = RetryPolicy(max_refusals=3, initial=0.001, maximum=0.001)
    async with world(None, answer(429, {"retry_after": 0.001}), retry=policy) as (server, respan):
        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

    assert caught.value.attempts == len(server.requests) == 4
    assert (caught.value.effect, caught.value.retryable, caught.value.retry_after) == (NONE, True, 0.001)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("payload", "headers"),
    [({"retry_after": 0}, {}), ({}, {"Retry-After": "0"}), ({}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})],
    ids=["body", "header", "date"],
)
async def test_a_refusal_that_asks_for_no_wait_is_not_repeated_without_one(
    payload: dict[str, int], headers: dict[str, str]
) -> None:
    """Fifty calls, always refused: obeyed literally, that would be thousands of requests in ten seconds."""
    async with RawServer(answer(429, payload, headers)) as server, AsyncRespan("token", base_url=server.url) as respan:
        calls = [asyncio.ensure_future(respan.temporary_keys.create()) for _ in range(50)]
        await asyncio.sleep(10)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    assert 1 <= len(server.requests) < 60


@pytest.mark.parametrize("headers", [{"Retry-After": "121"}, {}], ids=["header", "body"])
async def test_a_wait_that_is_too_long_is_told_at_once(headers: dict[str, str]) -> None:
    """More than max_retry_after: one request, and the seconds in the error."""
    refused = answer(429, {} if headers else {"retry_after": 121}, headers)
    async with world(None, refused, key()) as (server, respan):
        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

    assert caught.value.retry_after == 121
    assert len(server.requests) == 1


NGINX = b"<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n</html>\r\n"
BEHIND_NGINX = RetryPolicy(max_attempts=1, initial=0.001, maximum=0.001, refusal_statuses={503})


@pytest.mark.virtual
@pytest.mark.parametrize("verb", VERBS)
async def test_a_503_of_nginx_can_be_named_a_refusal(verb: str) -> None:
    """It uses up no attempt, leaves no suspect, and is counted as what it is."""
    refused = answer(503, NGINX)
    async with world(None, refused, refused, key(), retry=BEHIND_NGINX) as (server, respan):
        await VERBS[verb](respan.temporary_keys)

        assert len(server.requests) == 3
        assert respan.pace.refused == 2
        assert respan.suspects == ()


async def test_an_endless_503_of_nginx_ends_as_an_endless_429_does() -> None:
    """After max_refusals, with what was seen, and nothing made."""
    policy = attrs.evolve(BEHIND_NGINX, max_refusals=1)
    refused = answer(503, NGINX, {"Retry-After": "0.001"})
    async with world(None, refused, retry=policy) as (server, respan):
        with pytest.raises(InternalServerError) as caught:
            await respan.temporary_keys.create()

    assert caught.value.attempts == len(server.requests) == 2
    assert (caught.value.effect, caught.value.retryable, caught.value.retry_after) == (NONE, True, 0.001)


@pytest.mark.parametrize(
    "act", [answer(503, {"detail": "Down", "error_code": "DOWN"}), cut_body(503), cut_chunk(503)], ids=str
)
async def test_a_503_of_the_api_is_none_although_the_status_is_named(act: Act) -> None:
    """The request came through, or nobody can know: the key may have been made, and the attempt counts."""
    async with world(None, act, retry=BEHIND_NGINX) as (server, respan):
        with pytest.raises(InternalServerError) as caught:
            await respan.temporary_keys.create()

        assert respan.pace.refused == 0
    assert len(server.requests) == len(caught.value.suspects) == 1
    assert caught.value.effect is UNKNOWN


async def test_a_503_that_says_when_is_obeyed() -> None:
    """Retry-After counts on any failure, not only on a 429."""
    waits: list[float] = []
    script = (answer(503, None, {"Retry-After": "0.05"}), key())
    async with world(None, *script, hooks=[lambda e: waits.append(getattr(e, "wait", 0.0))]) as (_, respan):
        await respan.temporary_keys.create()

    assert 0.05 <= max(waits) < 0.06


# -------------------------------------------------- a 2xx that is not a key


@pytest.mark.parametrize("payload", NO_KEYS.values(), ids=NO_KEYS)
@pytest.mark.parametrize("number", [200, 201])
async def test_a_whole_answer_without_a_key_is_lost_and_not_repeated(number: int, payload: object) -> None:
    """A changed server must not cost five keys a call: one request, InvalidResponseError, LOST."""
    async with world(None, answer(number, payload), key()) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.create()

    error = caught.value
    assert (error.effect, error.retryable, error.status) == (LOST, False, number)
    # A key whose id was told is revoked by it, in the background.
    assert error.attempts == server.methods.count("POST") == len(error.suspects) == 1
    has_id = payload == NO_KEYS["NaN"] or (isinstance(payload, dict) and isinstance(payload.get("id"), str))
    assert error.suspects[0].id == ("key-1" if has_id else None)


async def test_a_204_to_a_create_is_lost() -> None:
    """Something was made, says the status; nothing came back."""
    async with world(None, raw("204", message(204)), key()) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.create()

    assert caught.value.effect is LOST
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", [200, 201, 202])
async def test_any_2xx_with_a_key_is_a_key(number: int) -> None:
    """Which 2xx a create answers is not documented."""
    async with world(None, answer(number, {"id": "i", "api_key": API_KEY})) as (_, respan):
        made = await respan.temporary_keys.create()

    assert made.id == "i"


@pytest.mark.parametrize("verb", ["list", "retrieve"])
@pytest.mark.parametrize("payload", [b"<html>", b"null", b"5", None, {"detail": "?"}], ids=str)
async def test_a_whole_answer_that_is_none_is_not_repeated(verb: str, payload: object) -> None:
    """For reads: InvalidResponseError at once."""
    async with world(None, answer(200, payload), key()) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await VERBS[verb](respan.temporary_keys)

    assert (caught.value.effect, caught.value.retryable) == (NONE, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("payload", [b"<html>", b"5", b"[]", b'"done"'], ids=str)
async def test_a_page_in_answer_to_a_change_leaves_it_open(payload: bytes) -> None:
    """Who has answered is not known, and so not whether the change was made: never NONE."""
    async with world(None, answer(200, payload), key()) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.update("key-1", name="other")

    assert (caught.value.effect, caught.value.retryable) == (UNKNOWN, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("act", "prefix"),
    [
        (raw("204", message(204)), None),
        (answer(200), None),
        (answer(202, b"null"), None),
        (answer(200, {"success": True}), None),
        (answer(200, {"id": None, "prefix": "vcjRcdm8"}), "vcjRcdm8"),
        (answer(200, {"id": "", "prefix": "vcjRcdm8"}), "vcjRcdm8"),
    ],
    ids=str,
)
async def test_a_change_that_is_answered_without_a_key_was_made(act: Act, prefix: str | None) -> None:
    """What was sent is what is known of the key, beside what the answer tells."""
    until = datetime(2030, 1, 1, tzinfo=UTC)
    async with world(None, act) as (server, respan):
        changed = await respan.temporary_keys.update(
            "key/1", name="other", expiry_date=until, max_usage=5, rate_limit=None, spending_limit=2.5
        )

    assert (changed.id, changed.name, changed.expiry_date, changed.max_usage) == ("key/1", "other", until, 5)
    assert (changed.rate_limit, changed.spending_limit, changed.prefix) == (None, 2.5, prefix)
    assert len(server.requests) == 1


async def test_what_the_server_says_of_a_changed_key_counts_for_more_than_what_was_sent() -> None:
    """The plan may have another limit."""
    async with world(None, answer(200, {"id": 7, "rate_limit": "60.00"})) as (_, respan):
        changed = await respan.temporary_keys.update("7", rate_limit=1000)

    assert (changed.id, changed.rate_limit) == ("7", 60)


PAGES = {
    "a byte order mark": (b"\xef\xbb\xbf<!DOCTYPE html><p>Sign in", None),
    "a script": (b"\n <script>location='/login'</script>", None),
    "a heading": (b"<h1>Blocked</h1>", None),
    "UTF-16": ("\ufeff<html>".encode("utf-16-le"), None),
    "by its type": (b"Please sign in.", "Text/HTML; charset=utf-8"),
}


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_of_any_kind_is_no_proof_that_a_key_was_revoked(page: str) -> None:
    """A login page, a firewall's: the key lives."""
    body, kind = PAGES[page]
    headers = {"Content-Type": kind} if kind else {}
    async with world(None, raw("a page", message(200, body, headers))) as (_, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.delete("key-1")

    assert (caught.value.effect, caught.value.retryable) == (UNKNOWN, False)


WHOLE = b'{"id": "key-1", "api_key": "%s"}' % API_KEY.encode()
TOLD = {"X-Request-ID": "req-123"}
SHORT_OF_ITS_END = {
    "the length is too large": message(201, WHOLE, {**TOLD, "Content-Length": str(len(WHOLE) + 3)}),
    "the last chunk is missing": message(
        201, b"%x\r\n%s\r\n" % (len(WHOLE), WHOLE), {**TOLD, "Transfer-Encoding": "chunked"}
    ),
}


@pytest.mark.parametrize("kind", SHORT_OF_ITS_END)
async def test_a_key_that_came_whole_is_one_though_its_answer_has_no_end(kind: str) -> None:
    """As when a worker is killed after its write. Nothing else begins with JSON that is whole."""
    async with world(None, raw(kind, SHORT_OF_ITS_END[kind], then="fin")) as (server, respan):
        made = await respan.temporary_keys.create()

    assert (made.id, made.api_key.reveal()) == ("key-1", API_KEY)
    assert server.methods == ["POST"]
    assert respan.suspects == ()


@pytest.mark.virtual
@pytest.mark.parametrize("settings", [{"timeout": 30}, {"timeout": 30, "deadline": 2}], ids=str)
@pytest.mark.parametrize("kind", SHORT_OF_ITS_END)
async def test_the_end_of_whole_json_is_not_waited_for(kind: str, settings: dict[str, Any]) -> None:
    """Where it does not come the key is there within a second, and within the deadline."""
    began = asyncio.get_running_loop().time()
    async with world(None, raw(kind, SHORT_OF_ITS_END[kind], then="stall"), **settings) as (server, respan):
        made = await respan.temporary_keys.create()

        assert asyncio.get_running_loop().time() - began < 1
        assert respan.pace.in_flight == 0
    assert (made.id, made.api_key.reveal()) == ("key-1", API_KEY)
    assert server.methods == ["POST"]
    assert respan.suspects == ()


@pytest.mark.virtual
async def test_an_answer_that_is_slow_is_waited_for_to_its_end() -> None:
    """As long as it is no whole JSON, and as long as more of it comes."""

    async def trickle(connection: Connection, _: Seen) -> None:
        data = message(201, WHOLE)
        for at in range(len(data)):
            await connection.send(data[at : at + 1])
            await asyncio.sleep(0.6)

    async with world(None, Act("trickles", trickle), timeout=300) as (server, respan):
        assert (await respan.temporary_keys.create()).id == "key-1"

    assert server.methods == ["POST"]


async def test_whole_json_without_a_key_is_as_final_without_its_end() -> None:
    """Another attempt would cost another key, whatever became of the framing."""
    told = b'{"id": "key-1", "name": "x"}'
    act = raw("no key, no end", message(201, told, {"Content-Length": str(len(told) + 50)}), then="fin")
    async with world(None, act) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.retryable) == (LOST, False)
    assert server.methods.count("POST") == len(caught.value.suspects) == 1


async def test_an_answer_that_broke_off_tells_what_came_of_it() -> None:
    """The request's id, for whoever talks to support; and what may be shown of the body."""
    act = raw("half a body", message(201, WHOLE[:25], {**TOLD, "Content-Length": str(len(WHOLE))}), then="fin")
    async with world(None, act, attempts=1) as (_, respan):
        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create()

    assert (caught.value.status, caught.value.request_id, caught.value.effect) == (201, "req-123", LOST)
    assert caught.value.body
    assert API_KEY[:8] not in caught.value.body


@pytest.mark.parametrize("end", [b"\0" * 8, b"\r\n", b""], ids=["padding", "a line break", "no trailer"])
async def test_a_compressed_key_is_read_whatever_comes_at_its_end(end: bytes) -> None:
    """JSON that is whole needs no checksum."""
    body = squeezed("x-gzip", WHOLE)
    if not end:
        squeezer = zlib.compressobj(wbits=31)
        body = squeezer.compress(WHOLE) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    async with world(None, answer(201, body + end, {"Content-Encoding": "gzip"})) as (server, respan):
        assert (await respan.temporary_keys.create()).id == "key-1"

    assert server.methods == ["POST"]


@pytest.mark.parametrize("payload", [None, b"deleted", {"deleted": True}], ids=str)
async def test_any_2xx_but_a_page_is_a_good_answer_to_a_delete(payload: object) -> None:
    """Its body does not matter otherwise."""
    async with world(None, answer(200, payload)) as (server, respan):
        await respan.temporary_keys.delete("key-1")

    assert server.methods == ["DELETE"]


async def read_within_bounds(respan: AsyncRespan) -> None:
    """Create a key at a server whose answer is larger than is read, and see that it is no larger in memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponseError, match="larger"):
            await respan.temporary_keys.create()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


async def test_a_bomb_is_read_no_further_than_the_bound() -> None:
    """A compressed body of 200 kB that means 200 MB does not become that in memory."""
    async with world(None, gzip_bomb(201), attempts=1) as (_, respan):
        await read_within_bounds(respan)


async def test_a_compressed_answer_is_read() -> None:
    """A proxy that compresses although nobody asked for it does not cost a key."""
    body = gzip.compress(b'{"id": "i", "api_key": "%s"}' % API_KEY.encode())
    async with world(None, answer(201, body, {"Content-Encoding": "gzip"})) as (_, respan):
        made = await respan.temporary_keys.create()

    assert made.api_key.reveal() == API_KEY


def squeezed(encoding: str, body: bytes) -> bytes:
    """Compress a body."""
    raw_deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return {
        "gzip": gzip.compress(body[:9], mtime=0) + gzip.compress(body[9:], mtime=0),
        "x-gzip": gzip.compress(body, mtime=0),
        "deflate": zlib.compress(body),
        "Deflate": raw_deflate.compress(body) + raw_deflate.flush(),
        "identity": body,
        "deflate, gzip": gzip.compress(zlib.compress(body)),
    }[encoding]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "Deflate", "identity", "deflate, gzip"])
async def test_an_answer_is_read_however_it_is_compressed(encoding: str, own: bool) -> None:
    """In members, with or without a header, twice over; in a session of the caller's that would not decompress, too."""
    body = squeezed(encoding, b'{"id": "i", "api_key": "%s"}' % API_KEY.encode())
    async with (
        RawServer(answer(201, body, {"Content-Encoding": encoding})) as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
        AsyncRespan(API_KEY, base_url=server.url, session=None if own else session) as respan,
    ):
        assert (await respan.temporary_keys.create()).id == "i"


@pytest.mark.parametrize("label", [{}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}], ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3])
async def test_what_gzip_has_made_is_read_however_often_it_was_applied(layers: int, label: dict[str, str]) -> None:
    """A proxy that compresses and does not say so, or does so once more, costs no key."""
    body = WHOLE
    for _ in range(layers):
        body = squeezed("x-gzip", body)
    async with world(None, answer(201, body, label)) as (server, respan):
        assert (await respan.temporary_keys.create()).id == "key-1"

    assert server.methods == ["POST"]


def test_a_stream_of_a_great_many_members_is_not_followed_to_its_end() -> None:
    """Each of them copies what is left of the body: a few kilobytes would take seconds."""
    members = gzip.compress(b"") * 50_000
    headers = {"Content-Encoding": "gzip"}

    assert decoded(headers, members + gzip.compress(b"{}"), 2**20) == b""
    assert decoded(headers, gzip.compress(b"") * 9 + gzip.compress(b"{}"), 2**20) == b"{}"


@pytest.mark.parametrize("after", ["{", "{% debug %}", '{"id": "key-1", "api'])
async def test_a_key_before_a_brace_that_begins_no_other_object_is_read(after: str) -> None:
    """It is whole, whatever stands after it."""
    async with world(None, answer(201, WHOLE + after.encode())) as (server, respan):
        assert (await respan.temporary_keys.create()).id == "key-1"

    assert server.methods == ["POST"]


@pytest.mark.parametrize("label", [{}, {"Content-Encoding": "gzip"}], ids=str)
async def test_a_bomb_within_a_compressed_answer_is_read_no_further_than_the_bound(label: dict[str, str]) -> None:
    """Each layer is bounded, whether or not it has a label."""
    bomb = squeezed("x-gzip", squeezed("x-gzip", b" " * (64 * 2**20)))
    async with world(None, answer(201, bomb, label), attempts=1) as (_, respan):
        await read_within_bounds(respan)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br", "nonsense"])
async def test_a_label_that_is_wrong_costs_no_key(encoding: str, verb: str) -> None:
    """A proxy that decompressed the answer has left its label on it."""
    payload = {"results": [], "count": 0} if verb == "list" else {"id": "i", "api_key": API_KEY}
    async with world(None, answer(200, payload, {"Content-Encoding": encoding})) as (server, respan):
        await VERBS[verb](respan.temporary_keys)

    assert len(server.requests) == 1
    assert respan.suspects == ()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": "gzip"}, b"plain text"),
        ({"Content-Encoding": "deflate"}, b"plain text"),
        ({"Content-Encoding": "gzip"}, squeezed("x-gzip", b'{"id": "i", "api_key": "k"}')[:-9]),
        ({"Content-Encoding": "deflate"}, zlib.compress(b'{"id": "i", "api_key": "k"}', wbits=-15)[:-3]),
        ({}, squeezed("x-gzip", b'{"id": "i", "api_key": "k"}')[:-9]),
        ({}, b'{"id": "i", "api_key": "k\xff"}'),
        ({"Content-Type": "application/json; charset=utf-7"}, b'{"id": "i", "api_key": "k\xff"}'),
    ],
    ids=[
        "false gzip",
        "false deflate",
        "cut short",
        "without a header, cut short",
        "no label, cut short",
        "no UTF-8",
        "no such character set",
    ],
)
async def test_a_whole_answer_that_cannot_be_decoded_costs_one_key(headers: dict[str, str], body: bytes) -> None:
    """A 2xx was seen and its body cannot be had: LOST, at once. Another attempt would fare no better."""
    async with world(None, answer(201, body, headers)) as (server, respan):
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.retryable) == (LOST, False)
    assert server.methods.count("POST") == len(caught.value.suspects) == 1  # and a DELETE, where its id was told


async def test_a_declared_character_set_is_believed() -> None:
    """Latin-1, as it was common, where the bytes are no UTF-8."""
    body = '{"id": "i", "api_key": "k", "name": "Müller"}'.encode("latin-1")
    headers = {"Content-Type": 'application/json; charset="iso-8859-1"'}
    async with world(None, answer(201, body, headers)) as (_, respan):
        assert (await respan.temporary_keys.create()).name == "Müller"


async def test_an_interim_answer_is_not_the_answer() -> None:
    """100 and 103 come before the 201, and change nothing."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    body = b'{"id": "i", "api_key": "%s"}' % API_KEY.encode()
    async with world(None, raw("interim", interim + message(201, body))) as (_, respan):
        made = await respan.temporary_keys.create()

    assert made.id == "i"


async def test_an_answer_nobody_asked_for_is_given_to_nobody() -> None:
    """Two answers to one request: the second is not taken for the next request's."""
    first, stray, second = (
        message(201, b'{"id": "%s", "api_key": "%s"}' % (name, API_KEY.encode()))
        for name in (b"first", b"stray", b"second")
    )
    async with world(None, raw("two", first + stray), raw("one", second)) as (_, respan):
        ids = [(await respan.temporary_keys.create()).id]
        ids += [(await respan.temporary_keys.create()).id]

    assert ids == ["first", "second"]


async def test_a_connection_the_server_closed_meanwhile_costs_nothing() -> None:
    """An idle connection that was closed is not used for a create: a lost answer would be a lost key."""
    body = b'{"id": "i", "api_key": "%s"}' % API_KEY.encode()
    async with world(None, raw("serves and closes", message(201, body), then="fin")) as (server, respan):
        for _ in range(5):
            await respan.temporary_keys.create()
            await asyncio.sleep(0.002)
        suspects = respan.suspects

    assert suspects == ()
    assert len(server.requests) == server.connections == 5


# --------------------------------------------------------------- redirects


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(number: int, verb: str) -> None:
    """Neither to another host, which must not see the token, nor to this one, where a POST would become a list."""
    async with RawServer(key()) as elsewhere:
        redirect = answer(number, None, {"Location": f"{elsewhere.url}{PATH}"})
        async with world(None, redirect, key()) as (server, respan):
            with pytest.raises(APIStatusError, match=f"{number}, a redirect") as caught:
                await VERBS[verb](respan.temporary_keys)

        assert caught.value.effect is (NONE if verb in READS else UNKNOWN)
        assert not caught.value.retryable
        assert len(server.requests) == 1
        assert elsewhere.requests == []


# ------------------------------------------------------- before bytes leave


def refused_port() -> str:
    """Give the URL of a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def check_nothing_left(error: RespanError, respan: AsyncRespan) -> None:
    """A failure before any byte left: nothing was made, so it may be tried again, and nobody is suspected."""
    assert (error.effect, error.retryable, error.status) == (NONE, True, None)
    assert error.suspects == respan.suspects == ()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_refused_connection(verb: str) -> None:
    """Tried again, as nothing was made, and then told."""
    url = refused_port()
    async with world(None, base_url=url, on_unknown="raise") as (_, respan):
        with pytest.raises(APIConnectionError, match=f"no connection to {url[7:]} ") as caught:
            await VERBS[verb](respan.temporary_keys)

        check_nothing_left(caught.value, respan)
    assert caught.value.attempts == 3


@pytest.mark.parametrize("verb", VERBS)
async def test_a_connection_refused_at_first(verb: str) -> None:
    """A server that comes up meanwhile is asked once, also under on_unknown="raise"."""
    async with RawServer(key(), listening=False) as server:
        policy = RetryPolicy(max_attempts=50, initial=0.001, maximum=0.005, on_unknown="raise")
        async with AsyncRespan("token", base_url=server.url, retry=policy, hooks=[server.listen]) as respan:
            await VERBS[verb](respan.temporary_keys)
            suspects = respan.suspects

    assert len(server.requests) == 1
    assert suspects == ()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_name_that_does_not_exist(verb: str) -> None:
    """DNS fails before anything leaves."""
    async with world(None, base_url="https://nowhere.invalid", attempts=2) as (_, respan):
        with pytest.raises(APIConnectionError, match=r"name was not found: nowhere\.invalid:443 \(") as caught:
            await VERBS[verb](respan.temporary_keys)

        check_nothing_left(caught.value, respan)


NO_TLS = unread("answers in plain text", lambda connection: connection.writer.write(message(400)))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("act", [NO_TLS, FIN_AT_ONCE, RST_AT_ONCE], ids=str)
async def test_a_tls_handshake_that_fails(act: Act, verb: str) -> None:
    """The token has not left before the handshake is over."""
    async with RawServer(act) as server, AsyncRespan(
        "token", base_url=server.url.replace("http:", "https:"), retry=RetryPolicy(max_attempts=1)
    ) as respan:  # fmt: skip
        with pytest.raises(APIConnectionError) as caught:
            await VERBS[verb](respan.temporary_keys)

        check_nothing_left(caught.value, respan)
    assert server.requests == []


@pytest.fixture
async def full_port() -> AsyncIterator[str]:
    """Give the URL of a port whose backlog is full, so that a connection is neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_connection_that_takes_too_long(full_port: str, verb: str) -> None:
    """A timeout for connecting proves that nothing has left."""
    timeout = aiohttp.ClientTimeout(sock_connect=MOMENT)
    async with world(None, base_url=full_port, attempts=1, timeout=timeout) as (_, respan):
        with pytest.raises(APITimeoutError, match=f"no connection in time to {full_port[7:]}") as caught:
            await VERBS[verb](respan.temporary_keys)

        check_nothing_left(caught.value, respan)


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_connection_that_takes_all_the_time_there_is(full_port: str, verb: str) -> None:
    """The timeout for everything does not tell what it interrupted; that the body had not begun to leave does."""
    async with world(None, base_url=full_port, attempts=1, timeout=MOMENT) as (_, respan):
        with pytest.raises(APITimeoutError, match=f"no connection in time to {full_port[7:]}") as caught:
            await VERBS[verb](respan.temporary_keys)

        check_nothing_left(caught.value, respan)


async def test_waiting_for_a_connection_of_a_small_pool() -> None:
    """A session with one connection, which its owner uses: who waited for it in vain has sent nothing."""
    async with RawServer(STALL) as server, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        policy = RetryPolicy(max_attempts=1, on_unknown="raise")
        async with AsyncRespan("token", base_url=server.url, session=session, retry=policy) as respan:
            theirs = asyncio.ensure_future(session.get(server.url))
            await server.arrived.wait()
            with pytest.raises(APITimeoutError) as caught:
                await respan.with_options(timeout=MOMENT).temporary_keys.create()
            theirs.cancel()

    assert (caught.value.effect, caught.value.suspects) == (NONE, ())
    assert len(server.requests) == 1


async def test_calls_wait_for_a_small_pool_before_their_time_begins() -> None:
    """A session with one connection, which a call of ours uses: the next one waits for as long as it has a deadline."""
    async with RawServer(STALL) as server, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        policy = RetryPolicy(max_attempts=1, on_unknown="raise")
        async with AsyncRespan("token", base_url=server.url, session=session, retry=policy) as respan:
            first = asyncio.ensure_future(respan.with_options(timeout=3 * MOMENT).temporary_keys.create())
            await server.arrived.wait()
            with pytest.raises(DeadlineExceededError) as caught:
                await respan.with_options(deadline=MOMENT).temporary_keys.create()
            with pytest.raises(APITimeoutError) as of_first:
                await first

    assert (caught.value.effect, caught.value.suspects) == (NONE, ())
    assert of_first.value.effect is UNKNOWN
    assert len(server.requests) == 1


async def test_a_listener_that_goes_away_before_it_accepts() -> None:
    """The kernel took the bytes, so they have left; nobody can know who read them."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with AsyncRespan("token", base_url=url, retry=RetryPolicy(on_unknown="raise")) as respan:
            creating = asyncio.ensure_future(respan.temporary_keys.create())
            await asyncio.sleep(0.02)
            listening.close()
            with pytest.raises(APIConnectionError) as caught:
                await creating

    assert caught.value.effect is UNKNOWN
    assert len(caught.value.suspects) == 1


@pytest.mark.parametrize("act", [FIN_AT_ONCE, RST_AT_ONCE], ids=str)
async def test_a_connection_that_is_closed_unread(act: Act) -> None:
    """Whether bytes were lost on the way or at their goal cannot be told from here."""
    async with world(None, act, key()) as (server, respan):
        made = await respan.temporary_keys.create()

    assert made.id == "key-1"
    assert len(server.requests) == 1


# ----------------------------------------------------------------- a DELETE


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.act in (FIN, RST, STALL) or row.status in (408, 500, 502, 503)], ids=str
)
async def test_not_found_is_success_for_a_repeated_delete(row: Row) -> None:
    """The first DELETE may have been done: then "not found" is what success looks like."""
    async with world(row, answer(404, {"detail": "Not found."})) as (server, respan):
        await respan.temporary_keys.delete("key-1")

    assert server.methods == ["DELETE", "DELETE"]


@pytest.mark.parametrize(
    "act",
    [
        answer(429, None, {"Retry-After": "0.001"}),
        answer(425, None, {"Retry-After": "0.001"}),
        answer(521),
        answer(530),
    ],
    ids=str,
)
async def test_not_found_is_no_success_for_a_delete_that_was_only_refused(act: Act) -> None:
    """A refusal did nothing, so the key was not there before."""
    async with world(None, act, answer(404, {"detail": "Not found."})) as (server, respan):
        with pytest.raises(NotFoundError, match="Not found") as caught:
            await respan.temporary_keys.delete("key-1")

    assert caught.value.effect is NONE
    assert caught.value.attempts == len(server.requests) == 2


async def test_not_found_is_no_success_for_a_delete_that_could_not_leave() -> None:
    """Nor did a connection that was refused."""
    async with RawServer(answer(404), listening=False) as server:
        policy = RetryPolicy(max_attempts=50, initial=0.001, maximum=0.005)
        async with AsyncRespan("token", base_url=server.url, retry=policy, hooks=[server.listen]) as respan:
            with pytest.raises(NotFoundError):
                await respan.temporary_keys.delete("key-1")

    assert len(server.requests) == 1


async def test_not_found_at_once() -> None:
    """The first DELETE finds nothing: an error, unless that is all right."""
    async with world(None, answer(404, {"detail": "Not found."})) as (server, respan):
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.delete("key-1")
        await respan.temporary_keys.delete("key-1", missing_ok=True)

    assert len(server.requests) == 2


@pytest.mark.parametrize("verb", ["retrieve", "update"])
async def test_not_found_is_no_success_for_anything_else(verb: str) -> None:
    """Only for a DELETE does it mean what was wanted."""
    async with world(None, FIN, answer(404)) as (_, respan):
        with pytest.raises(NotFoundError):
            await VERBS[verb](respan.temporary_keys)
