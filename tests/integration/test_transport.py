"""What goes over the wire, and the session it goes through."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    ClientStateError,
    ConfigurationError,
    Effect,
    RespanError,
    RetryPolicy,
    Secret,
)
from respan_async._http import operations
from respan_async._http.transport import Transport
from respan_async.testing import FakeRespan
from tests.integration.raw_server import STALL, RawServer, answer, cut_body, key

ONCE = RetryPolicy(max_attempts=1)
QUICK = RetryPolicy(max_attempts=2, initial=0.001, maximum=0.001)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    """Run a server that writes down what it gets."""
    async with RawServer(key()) as running:
        yield running


# ------------------------------------------------------------- on the wire


async def test_a_create_on_the_wire(server: RawServer) -> None:
    """Method, path with its slash, token, JSON; and nothing that would let an answer grow or come in two parts."""
    async with AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.create(name="tenant-42", max_usage=5)

    (seen,) = server.requests
    assert (seen.method, seen.target) == ("POST", "/api/temporary-keys/")
    assert seen.json == {"name": "tenant-42", "max_usage": 5}
    assert seen.headers["authorization"] == "Bearer token"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert "respan" in seen.headers["user-agent"]
    assert not {"expect", "cookie", "transfer-encoding"} & set(seen.headers)


async def test_an_empty_create_posts_an_empty_object(server: RawServer) -> None:
    """Exactly what was given is sent: {}."""
    async with AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.create()

    assert server.requests[0].body == b"{}"


async def test_requests_without_a_body_have_none(server: RawServer) -> None:
    """GET and DELETE: no body, and no word about its kind."""
    async with AsyncRespan("token", base_url=server.url) as respan:
        await respan.temporary_keys.list(page=2, page_size=10)
        await respan.temporary_keys.retrieve("a/b")
        await respan.temporary_keys.delete("a/b")

    assert [(seen.method, seen.target) for seen in server.requests] == [
        ("GET", "/api/temporary-keys/?page=2&page_size=10"),
        ("GET", "/api/temporary-keys/a%2Fb/"),
        ("DELETE", "/api/temporary-keys/a%2Fb/"),
    ]
    assert all(seen.body == b"" and "content-type" not in seen.headers for seen in server.requests)


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/"])
async def test_a_base_url_with_or_without_api(server: RawServer, suffix: str) -> None:
    """Both lead to the same place."""
    async with AsyncRespan("token", base_url=server.url + suffix) as respan:
        await respan.temporary_keys.create()

    assert server.requests[0].target == "/api/temporary-keys/"


async def test_the_environment_leads_there(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESPAN_API_KEY and RESPAN_BASE_URL are all it needs."""
    monkeypatch.setenv("RESPAN_API_KEY", "from-the-environment")
    monkeypatch.setenv("RESPAN_BASE_URL", f"{server.url}/api")

    async with AsyncRespan() as respan:
        await respan.temporary_keys.create()

    assert server.requests[0].headers["authorization"] == "Bearer from-the-environment"


async def test_extra_headers_come_on_top(server: RawServer) -> None:
    """Of a view, and of no other."""
    async with AsyncRespan("token", base_url=server.url) as respan:
        view = respan.with_options(extra_headers={"X-Team": "blue", "User-Agent": "tests/1"})
        await view.temporary_keys.create()
        await view.with_options(timeout=5).temporary_keys.retrieve("i")
        await respan.temporary_keys.create()

    first, second, third = server.requests
    assert (first.headers["x-team"], first.headers["authorization"]) == ("blue", "Bearer token")
    assert second.headers["x-team"] == "blue"
    assert "x-team" not in third.headers


async def test_one_connection_serves_calls_in_a_row(server: RawServer) -> None:
    """A handshake for each would cost more than the call."""
    async with AsyncRespan("token", base_url=server.url) as respan:
        for _ in range(5):
            await respan.temporary_keys.create()
            await respan.temporary_keys.delete("i")

    assert server.connections == 1


