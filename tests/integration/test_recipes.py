"""The example programs for other people's loops, as they stand: Django, workers, functions, threads, uvloop."""

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from respan_async.testing import FakeRespan
from tests.environment import environment
from tests.hostile.test_suspend import Machine

EXAMPLES = Path(__file__).parents[1] / "examples"

posix = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and uvloop have no Windows")


@pytest.fixture
def fake() -> Iterator[FakeRespan]:
    """Run a server whose loop is none of the programs'."""
    with FakeRespan.in_thread() as running:
        yield running


@contextmanager
def serving(fake: FakeRespan, *command: str) -> Iterator[str]:
    """Run a server of an example until the end of the block; give its URL. At SIGTERM it has nothing to complain of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-W", "always::ResourceWarning", "-m", *command]
    line = [word.replace("PORT", str(port)) for word in line]
    with subprocess.Popen(line, cwd=EXAMPLES, env=environment(fake), stderr=subprocess.PIPE, text=True) as process:
        try:
            listening(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                _, complaints = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert "Traceback" not in complaints, complaints
    # gunicorn leaves the socket that it listens on to Python; and a suspect is told.
    of_others = (f", {port})", "Enable tracemalloc", "a key may have been made that nobody holds")
    assert [line for line in complaints.splitlines() if not any(part in line for part in of_others)] == []


def listening(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until a server accepts connections."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


def ask(url: str, tenant: str) -> tuple[int, Any]:
    """Ask a service for a tenant's key: the status, and the body."""
    request = urllib.request.Request(f"{url}/tenants/{tenant}/key", data=b"", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def got(fake: FakeRespan, answers: list[tuple[int, Any]]) -> int:
    """Check that each got a key of its own; return how many."""
    assert [status for status, _ in answers] == [201] * len(answers), answers
    ids = {body["id"] for _, body in answers}
    assert all(fake.keys[body["id"]].api_key == body["api_key"] for _, body in answers)
    return len(ids)


def unheld(fake: FakeRespan, answers: list[tuple[int, Any]]) -> int:
    """Count the live keys that no browser got."""
    return len(fake.unheld([body["id"] for _, body in answers]))


@posix
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_django_under_uvicorn(fake: FakeRespan, loop: str) -> None:
    """All requests are on one loop, and share its connections."""
    settings = ("--port", "PORT", "--loop", loop, "--log-level", "warning")
    with serving(fake, "uvicorn", "django_service:asgi", *settings) as url, ThreadPoolExecutor(8) as browsers:
        fake.script("lose_answer_after_create")
        answers = [ask(url, "first"), *browsers.map(lambda number: ask(url, f"t-{number}"), range(15))]

        assert got(fake, answers) == 16
        assert fake.counts.connections <= 9
    assert unheld(fake, answers) == 0


@posix
def test_django_under_gunicorn_whose_workers_were_preloaded(fake: FakeRespan) -> None:
    """Each request has a loop of its own: none but the first would get a key from a client that stayed on its own."""
    settings = ("--preload", "--workers", "2", "--bind", "127.0.0.1:PORT", "--log-level", "warning")
    command = ("gunicorn", *settings, "--config", "python:django_service", "django_service:wsgi")
    with serving(fake, *command) as url, ThreadPoolExecutor(4) as browsers:
        fake.script("lose_answer_after_create", "lose_answer_after_create")
        answers = list(browsers.map(lambda number: ask(url, f"t-{number}"), range(12)))
        answers += browsers.map(lambda number: ask(f"{url}/synchronous", f"s-{number}"), range(12))

        assert got(fake, answers) == 24
    assert unheld(fake, answers) == 0


@posix
def test_django_in_threads_under_gunicorn(fake: FakeRespan) -> None:
    """One loop for all threads of a worker, behind the portal."""
    settings = ("--preload", "--workers", "2", "--threads", "8", "--bind", "127.0.0.1:PORT", "--log-level", "warning")
    with serving(fake, "gunicorn", *settings, "django_threads:wsgi") as url, ThreadPoolExecutor(16) as browsers:
        answers = list(browsers.map(lambda number: ask(url, f"t-{number}"), range(32)))

        assert got(fake, answers) == 32


WORKER = """
import json, multiprocessing, task_worker

def work(tenants):
    try:
        return [task_worker.issue_key(tenant) for tenant in tenants]
    finally:
        task_worker.shut_down()

if __name__ == "__main__":
    tenants = [f"t-{number}" for number in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(json.dumps(pool.map(work, [tenants[:4], tenants[4:]], chunksize=1)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(json.dumps(pool.map(work, [tenants[4:], tenants[:4]], chunksize=1)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_worker_that_runs_a_loop_for_each_task(fake: FakeRespan, tmp_path: Path) -> None:
    """Forked processes, each with tasks one after the other; a task that comes again gets the key of its ticket."""
    (tmp_path / "driver.py").write_text(WORKER)
    ran = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "driver.py"],
        cwd=tmp_path,
        env=environment(fake, PYTHONPATH=f"{EXAMPLES}{os.pathsep}{EXAMPLES.parents[1]}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    first, again = (json.loads(line) for line in ran.stdout.splitlines())
    assert [first[1], first[0]] == again
    assert fake.counts.created == 6


@contextmanager
def loaded(name: str, fake: FakeRespan, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import an example, whose client knows the fake server."""
    monkeypatch.setenv("RESPAN_API_KEY", fake.api_key)
    monkeypatch.setenv("RESPAN_BASE_URL", fake.url)
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module


@pytest.mark.parametrize("which", ["handler", "handler_of_its_own"])
def test_a_function_that_is_frozen_between_its_calls(
    fake: FakeRespan, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Meanwhile the server has closed what lay idle; the next call has a connection of its own, and no suspect."""
    machine = Machine(monkeypatch)
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 30_000)
    with loaded("lambda_handler", fake, monkeypatch) as function:
        handler = getattr(function, which)
        for number in range(3):
            for _ in range(2):
                answer = handler({"tenant": f"t-{number}"}, context)
                assert fake.keys[answer["id"]].api_key == answer["api_key"]
            machine.clock.offset += timedelta(minutes=1)
            reset_connections(fake)

        assert function.respan.suspects == ()
        assert fake.counts.connections == (3 if which == "handler" else 6)
        function.runner.run(function.respan.aclose()) if which == "handler" else asyncio.run(function.respan.aclose())
        function.runner.close()


def reset_connections(fake: FakeRespan) -> None:
    """Reset every connection, as a server does that has waited for long enough."""

    async def reset() -> None:
        fake.down = True
        fake.down = False

    asyncio.run_coroutine_threadsafe(reset(), fake._running.loop).result(10)
