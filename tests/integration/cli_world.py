"""What the tests of the command line share: servers, and runs within this process or as one of their own."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import attrs
import pytest

from respan_async.cli import main
from respan_async.testing import FakeRespan

COMMAND = (sys.executable, "-m", "respan_async.cli")


@attrs.define
class World:
    """A directory for processes, with a server running beside it."""

    directory: Path
    server: "Server"

    @property
    def keys(self) -> Path:
        return self.directory / "keys.jsonl"

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "TERM": "xterm", "COLUMNS": "100", **more}

    def tenants(self, count: int) -> None:
        lines = [f"t{number}" for number in range(count)]
        (self.directory / "t.csv").write_text("\n".join(["ticket", *lines]) + "\n")

    def start(self, *argv: str, **more: Any) -> subprocess.Popen[str]:
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment(), **more}
        return subprocess.Popen((*COMMAND, *argv), cwd=self.directory, text=True, **more)

    def run(self, *argv: str, **more: Any) -> tuple[int, str, str]:
        process = self.start(*argv, **more)
        out, err = process.communicate(timeout=20)
        assert "Traceback" not in (err or "")
        return process.returncode, out, err

    def held(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.keys.read_text().splitlines()]

    def until_held(self, count: int) -> None:
        until(lambda: self.keys.exists() and self.keys.read_bytes().count(b"\n") >= count)


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


class Server:
    """A fake server on an event loop of its own, because the command line brings its own as well."""

    def __init__(self, latency: float = 0.0) -> None:
        self.fake = FakeRespan(forbidden_keys=["forbidden"], latency=latency)
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._up: Future[None] = Future()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with self.fake:
            self._up.set_result(None)
            await self._ended.wait()

    def start(self) -> None:
        self._thread.start()
        self._up.result(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)
        self._loop.close()

    def go_away(self) -> None:
        """Break every connection, and refuse the next ones."""
        self._loop.call_soon_threadsafe(setattr, self.fake, "down", True)

    def ids(self) -> set[str]:
        return {record.id for record in self.fake.alive()}


def _serving(server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server.start()
    monkeypatch.setenv("RESPAN_API_KEY", server.fake.api_key)
    monkeypatch.setenv("RESPAN_BASE_URL", server.fake.url)
    monkeypatch.chdir(directory)
    yield
    server.stop()


@pytest.fixture(name="server")
def server_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    server = Server()
    for _ in _serving(server, tmp_path, monkeypatch):
        yield server


@pytest.fixture(name="world")
def world_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Give a world whose server meets faults by chance, if the test names some."""
    server = Server(latency=0.03)
    for name, chance in getattr(request, "param", {}).items():
        server.fake.chance(name, chance)
    for _ in _serving(server, tmp_path, monkeypatch):
        yield World(tmp_path, server)


Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture(name="run")
def run_fixture(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, list[dict[str, Any]], str]:
        code = main(argv)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def tenants(count: int, path: str = "t.csv") -> str:
    lines = [f"t{number},Tenant {number}" for number in range(count)]
    Path(path).write_text("\n".join(["ticket,name", *lines]) + "\n")
    return path


def held(path: str = "keys.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond this, as on a disk that is full."""
    import resource  # not there on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def standard_output(path: str) -> Iterator[None]:
    """Let standard output go there."""
    before, there = os.dup(1), os.open(path, os.O_WRONLY)
    os.dup2(there, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(there)