async def test_a_failed_answer_gives_its_connection_back() -> None:
    """Errors are read to their end as well."""
    async with (
        RawServer(answer(400, {"detail": "no"})) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        for _ in range(3):
            with pytest.raises(RespanError):
                await respan.temporary_keys.create()

    assert server.connections == 1


# ------------------------------------------------------------- the token


async def test_a_token_is_asked_for_before_each_request() -> None:
    """So it can be rotated, between two attempts of one call too."""
    tokens = iter(["first", "second", "third"])

    async def ask() -> str:
        await asyncio.sleep(0)
        return next(tokens)

    async with RawServer(answer(503), key()) as server, AsyncRespan(ask, base_url=server.url, retry=QUICK) as respan:
        await respan.temporary_keys.create()
        await respan.temporary_keys.retrieve("i")

    assert [seen.headers["authorization"] for seen in server.requests] == [
        "Bearer first",
        "Bearer second",
        "Bearer third",
    ]


async def test_a_callable_may_give_a_secret(server: RawServer) -> None:
    """As well as text."""

    async def ask() -> Secret:
        return Secret("hidden")

    async with AsyncRespan(ask, base_url=server.url) as respan:
        await respan.temporary_keys.create()

    assert server.requests[0].headers["authorization"] == "Bearer hidden"


@pytest.mark.parametrize("wrong", ["", "a b", "a\nb", None, 5, b"token", Secret.erased()], ids=repr)
async def test_a_callable_that_gives_no_token(server: RawServer, wrong: Any) -> None:
    """ConfigurationError, and nothing is sent."""

    async def ask() -> Any:
        return wrong

    async with AsyncRespan(ask, base_url=server.url) as respan:
        with pytest.raises(ConfigurationError, match="api_key: expected"):
            await respan.temporary_keys.create()

        assert respan.pace.in_flight == 0
        assert respan.suspects == ()
    assert server.requests == []


async def test_a_callable_that_raises(server: RawServer) -> None:
    """APIConnectionError, with what it raised as the cause; the slot is given back."""

    async def ask() -> str:
        raise OSError("vault is sealed")

    once = RetryPolicy(max_attempts=1)
    async with AsyncRespan(ask, base_url=server.url, max_in_flight=1, retry=once) as respan:
        for _ in range(3):
            with pytest.raises(APIConnectionError, match="the callable raised OSError") as caught:
                await respan.temporary_keys.create()
            assert isinstance(caught.value.__cause__, OSError)

        assert (respan.pace.in_flight, respan.suspects) == (0, ())
    assert server.requests == []


async def test_a_callable_that_raises_on_the_second_attempt_does_not_hide_the_first() -> None:
    """What the first attempt may have left is still in the error."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError
        return "token"

    async with RawServer(answer(500)) as server, AsyncRespan(ask, base_url=server.url, retry=QUICK) as respan:
        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, len(caught.value.suspects), caught.value.attempts) == (Effect.UNKNOWN, 1, 1)
    assert len(server.requests) == 1


# ---------------------------------------------------- a session of one's own


async def test_a_session_that_raises_for_every_status_changes_nothing() -> None:
    """Ours are still the errors, and the effect in them."""
    async with (
        RawServer(answer(422, {"detail": "no"})) as server,
        aiohttp.ClientSession(raise_for_status=True) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        with pytest.raises(RespanError, match="no") as caught:
            await respan.temporary_keys.create()

    assert (caught.value.status, caught.value.effect) == (422, Effect.NONE)


async def test_a_session_is_used_as_it_is(server: RawServer) -> None:
    """Its default headers and cookies are sent; the token and what we need win."""
    jar = aiohttp.CookieJar(unsafe=True)
    headers = {"X-Trace": "t-1", "Authorization": "Basic nonsense", "Accept": "text/html", "Accept-Encoding": "gzip"}
    async with (
        aiohttp.ClientSession(headers=headers, cookies={"session": "s-1"}, cookie_jar=jar) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        await respan.temporary_keys.create()

    (seen,) = server.requests
    assert (seen.headers["x-trace"], seen.headers["cookie"]) == ("t-1", "session=s-1")
    assert seen.headers["authorization"] == "Bearer token"
    assert (seen.headers["accept"], seen.headers["accept-encoding"]) == ("application/json", "identity")


async def test_a_session_with_another_base_url_does_not_lead_us_astray(server: RawServer) -> None:
    """Ours is the one that counts."""
    async with (
        aiohttp.ClientSession(base_url="https://elsewhere.invalid/") as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        await respan.temporary_keys.create()

    assert len(server.requests) == 1


async def test_a_sessions_own_timeout_does_not_count() -> None:
    """`timeout` is for one attempt, and in one place."""
    async with (
        FakeRespan(latency=0.05) as fake,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.01)) as session,
        AsyncRespan(fake.api_key, base_url=fake.url, session=session) as respan,
    ):
        await respan.temporary_keys.create()


async def test_a_sessions_middlewares_do_not_see_our_requests(server: RawServer) -> None:
    """One that repeats requests would make keys; one that logs them would log the token."""
    seen: list[object] = []

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(request.headers)
        return await handler(request)

    async with (
        aiohttp.ClientSession(middlewares=[middleware]) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        await respan.temporary_keys.create()

    assert seen == []
    assert len(server.requests) == 1


def refused_connection() -> Exception:
    """Make the error of a hook's own request to a server that is down."""
    url = URL("http://metrics.example:9")
    key = ConnectionKey(url.host or "", url.port, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "refused"))


