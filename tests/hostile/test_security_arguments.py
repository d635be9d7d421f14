"""Ways in through what a client is given: each refused, each by a test named for the attack."""

import re
import socket
from pathlib import Path
from urllib.parse import unquote

import pytest

from respan_async import AsyncRespan, ConfigurationError, InvalidRequestError, RetryPolicy
from respan_async.testing import FakeRespan
from tests.integration.raw_server import RawServer

ONCE = RetryPolicy(max_attempts=1)
PATH = "/api/temporary-keys/"

# ------------------------------------------------------------------- the base URL

TRICKS = {
    "a name that begins like localhost": "http://localhost.evil.example",
    "a name that begins like an address": "http://127.0.0.1.evil.example",
    "a user like localhost": "http://localhost@evil.example",
    "a user and port like localhost": "http://localhost:80@evil.example",
    "an empty user": "http://@evil.example",
    "a decimal address": "http://2130706433",
    "a short address": "http://127.1",
    "an octal address": "http://0177.0.0.1",
    "an address with zeros": "http://127.000.000.001",
    "a hexadecimal address": "http://0x7f.0.0.1",
    "a hexadecimal number": "http://0x7f000001",
    "a mapped address": "http://[::ffff:127.0.0.1]",
    "a compatible address": "http://[::127.0.0.1]",
    "no address": "http://0.0.0.0",
    "zero": "http://0",
    "no IPv6 address": "http://[::]",
    "a zone": "http://[::1%25evil]",
    "a zone as it is": "http://[::1%evil]",
    "a link-local zone": "http://[fe80::1%25eth0]",
    "a trailing dot": "http://localhost.",
    "digits in circles": "http://①②⑦.0.0.1",
    "letters in circles": "http://ⓛocalhost",
    "wide letters": "http://\uff4cocalhost",
    "ideographic dots": "http://127。0。0。1",
    "a space of no width": "http://localhost\u200b.evil.example",
    "letters of another alphabet": "https://\u0430pi.respan.ai",
    "a backslash before a user": "http://evil.example\\@localhost",
    "a backslash after a host": "http://localhost\\.evil.example",
    "a tab": "http://local\thost.evil.example",
    "a line break": "http://localhost\n.evil.example",
    "a header": "http://localhost\r\nX-Evil: yes",
    "a NUL": "http://localhost\x00.evil.example",
    "an encoded slash": "http://localhost%2f.evil.example",
    "an encoded NUL": "http://localhost%00.evil.example",
    "an encoded space": "http://localhost%20.evil.example",
    "a semicolon": "http://localhost;.evil.example",
    "text after brackets": "http://[::1].evil.example",
    "a fragment before a user": "http://localhost#@evil.example",
    "a query before a user": "http://localhost?@evil.example",
    "a path before a user": "http://localhost/@evil.example",
    "a query": "https://api.respan.ai?next=evil",
    "a fragment": "https://api.respan.ai#evil",
    "a password": "https://me:password@api.respan.ai",
    "a path that goes back": "https://api.respan.ai/api/../admin",
    "an encoded path that goes back": "https://api.respan.ai/%2e%2e/admin",
    "a port out of range": "http://localhost:65616",
    "port 0": "http://localhost:0",
    "a negative port": "http://localhost:-80",
    "two ports": "http://localhost:80:81",
    "a port with letters": "http://localhost:80evil",
    "an empty host": "http:///api",
    "no host": "http://",
    "no scheme": "//localhost",
    "one slash": "http:/localhost",
    "four slashes": "http:////localhost",
    "a file": "file:///etc/passwd",
    "FTP": "ftp://localhost",
    "a script": "javascript://localhost/%0aalert(1)",
    "a socket": "unix:///run/docker.sock",
}


def test_base_url_tricks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unencrypted goes to this machine alone, by its literal address or name; and nothing is what it does not look."""

    def refusal(**settings: str) -> str:
        try:
            return f"taken: {AsyncRespan('k', **settings)!r}"  # type: ignore[arg-type]  # of which this is one
        except ConfigurationError as error:
            return str(error)

    said = {trick: refusal(base_url=url) for trick, url in TRICKS.items()}
    for trick, url in TRICKS.items():
        if "\x00" not in url:
            monkeypatch.setenv("RESPAN_BASE_URL", url)
            said[f"{trick}, in the environment"] = refusal()

    assert {trick: text for trick, text in said.items() if not text.startswith("base_url: expected")} == {}
    assert all(text.isprintable() for text in said.values())


async def test_a_hostile_dotenv_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_respan: FakeRespan
) -> None:
    """Who can write into the directory one works in does not say where the API key goes."""
    for name in (".env", ".respan", "respan.toml", "setup.cfg", ".netrc", "sitecustomize.py"):
        (tmp_path / name).write_text("RESPAN_BASE_URL=https://evil.example\nRESPAN_API_KEY=theirs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESPAN_API_KEY", fake_respan.api_key)
    monkeypatch.setenv("RESPAN_BASE_URL", fake_respan.url)

    async with AsyncRespan() as respan:
        await respan.temporary_keys.create()

    assert fake_respan.counts.created == 1


# ------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "name", ["X\r\nEvil", "X: a\r\nEvil", "X\x00", "X ", " X", "X\t", "X:", "", "\u2169", "X\u2028", "(X)"]
)
def test_a_header_name_that_smuggles_is_refused(name: str) -> None:
    """It would end this header, or begin another."""
    with pytest.raises(ConfigurationError, match="extra_headers"):
        AsyncRespan("k").with_options(extra_headers={name: "a"})


@pytest.mark.parametrize(
    "value",
    [
        *("a\r\nEvil: yes", "a\nEvil: yes", "a\rEvil: yes", "a\r\n folded", "a\r\n\r\n{}"),
        *("a\x00b", "a\x7f", "ü", "a\u2028"),
    ],
)
def test_a_header_value_that_smuggles_is_refused(value: str) -> None:
    """In a header of one's own, in the user agent, and in the API key, from wherever that comes."""
    for name in ("X-Team", "User-Agent"):
        with pytest.raises(ConfigurationError, match="extra_headers"):
            AsyncRespan("k").with_options(extra_headers={name: value})
    with pytest.raises(ConfigurationError, match="api_key"):
        AsyncRespan(value)


