"""The way to the server through a company's network: a proxy that makes tunnels, and a CA of its own."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    ConfigurationError,
    CreateKeyRequest,
    Effect,
    Issued,
    RetryPolicy,
    Secret,
)
from respan_async.testing import FakeRespan
from tests.environment import environment
from tests.integration.cli_world import Run, run_fixture  # noqa: F401  a fixture
from tests.servers.certificate import Authority
from tests.servers.connect_proxy import ConnectProxy
from tests.servers.tcp_proxy import Wire

API = "https://api.respan.ai"
LOGIN = "user:sesame"
ONCE = RetryPolicy(max_attempts=1)
VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy")


@attrs.define
class Company:
    """A network out of which only its proxy leads, to a server with a certificate of the company's CA.

    Attributes:
        fake: The server, as `https://api.respan.ai`.
        proxy: The way out.
        ca: The CA.
    """

    fake: FakeRespan
    proxy: ConnectProxy
    ca: Authority

    def client(self, proxy: str | Secret | None = None, **settings: Any) -> AsyncRespan:
        """Make a client within this network."""
        settings = {"base_url": API, "ssl": self.ca.file, "retry": ONCE, **settings}
        return AsyncRespan(self.fake.api_key, proxy=proxy or f"http://{LOGIN}@{self.proxy.authority}", **settings)


@pytest.fixture
async def company(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Company]:
    """Build it; with `https` as its parameter, its proxy speaks TLS."""
    ca = Authority(tmp_path)
    of_proxy = ca.server("127.0.0.1") if getattr(request, "param", "http") == "https" else None
    async with (
        FakeRespan() as fake,
        Wire(int(fake.url.rpartition(":")[2]), ca.server("api.respan.ai")) as server,
        ConnectProxy({"api.respan.ai:443": server.port}, login=LOGIN, tls=of_proxy) as proxy,
    ):
        yield Company(fake, proxy, ca)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the network of whoever runs the tests out of them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


# ------------------------------------------------------------ the way out and back


async def test_keys_are_issued_through_a_proxy_with_a_ca_of_its_own(company: Company) -> None:
    """Single calls and a batch; the proxy sees the host's name, its own login, and nothing of the API key."""
    async with company.client() as respan:
        made = await respan.temporary_keys.create(name="tenant-42")
        outcomes = await respan.temporary_keys.create_many([CreateKeyRequest(name=f"t-{n}") for n in range(5)])
        await respan.temporary_keys.delete(made.id)

    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    assert company.fake.counts.created == 6
    assert set(company.proxy.asked) == {"api.respan.ai:443"}
    assert company.fake.api_key.encode() not in company.proxy.said


@pytest.mark.parametrize("company", ["https"], indirect=True)
async def test_a_proxy_may_speak_tls_itself(company: Company) -> None:
    """With a certificate of the same CA; the tunnel's TLS is within that."""
    async with company.client(f"https://{LOGIN}@{company.proxy.authority}") as respan:
        made = await respan.temporary_keys.create()

    assert made.id in company.fake.keys


async def test_a_context_is_taken_as_it_is(company: Company) -> None:
    """For what a CA file cannot say."""
    context = ssl.create_default_context(cafile=str(company.ca.file))
    async with company.client(ssl=context) as respan:
        await respan.temporary_keys.create()


@pytest.mark.parametrize("form", [str, Path])
async def test_a_ca_file_is_a_path_in_either_form(company: Company, form: Any) -> None:
    """Text, or a Path."""
    async with company.client(ssl=form(company.ca.file)) as respan:
        await respan.temporary_keys.create()


async def test_a_proxys_url_may_be_a_secret(company: Company) -> None:
    """It often holds a password."""
    async with company.client(Secret(f"http://{LOGIN}@{company.proxy.authority}")) as respan:
        await respan.temporary_keys.create()


