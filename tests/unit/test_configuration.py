"""Settings are checked when the client is made, and the message names the one that is wrong."""

import asyncio
import enum
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import aiohttp
import attrs
import pytest

from respan_async import (
    DOCUMENTED_LIMIT,
    AsyncRespan,
    ClientStateError,
    ConfigurationError,
    InvalidRequestError,
    RateLimit,
    RetryPolicy,
    Secret,
)
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.testing import FakeRespan

NOTHING_AT_ALL: list[Any] = [b"key", 5, True, ["key"], ...]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment of whoever runs the tests out of them."""
    monkeypatch.delenv("RESPAN_API_KEY", raising=False)
    monkeypatch.delenv("RESPAN_API_KEY_FILE", raising=False)
    monkeypatch.delenv("RESPAN_BASE_URL", raising=False)


# ------------------------------------------------------------------- the key


def test_a_key_is_needed() -> None:
    """The message says where it may come from."""
    with pytest.raises(ConfigurationError, match="api_key: expected one as an argument or in RESPAN_API_KEY"):
        AsyncRespan()


@pytest.mark.parametrize(
    "wrong", ["", "a b", "a\nb", "key\n", "\tkey", "k\x00y", "schlüssel", "k\x7f", Secret("a b")], ids=repr
)
def test_a_key_that_no_header_can_carry_is_refused(wrong: str | Secret) -> None:
    """At construction, and without showing it."""
    with pytest.raises(ConfigurationError, match="api_key: expected") as caught:
        AsyncRespan(wrong)

    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("wrong", NOTHING_AT_ALL, ids=repr)
def test_a_key_is_a_string(wrong: Any) -> None:
    """The type is named, and not the value."""
    with pytest.raises(ConfigurationError, match=f"got {type(wrong).__name__}$"):
        AsyncRespan(wrong)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given as an argument goes before it; an empty variable is none."""
    monkeypatch.setenv("RESPAN_API_KEY", "from-the-environment")
    monkeypatch.setenv("RESPAN_BASE_URL", "https://keys.example/api/")

    assert "https://keys.example " in repr(AsyncRespan())
    assert "https://other.example " in repr(AsyncRespan("k", base_url="https://other.example"))

    monkeypatch.setenv("RESPAN_BASE_URL", "")
    assert "https://api.respan.ai " in repr(AsyncRespan())

    monkeypatch.setenv("RESPAN_API_KEY", "")
    with pytest.raises(ConfigurationError, match="RESPAN_API_KEY"):
        AsyncRespan()


