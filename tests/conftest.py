"""What the tests share: mocks that fit this aiohttp, virtual time, and a client beside a fake server."""

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import aiohttp
import aioresponses.core
import async_solipsism
import hypothesis
import pytest

from tests.virtual import VirtualLoop

pytest_plugins = ["respan_async.testing.plugin", "tests.servers.postgres", "tests.servers.redis"]

# Test time is part of the product; `--hypothesis-profile=default` looks longer.
hypothesis.settings.register_profile("brief", max_examples=40, deadline=None)
hypothesis.settings.load_profile("brief")


_MODES = {
    "hostile": "every byte and every step of a hostile world: some minutes in all",
    "long": "the tests that take minutes each",
}
"""A marker and a flag each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--hostile` and `--long`."""
    for mode, what in _MODES.items():
        parser.addoption(f"--{mode}", action="store_true", help=f"run too: {what}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for: not as skipped tests, which would be a line each."""
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        wanted = all(config.getoption(f"--{mode}") for mode in _MODES if item.get_closest_marker(mode))
        (kept if wanted else left).append(item)
    items[:] = kept
    if left:
        config.hook.pytest_deselected(items=left)


class MockedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 makes responses without the `stream_writer` that aiohttp asks for from 3.14 on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
            kwargs.setdefault("stream_writer", mock.Mock(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses.aioresponses]:
    """Answers out of thin air, as users of aioresponses have them."""
    monkeypatch.setattr(aioresponses.core, "ClientResponse", MockedResponse)
    with aioresponses.aioresponses() as mocks:
        yield mocks


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests marked `virtual` on a loop whose clock jumps to the next event instead of waiting for it."""
    if item.get_closest_marker("virtual"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _in_memory_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let aiohttp connect within a virtual loop; a literal address keeps it from asking for a name."""
    if request.node.get_closest_marker("virtual"):
        monkeypatch.setattr(
            "aiohttp.connector.aiohappyeyeballs.start_connection", async_solipsism.aiohappyeyeballs_start_connection
        )
