"""A canary for a bearer token, and canaries for keys, driven through every way to fail; then looked for everywhere.

Everywhere is: every error, as text, pickled, and with the locals of every frame that is not the test's own; every log
record; every event; and the repr of everything the library hands out.
"""

import asyncio
import html
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast
from urllib.parse import quote

import attrs
import pytest

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    AuthenticationError,
    ConfigurationError,
    CreatedKey,
    CreateKeyRequest,
    Failed,
    Issued,
    RespanError,
    RetryPolicy,
    Secret,
    TemporaryKeys,
)
from respan_async.testing import FAULTS, FakeRespan
from tests.integration.raw_server import Act, Connection, RawServer, Seen, key, message

BEARER = 'canary+bearer/0123456789"<abcdef>=='
PUBLIC = "CANARY12"
HIDDEN = "thiscanaryliveshereandnobodysees"
API_KEY = f"{PUBLIC}.{HIDDEN}"

Verb = Callable[[TemporaryKeys], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "create": lambda keys: keys.create(name="tenant-42"),
    "list": lambda keys: keys.list(),
    "retrieve": lambda keys: keys.retrieve("key-1"),
    "update": lambda keys: keys.update("key-1", name="other"),
    "delete": lambda keys: keys.delete("key-1"),
}
QUICK = RetryPolicy(max_attempts=2, max_refusals=1, initial=0.001, maximum=0.001)


# ----------------------------------------------------------------- a witness


class Witness:
    """Collect everything that somebody could get to see."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._seen: list[tuple[str, str]] = []

    def __call__(self, event: object) -> None:
        """Be a hook."""
        self.look("an event", event)

    def look(self, where: str, *things: object) -> None:
        """Take down how things look."""
        for thing in things:
            texts = [repr(thing), str(thing), f"{thing}", "%s %r" % (thing, thing)]  # noqa: UP031  as logging does it
            if attrs.has(type(thing)):
                # `extra` keeps what it does not know as it came.
                shown = attrs.asdict(cast("attrs.AttrsInstance", thing), filter=lambda field, _: field.name != "extra")
                texts.append(repr(shown))
            self._seen += [(where, text) for text in texts]

    def catch(self, error: BaseException | None) -> None:
        """Take down all that an error gives away."""
        assert error is not None
        self.look("an error", error, vars(error), error.args)
        self._seen.append(("a pickled error", pickle.dumps(error).decode("latin-1")))
        self._seen.append(("a traceback", "".join(traceback.format_exception(error))))
        told = traceback.TracebackException.from_exception(error, capture_locals=True, compact=False)
        self._seen += [(f"the locals of {frame}", text) for frame, text in library_locals(told)]

    def check(self, *secrets: str) -> None:
        """Nothing of it holds a secret, in whatever way it is written."""
        self._seen += [("a log record", f"{record.getMessage()} {vars(record)}") for record in self._caplog.records]
        assert len(self._seen) > 5
        for secret in secrets:
            for form in {secret, quote(secret, safe=""), html.escape(secret), secret.replace("/", "\\/"), secret[:16]}:
                found = [where for where, text in self._seen if form in text]
                assert not found, f"{secret} is in {found}"


def library_locals(told: traceback.TracebackException) -> Iterator[tuple[str, str]]:
    """Give the locals of every frame in a chain of exceptions, but for the test's own."""
    for frame in told.stack:
        if "/tests/" not in frame.filename:
            yield f"{frame.filename}:{frame.name}", repr(frame.locals)
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            yield from library_locals(other)


@pytest.fixture
async def witness(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Witness]:
    """Listen to every logger, also to those of aiohttp and of an event loop in debug mode."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0
    yield Witness(caplog)
    asyncio.get_running_loop().set_debug(False)


async def fail(verb: Verb, respan: AsyncRespan, witness: Witness) -> None:
    """Make a call, and take down how it ends."""
    try:
        result = await verb(respan.temporary_keys)
    except (RespanError, asyncio.CancelledError) as error:
        witness.catch(error)
    else:
        witness.look("a result", result)
    witness.look("the client", respan, respan.pace, respan.temporary_keys, *respan.suspects)


def told_by_a_frame() -> BaseException:
    """Give an error whose traceback holds a canary in the locals of somebody else's frame."""
    try:
        json.loads(f'{{"{BEARER}": ')
    except ValueError as error:
        return RuntimeError("nothing to see").with_traceback(error.__traceback__)
    raise AssertionError("that was no JSON")