def test_a_wrong_environment_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break at the end of a secret file is the common case."""
    monkeypatch.setenv("RESPAN_API_KEY", "key\n")
    with pytest.raises(ConfigurationError, match=r"api_key: .*line break"):
        AsyncRespan()

    monkeypatch.setenv("RESPAN_API_KEY", "key")
    monkeypatch.setenv("RESPAN_BASE_URL", "keys.example")
    with pytest.raises(ConfigurationError, match="base_url"):
        AsyncRespan()


# ------------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.respan.ai", "https://api.respan.ai"),
        ("https://api.respan.ai/", "https://api.respan.ai"),
        ("https://api.respan.ai/api", "https://api.respan.ai"),
        ("https://api.respan.ai/api/", "https://api.respan.ai"),
        ("https://api.keywordsai.co/api/", "https://api.keywordsai.co"),
        ("HTTPS://Keys.Example:8443", "https://keys.example:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8000/api", "http://[::1]:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_a_base_url_is_a_host_with_or_without_api(url: str, origin: str) -> None:
    """Official packages disagree about the suffix."""
    assert f"<AsyncRespan {origin} open" in repr(AsyncRespan("k", base_url=url))


@pytest.mark.parametrize(
    "url",
    [
        *("api.respan.ai", "//api.respan.ai", "ftp://api.respan.ai", "ws://api.respan.ai", "https://", "https:///api"),
        *("https://api.respan.ai/v1", "https://api.respan.ai/api/api", "https://api.respan.ai/apis"),
        *("https://api.respan.ai?x=1", "https://api.respan.ai#x", "https://api.respan.ai/api/?"),
        *("https://me:secret@api.respan.ai", "https://me@api.respan.ai", "http://[::1]@/", "https://[::1]@"),
        *("https://api.respan.ai:port", "https://api.respan.ai:99999", "https://[::1", "https://a b", "https://a\\b"),
        *(" https://api.respan.ai", "https://api.respan.ai\n", "https://api.resp\x00an.ai"),
        *(5, b"https://api.respan.ai", ["https://api.respan.ai"]),
    ],
    ids=repr,
)
def test_a_base_url_that_is_none_is_refused(url: Any) -> None:
    """Before a token is sent to wherever it leads."""
    with pytest.raises(ConfigurationError, match="base_url: expected"):
        AsyncRespan("k", base_url=url)


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "0.0.0.0", "[::]"])
def test_an_address_that_only_leads_to_this_machine_is_not_this_machine(host: str) -> None:
    """Alike on every Python, of which some take a mapped address for loopback; `allow_http=True` is the way out."""
    with pytest.raises(ConfigurationError, match=r"base_url: expected https, .*allow_http=True"):
        AsyncRespan("k", base_url=f"http://{host}:8000")

    AsyncRespan("k", base_url=f"http://{host}:8000", allow_http=True)


def test_a_password_in_a_url_is_not_shown() -> None:
    """The message names the mistake alone."""
    with pytest.raises(ConfigurationError, match="no user name or password") as caught:
        AsyncRespan("k", base_url="https://me:hunter2@api.respan.ai")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.respan.ai",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://0.0.0.0",
    ],
)
def test_a_token_does_not_travel_unencrypted(url: str) -> None:
    """Unless it was said that it may, as the message says."""
    with pytest.raises(ConfigurationError, match="allow_http=True"):
        AsyncRespan("k", base_url=url)

    assert AsyncRespan("k", base_url=url, allow_http=True)


def test_a_long_host_is_shown_in_part() -> None:
    """A message stays a sentence, whatever it is about."""
    with pytest.raises(ConfigurationError, match="allow_http=True") as caught:
        AsyncRespan("k", base_url=f"http://{'a.' * 10_000}example")

    assert len(str(caught.value)) < 300


# ------------------------------------------------------------ other settings


class AsyncHook:
    """A hook that would have to be awaited, however it is given."""

    async def __call__(self, *_: object) -> None:
        """Take an event."""

    async def told(self, event: object) -> None:
        """Take an event."""

    async def each(self, event: object) -> AsyncIterator[object]:
        """Give an event back."""
        yield event


AWAITABLE = [
    AsyncHook(),
    AsyncHook().told,
    AsyncHook().each,
    partial(AsyncHook(), 1),
    partial(partial(AsyncHook().told)),
]
LARGE = 10**5000
"""More digits than Python turns into text, and more than a float holds."""


def kind(value: object) -> str:
    """Name a case by what it is, because not everything shows itself."""
    return value if isinstance(value, str) else type(value).__name__


class Part:
    """A value like an array of numpy's: compared part by part, and then neither true nor false. It shows nothing."""

    def __eq__(self, other: object) -> "Part":  # type: ignore[override]  # as numpy has it
        return self

    __ne__ = __eq__  # type: ignore[assignment]  # likewise
    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __repr__(self) -> str:
        raise RuntimeError


WRONG: dict[str, list[Any]] = {
    "api_key": [Secret.erased(), Part()],
    "base_url": [Part(), LARGE],
    "proxy": [Secret.erased(), Part()],
    "timeout": [LARGE, Part(), 0, -1, None, "30", True, float("nan"), float("inf"), [30]],
    "deadline": [LARGE, 0, -1, "30", True, float("nan"), float("inf"), [30]],
    "retry": [None, LARGE, Part(), 5, "never", RetryPolicy],
    "pace": [None, Part(), "fast", "AUTO", 60, (60, 60), RateLimit],
    "tag_names": ["yes", 1, None, LARGE],
    "allow_http": ["false", 0, None],
    "max_in_flight": [-LARGE, 0, -1, None, "64", True, 1.5],
    "session": [5, "session", aiohttp.ClientSession],
    "hooks": [5, [5], LARGE, [print, None], "print", asyncio.sleep, *([hook] for hook in AWAITABLE)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=kind
)
def test_a_wrong_setting_is_named(name: str, value: Any) -> None:
    """With what was expected."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        AsyncRespan(**{"api_key": "k", name: value})


VIEW: dict[str, list[Any]] = {
    "timeout": WRONG["timeout"],
    "deadline": WRONG["deadline"],
    "retry": WRONG["retry"],
    "priority": ["first", "", None, 0, b"batch", bytearray(b"batch")],
    "extra_headers": [
        *(None, 5, "X: y", [("X", "y")], {"": "y"}, {"X Y": "y"}, {"X:": "y"}, {"X\n": "y"}, {5: "y"}, {"Ü": "y"}),
        *({"X": None}, {"X": 5}, {"X": "a\nb"}, {"X": "ü"}, {"X": b"y"}, {"X": "\x00"}, {"X": Secret.erased()}),
    ],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in VIEW.items() for value in values], ids=kind
)
def test_a_wrong_setting_of_a_view_is_named(name: str, value: Any) -> None:
    """As strictly as those of the client."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        AsyncRespan("k").with_options(**{name: value})


def test_a_wrong_argument_of_issuing_is_named() -> None:
    """At once, and not when the first ticket is issued."""
    respan, ledger = AsyncRespan("k"), SQLiteLedger(":memory:")
    wrong: Any
    for wrong in (5, b"x", "", None, "a\0b"):
        with pytest.raises(ConfigurationError, match=r"^path: expected that of a file, "):
            SQLiteLedger(wrong)

    for name, wrong in {
        "respan": (5, ledger, None),
        "ledger": (respan, "a", None),
        "deliver": (respan, ledger, 5),
    }.items():
        with pytest.raises(ConfigurationError, match=f"^{name}: expected an? .*, got (int|str)$"):
            Issuer(wrong[0], wrong[1], deliver=wrong[2])


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "authorization", "Accept", "Accept-Encoding", "Content-Type"),
        *("Content-Length", "Host", "Expect", "Transfer-Encoding", "content-encoding", "Upgrade"),
    ],
)
def test_a_header_of_our_own_cannot_be_replaced(name: str) -> None:
    """The message does not show the value, which may be a secret."""
    with pytest.raises(ConfigurationError, match=f"{name} is this library's own") as caught:
        AsyncRespan("k").with_options(extra_headers={name: "hunter2"})

    assert "hunter2" not in str(caught.value)


