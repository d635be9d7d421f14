"""Fixtures for the tests of programs that use this library.

    pytest_plugins = ["respan_async.testing.plugin"]

They are asynchronous, and work with pytest-asyncio in either mode.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from respan_async.client import AsyncRespan
from respan_async.testing.server import FakeRespan


@pytest_asyncio.fixture
async def fake_respan() -> AsyncIterator[FakeRespan]:
    """Give a fake server of the temporary-keys API on a free port, without a rate limit; set `.limit` for one."""
    async with FakeRespan() as fake:
        yield fake


@pytest_asyncio.fixture
async def respan(fake_respan: FakeRespan) -> AsyncIterator[AsyncRespan]:
    """Give a client of `fake_respan`."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as client:
        yield client