def told_by_an_attribute() -> BaseException:
    """Give an error that holds a canary in an attribute."""
    error = RespanError("nothing to see")
    error.body = f"not {BEARER}"
    return error


@pytest.mark.parametrize(
    "betray",
    [
        lambda witness: witness.look("something", BEARER),
        lambda witness: witness.catch(told_by_an_attribute()),
        lambda witness: witness.catch(told_by_a_frame()),
        lambda witness: logging.getLogger("aiohttp").debug("%s", BEARER),
    ],
)
async def test_the_witness_would_notice(betray: Callable[[Witness], None], witness: Witness) -> None:
    """A canary in a text, in an attribute, in a frame or in a log record is found."""
    witness.look("something harmless", *range(5))
    witness.check(BEARER)

    betray(witness)

    with pytest.raises(AssertionError, match="is in"):
        witness.check(BEARER)


# ------------------------------------------------------ every fault of a fake


@pytest.mark.virtual
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_gives_a_secret_away(fault: str, verb: str, witness: Witness) -> None:
    """Each fault of the fake server, twice in a row, on each operation."""
    async with FakeRespan(api_keys=[BEARER]) as fake:
        fake.script(fault, fault, operation=verb)
        async with AsyncRespan(BEARER, base_url=fake.url, hooks=[witness], retry=QUICK, tag_names=True) as respan:
            await fail(VERBS[verb], respan, witness)

        secrets = [record.api_key.partition(".")[2] for record in fake.keys.values()]
    witness.check(BEARER, *secrets)


# ------------------------------------------------------ servers that echo


def echo(name: str, make: Callable[[str], bytes], then: str = "keep") -> Act:
    """Answer with something made of the bearer token that came."""

    async def do(connection: Connection, seen: Seen) -> None:
        token = seen.headers["authorization"].removeprefix("Bearer ")
        assert token == BEARER
        await connection.send(make(token))
        if then == "fin":
            connection.finish()

    return Act(name, do)


def in_json(status: int, **fields: Any) -> Callable[[str], bytes]:
    """Give an answer in JSON that holds the token, and a key."""

    def make(token: str) -> bytes:
        said = {"detail": f"Bearer {token} and {API_KEY}", "error": {"message": token}, "errors": {token: [token]}}
        return message(status, json.dumps({**said, **fields}).encode(), {"X-Request-ID": f"{token} {API_KEY}"})

    return make


