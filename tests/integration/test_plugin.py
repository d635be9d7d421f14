"""The fixtures, in the suites of other people: each a folder of its own, with pytest as its users start it."""

import asyncio
import importlib
import sys
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import pytest

from respan_async import AsyncRespan, RateLimit, RetryPolicy
from respan_async._calls.call_service import service_of
from respan_async.testing import FakeRespan, SlidingLog
from tests.waiting import until

pytest_plugins = ["pytester"]

TEST: Final = """
async def test_a_key(respan, fake_respan):
    key = await respan.temporary_keys.create(name="tenant-42")

    assert [found.id for found in fake_respan.alive()] == [key.id]
    assert fake_respan.requests[-1].json == {"name": "tenant-42"}
"""
SYNCHRONOUS: Final = """
import json, urllib.request

def test_a_key(fake_respan):
    headers = {"Authorization": f"Bearer {fake_respan.api_key}", "Content-Type": "application/json"}
    url = f"{fake_respan.url}/api/temporary-keys/"
    request = urllib.request.Request(url, b'{"name": "tenant-42"}', headers)
    assert urllib.request.urlopen(request, timeout=10).status == 201

    assert fake_respan.requests[-1].json == {"name": "tenant-42"}
"""
HEAD: Final = 'import pytest\npytest_plugins = ["respan_async.testing.plugin"]\n'
ANYIO: Final = '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'


INI: Final = """[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def suite(pytester: pytest.Pytester, tests: str, *argv: str, conftest: str = HEAD, ini: str = "") -> tuple[int, str]:
    """Run tests as a suite of their own; return pytest's exit code and what it showed."""
    own = [line for line in INI.splitlines() if line.partition(" =")[0] not in ini]
    pytester.makeini("\n".join([*own, ini]))
    pytester.makeconftest(conftest)
    pytester.makepyfile(test_theirs=f"import pytest\n{tests}")
    done = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "-p", "no:xdist", *argv)
    return int(done.ret), done.stdout.str() + done.stderr.str()


def marked(mark: str, test: str = TEST) -> str:
    return test.replace("async def", f"@pytest.mark.{mark}\nasync def")


HOMES: Final = {
    "strict": (marked("asyncio"), ""),
    "auto": (TEST, "asyncio_mode = auto"),
    "one loop for a session": (
        TEST + TEST.replace("test_a_key", "test_another"),
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session",
    ),
    "the test's loop is the session's": (marked('asyncio(loop_scope="session")'), ""),
    "the tests' loop is the module's": (TEST, "asyncio_mode = auto\nasyncio_default_test_loop_scope = module"),
    "the fixtures' loop is the session's": (TEST, "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = session"),
    "anyio": (f"{ANYIO}{marked('anyio')}", ""),
    "synchronous": (SYNCHRONOUS, ""),
    "synchronous beside auto": (SYNCHRONOUS + TEST.replace("test_a_key", "test_another"), "asyncio_mode = auto"),
}
"""How a suite runs its tests: the tests, and its settings."""


@pytest.mark.parametrize("home", HOMES)
def test_fixtures_run_where_the_test_runs(home: str, pytester: pytest.Pytester) -> None:
    """Under either mode of pytest-asyncio, any scope of its loops, anyio's plugin, and without an event loop."""
    tests, ini = HOMES[home]

    code, shown = suite(pytester, tests, ini=ini)

    assert code == 0, shown
    assert f"{tests.count('def test_')} passed" in shown


def test_one_suite_may_have_them_all(pytester: pytest.Pytester) -> None:
    """Tests of several kinds in one file do not get in each other's way."""
    tests = ANYIO + marked("anyio") + SYNCHRONOUS.replace("test_a_key", "test_2")
    tests += marked('asyncio(loop_scope="session")', TEST.replace("test_a_key", "test_3"))
    tests += marked("asyncio", TEST.replace("test_a_key", "test_4"))

    code, shown = suite(pytester, tests)

    assert code == 0, shown
    assert "4 passed" in shown


def test_the_clients_settings_are_a_fixture(pytester: pytest.Pytester) -> None:
    """One that a suite, a file or a class defines for its own tests; so may be the server."""
    conftest = f"""{HEAD}
from respan_async.testing import FakeRespan

@pytest.fixture
def respan_settings():
    return {{"tag_names": True}}

@pytest.fixture
def fake_respan():
    with FakeRespan.in_thread(shape="b") as fake:
        yield fake
"""
    test = """
async def test_a_tag(respan, fake_respan):
    key = await respan.temporary_keys.create(name="tenant")

    assert fake_respan.requests[-1].json["name"].startswith("tenant ~")
    assert key.id.count("-") == 4
"""
    code, shown = suite(pytester, test, conftest=conftest, ini="asyncio_mode = auto")

    assert code == 0, shown


