"""`respan-keys` as a process: signals, kill -9, full disks, closed pipes, terminals; the server is another."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

COMMAND = (sys.executable, "-m", "respan_async.cli")


@attrs.define
class World:
    """A directory with a sandbox running beside it."""

    directory: Path
    environment: dict[str, str]
    sandbox: subprocess.Popen[str]
    _report: dict[str, int] = attrs.field(factory=dict)

    @property
    def keys(self) -> Path:
        return self.directory / "keys.jsonl"

    def tenants(self, count: int) -> None:
        lines = [f"t{number}" for number in range(count)]
        (self.directory / "t.csv").write_text("\n".join(["ticket", *lines]) + "\n")

    def start(self, *argv: str, **more: Any) -> subprocess.Popen[str]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen((*COMMAND, *argv), cwd=self.directory, env=self.environment, text=True, **streams)

    def run(self, *argv: str, **more: Any) -> tuple[int, str, str]:
        process = self.start(*argv, **more)
        out, err = process.communicate(timeout=20)
        assert "Traceback" not in (err or "")
        return process.returncode, out, err

    def held(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.keys.read_text().splitlines()]

    def until_held(self, count: int) -> None:
        until(lambda: self.keys.exists() and self.keys.read_bytes().count(b"\n") >= count)

    def server_counts(self) -> dict[str, int]:
        """End the sandbox, and return what it counted."""
        self.sandbox.send_signal(signal.SIGINT)
        _, err = self.sandbox.communicate(timeout=5)
        assert self.sandbox.returncode == 0
        return {name: int(number) for number, name in re.findall(r"(\d+) (requests|refused|keys made|alive)", err)}


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    options = getattr(request, "param", ("--latency", "0.03"))
    sandbox = subprocess.Popen(
        (*COMMAND, "sandbox", "--port", "0", "--limit", "none", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sandbox.stdout is not None
    given = dict(sandbox.stdout.readline().rstrip("\n").split("=", 1) for _ in range(2))
    assert given.keys() == {"RESPAN_BASE_URL", "RESPAN_API_KEY"}
    yield World(tmp_path, {**os.environ, **given, "TERM": "xterm", "COLUMNS": "100"}, sandbox)
    if sandbox.poll() is None:
        sandbox.kill()
    sandbox.communicate()


ISSUE = ("issue", "t.csv", "--out", "keys.jsonl", "--max-in-flight", "8", "--rate")
FAST = "1000/1s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_loses_nothing(world: World, number: signal.Signals) -> None:
    """What is in the air is finished and put on record, and the command that is named goes on from there."""
    world.tenants(120)
    process = world.start(*ISSUE, "100/1s")
    world.until_held(10)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)

    first = len(world.held())
    assert process.returncode == 130
    assert 10 <= first < 120
    assert "interrupted: waiting for " in err
    assert f"{first} issued in " in err
    assert f"0 failed, {120 - first} not sent" in err
    assert f"to go on: respan-keys {' '.join(ISSUE)} 100/1s" in err
    code, _, err = world.run(*ISSUE, FAST)
    assert code == 0
    assert f"{first} already issued" in err
    assert Counter(line["ticket"] for line in world.held()) == {f"t{n}": 1 for n in range(120)}
    assert world.server_counts()["alive"] == 120


@pytest.mark.parametrize("world", [("--fault", "stall:0.3")], indirect=True)
def test_a_second_interrupt_ends_at_once(world: World) -> None:
    """Whoever does not want to wait for lost answers need not, and is told what that means."""
    world.tenants(100)
    process = world.start(*ISSUE, FAST)
    world.until_held(3)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = ""
    while "interrupted" not in said:
        said = process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert time.monotonic() - began < 3
    assert "in the air, whose keys may be alive and held by nobody" in err
    assert "to go on: " in err
    assert len(world.held()) >= 3


def test_kill_and_go_on(world: World) -> None:
    """After kill -9 the same command issues the rest, each ticket once, and at most what was in the air is nobody's."""
    world.tenants(100)
    for held in (10, 40):
        process = world.start(*ISSUE, FAST)
        world.until_held(held)
        process.kill()
        process.communicate()
    code, _, _ = world.run(*ISSUE, FAST)

    assert code == 0
    assert Counter(line["ticket"] for line in world.held()) == {f"t{n}": 1 for n in range(100)}
    # At each of two kills: 8 in the air or waiting to be taken, and one on its way into the file.
    assert 100 <= world.server_counts()["alive"] <= 100 + 2 * (8 + 1)