def escaped(text: str) -> str:
    """Write a text in JSON with an escape for every character."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


ECHOES = [
    *(echo(f"{status} in JSON", in_json(status, api_key=API_KEY)) for status in (400, 401, 403, 404, 409, 422, 500)),
    echo("429 in JSON", in_json(429, retry_after=0.001)),
    echo("2xx with another name for the key", in_json(201, id="key-1", key=API_KEY, secret={"value": API_KEY})),
    echo("2xx with null for the key", in_json(201, id="key-1", api_key=None, hashed_key=f"pbkdf2.{API_KEY}")),
    echo("2xx without an id", in_json(201, api_key=API_KEY)),
    echo("2xx with a list for an id", in_json(201, id=[API_KEY], api_key=API_KEY)),
    echo("a page of keys with secrets", in_json(200, results=[{"api_key": API_KEY, "name": 5}], count=0)),
    echo("JSON in escapes", lambda token: message(400, f'{{"detail": "{escaped(token + API_KEY)}"}}'.encode())),
    echo("JSON with escaped slashes", lambda token: message(400, json.dumps([token]).replace("/", "\\/").encode())),
    echo("HTML", lambda token: message(502, f"<b>{html.escape(token)} {token} {API_KEY}</b>".encode())),
    echo("2xx in HTML", lambda token: message(200, f"<b>{html.escape(token)} {API_KEY}</b>".encode())),
    echo("half of a key", lambda token: message(201, f'{{"id": "key-1", "api_key": "{API_KEY}'.encode())),
    echo("a redirect", lambda token: message(302, token.encode(), {"Location": f"https://a.example/{quote(token)}"})),
    echo("a reason", lambda token: message(403, b"", reason=f"Bad {token}")),
    echo("headers", lambda token: message(500, b"", {"WWW-Authenticate": token, "X-Request-ID": token})),
    echo("a Retry-After", lambda token: message(503, b"", {"Retry-After": token})),
    echo("a Date", lambda token: message(503, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": token})),
    echo("a cookie", lambda token: message(401, b"", {"Set-Cookie": f"token={token}; Path=/; Expires={token}"})),
    echo("a content type", lambda token: message(201, b"{}", {"Content-Type": f"text/{token}; charset={token}"})),
    echo("an encoding", lambda token: message(201, token.encode(), {"Content-Encoding": "gzip"})),
    echo("an unknown encoding", lambda token: message(201, token.encode(), {"Content-Encoding": token})),
    echo("no HTTP", lambda token: f"{token} {API_KEY}\r\n\r\n".encode(), "fin"),
    echo("a status that is no number", lambda token: f"HTTP/1.1 {token}\r\n\r\n".encode(), "fin"),
    echo("a header line without a colon", lambda token: f"HTTP/1.1 201 OK\r\n{token}\r\n\r\n".encode(), "fin"),
    echo("a length that is none", lambda token: f"HTTP/1.1 201 OK\r\nContent-Length: {token}\r\n\r\n".encode(), "fin"),
    echo("a wrong chunk size", lambda token: message(201, token.encode(), {"Transfer-Encoding": "chunked"}), "fin"),
    echo("a cut body", lambda token: message(201, in_json(201)(token), {"Content-Length": "9999"}), "fin"),
    echo("a cut refusal", lambda token: message(400, in_json(400)(token), {"Content-Length": "9999"}), "fin"),
    echo("a cut head", lambda token: f"HTTP/1.1 201 OK\r\nX: {token}".encode(), "fin"),
    echo("the bound of what is shown", lambda token: message(500, b"x" * 1_990 + f"{token} {API_KEY}".encode())),
    echo("more than is read", lambda token: message(201, f"{token} {API_KEY}".encode() * 200_000)),
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("act", ECHOES, ids=str)
async def test_no_echo_gives_a_secret_away(act: Act, verb: str, witness: Witness) -> None:
    """A server that says back what it was told, wherever an answer has a place for it."""
    async with (
        RawServer(act) as server,
        AsyncRespan(BEARER, base_url=server.url, hooks=[witness], retry=QUICK) as respan,
    ):
        await fail(VERBS[verb], respan, witness)

    assert server.requests
    witness.check(BEARER, HIDDEN)


@pytest.mark.parametrize("where", range(5_900, 6_010, 7))
async def test_half_a_token_is_not_shown_either(where: int, witness: Witness) -> None:
    """However the bound on what is looked at cuts an echo in two."""
    filler = '"api_key":"' + "x" * (where - 20) + '"'
    act = echo("", lambda token: message(500, f"{filler}{token}{API_KEY}".encode()))
    async with RawServer(act) as server, AsyncRespan(BEARER, base_url=server.url, retry=QUICK) as respan:
        await fail(VERBS["create"], respan, witness)

    witness.check(BEARER, HIDDEN)


# --------------------------------------------- cancelled, too late, and used wrongly


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("deadline", [None, 5.0])
async def test_a_cancelled_call_gives_nothing_away(verb: str, deadline: float | None, witness: Witness) -> None:
    """The traceback of a CancelledError goes through the library, and there is a token in the air."""
    silent = Act("silent", lambda connection, _: connection.reader.read())  # type: ignore[arg-type,return-value]
    async with RawServer(silent) as server:
        respan = AsyncRespan(BEARER, base_url=server.url, hooks=[witness], deadline=deadline)
        calling = asyncio.ensure_future(fail(VERBS[verb], respan, witness))
        await server.arrived.wait()
        calling.cancel()
        await calling
        await respan.aclose(grace=0)

    witness.check(BEARER)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_timeout_and_a_deadline_give_nothing_away(verb: str, witness: Witness) -> None:
    """Nor do their tracebacks."""
    silent = Act("silent", lambda connection, _: connection.reader.read())  # type: ignore[arg-type,return-value]
    async with RawServer(silent) as server:
        respan = AsyncRespan(BEARER, base_url=server.url, hooks=[witness], retry=QUICK)
        await fail(VERBS[verb], respan.with_options(timeout=0.01), witness)
        await fail(VERBS[verb], respan.with_options(deadline=0.01), witness)
        await respan.aclose(grace=0)

    witness.check(BEARER)


@pytest.mark.parametrize("spoilt", [f"{BEARER}\n", f" {BEARER}", f"{BEARER}\x7f", f"{BEARER}é"], ids=ascii)
async def test_a_token_that_cannot_be_sent_is_not_shown(
    spoilt: str, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stray line break in a setting is a common mistake, and its error goes straight into a log."""

    async def asked() -> str:
        return spoilt

    monkeypatch.setenv("RESPAN_API_KEY", spoilt)
    for given in (spoilt, None, Secret(spoilt)):
        with pytest.raises(ConfigurationError, match="stray") as caught:
            AsyncRespan(given)
        witness.catch(caught.value)
    async with AsyncRespan(asked) as respan:
        with pytest.raises(ConfigurationError, match="stray") as caught:
            await respan.temporary_keys.create()
        witness.catch(caught.value)

    witness.check(BEARER)