MISSING: Final = {
    "pytest-asyncio is switched off": (TEST, "no plugin runs this test: mark it with `pytest.mark.asyncio`"),
    "no mark": (TEST, "no plugin runs this test: mark it with `pytest.mark.asyncio`"),
    "trio": (
        f"{ANYIO.replace('asyncio', 'trio')}{marked('anyio')}",
        'aiohttp needs asyncio: let the fixture `anyio_backend` return "asyncio"',
    ),
    "a client without a loop": (
        "def test_a_key(respan): ...",
        "the fixture `respan` is for `async def` tests; in others, use `fake_respan`",
    ),
}
"""What may be missing: the tests, and what is said."""


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_said(what: str, pytester: pytest.Pytester) -> None:
    """In one sentence, at once, where a test would hang or break off with a riddle."""
    tests, sentence = MISSING[what]

    argv = ("-p", "no:asyncio", "-W", "ignore::pytest.PytestConfigWarning") if "switched" in what else ()
    code, shown = suite(pytester, tests, *argv)

    assert code != 0
    assert sentence in shown


@pytest.mark.parametrize(("module", "name"), [("pytest_asyncio", "pytest-asyncio"), ("pytest", "pytest")])
def test_a_package_that_is_missing_is_named(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "respan_async.testing.plugin")

    with pytest.raises(ImportError, match=f"needs {name}: install the extra `testing`, as in pip install 'respan-"):
        importlib.import_module("respan_async.testing.plugin")


# ------------------------------------------------------------------ the clock


@pytest.mark.parametrize("pace", ["auto", RateLimit(2, per=60)])
async def test_a_minute_passes_for_server_and_client(pace: Any, fake_respan: FakeRespan) -> None:
    """A limit is tested in no time, whether the client knows it or learns it from a refusal."""
    async with asyncio.timeout(5):
        fake_respan.limit = SlidingLog(2, per=60)
        async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, pace=pace) as respan:
            fake_respan.followers.append(service_of(respan).context.advance)
            creating = [asyncio.create_task(respan.temporary_keys.create(name=f"t{number}")) for number in range(3)]
            await until(lambda: sum(task.done() for task in creating) == 2)
            await until(lambda: respan.pace.refused or respan.pace.waiting["interactive"])
            await asyncio.sleep(0.02)
            fake_respan.advance(59)
            await asyncio.sleep(0.02)
            early = fake_respan.counts.created
            fake_respan.advance(1.1)
            await asyncio.gather(*creating)

    assert (early, fake_respan.counts.created, fake_respan.max_in_window(60)) == (2, 3, 2)


async def test_a_back_off_passes_too(fake_respan: FakeRespan) -> None:
    """The wait before a call is made again; a part of it leaves the rest."""
    async with asyncio.timeout(5):
        fake_respan.script("error_500")
        retry = RetryPolicy(initial=3000, maximum=3000)
        async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, retry=retry) as respan:
            fake_respan.followers.append(service_of(respan).context.advance)
            creating = asyncio.create_task(respan.temporary_keys.create())
            await until(lambda: fake_respan.counts.by_status.get(500) == 1)
            await asyncio.sleep(0.02)
            fake_respan.advance(0.001)
            await asyncio.sleep(0.02)
            early = fake_respan.counts.created
            fake_respan.advance(3000)
            await creating

    assert (early, fake_respan.counts.created) == (0, 1)


async def test_the_fixtures_client_follows(respan: AsyncRespan, fake_respan: FakeRespan) -> None:
    """What the two tests above do by hand, the fixture does by itself."""
    fake_respan.limit = SlidingLog(1, per=60)
    await respan.temporary_keys.create()
    waiting = asyncio.create_task(respan.temporary_keys.create())
    await until(lambda: respan.pace.refused == 1)
    fake_respan.advance(61)

    assert await asyncio.wait_for(waiting, 5)


class TestTagged:
    """With `tag_names`, by the fixture that is there for settings."""

    @pytest.fixture
    def respan_settings(self) -> dict[str, Any]:
        """Let the client tag names."""
        return {"tag_names": True}

    async def test_a_minute_later_the_key_of_a_lost_answer_is_revoked(
        self, respan: AsyncRespan, fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By the client itself; and the time that the test let pass is no difference between two clocks."""
        fake_respan.script("lose_answer_after_create")
        held = await respan.temporary_keys.create(name="tenant-1")
        assert len(fake_respan.unheld([held.id])) == 1

        await asyncio.sleep(0.02)
        fake_respan.advance(61)
        await until(lambda: not respan.suspects)

        assert fake_respan.unheld([held.id]) == []
        assert "clock" not in caplog.text


async def test_a_clock_of_the_tests_own_is_not_moved(respan: AsyncRespan) -> None:
    """Its time is the test's to tell."""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    context = attrs.evolve(service_of(respan).context, clock=lambda: noon)

    context.advance(60)

    assert context.clock() == noon