def refused_certificate() -> Exception:
    """Make the error of a hook's own request to a server that wants another certificate of the client."""
    error = aiohttp.ClientOSError(1, "x")
    error.__cause__ = alert = ssl.SSLError(1, "x")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    return error


HOOKS_ERRORS = [refused_connection, refused_certificate, aiohttp.ConnectionTimeoutError, ValueError, RuntimeError]


def session_with_hook(name: str, error: Callable[[], Exception]) -> aiohttp.ClientSession:
    """Make a session with one trace hook, which raises."""

    async def hook(*_: object) -> None:
        raise error()

    config = aiohttp.TraceConfig()
    getattr(config, name).append(hook)
    return aiohttp.ClientSession(trace_configs=[config])


@pytest.mark.parametrize("error", HOOKS_ERRORS)
@pytest.mark.parametrize("operation", ["create", "update", "delete"])
async def test_a_trace_hook_that_fails_after_the_answer_proves_nothing(
    server: RawServer, operation: str, error: Callable[[], Exception]
) -> None:
    """Its own connection may fail as ours would have before anything left; the change was made all the same."""
    async with (
        session_with_hook("on_request_end", error) as session,
        AsyncRespan("token", base_url=server.url, session=session, retry=ONCE) as respan,
    ):
        keys = respan.temporary_keys
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "create": partial(keys.create, name="made"),
            "update": partial(keys.update, "i", name="changed"),
            "delete": partial(keys.delete, "i"),
        }

        with pytest.raises(APIConnectionError) as caught:
            await calls[operation]()

    assert caught.value.effect is Effect.UNKNOWN
    assert len(respan.suspects) == (operation == "create")
    assert "a trace hook of the aiohttp session raised" in str(caught.value)
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("error", [refused_connection, refused_certificate, RuntimeError])
async def test_a_trace_hook_that_fails_before_the_request_leaves_nothing(
    server: RawServer, error: Callable[[], Exception]
) -> None:
    """The body has not begun to leave, and another attempt may fare better."""
    async with (
        session_with_hook("on_connection_create_end", error) as session,
        AsyncRespan("token", base_url=server.url, session=session, retry=ONCE) as respan,
    ):
        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create(name="unmade")

    assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, True)
    assert not server.requests


async def test_a_session_is_never_closed_by_us(server: RawServer) -> None:
    """Whoever made it closes it."""
    async with aiohttp.ClientSession() as session:
        async with AsyncRespan("token", base_url=server.url, session=session) as respan:
            await respan.temporary_keys.create()

        assert not session.closed
        async with session.get(f"{server.url}/api/temporary-keys/?page=1") as response:
            assert response.status == 200


@pytest.mark.parametrize("verb", ["create", "delete", "list"])
async def test_a_session_that_was_closed(server: RawServer, verb: str) -> None:
    """ClientStateError; nothing was sent, so there is nothing to suspect."""
    session = aiohttp.ClientSession()
    async with AsyncRespan("token", base_url=server.url, session=session) as respan:
        await session.close()
        with pytest.raises(ClientStateError, match="session was closed") as caught:
            await {
                "create": respan.temporary_keys.create,
                "delete": lambda: respan.temporary_keys.delete("i"),
                "list": respan.temporary_keys.list,
            }[verb]()  # type: ignore[operator]

        assert (caught.value.effect, caught.value.suspects, respan.suspects) == (Effect.NONE, (), ())
        assert respan.pace.used == 0
    assert server.requests == []