async def test_a_ca_file_is_trusted_instead_of_what_the_system_trusts(company: Company, tmp_path: Path) -> None:
    """A certificate of anybody else does not verify, and nothing of the request leaves."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    for trusted in (other.file, None):
        async with company.client(ssl=trusted) as respan:
            with pytest.raises(
                APIConnectionError, match=r"api\.respan\.ai:443: its certificate does not verify"
            ) as caught:
                await respan.temporary_keys.create()

        assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, False)
    assert company.fake.counts.requests == 0


async def test_a_proxy_that_wants_another_login_is_told_as_the_proxy(company: Company) -> None:
    """Without the password that it did not take."""
    async with company.client(f"http://user:wrong-one@{company.proxy.authority}") as respan:
        with pytest.raises(APIConnectionError, match=f"the proxy {company.proxy.authority} answered 407") as caught:
            await respan.temporary_keys.create()

    assert (caught.value.effect, caught.value.retryable) == (Effect.NONE, False)
    assert "wrong-one" not in repr(caught.value) + str(respan.__dict__)


async def test_a_proxy_on_this_machine_may_carry_http(fake_respan: FakeRespan) -> None:
    """Nothing leaves the machine unencrypted."""
    async with AsyncRespan("token", base_url=fake_respan.url, proxy=fake_respan.url, retry=ONCE) as respan:
        assert "open" in repr(respan)


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_connection_that_fails_says_which_proxy_was_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is why, where the way out leads through one."""
    monkeypatch.setenv(name, f"http://{LOGIN}@127.0.0.1:1")
    for make in (None, aiohttp.ClientSession):
        async with contextlib.AsyncExitStack() as stack:
            session = None if make is None else await stack.enter_async_context(make())
            respan = AsyncRespan("token", base_url="https://0.0.0.0:1", retry=ONCE, session=session)
            await stack.enter_async_context(respan)
            with pytest.raises(APIConnectionError, match=r"no connection to 0\.0\.0\.0:1 ") as caught:
                await respan.temporary_keys.create()

        assert str(caught.value).endswith(
            f"; {name} is set, and not used: a proxy has to be given, as proxy= or --proxy"
        )
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("https://0.0.0.0:1", {}),
        ("https://0.0.0.0:1", {"HTTPS_PROXY": ""}),
        ("https://0.0.0.0:1", {"HTTP_PROXY": "http://127.0.0.1:1"}),
        ("https://0.0.0.0:1", {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "example.com,0.0.0.0"}),
        ("https://127.0.0.1:1", {"HTTPS_PROXY": "http://127.0.0.1:1"}),
    ],
    ids=["none", "empty", "of http alone", "not for this host", "this very machine"],
)
async def test_it_says_nothing_of_a_proxy_that_others_would_not_use_either(
    url: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or people would look in the wrong place."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with AsyncRespan("token", base_url=url, retry=ONCE) as respan:
        with pytest.raises(APIConnectionError, match="no connection to") as caught:
            await respan.temporary_keys.create()

    assert "PROXY" not in str(caught.value)


async def test_a_connection_in_no_time_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a firewall swallows is not refused."""

    async def never(*_: object, **__: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", never)
    async with AsyncRespan("token", base_url="https://0.0.0.0:1", retry=ONCE, timeout=0.01) as respan:
        with pytest.raises(APIConnectionError, match=r"no connection in time.*; HTTPS_PROXY is set, and not used"):
            await respan.temporary_keys.create()


async def test_a_certificate_or_the_given_proxy_is_the_reason_then(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection was made, or the proxy in use is another."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    session = aiohttp.ClientSession(trust_env=True)
    clients = [
        company.client(ssl=None),
        company.client("http://127.0.0.1:1"),
        AsyncRespan("token", base_url=API, session=session, retry=ONCE),
    ]
    async with session:
        for respan in clients:
            with pytest.raises(APIConnectionError) as caught:
                await respan.temporary_keys.create()
            assert "HTTPS_PROXY" not in str(caught.value)
            await respan.aclose()


# -------------------------------------------------------------------- bad settings


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("", "got an empty text"),
        (5, "got int"),
        ("proxy.example:3128", "a text of 18 characters without ://"),
        ("socks5://proxy.example:1080", "got 'socks5://proxy.example:1080'"),
        ("http://", "got 'http://'"),
        (f"http://{LOGIN}@proxy.example:99999", r"got 'http://\*\*\*@proxy.example:99999'"),
        (f"http://{LOGIN}@proxy.example/path", r"got 'http://\*\*\*@proxy.example/path'"),
        ("http://proxy.example?password=sesame", r"got 'http://proxy.example\?\*\*\*'"),
        ("http://user:sesame\n@proxy.example", "other letters are percent-encoded"),
        ("http://user:sesäme@proxy.example", "other letters are percent-encoded"),
        ("http://us%3Aer:sesame@proxy.example", "without a colon"),
        ("http://user:sesame%E2%82%AC@proxy.example", "in Latin-1"),
    ],
)
def test_a_proxy_that_is_none_is_refused(proxy: Any, said: str) -> None:
    """At construction, in one sentence, without its password, also in a traceback with locals."""
    with pytest.raises(ConfigurationError, match=f"^proxy: expected .*{said}") as caught:
        AsyncRespan("token", proxy=proxy)

    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in trace.stack if "respan_async" in frame.filename and "tests" not in frame.filename]
    assert "sesame" not in str([frame.locals for frame in ours]) + str(caught.value)


def test_a_proxy_elsewhere_gets_no_key_unencrypted() -> None:
    """To this very machine http is fine, but not by way of another."""
    with pytest.raises(ConfigurationError, match=r"unencrypted to proxy\.example; allow_http=True allows that"):
        AsyncRespan("token", base_url="http://127.0.0.1:8700", proxy="http://proxy.example:3128")

    AsyncRespan("token", base_url="http://127.0.0.1:8700", proxy="http://proxy.example:3128", allow_http=True)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0\xff" * 40, b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_without_certificates_is_refused(content: bytes, tmp_path: Path) -> None:
    """With its path."""
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^ssl: the CA file '.*ca\.pem' holds no certificates in PEM$"):
        AsyncRespan("token", ssl=file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """With the reason."""
    for path, said in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("a\0b", "embedded null"),
    ):
        with pytest.raises(ConfigurationError, match=f"^ssl: the CA file .* cannot be read: {said}"):
            AsyncRespan("token", ssl=path)


@pytest.mark.parametrize("wrong", [False, True, "", b"ca.pem", 5, ssl.CERT_NONE], ids=repr)
def test_what_is_no_context_and_no_path_is_refused(wrong: Any) -> None:
    """False too, which would verify nothing."""
    with pytest.raises(ConfigurationError, match=r"^ssl: expected an SSLContext, or the path of a CA file, got "):
        AsyncRespan("token", ssl=wrong)


def test_the_context_of_a_server_is_refused() -> None:
    """Which would fail at each connection."""
    with pytest.raises(ConfigurationError, match=r"^ssl: expected the SSLContext of a client"):
        AsyncRespan("token", ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


async def test_a_session_of_ones_own_has_its_own_way(tmp_path: Path) -> None:
    """Two that say different things would be one too many."""
    settings: list[Any] = [("proxy", "http://127.0.0.1:1"), ("ssl", Authority(tmp_path).file)]
    async with aiohttp.ClientSession() as session:
        for name, value in settings:
            with pytest.raises(ConfigurationError, match=f"^{name}: expected none beside a session of one's own"):
                AsyncRespan("token", session=session, **{name: value})


# -------------------------------------------------------------------- respan-keys


async def command(company: Company, folder: Path, *argv: str, **variables: str) -> tuple[int | None, str, str]:
    """Run `respan-keys` within the company's network."""
    env = {name: value for name, value in environment(company.fake).items() if name not in VARIABLES}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "respan_async.cli", *argv),
        cwd=folder,
        env={**env, "RESPAN_BASE_URL": API, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_goes_the_same_way(company: Company, tmp_path: Path) -> None:
    """`--proxy` and `--ca-file`; a password is out of sight in RESPAN_PROXY."""
    ca = ("--ca-file", str(company.ca.file))
    proxy = f"http://{LOGIN}@{company.proxy.authority}"
    runs = await asyncio.gather(
        command(company, tmp_path, "create", "--name", "demo", *ca, RESPAN_PROXY=proxy),
        command(
            company, tmp_path, "list", *ca, "--proxy", f"http://{company.proxy.authority}", RESPAN_PROXY="goes after it"
        ),
    )

    assert [code for code, *_ in runs] == [0, 1], runs
    assert json.loads(runs[0][1])["name"] == "demo"
    assert f"the proxy {company.proxy.authority} answered 407" in runs[1][2]


def test_the_sandbox_needs_no_way_out(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is on this machine, whatever the proxy is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESPAN_PROXY", "http://proxy.example:3128")
    Path("t.csv").write_text("ticket\na\n")

    code, lines, _ = run("issue", "t.csv", "--sandbox")

    assert (code, [line["ticket"] for line in lines]) == (0, ["a"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--proxy", "socks5://h:1"), "respan-keys: proxy: expected a URL such as"),
        (("--proxy", f"http://{LOGIN}@h:1"), "respan-keys: --proxy: expected a URL without a user and a password"),
        (("--ca-file", "none.pem"), "respan-keys: ssl: the CA file 'none.pem' cannot be read: No such file"),
    ],
)
def test_a_wrong_way_is_wrong_use(run: Run, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], said: str) -> None:
    """One sentence, and the code 2."""
    monkeypatch.setenv("RESPAN_API_KEY", "token")
    monkeypatch.setenv("RESPAN_BASE_URL", API)

    code, _, err = run("list", *argv)

    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(said)
    assert "sesame" not in err
