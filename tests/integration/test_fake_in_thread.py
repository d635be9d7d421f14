"""The fake server in a thread of its own, as synchronous tests use it."""

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from respan_async import AsyncRespan
from respan_async.testing import FakeRespan, SlidingLog
from respan_async.testing.server_thread import ServerThread

ROOT = "/api/temporary-keys/"


def create(fake: FakeRespan, **fields: object) -> tuple[int, Any]:
    """Create a key with a client that blocks, as a synchronous program has it."""
    request = urllib.request.Request(
        fake.url + ROOT,
        json.dumps(fields).encode(),
        {"Authorization": f"Bearer {fake.api_key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_client_that_blocks_is_served() -> None:
    """All that a test asks the server for, it may ask from its own thread; nothing is left of the other one."""
    with FakeRespan.in_thread(limit=SlidingLog(2, per=60), seed=3) as fake:
        status, body = create(fake, name="tenant-1")
        fake.script("unprocessable_422")
        assert create(fake, name="tenant-2")[0] == 422
        assert create(fake)[0] == 429

        assert (status, fake.keys[body["id"]].name) == (201, "tenant-1")
        assert [request.json for request in fake.requests] == [{"name": "tenant-1"}, {"name": "tenant-2"}, {}]
        assert [key.id for key in fake.alive()] == [body["id"]]
        assert (fake.counts.created, fake.counts.refused, fake.max_in_window(60)) == (1, 1, 2)
    assert fake.counts.requests == 3  # also when it is over
    assert "FakeRespan" not in [thread.name for thread in threading.enumerate()]


def test_a_minute_passes_at_once_for_a_client_that_blocks() -> None:
    """`advance` gives a limit room again."""
    with FakeRespan.in_thread(limit=SlidingLog(1, per=60)) as fake:
        statuses = [create(fake)[0], create(fake)[0]]
        fake.advance(60)
        statuses.append(create(fake)[0])

    assert statuses == [201, 429, 201]


def test_each_call_of_asyncio_run_is_served() -> None:
    """A program that runs an event loop for each task, as a worker does."""

    async def work(fake: FakeRespan, name: str) -> None:
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            await respan.temporary_keys.create(name=name)

    with FakeRespan.in_thread() as fake:
        for name in ("a", "b"):
            asyncio.run(work(fake, name))

        assert [key.name for key in fake.alive()] == ["a", "b"]


def test_an_outage_can_be_made_from_another_thread() -> None:
    """At once, and ended at once."""
    with FakeRespan.in_thread() as fake:
        fake.down = True
        with pytest.raises(urllib.error.URLError):
            create(fake)
        fake.down = False

        assert create(fake)[0] == 201


def test_a_late_create_happens_when_its_time_has_come() -> None:
    """Which `advance` brings about; the next line of the test sees the key."""
    with FakeRespan.in_thread() as fake:
        fake.script("late_create:30")
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            create(fake)
        before = fake.counts.created
        fake.advance(31)

        assert (before, fake.counts.created) == (0, 1)


async def test_late_creates_can_be_waited_for_from_another_loop() -> None:
    """`settle` may be awaited on any event loop."""
    with FakeRespan.in_thread() as fake:
        fake.script("late_create:0.05")
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            await asyncio.to_thread(create, fake)
        await fake.settle()

        assert fake.counts.created == 1


def test_a_port_that_is_taken_is_told_where_it_was_asked_for() -> None:
    """The error of the other thread is raised in this one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
        FakeRespan.in_thread(port=taken.getsockname()[1]),
    ):
        pass

    assert "FakeRespan" not in [thread.name for thread in threading.enumerate()]


def test_a_mistake_is_told_where_it_was_made() -> None:
    """A fault that is none is the caller's error."""
    with FakeRespan.in_thread() as fake, pytest.raises(ValueError, match="no fault 'x'"):
        fake.script("x")


def test_a_setting_that_is_none_starts_no_thread() -> None:
    """As of the class."""
    with pytest.raises(TypeError, match="unknown"), FakeRespan.in_thread(unknown=1):
        pass


def test_what_goes_wrong_at_the_end_is_told_there() -> None:
    """The error of the other thread is raised where the `with` ends."""

    class Server:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *_: object) -> None:
            raise OSError("the port is still in use")

    with pytest.raises(OSError, match="still in use"), ServerThread(Server()):
        pass

    assert "FakeRespan" not in [thread.name for thread in threading.enumerate()]