async def test_a_session_that_is_closed_meanwhile() -> None:
    """The request had left: something may have been made."""
    async with RawServer(STALL) as server:
        session = aiohttp.ClientSession()
        async with AsyncRespan("token", base_url=server.url, session=session, retry=QUICK) as respan:
            creating = asyncio.ensure_future(respan.temporary_keys.create())
            await server.arrived.wait()
            await session.close()
            with pytest.raises(RespanError) as caught:
                await creating

        assert caught.value.effect is Effect.UNKNOWN
        assert len(caught.value.suspects) == len(respan.suspects) == 1


@pytest.mark.parametrize(("status", "effect"), [(201, Effect.LOST), (500, Effect.UNKNOWN), (409, Effect.NONE)])
async def test_a_session_that_is_closed_while_the_answer_is_read(status: int, effect: Effect) -> None:
    """What the status has said by then still counts: after a 201 there is a key whose secret is lost."""
    tracing = aiohttp.TraceConfig()

    async def close(closed: aiohttp.ClientSession, *_: object) -> None:
        await closed.close()

    tracing.on_request_end.append(close)  # once the headers are there
    session = aiohttp.ClientSession(trace_configs=[tracing])
    async with (
        RawServer(cut_body(status, "stall")) as server,
        AsyncRespan("token", base_url=server.url, session=session, retry=RetryPolicy(max_attempts=1)) as respan,
    ):
        with pytest.raises(RespanError) as caught:
            await respan.temporary_keys.create()

        assert (caught.value.status, caught.value.effect) == (status, effect)
        assert [suspect.effect for suspect in respan.suspects] == [effect] * (effect is not Effect.NONE)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
async def test_a_session_that_cannot_send_a_token(server: RawServer) -> None:
    """One with credentials of its own: aiohttp refuses to send both, and nothing has left."""
    async with (
        aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "hunter2")) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        with pytest.raises(ConfigurationError, match="the aiohttp session cannot send this request") as caught:
            await respan.temporary_keys.create()

        assert (caught.value.effect, respan.suspects) == (Effect.NONE, ())
    assert "hunter2" not in str(caught.value)
    assert server.requests == []


async def test_our_own_session_is_closed_with_the_client(server: RawServer) -> None:
    """No connection stays open behind it (an unclosed one would warn, and warnings are errors here)."""
    respan = AsyncRespan("token", base_url=server.url)
    await respan.temporary_keys.create()
    await respan.aclose()

    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not server.open


async def test_a_cookie_is_not_kept() -> None:
    """Our own session has no memory for them."""
    async with (
        RawServer(answer(201, {"id": "i", "api_key": "k"}, {"Set-Cookie": "a=b; Path=/"})) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        await respan.temporary_keys.create()
        await respan.temporary_keys.create()

    assert "cookie" not in server.requests[1].headers


async def test_a_page_of_a_thousand_keys_is_read() -> None:
    """The bound on an answer is far from what a list needs."""
    keys = [{"id": f"key-{n}", "name": "x" * 50, "extra": "y" * 500} for n in range(1000)]
    async with (
        RawServer(answer(200, {"results": keys, "count": 1000, "next": None})) as server,
        AsyncRespan("token", base_url=server.url) as respan,
    ):
        page = await respan.temporary_keys.list()

    assert len(page.results) == 1000
    assert len(json.dumps(keys)) > 500_000


async def test_the_servers_id_of_a_request_is_told() -> None:
    """Where it sends one with a failure, by which its people can find it in their logs."""
    heard: list[Any] = []
    refused = answer(400, {"detail": "no"}, {"X-Request-ID": "r-1"})
    async with (
        RawServer(refused, key()) as server,
        AsyncRespan("token", base_url=server.url, hooks=[heard.append]) as respan,
    ):
        with pytest.raises(RespanError) as caught:
            await respan.temporary_keys.create()

    assert [event.request_id for event in heard] == ["r-1"]
    assert caught.value.request_id == "r-1"


async def test_a_closed_transport_makes_no_new_session(server: RawServer) -> None:
    """A call from within which the client was closed: its session would never be closed."""
    transport = Transport(server.url, None)
    await transport.aclose()

    with pytest.raises(ClientStateError, match="the client is closed"):
        await transport.send(operations.list_page(1, None), None, Secret("token"), aiohttp.ClientTimeout())

    assert server.requests == []
