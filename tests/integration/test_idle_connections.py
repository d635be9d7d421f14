"""A machine that is asleep, or a process that is frozen, while the server closes the connections that lie idle."""

import asyncio
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest

from respan_async import AsyncRespan, RetryPolicy
from respan_async._http.session import Network, SessionKeeper, own_session
from respan_async.testing import FakeRespan
from tests.hostile.test_suspend import Machine
from tests.integration.raw_server import Act, Connection, RawServer, Seen, key
from tests.leftovers import nothing_left


class Handler(http.server.BaseHTTPRequestHandler):
    """Makes keys, and closes idle connections, in threads of its own."""

    protocol_version = "HTTP/1.1"
    timeout = 5.0  # seconds, after which it closes an idle connection
    connections: ClassVar[list[Any]] = []

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"id": f"key-{len(self.connections)}", "api_key": "k.secret"}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the base's name
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Run the server."""
    Handler.connections.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_no_create_meets_a_connection_that_was_closed_in_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network slept too, so that the machine has not heard of the closing when it wakes and sends."""
    machine = Machine(monkeypatch)
    making = key()
    closed: set[Connection] = set()
    known: set[Connection] = set()

    async def serve(connection: Connection, seen: Seen) -> None:
        known.add(connection)
        if connection in closed:
            connection.reset()
        else:
            await making.do(connection, seen)

    with nothing_left():
        async with (
            RawServer(Act("serves", serve)) as server,
            AsyncRespan("k", base_url=server.url, retry=RetryPolicy(max_attempts=1)) as respan,
        ):
            await asyncio.gather(*(respan.temporary_keys.create() for _ in range(3)))

            machine.sleep()
            closed |= known
            await asyncio.gather(*(respan.temporary_keys.create() for _ in range(3)))

            assert (respan.suspects, server.connections) == ((), 6)


async def test_a_short_sleep_costs_no_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has more patience than that."""
    machine = Machine(monkeypatch)
    async with AsyncRespan("k", base_url=url) as respan:
        await respan.temporary_keys.create()
        machine.clock.offset += timedelta(seconds=0.3)
        await respan.temporary_keys.create()

    assert len(Handler.connections) == 1


async def test_what_is_in_the_air_during_a_sleep_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer may still come; its session is closed after that."""
    machine = Machine(monkeypatch)
    waking = asyncio.Event()
    making = key()

    async def late(connection: Connection, seen: Seen) -> None:
        await waking.wait()
        await making.do(connection, seen)

    with nothing_left():
        async with RawServer(Act("late", late), key()) as server, AsyncRespan("k", base_url=server.url) as respan:
            slow = asyncio.ensure_future(respan.temporary_keys.create())
            await server.arrived.wait()

            machine.sleep()
            await respan.temporary_keys.create()
            assert (server.connections, server.open) == (2, 2)
            waking.set()
            await slow
            async with asyncio.timeout(5):
                while server.open > 1:  # noqa: ASYNC110  it is the server that sees it
                    await asyncio.sleep(0.01)

            await respan.temporary_keys.create()
            assert (server.connections, respan.suspects) == (2, ())


async def test_closing_waits_for_what_is_being_closed_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old session and the new one; what is given back after that is nobody's."""
    machine = Machine(monkeypatch)
    sessions = SessionKeeper(partial(own_session, Network()))
    old = sessions.take()
    sessions.give_back(old)
    machine.sleep()
    new = sessions.take()

    await sessions.aclose()
    sessions.give_back(new)

    assert (old.closed, new.closed, sessions._session) == (True, True, None)


FROZEN = """
import asyncio, sys
from respan_async import AsyncRespan, RetryPolicy

async def main():
    async with AsyncRespan(retry=RetryPolicy(max_attempts=1)) as respan:
        await respan.temporary_keys.create()
        print("made", flush=True)
        sys.stdin.readline()  # on the event loop's own thread: it hears of nothing
        await respan.temporary_keys.create()
        print(len(respan.suspects), flush=True)

asyncio.run(main())
"""


@pytest.mark.hostile
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here")
def test_a_process_that_is_stopped_meets_no_closed_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that aiohttp counts by runs on then, as under a container that is paused."""
    monkeypatch.setattr(Handler, "timeout", 4.5)
    environment = {**os.environ, "RESPAN_API_KEY": "k", "RESPAN_BASE_URL": url}
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "made\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(5.0)
        child.stdin.write("\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "0\n"
    assert len(Handler.connections) == 2


async def test_a_client_that_never_slept_has_one_session() -> None:
    """Whatever the number of its calls."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        for _ in range(20):
            await respan.temporary_keys.create()

        assert fake.counts.connections == 1