def test_every_right_setting_is_taken() -> None:
    """Also all of them together."""
    respan = AsyncRespan(
        Secret("k"),
        base_url="https://keys.example",
        timeout=aiohttp.ClientTimeout(sock_connect=1),
        deadline=0.5,
        retry=RetryPolicy(max_attempts=1),
        pace=DOCUMENTED_LIMIT,
        max_in_flight=1,
        tag_names=True,
        hooks=[print],
    )

    view = respan.with_options(
        timeout=1, deadline=None, retry=RetryPolicy(), priority="sweep", extra_headers={"X-Team": "a b", "X-Empty": ""}
    )

    assert isinstance(view, AsyncRespan)


def test_a_single_hook_without_a_list_is_taken() -> None:
    """What is meant is clear."""
    assert AsyncRespan("k", hooks=print)  # type: ignore[arg-type]


# ----------------------------------------------------------- limit and policy


@pytest.mark.parametrize("limit", [LARGE, -LARGE, 0, -1, 1.5, "60", None, True], ids=kind)
def test_a_limit_is_a_whole_number(limit: Any) -> None:
    """Of requests, 1 or more."""
    with pytest.raises(ConfigurationError, match=r"^limit: expected"):
        RateLimit(limit, per=60)


@pytest.mark.parametrize("per", [LARGE, 1e11, 0, -1, "60", None, True, float("inf"), float("nan")], ids=kind)
def test_a_period_is_a_number_of_seconds(per: Any) -> None:
    """More than 0, and no more than a calendar has."""
    with pytest.raises(ConfigurationError, match=r"^per: expected"):
        RateLimit(60, per=per)


def test_the_documented_limit() -> None:
    """60 requests a minute."""
    assert RateLimit(60, per=60.0) == DOCUMENTED_LIMIT
    assert str(DOCUMENTED_LIMIT) == "60/60s"


