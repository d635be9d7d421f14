"""`respan-keys` as a process: signals, kill -9, closed pipes, terminals; the server is another."""

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.cli_world import (
    COMMAND,
    Run,
    Server,
    World,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
    until,
    world_fixture,  # noqa: F401  a fixture
)

ISSUE = ("issue", "t.csv", "--out", "keys.jsonl", "--max-in-flight", "8", "--rate")
FAST = "1000/1s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_loses_nothing(world: World, run: Run, number: signal.Signals) -> None:
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
    code, _, err = run(*ISSUE, FAST)
    assert code == 0
    assert f"{first} already issued" in err
    assert Counter(line["ticket"] for line in world.held()) == {f"t{n}": 1 for n in range(120)}
    assert world.server.fake.counts.alive == 120


def test_a_run_that_is_held_back_says_for_how_long(world: World) -> None:
    """The server asks for more than is ever waited for at once."""
    world.server.fake.chance("refuse:500", 1)
    world.tenants(3)
    process = world.start(*ISSUE, FAST)
    assert process.stderr is not None
    while "paused for " not in (said := process.stderr.readline()):
        assert said
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)

    assert said.rpartition("; paused for ")[2].strip() in ("2:00", "1:59", "1:58", "1:57")
    assert process.returncode == 130
    assert "0 failed, 3 not sent" in err


@pytest.mark.parametrize("world", [{"stall": 0.3}], indirect=True)
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


