"""The fake server on an event loop of its own, in a thread, for tests whose own loops come and go."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from respan_async.testing import FakeRespan


@contextmanager
def fake_in_thread(**settings: Any) -> Iterator[FakeRespan]:
    """Run a fake server until the end of the block; `settings` are those of `FakeRespan`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-respan")
    thread.start()
    try:
        fake = FakeRespan(**settings)
        asyncio.run_coroutine_threadsafe(fake.__aenter__(), loop).result(10)
        try:
            yield fake
        finally:
            asyncio.run_coroutine_threadsafe(fake.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
