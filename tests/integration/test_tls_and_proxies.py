"""Connections that cannot be made before somebody changes something: certificates, and proxies that refuse."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    CreateKeyRequest,
    Effect,
    Failed,
    InvalidResponseError,
    Issued,
    RetryPolicy,
    TemporaryKeys,
)
from tests.integration.raw_server import FIN, Act, Connection, RawServer, Seen, answer, key, raw
from tests.servers.certificate import HOUR, certify

QUICK = RetryPolicy(max_attempts=3, initial=0.001, maximum=0.001)
API = "https://api.respan.ai"
PASSWORD = "sesame"


@attrs.define
class TLSServer:
    """A server that gives a key over TLS to each connection, and closes it.

    Attributes:
        port: Where it listens.
        context: Its side of TLS, which may get another certificate at any time.
        handshakes: How many connections were asked for.
        served: How many requests came through.
    """

    port: int
    context: ssl.SSLContext
    handshakes: int = 0
    served: int = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[TLSServer]:
    """Serve."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"}")
            running.served += 1
            body = b'{"id":"key-%d","api_key":"secret"}' % running.served
            writer.write(b"HTTP/1.1 201 X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.close()

    def count(*_: object) -> None:
        running.handshakes += 1

    context.sni_callback = count
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    running = TLSServer(server.sockets[0].getsockname()[1], context)
    yield running
    server.close()


def trusting(trusted: Path) -> aiohttp.ClientSession:
    """Make a session that trusts one more certificate."""
    context = ssl.create_default_context(cafile=str(trusted))
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


def requests(number: int) -> list[CreateKeyRequest]:
    """Ask for that many keys."""
    return [CreateKeyRequest(name=f"tenant-{n}") for n in range(number)]


# ---------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("host", "since", "until", "trusts", "reason"),
    [
        ("127.0.0.1", -HOUR, HOUR, False, "self.signed certificate"),
        ("127.0.0.1", -2 * HOUR, -HOUR, True, "certificate has expired"),
        ("127.0.0.1", HOUR, 2 * HOUR, True, "certificate is not yet valid"),
        ("127.0.0.2", -HOUR, HOUR, True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
    ids=["unknown", "expired", "of tomorrow", "of another host"],
)
async def test_a_certificate_that_does_not_verify_is_raised_at_once(
    tmp_path: Path, host: str, since: timedelta, until: timedelta, trusts: bool, reason: str
) -> None:
    """No second attempt, nothing made; the host, the port, and what OpenSSL has to say."""
    context, trusted = certify(tmp_path, host, since, until)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(tls_server(context))
        session = await stack.enter_async_context(trusting(trusted)) if trusts else None
        respan = await stack.enter_async_context(AsyncRespan("token", base_url=server.url, session=session))
        for call in (respan.temporary_keys.create(), respan.temporary_keys.retrieve("key-1")):
            with pytest.raises(APIConnectionError, match=reason) as caught:
                await call

            error = caught.value
            assert type(error) is APIConnectionError
            assert (error.effect, error.retryable, error.attempts, error.status) == (Effect.NONE, False, 1, None)
            assert f"no TLS connection to 127.0.0.1:{server.port}: its certificate does not verify" in str(error)
        assert respan.suspects == ()
        assert server.served == 0


async def test_another_fingerprint_than_the_one_given_is_raised_at_once(tmp_path: Path) -> None:
    """A certificate that is pinned is verified by its fingerprint alone."""
    context, _ = certify(tmp_path)
    connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"\0" * 32))
    async with (
        tls_server(context) as server,
        aiohttp.ClientSession(connector=connector) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        with pytest.raises(APIConnectionError, match=f"127.0.0.1:{server.port}.*another fingerprint") as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.retryable, caught.value.attempts) == (Effect.NONE, False, 1)


