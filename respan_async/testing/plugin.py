"""Pytest fixtures for the tests of programs that use this library.

    pytest_plugins = ["respan_async.testing.plugin"]

They run on the event loop of the test that asks for them: pytest-asyncio's in either mode and any scope, or anyio's. A
synchronous test, which has none, gets its server from a thread.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final, cast

try:
    import pytest
    import pytest_asyncio
except ImportError as error:
    raise ImportError(
        f"respan_async.testing.plugin needs {(error.name or '').replace('_', '-')}: "
        "install the extra `testing`, as in pip install 'respan-async[testing]'",
        name=error.name,
    ) from None

from respan_async._calls.call_service import service_of
from respan_async.client import AsyncRespan
from respan_async.testing.server import FakeRespan

_SCOPES: Final = ("function", "class", "module", "package", "session")
_ANYIO: Final = "anyio"
_NONE: Final = "none"
_PYTEST_ASYNCIO: Final = ("asyncio", "pytest_asyncio", "pytest_asyncio.plugin")
"""The names under which pytest-asyncio may have been loaded."""


@pytest.fixture
def respan_settings() -> dict[str, Any]:
    """Return the settings of `respan`, as keywords of `AsyncRespan`; to change them, define a fixture of this name."""
    return {}


@pytest.fixture
def fake_respan(request: pytest.FixtureRequest) -> Iterator[FakeRespan]:
    """Provide a fake server of the temporary-keys API on a free port, without a rate limit; set `.limit` for one."""
    loop = _loop_of(request)
    if loop == _NONE:
        with FakeRespan.in_thread() as fake:
            yield fake
    else:
        yield request.getfixturevalue(_server_on(loop))


@pytest.fixture
def respan(request: pytest.FixtureRequest) -> AsyncRespan:
    """Provide a client of `fake_respan`, whose pace and back-off follow the clock that `fake_respan.advance` moves."""
    loop = _loop_of(request)
    if loop == _NONE:
        pytest.fail("the fixture `respan` is for `async def` tests; in others, use `fake_respan`", pytrace=False)
    client: AsyncRespan = request.getfixturevalue(_client_on(loop))
    return client


def _loop_of(request: pytest.FixtureRequest) -> str:
    """Name the event loop of the test: a loop scope of pytest-asyncio, anyio's, or none."""
    test = request.function
    if not inspect.iscoroutinefunction(getattr(getattr(test, "hypothesis", None), "inner_test", test)):
        return _NONE
    mark = request.node.get_closest_marker("asyncio")
    if mark is None and "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        if (backend if isinstance(backend, str) else backend[0]) != "asyncio":
            pytest.fail('aiohttp needs asyncio: let the fixture `anyio_backend` return "asyncio"', pytrace=False)
        return _ANYIO
    if mark is None or not any(map(request.config.pluginmanager.has_plugin, _PYTEST_ASYNCIO)):
        pytest.fail("no plugin runs this test: mark it with `pytest.mark.asyncio`, or use its mode auto", pytrace=False)
    scope = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope")
    return str(scope or request.config.getini("asyncio_default_test_loop_scope"))


def _server_on(loop: str) -> str:
    return f"_fake_respan_on_{loop}_loop"


def _client_on(loop: str) -> str:
    return f"_respan_on_{loop}_loop"


def _fixtures_on(loop: str) -> dict[str, object]:
    """Make the two fixtures for one kind of event loop, because each plugin takes its own, at one scope."""
    fixture: Callable[..., Any] = (
        pytest.fixture if loop == _ANYIO else partial(cast("Any", pytest_asyncio.fixture), loop_scope=loop)
    )

    @fixture(name=_server_on(loop))  # type: ignore[untyped-decorator]  # one of two functions with other types
    async def serve() -> AsyncIterator[FakeRespan]:
        async with FakeRespan() as fake:
            yield fake

    @fixture(name=_client_on(loop))  # type: ignore[untyped-decorator]  # likewise
    async def connect(fake_respan: FakeRespan, respan_settings: dict[str, Any]) -> AsyncIterator[AsyncRespan]:
        settings = {"api_key": fake_respan.api_key, "base_url": fake_respan.url, **respan_settings}
        async with AsyncRespan(**settings) as client:
            context = service_of(client).context
            fake_respan.followers.append(context.advance)
            yield client
            fake_respan.followers.remove(context.advance)

    return {_server_on(loop): serve, _client_on(loop): connect}


for _loop in (*_SCOPES, _ANYIO):
    globals().update(_fixtures_on(_loop))  # where pytest looks for fixtures