async def test_settings_that_are_wrong_do_not_show_the_token(witness: Witness) -> None:
    """Whatever else is wrong with a client, its token was given as well."""
    wrong: list[dict[str, Any]] = [
        {"base_url": "http://example.com"},
        {"base_url": "nonsense"},
        {"timeout": -1},
        {"deadline": "soon"},
        {"retry": 5},
        {"pace": "fast"},
        {"max_in_flight": 0},
        {"session": 5},
        {"hooks": [5]},
    ]
    for settings in wrong:
        with pytest.raises(ConfigurationError) as caught:
            AsyncRespan(BEARER, **settings)
        witness.catch(caught.value)

    witness.check(BEARER)


async def test_a_callable_that_fails_keeps_its_words_to_itself(witness: Witness) -> None:
    """The message names the class of what it raised, and not its text."""

    async def asked() -> str:
        raise OSError(f"could not refresh {BEARER}")

    async with AsyncRespan(asked, hooks=[witness], retry=RetryPolicy(max_attempts=1)) as respan:
        with pytest.raises(APIConnectionError, match="the callable raised OSError") as caught:
            await respan.temporary_keys.create()

    witness.look("an error", caught.value, vars(caught.value), pickle.dumps(caught.value))
    witness.look("the rest", *range(5))
    witness.check(BEARER)


# ------------------------------------------------------------ what is handed out


async def test_what_is_handed_out_does_not_show_itself(witness: Witness) -> None:
    """A client, a key, a page of keys, a batch and its outcomes, the events of a success."""
    async with RawServer(key(api_key=API_KEY, hashed_key=API_KEY, other="shown")) as server:
        respan = AsyncRespan(BEARER, base_url=server.url, hooks=[witness], tag_names=True)
        async with respan, respan.temporary_keys.create_many([CreateKeyRequest(name="a")] * 3) as batch:
            made = await respan.temporary_keys.create(name="b")
            witness.look("things", made, vars(batch), batch, batch.progress, respan, respan.pace, vars(respan))
            witness.look("pages", await respan.temporary_keys.list(), await respan.temporary_keys.retrieve("key-1"))
            witness.look("extra", made.extra, made.api_key, [made.api_key], {"key": made.api_key})
            async for outcome in batch:
                assert isinstance(outcome, Issued)
                witness.look("an outcome", outcome)

    assert made.api_key.reveal() == API_KEY
    witness.check(BEARER, HIDDEN)


async def test_a_batch_that_fails_gives_nothing_away(witness: Witness) -> None:
    """Neither in its outcomes, nor in the error that ends it."""
    async with (
        RawServer(echo("401", in_json(401, api_key=API_KEY))) as server,
        AsyncRespan(BEARER, base_url=server.url, hooks=[witness]) as respan,
    ):
        try:
            async with respan.temporary_keys.create_many([CreateKeyRequest()] * 3) as batch:
                async for outcome in batch:
                    assert isinstance(outcome, Failed)
                    witness.look("an outcome", outcome)
                    witness.catch(outcome.error)
        except AuthenticationError as error:
            witness.catch(error)

    witness.check(BEARER, HIDDEN)


async def test_a_key_that_arrives_too_late_is_not_shown(witness: Witness) -> None:
    """Revoking it, or failing to, is logged, and told to hooks, by its id."""

    async def slow(connection: Connection, seen: Seen) -> None:
        await asyncio.sleep(0.01)
        await key(api_key=API_KEY).do(connection, seen)

    async with RawServer(Act("slow", slow), echo("403", in_json(403))) as server:
        async with AsyncRespan(BEARER, base_url=server.url, hooks=[witness]) as respan:
            creating = asyncio.ensure_future(fail(VERBS["create"], respan, witness))
            await server.arrived.wait()
            creating.cancel()
            await creating
        witness.look("suspects", *respan.suspects)

    assert server.methods == ["POST", "DELETE"]
    assert [suspect.id for suspect in respan.suspects] == ["key-1"]
    witness.check(BEARER, HIDDEN)


def test_a_key_is_not_pickled_by_mistake() -> None:
    """A cache or a queue that pickles what it is given would store the secret."""
    made = CreatedKey(id="key-1", api_key=Secret(API_KEY))

    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(made)