async def test_a_certificate_that_does_not_verify_ends_a_batch(tmp_path: Path) -> None:
    """Keys that were made come first, then the error; the rest of the items is not tried."""
    context, trusted = certify(tmp_path)
    outcomes: list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]] = []

    async def consume(keys: TemporaryKeys, server: TLSServer) -> None:
        async with keys.create_many(requests(1000), max_in_flight=1) as batch:
            async for outcome in batch:
                outcomes.append(outcome)
                if len(outcomes) == 3:
                    (tmp_path / "another").mkdir()
                    certify(tmp_path / "another", "127.0.0.1")
                    server.context.load_cert_chain(tmp_path / "another" / "server.pem")

    async with (
        tls_server(context) as server,
        trusting(trusted) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        with pytest.raises(APIConnectionError, match="does not verify"):
            await consume(respan.temporary_keys, server)

        assert server.served == sum(isinstance(outcome, Issued) for outcome in outcomes) < 10
        assert server.handshakes == server.served + 1
        assert isinstance(outcomes[-1], Failed)
        assert isinstance(outcomes[-1].error, APIConnectionError)
        assert respan.suspects == ()


async def test_a_batch_that_was_stopped_is_not_ended_by_a_connection_that_breaks() -> None:
    """What is not tried again because of the stop is that item's failure, and the iteration ends as it would have."""
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def do(connection: Connection, _: Seen) -> None:
        asked.set()
        await stopped.wait()
        connection.finish()

    async with (
        RawServer(FIN, Act("breaks when it is over", do)) as server,
        AsyncRespan("token", base_url=server.url, retry=QUICK) as respan,
        respan.temporary_keys.create_many(requests(5), max_in_flight=1) as batch,
    ):
        await asked.wait()
        batch.stop()
        stopped.set()
        outcomes = [outcome async for outcome in batch]

    assert [type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)] == [APIConnectionError]
    assert len(outcomes) == 1


async def test_any_other_failure_of_tls_is_tried_again_and_says_why() -> None:
    """A server that speaks plain HTTP may be one that is being set up."""
    handshakes = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal handshakes
        handshakes += 1
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with AsyncRespan("token", base_url=f"https://127.0.0.1:{port}", retry=QUICK) as respan:
        with pytest.raises(
            APIConnectionError, match=f"no TLS connection to 127.0.0.1:{port} .*wrong version"
        ) as caught:
            await respan.temporary_keys.create()
    server.close()

    assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, True)
    assert handshakes == caught.value.attempts == 3


# --------------------------------------------------------------------- proxies


@contextlib.asynccontextmanager
async def behind(address: str, **settings: Any) -> AsyncIterator[AsyncRespan]:
    """Give a client whose session goes through a proxy, with a password."""
    proxy = address.replace("http://", f"http://user:{PASSWORD}@")
    async with (
        aiohttp.ClientSession(proxy=proxy) as session,
        AsyncRespan("token", base_url=API, session=session, **{"retry": QUICK, **settings}) as respan,
    ):
        yield respan


@pytest.mark.parametrize("status", [407, 403, 400, 404, 302])
async def test_a_proxy_that_refuses_is_told_as_the_proxy_and_not_asked_again(status: int) -> None:
    """With its answer and where it is, and without its password. Nothing of the request has left."""
    async with RawServer(answer(status, {"id": "key-1", "api_key": "no"})) as proxy, behind(proxy.url) as respan:
        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create()

    error = caught.value
    address = proxy.url.removeprefix("http://")
    assert str(error).endswith(f": the proxy {address} answered {status}, and made no connection to api.respan.ai:443")
    assert (error.effect, error.retryable, error.status, error.suspects) == (Effect.NONE, False, None, ())
    assert proxy.methods == ["CONNECT"]
    assert PASSWORD not in repr(error) + str(error.__dict__)
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize("status", [502, 503, 504, 500, 429, 408])
async def test_a_proxy_that_fails_is_asked_again(status: int) -> None:
    """It has not reached the server this time. That is no refusal by the API's limit, also not with a 429."""
    async with RawServer(answer(status)) as proxy, behind(proxy.url) as respan:
        with pytest.raises(APIConnectionError, match=f"the proxy .* answered {status}") as caught:
            await respan.temporary_keys.create()

        assert respan.pace.refused == 0
    assert (caught.value.effect, caught.value.retryable, caught.value.status) == (Effect.NONE, True, None)
    assert proxy.methods == ["CONNECT"] * 3