async def test_a_header_in_other_letters_does_not_replace_ours() -> None:
    """Names of headers are the same in any letters."""
    async with RawServer() as server, AsyncRespan("k", base_url=server.url) as respan:
        for name in ("aUTHORIZATION", "HOST", "content-LENGTH", "tRANSFER-eNCODING", "accept-encoding"):
            with pytest.raises(ConfigurationError, match="own"):
                respan.with_options(extra_headers={name: "evil"})
        await respan.with_options(extra_headers={"uSER-aGENT": "evil"}).temporary_keys.create()

    assert server.requests[0].headers["user-agent"] == "respan-async"


async def test_a_token_of_a_callable_that_smuggles_is_refused_before_a_byte_is_sent() -> None:
    """It was not there to be checked when the client was made."""

    async def token() -> str:
        return "k\r\nX-Evil: yes"

    async with RawServer() as server, AsyncRespan(token, base_url=server.url) as respan:
        with pytest.raises(ConfigurationError, match="api_key"):
            await respan.temporary_keys.create()

    assert server.connections == 0


# ----------------------------------------------------------------------------- ids

SEGMENTS = [
    "a/b",
    "a\\b",
    "a?x=1",
    "a#b",
    "a%2fb",
    "a%00",
    "a\x00b",
    "a\r\nHost: evil",
    "a b",
    "a;b",
    "a&b=c",
    "//evil.example",
]
SEGMENTS += [
    "http://evil.example/",
    "@evil.example",
    "\u2024\u2024",
    "\uff0e\uff0e",
    "a\uff0fb",
    "\u2215",
    "...",
    "a..b",
    "é",
    "\u202e",
    "a" * 512,
    "🔑" * 512,
    "*",
    "~",
]


async def test_an_id_is_one_segment_on_the_wire_whatever_is_in_it() -> None:
    """Slashes, queries, line breaks, other hosts: percent-encoded, and decoded they are the id again."""
    async with RawServer() as server, AsyncRespan("k", base_url=server.url, retry=ONCE) as respan:
        for key_id in SEGMENTS:
            await respan.temporary_keys.retrieve(key_id)
            await respan.temporary_keys.delete(key_id)

    assert len(server.requests) == 2 * len(SEGMENTS)
    for seen, key_id in zip(server.requests[::2], SEGMENTS, strict=True):
        segment = seen.target.removeprefix(PATH).removesuffix("/")
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", segment)
        assert unquote(segment) == key_id
        assert seen.target == f"{PATH}{segment}/"


TRAVERSALS = [
    ".",
    "..",
    "../..",
    "a/../..",
    "..\\..",
    "%2e%2e",
    "%2E%2e/a",
    "..%2f",
    "..%5c",
    ".%2e",
    "..;",
    "..;x=1/a",
    "./a",
    "a/.",
]
TRAVERSALS += ["", " ", "\u2003", "a" * 513, "a" * 10**7, "\ud800"]


async def test_an_id_that_goes_elsewhere_is_refused() -> None:
    """DELETE on the whole collection, or on another one, once some proxy has resolved it."""
    async with RawServer() as server, AsyncRespan("k", base_url=server.url) as respan:
        for key_id in TRAVERSALS:
            for verb in (respan.temporary_keys.retrieve, respan.temporary_keys.delete):
                with pytest.raises(InvalidRequestError, match="id: expected") as caught:
                    await verb(key_id)
                assert len(str(caught.value)) < 300
            with pytest.raises(InvalidRequestError, match="id: expected"):
                await respan.temporary_keys.update(key_id, name="x")

    assert server.connections == 0


async def test_a_name_that_leads_to_this_machine_is_no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers for a name may say 127.0.0.1 now, and something else the next time."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 80))])

    with pytest.raises(ConfigurationError, match="allow_http"):
        AsyncRespan("k", base_url="http://rebinding.example")