def test_two_runs_on_one_file(world: World) -> None:
    """The second is refused, and the first goes on."""
    world.tenants(100)
    process = world.start(*ISSUE, "10/1s")
    world.until_held(1)
    code, _, err = world.run(*ISSUE, FAST)

    assert (code, err) == (2, "respan-keys: keys.jsonl: another run is writing to it\n")
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_full_disk(world: World) -> None:
    """Keys that cannot be put on record are named and revoked, the job stops, and its file is whole."""
    world.tenants(100)
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))}
    code, _, err = world.run(*ISSUE, FAST, **full)

    held = world.held()
    assert code == 1
    assert 5 < len(held) < 30
    assert "respan-keys: keys.jsonl: File too large; no more keys are asked for" in err
    assert re.search(r"t\.csv:\d+: t\d+: key \S+ could not be put on record, and was revoked", err)
    assert world.server_counts()["alive"] == len(held)


def test_a_full_disk_behind_standard_output(world: World) -> None:
    """Standard output is no safer a place."""
    world.tenants(4)
    with Path("/dev/full").open("w") as full:
        issued = world.run("issue", "t.csv", stdout=full)
        created = world.run("create", stdout=full)

    assert issued[0] == created[0] == 1
    assert "standard output: No space left on device" in issued[2]
    assert "could not be written to standard output, and was revoked" in created[2]
    assert world.server_counts()["alive"] == 0


def test_a_reader_who_left(world: World) -> None:
    """`| head` ends a list quietly, and a run whose reader left keeps no key alive that nobody has."""
    world.tenants(4)
    world.run("create")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        listed = world.run("list", stdout=writing)
        issued = world.run("issue", "t.csv", stdout=writing)
    finally:
        os.close(writing)

    assert (listed[0], listed[2]) == (141, "")
    assert issued[0] == 1
    assert world.server_counts()["alive"] == 1


def terminal(world: World, *argv: str, **environment: str) -> str:
    """Run with standard error on a terminal, and return what it got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (*COMMAND, *argv), cwd=world.directory, env={**world.environment, **environment}, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
    os.close(ours)
    assert process.wait(10) == 0
    return seen.decode()


def test_a_bar_on_a_terminal(world: World) -> None:
    """On a terminal, rich draws a bar in place, and gives the cursor back."""
    world.tenants(20)
    seen = terminal(world, *ISSUE, FAST)

    assert "\x1b[?25l" in seen
    assert "20/20 issued \x1b" in seen
    assert "0 refused  0 failed" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert "20 issued in " in seen


def test_no_bar_without_rich(world: World, tmp_path: Path) -> None:
    """Without rich, or where a bar cannot be drawn, there are plain lines."""
    world.tenants(20)
    (tmp_path / "none" / "rich").mkdir(parents=True)
    (tmp_path / "none" / "rich" / "__init__.py").write_text("raise ImportError('not installed')\n")

    for environment in ({"PYTHONPATH": str(tmp_path / "none")}, {"TERM": "dumb"}):
        world.keys.unlink(missing_ok=True)
        seen = terminal(world, *ISSUE, FAST, **environment)
        assert "\x1b" not in seen
        assert re.search(r"^20/20 issued, [0-9.]+/s, 0 refused, 0 failed\r$", seen, re.MULTILINE)


def test_a_port_that_is_taken(world: World) -> None:
    """A sandbox says in a sentence that somebody else has its port."""
    port = world.environment["RESPAN_BASE_URL"].rpartition(":")[2]
    code, out, err = world.run("sandbox", "--port", port)

    assert (code, out) == (1, "")
    assert err.startswith("respan-keys: ")
    assert "address already in use" in err