@pytest.mark.parametrize("status", [407, 403])
async def test_a_proxy_that_refuses_ends_a_batch(status: int) -> None:
    """No item would come through."""
    async with RawServer(answer(status)) as proxy, behind(proxy.url) as respan:
        with pytest.raises(APIConnectionError, match=f"answered {status}"):
            await respan.temporary_keys.create_many(requests(1000), max_in_flight=1)

    assert proxy.methods == ["CONNECT"]


async def test_a_proxy_that_is_not_there_is_told_as_the_proxy() -> None:
    """Nobody looks for the fault at the API then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with behind(f"http://127.0.0.1:{port}") as respan:
            with pytest.raises(APIConnectionError, match=f"no connection to the proxy 127.0.0.1:{port} ") as caught:
                await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, True)
    assert PASSWORD not in str(caught.value)


async def test_the_name_of_a_proxy_that_is_not_found_is_told() -> None:
    """It is not that of the API."""
    async with behind("http://nowhere.invalid:3128") as respan:
        with pytest.raises(APIConnectionError, match=r"not found: the proxy nowhere\.invalid:3128 ") as caught:
            await respan.temporary_keys.create()

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (FIN, "closed the connection"),
        (raw("SSH", b"SSH-2.0-x\r\n\r\n", then="fin"), "the proxy .* does not speak HTTP"),
    ],
    ids=str,
)
async def test_a_proxy_that_is_none_has_let_nothing_through(act: Act, said: str) -> None:
    """The tunnel was not there yet."""
    async with RawServer(act) as proxy, behind(proxy.url) as respan:
        with pytest.raises((APIConnectionError, InvalidResponseError), match=said) as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.suspects) == (Effect.NONE, ())
    assert set(proxy.methods) == {"CONNECT"}


# ------------------------------------------------------------ what is said of it


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (FIN, "{} closed the connection without an answer"),
        (raw("SSH", b"SSH-2.0-x\r\n\r\n", then="fin"), "what answered at {} does not speak HTTP"),
        (raw("cut", b"HTTP/1.1 201 X\r\nContent-Length: 9\r\n\r\n{", then="fin"), "the answer of {} broke off after"),
    ],
    ids=str,
)
async def test_every_sentence_names_the_host(act: Act, said: str) -> None:
    """Who reads it in a log does not know which client it comes from."""
    async with RawServer(act) as server, AsyncRespan(
        "token", base_url=server.url, retry=RetryPolicy(max_attempts=1)
    ) as respan:  # fmt: skip
        with pytest.raises((APIConnectionError, InvalidResponseError), match=said.format(server.url[7:])):
            await respan.temporary_keys.create()


async def test_a_host_is_named_with_its_port_also_where_it_is_an_address_of_six() -> None:
    """In brackets, as in a URL."""
    with socket.socket(socket.AF_INET6) as free:
        try:
            free.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = free.getsockname()[1]
        async with AsyncRespan("token", base_url=f"http://[::1]:{port}", retry=QUICK) as respan:
            with pytest.raises(APIConnectionError, match=rf"no connection to \[::1\]:{port} \("):
                await respan.temporary_keys.create()


async def test_a_good_server_behind_all_of_this_is_reached(tmp_path: Path) -> None:
    """Or the other tests would prove nothing."""
    context, trusted = certify(tmp_path)
    async with (
        tls_server(context) as server,
        trusting(trusted) as session,
        AsyncRespan("token", base_url=server.url, session=session) as respan,
    ):
        assert (await respan.temporary_keys.create()).id == "key-1"
    async with RawServer(key()) as plain, AsyncRespan("token", base_url=plain.url) as respan:
        assert (await respan.temporary_keys.create()).id == "key-1"
