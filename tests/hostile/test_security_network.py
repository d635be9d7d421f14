"""Ways in through the network and the environment: weak TLS, proxies, netrc."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import aiohttp
import attrs
import pytest

from respan_async import AsyncRespan, Effect, RetryPolicy
from respan_async.errors import APIConnectionError, RespanError
from respan_async.testing import FakeRespan
from tests.hostile.canaries import BEARER, Seeker
from tests.integration.raw_server import RawServer
from tests.servers.certificate import HOUR, certify

ONCE = RetryPolicy(max_attempts=1)


# ----------------------------------------------------------------------------- TLS


@attrs.define
class Listener:
    """A server that would serve keys over TLS, and what it was told.

    Attributes:
        port: Its port.
        heard: Every byte that came through.
    """

    port: int
    heard: bytearray


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[Listener]:
    """Serve."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            heard.extend(await reader.read(10_000))
            body = b'{"id":"key-1","api_key":"secret"}'
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield Listener(server.sockets[0].getsockname()[1], heard)
    server.close()


def aged(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    """Make a server speak an old version alone, with ciphers that still can."""

    def change(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = version

    return change


def without_encryption(context: ssl.SSLContext) -> None:
    """Make a server offer ciphers that encrypt nothing, alone."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("eNULL:@SECLEVEL=0")


def anonymous(context: ssl.SSLContext) -> None:
    """Make a server offer ciphers under which it need not say who it is, alone."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")


WEAK: dict[str, tuple[str, timedelta, timedelta, Callable[[ssl.SSLContext], None]]] = {
    "an expired certificate": ("127.0.0.1", -2 * HOUR, -HOUR, lambda _: None),
    "a certificate of tomorrow": ("127.0.0.1", HOUR, 2 * HOUR, lambda _: None),
    "a certificate of another name": ("api.respan.ai", -HOUR, HOUR, lambda _: None),
    "a certificate of another address": ("127.0.0.2", -HOUR, HOUR, lambda _: None),
    "TLS 1.0": ("127.0.0.1", -HOUR, HOUR, aged(ssl.TLSVersion.TLSv1)),
    "TLS 1.1": ("127.0.0.1", -HOUR, HOUR, aged(ssl.TLSVersion.TLSv1_1)),
    "no encryption": ("127.0.0.1", -HOUR, HOUR, without_encryption),
    "no certificate": ("127.0.0.1", -HOUR, HOUR, anonymous),
}


@contextlib.asynccontextmanager
async def trusting(trusted: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with aiohttp's own settings, but for one more certificate that it trusts."""
    context = ssl.create_default_context(cafile=str(trusted))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("weakness", WEAK)
async def test_weak_tls_is_refused(weakness: str, tmp_path: Path) -> None:
    """Even of a server whose certificate is trusted: nothing is sent, and nothing was made."""
    name, since, until, change = WEAK[weakness]
    context, trusted = certify(tmp_path, name, since, until)
    try:
        change(context)
    except ssl.SSLError:
        pytest.skip("this OpenSSL cannot be as weak as that")
    async with listening(context) as listener, trusting(trusted) as session:
        respan = AsyncRespan(BEARER, base_url=f"https://127.0.0.1:{listener.port}", session=session, retry=ONCE)
        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create()
        await respan.aclose()

    assert caught.value.effect is Effect.NONE
    assert listener.heard == b""


async def test_good_tls_is_not_refused(tmp_path: Path) -> None:
    """Or the others would prove nothing."""
    context, trusted = certify(tmp_path)
    async with (
        listening(context) as listener,
        trusting(trusted) as session,
        AsyncRespan(BEARER, base_url=f"https://127.0.0.1:{listener.port}", session=session) as respan,
    ):
        assert (await respan.temporary_keys.create()).id == "key-1"


async def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    """By a session of our own, which trusts what the system trusts."""
    context, _ = certify(tmp_path)
    async with (
        listening(context) as listener,
        AsyncRespan(BEARER, base_url=f"https://127.0.0.1:{listener.port}", retry=ONCE) as respan,
    ):
        with pytest.raises(APIConnectionError, match="TLS") as caught:
            await respan.temporary_keys.create()

    assert caught.value.effect is Effect.NONE
    assert listener.heard == b""


async def test_plain_http_where_tls_is_expected_is_refused() -> None:
    """The token is not sent to see whether it is taken."""
    async with (
        listening(None) as listener,
        AsyncRespan(BEARER, base_url=f"https://127.0.0.1:{listener.port}", retry=ONCE) as respan,
    ):
        with pytest.raises(APIConnectionError):
            await respan.temporary_keys.create()

    assert Seeker(BEARER).find(bytes(listener.heard)) is None
    assert b"authorization" not in bytes(listener.heard).lower()


# -------------------------------------------------------------------- environment


@pytest.fixture
async def proxy() -> AsyncIterator[RawServer]:
    """Somebody else's proxy, to which nothing comes."""
    async with RawServer() as server:
        yield server
    assert server.connections == 0


PROXIES = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "WS_PROXY",
    "SOCKS_PROXY",
]


async def test_a_proxy_in_the_environment_is_not_used(
    proxy: RawServer, fake_respan: FakeRespan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can set a variable of a service would have its token: a proxy is given with a session of one's own."""
    for name in PROXIES:
        monkeypatch.setenv(name, proxy.url.replace("http://", "http://user:password@"))
    monkeypatch.setenv("NO_PROXY", "")

    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        await respan.temporary_keys.create()
    async with AsyncRespan(fake_respan.api_key, base_url="https://127.0.0.1:1", retry=ONCE) as respan:
        with pytest.raises(APIConnectionError):
            await respan.temporary_keys.create()

    assert fake_respan.counts.created == 1


async def test_a_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login for this host would go in place of ours, or along with it."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\ndefault login evil password evil\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))

    async with RawServer() as server:
        async with AsyncRespan(BEARER, base_url=server.url) as respan:
            await respan.temporary_keys.create()
        async with aiohttp.ClientSession(trust_env=True) as session:
            own = AsyncRespan(BEARER, base_url=server.url, session=session, retry=ONCE)
            with contextlib.suppress(RespanError):
                await own.temporary_keys.create()
            await own.aclose()

    assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer {BEARER}"}


async def test_a_sessions_own_authorization_does_not_replace_the_token() -> None:
    """Nor do its default headers and its cookies come to stand where ours do."""
    async with (
        RawServer() as server,
        aiohttp.ClientSession(headers={"authorization": "Basic evil"}) as session,
        AsyncRespan(BEARER, base_url=server.url, session=session) as respan,
    ):
        await respan.temporary_keys.create()

    assert server.requests[0].headers["authorization"] == f"Bearer {BEARER}"


_CREATE = """
import asyncio
from respan_async import AsyncRespan

async def main():
    async with AsyncRespan() as respan:
        print((await respan.temporary_keys.create()).id)

asyncio.run(main())
"""


@pytest.mark.hostile
async def test_variables_of_python_and_openssl_do_not_send_the_token_elsewhere(tmp_path: Path) -> None:
    """Debug modes, key logs, startup files, certificates: the token is in nothing that is written or said."""
    async with FakeRespan(api_keys=[BEARER]) as fake:
        environment = {
            "PATH": os.environ["PATH"],
            "RESPAN_API_KEY": BEARER,
            "RESPAN_BASE_URL": fake.url,
            **dict.fromkeys(PROXIES, "http://127.0.0.1:1"),
            "SSLKEYLOGFILE": str(tmp_path / "keys.log"),
            "SSL_CERT_FILE": str(tmp_path / "none.pem"),
            "PYTHONASYNCIODEBUG": "1",
            "PYTHONDEVMODE": "1",
            "PYTHONTRACEMALLOC": "5",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AIOHTTP_NO_EXTENSIONS": "1",
        }
        command = (sys.executable, "-X", "dev", "-W", "always", "-c", _CREATE)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()

    assert process.returncode == 0, err
    assert fake.counts.created == 1
    seeker = Seeker(BEARER, *(record.api_key for record in fake.keys.values()))
    written = [path.read_bytes() for path in tmp_path.iterdir()]  # noqa: ASYNC240  nobody else waits
    assert [seeker.find(text) for text in (out, err, *written)] == [None] * (2 + len(written))


async def test_a_port_that_somebody_else_took_gets_nothing_over_tls(tmp_path: Path) -> None:
    """Who listens where the server was cannot pass for it without its certificate."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folders = tmp_path / "server", tmp_path / "imposter"
    for folder in folders:
        folder.mkdir()
    _, trusted = certify(folders[0])
    imposter, _ = certify(folders[1])
    async with trusting(trusted) as session:
        respan = AsyncRespan(BEARER, base_url=f"https://127.0.0.1:{port}", session=session, retry=ONCE)
        heard = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                heard.extend(await reader.read(1000))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=imposter)
        with pytest.raises(APIConnectionError):
            await respan.temporary_keys.create()
        server.close()
        await respan.aclose()

    assert heard == b""