def test_an_interrupt_ends_a_read_that_nobody_answers(world: World) -> None:
    """A list changes nothing, so there is nothing to wait for."""
    world.server.fake.script("stall", operation="list")
    process = world.start("list")
    until(lambda: world.server.fake.counts.by_operation.get("list") == 1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130, err
    assert out == ""
    assert time.monotonic() - began < 4


def test_a_second_interrupt_waits_for_a_line_that_is_being_written_but_not_for_ever(server: Server) -> None:
    """Who reads the keys has stopped reading: a second or so later the process ends, and has nothing in the air."""
    tenants(1)
    reading, writing = os.pipe()
    os.write(writing, b"x" * fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ))
    process = subprocess.Popen((*COMMAND, "issue", "t.csv"), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert process.stderr is not None
    until(lambda: len(server.ids()) == 1)
    process.send_signal(signal.SIGINT)
    while "interrupted" not in process.stderr.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    os.close(reading)

    assert process.returncode == 130
    assert 1 < time.monotonic() - began < 5
    assert "in the air" not in err


TROUBLE = {"lose_answer_after_create": 0.03, "html_502_after": 0.03}


@pytest.mark.parametrize("world", [TROUBLE], indirect=True)
def test_kill_and_go_on(world: World, run: Run) -> None:
    """After kill -9, several times, the same command and a sweep leave one live key a ticket, and it is in the file."""
    world.tenants(120)
    for held in (0, 1, 30, 70):
        process = world.start(*ISSUE, FAST)
        until(lambda: (world.directory / "keys.jsonl.ledger").exists())
        world.until_held(held)
        process.kill()
        process.communicate()
    code, _, err = run(*ISSUE, FAST)
    assert code == 0, err
    by_itself = run("sweep", "--out", "keys.jsonl", "--grace", "0.5")
    created = world.server.ids()
    listed = run("sweep", "--out", "keys.jsonl", "--grace", "0", "--taken-over", "--dry-run")
    untouched = world.server.ids()
    swept = run("sweep", "--out", "keys.jsonl", "--grace", "0.5", "--taken-over")

    assert by_itself[0] == swept[0] == 0
    assert "those of runs that were killed, and left alone; see --taken-over" in by_itself[2]
    assert untouched == created
    assert len(re.findall(r"key \S+ would be revoked", listed[2])) == len(created) - 120
    assert "a dry run: would be " in listed[2]
    assert " revoked, 0 expired by themselves, " in swept[2]
    assert Counter(line["ticket"] for line in world.held()) == {f"t{n}": 1 for n in range(120)}
    assert world.server.ids() == {line["id"] for line in world.held()}
    assert world.server.fake.counts.created > world.server.fake.counts.alive == 120
    _, (status,), _ = run("status", "--out", "keys.jsonl", "--json")
    assert {state: count for state, count in status["tickets"].items() if count} == {"delivered": 120}
    assert status["undelivered"] == []


def test_kill_in_the_sandbox(world: World, run: Run) -> None:
    """A make-believe run that is killed goes on as a real one does, though its server has forgotten everything."""
    world.tenants(30)
    sandbox = ("issue", "t.csv", "--sandbox", "--out", "keys.jsonl", "--ledger", "keys.db")
    for held in (1, 12):
        process = world.start(*sandbox)
        world.until_held(held)
        process.kill()
        process.communicate()
    code, _, err = run(*sandbox)

    assert code == 0, err
    assert Counter(line["ticket"] for line in world.held()) == {f"t{n}": 1 for n in range(30)}
    assert ", 0 suspects" in err
    assert "0 of them held by nobody" in err


def test_two_runs_on_one_file(world: World, run: Run) -> None:
    """The second is refused, and the first goes on."""
    world.tenants(100)
    process = world.start(*ISSUE, "10/1s")
    world.until_held(1)
    code, _, err = run(*ISSUE, FAST)

    assert (code, err) == (2, "respan-keys: keys.jsonl: another run is writing to it\n")
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_reader_who_left(world: World, run: Run) -> None:
    """`| head` ends a list quietly, and a run whose reader left keeps no key alive that nobody has."""
    world.tenants(4)
    run("create")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        listed = world.run("list", stdout=writing)
        issued = world.run("issue", "t.csv", stdout=writing)
    finally:
        os.close(writing)

    assert (listed[0], listed[2]) == (141, "")
    assert issued[0] == 1
    assert world.server.fake.counts.alive == 1


def shell(world: World, command: str) -> tuple[int, str, str]:
    """Run a command in a shell, which can close a stream."""
    process = subprocess.run(
        ("sh", "-c", command.replace("respan-keys", shlex.join(COMMAND))),
        cwd=world.directory,
        env=world.environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout, process.stderr


def test_a_closed_standard_output_gets_no_key(world: World) -> None:
    """One sentence and exit code 2, before anything is sent: no socket or file that has its number is written to."""
    code, _, err = shell(world, "respan-keys create >&-")

    assert (code, err.partition(";")[0]) == (2, "respan-keys: standard output: is closed")
    assert world.server.fake.counts.requests == 0


def test_all_goes_well_without_standard_streams(world: World) -> None:
    """A daemon has none: keys are issued all the same, and the file of keys has them alone."""
    world.tenants(2)

    assert shell(world, "respan-keys issue t.csv --out keys.jsonl <&- >&- 2>&-") == (0, "", "")
    assert sorted(line["ticket"] for line in world.held()) == ["t0", "t1"]


def terminal(world: World, *argv: str, **environment: str) -> str:
    """Run with standard error on a terminal, and return what it got."""
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("this machine has no terminals to give, as a container without /dev/pts")
    process = subprocess.Popen(
        (*COMMAND, *argv), cwd=world.directory, env=world.environment(**environment), stderr=theirs
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
        for path in world.directory.glob("keys.jsonl*"):
            path.unlink()
        seen = terminal(world, *ISSUE, FAST, **environment)
        assert "\x1b" not in seen
        assert re.search(r"^20/20 issued, [0-9.]+/s, 0 refused, 0 failed\r$", seen, re.MULTILINE)


def test_a_sandbox_serves_until_it_is_interrupted(world: World) -> None:
    """It says where it is, in a form for the shell to read, and at the end what happened."""
    options = ("--port", "0", "--limit", "1/60s", "--latency", "0", "--fault", "conflict_409:0")
    sandbox = world.start("sandbox", *options)
    assert sandbox.stdout is not None
    lines = sandbox.stdout.read().splitlines()  # to its end: who reads it need not wait for the server's
    place = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert place.keys() == {"RESPAN_BASE_URL", "RESPAN_API_KEY", "RESPAN_SANDBOX_PID"}
    created = world.run("create", env=world.environment(**place))
    sandbox.send_signal(signal.SIGINT)
    _, err = sandbox.communicate(timeout=10)

    assert (created[0], sandbox.returncode) == (0, 0)
    assert json.loads(created[1])["api_key"]
    assert f"sandbox: at {place['RESPAN_BASE_URL']}, limit 1/60s; Ctrl-C ends it\n" in err
    assert err.endswith("sandbox: 1 requests, 0 refused, 1 keys made, 1 alive\n")
    assert world.server.fake.counts.requests == 0


def test_a_sandbox_in_the_background_of_a_script(world: World) -> None:
    """Its variables are there after `eval`, and it ends with SIGINT, which a shell lets its background jobs ignore."""
    script = """
    eval "$(respan-keys sandbox --port 0 2>sandbox.log &)"
    respan-keys create --name demo
    kill -INT "$RESPAN_SANDBOX_PID"
    while kill -0 "$RESPAN_SANDBOX_PID" 2>/dev/null; do sleep 0.05; done
    """
    code, out, err = shell(world, script)

    assert (code, err) == (0, "")
    assert json.loads(out)["name"] == "demo"
    assert (world.directory / "sandbox.log").read_text().endswith("1 requests, 0 refused, 1 keys made, 1 alive\n")
    assert world.server.fake.counts.requests == 0


def test_a_port_that_is_taken(server: Server, run: Run) -> None:
    """A sandbox says in a sentence that somebody else has its port."""
    code, out, err = run("sandbox", "--port", server.fake.url.rpartition(":")[2])

    assert (code, out) == (1, [])
    assert err.startswith("respan-keys: ")
    assert "address already in use" in err