POLICY: dict[str, list[Any]] = {
    "max_attempts": [-LARGE, 0, -1, 1.5, "5", None, True],
    "max_refusals": [-1, 1.5, "5", None, True],
    "initial": [LARGE, 0, -1, 86401, "1", None, True, float("nan"), float("inf")],
    "maximum": [0, 0.4, 86401, "1", None, True, float("nan"), float("inf")],
    "max_retry_after": [-1, 86401, "1", None, True, float("nan"), float("inf")],
    "on_unknown": [Part(), "ignore", None, True, "REPLACE"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in POLICY.items() for value in values], ids=kind
)
def test_a_wrong_policy_is_named(name: str, value: Any) -> None:
    """At construction, and when one is changed into another."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        RetryPolicy(**{name: value})
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        attrs.evolve(RetryPolicy(), **{name: value})


# ----------------------------------------------------- where a client may be used


Verb = Callable[[AsyncRespan], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "create": lambda respan: respan.temporary_keys.create(),
    "create_many": lambda respan: respan.temporary_keys.create_many([]),
    "list": lambda respan: respan.temporary_keys.list(),
    "retrieve": lambda respan: respan.temporary_keys.retrieve("i"),
    "update": lambda respan: respan.temporary_keys.update("i", name="n"),
    "delete": lambda respan: respan.temporary_keys.delete("i"),
    "sweep": lambda respan: respan.temporary_keys.sweep(grace=0),
    "entering": lambda respan: respan.__aenter__(),
}
on_every_call = pytest.mark.parametrize("verb", VERBS)


@on_every_call
def test_a_client_belongs_to_one_event_loop(verb: str) -> None:
    """On another it says so, instead of breaking obscurely."""
    with asyncio.Runner() as one, asyncio.Runner() as other:
        respan = AsyncRespan("k", base_url="http://127.0.0.1:9")
        one.run(respan.temporary_keys.sweep(grace=0))

        async def elsewhere() -> None:
            await VERBS[verb](respan)

        with pytest.raises(ClientStateError, match="another event loop"):
            other.run(elsewhere())
        one.run(respan.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@on_every_call
def test_a_client_does_not_survive_a_fork(verb: str) -> None:
    """Two processes on one connection would read each other's keys."""
    respan = AsyncRespan("k", base_url="http://127.0.0.1:9")
    asyncio.run(respan.temporary_keys.sweep(grace=0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, as a test runner may have them
        child = os.fork()
    if not child:
        told = 1
        try:

            async def in_the_child() -> None:
                await VERBS[verb](respan)

            asyncio.run(in_the_child())
        except ClientStateError as error:
            told = 0 if "fork" in str(error) else 2
        finally:
            os._exit(told)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@on_every_call
async def test_a_closed_client_says_so(verb: str) -> None:
    """Whether it was used before or not."""
    respan = AsyncRespan("k", base_url="http://127.0.0.1:9")
    await respan.aclose()

    with pytest.raises(ClientStateError, match="closed"):
        await VERBS[verb](respan)
    assert "closed" in repr(respan)


async def test_a_view_of_a_closed_client_is_closed_too() -> None:
    """They are one client."""
    respan = AsyncRespan("k")
    view = respan.with_options(deadline=5)
    await respan.aclose()

    with pytest.raises(ClientStateError):
        await view.temporary_keys.create()


async def test_closing_twice_is_closing_once() -> None:
    """Also at the same time."""
    async with FakeRespan() as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url)
        await respan.temporary_keys.create()

        await asyncio.gather(respan.aclose(), respan.aclose())
        await respan.aclose()


@pytest.mark.parametrize("phase", ["total", "connect", "sock_read", "sock_connect"])
@pytest.mark.parametrize("value", [LARGE, "30", timedelta(seconds=3), float("nan"), float("inf"), -1, True], ids=kind)
def test_a_phase_of_a_timeout_that_is_no_number_is_told_before_anything_is_sent(phase: str, value: Any) -> None:
    """aiohttp would stumble over it when the request has left, and the key that is made would be lost."""
    with pytest.raises(ConfigurationError, match=rf"timeout: expected seconds, or None, as {phase}, got "):
        AsyncRespan("key", timeout=aiohttp.ClientTimeout(**{phase: value}))
    with pytest.raises(ConfigurationError, match=phase):
        AsyncRespan("key").with_options(timeout=aiohttp.ClientTimeout(**{phase: value}))


async def test_an_argument_of_thousands_of_digits_is_told_in_our_own_error() -> None:
    """Python refuses to turn such a number into text, and a float does not hold it."""
    async with AsyncRespan("k") as respan:
        keys = respan.temporary_keys
        calls: dict[str, Callable[[], Any]] = {
            "page": lambda: keys.list(page=LARGE),
            "page_size": lambda: keys.list(page_size=-LARGE),
            "max_in_flight": lambda: keys.create_many([], max_in_flight=-LARGE),
            "id": lambda: keys.retrieve(LARGE),  # type: ignore[arg-type]
            "grace": lambda: keys.sweep(grace=LARGE),
        }
        for name, call in calls.items():
            with pytest.raises(InvalidRequestError, match=f"^{name}: expected"):
                await call()
        with pytest.raises(InvalidRequestError, match=r"^grace: expected"):
            await respan.aclose(LARGE)


class Setting(str, enum.Enum):  # noqa: UP042  a StrEnum is formatted as its value
    """Texts with names, as some keep their settings."""

    KEY = "a-key"
    URL = "https://api.example"
    HEADER = "X-Team"


def test_a_member_of_an_enum_of_texts_is_its_text() -> None:
    """Also where it is formatted, which would give its name."""
    respan = AsyncRespan(Setting.KEY, base_url=Setting.URL).with_options(extra_headers={Setting.HEADER: Setting.KEY})

    assert repr(respan).startswith("<AsyncRespan https://api.example ")
    assert f"Bearer {Secret(Setting.KEY).reveal()}" == "Bearer a-key"
    assert [type(name) for name, _ in respan._service.options.extra_headers] == [str]
