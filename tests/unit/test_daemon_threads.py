"""Threads for what may block: few, one for each call, and in nobody's way."""

import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from respan_async.issuing._daemon_threads import DaemonThreads
from tests.waiting import until


async def test_what_a_function_returns_or_raises_comes_back() -> None:
    """From a thread of the given name."""
    threads = DaemonThreads("the reader")

    def fail() -> None:
        raise ValueError("no")

    assert await threads.run(lambda: threading.current_thread().name) == "the reader"
    with pytest.raises(ValueError, match="no"):
        await threads.run(fail)


async def test_no_more_run_at_a_time_than_may_and_a_cancelled_caller_frees_no_place() -> None:
    """Its function goes on, and ends before the next one begins."""
    threads, go_on = DaemonThreads("reader", 1), threading.Event()
    begun: list[str] = []

    def work(name: str) -> None:
        begun.append(name)
        go_on.wait(10)

    first, second = (asyncio.create_task(threads.run(partial(work, name))) for name in ("first", "second"))
    await until(lambda: begun)
    first.cancel()
    await asyncio.wait({first})
    await threads.finished(0)
    assert begun == ["first"]

    go_on.set()
    await second
    assert begun == ["first", "second"]


async def test_what_was_left_running_takes_no_place_from_what_comes_after() -> None:
    """Nor does its end give a second one."""
    threads, left = DaemonThreads("reader", 1), threading.Event()

    def drop() -> None:
        loop = asyncio.new_event_loop()
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(threads.run(lambda: left.wait(10)), 0.05))
        loop.close()

    await asyncio.to_thread(drop)

    assert await threads.run(lambda: 1) == 1
    left.set()
    go_on = threading.Event()
    running = asyncio.create_task(threads.run(lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(threads.run(lambda: 2))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()
    go_on.set()
    assert await running
    assert await waiting == 2


async def test_a_system_without_more_threads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what may pass; the place is free again."""
    threads = DaemonThreads("reader", 1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="the system has no more threads"):
            await threads.run(lambda: 1)

    assert await threads.run(lambda: 1) == 1


def test_what_hangs_does_not_keep_the_interpreter_from_its_end() -> None:
    """A program ends though a disk or a share hangs."""
    program = """
import asyncio, threading
from respan_async.issuing._daemon_threads import DaemonThreads

async def main():
    threads = DaemonThreads("reader")
    hanging = asyncio.create_task(threads.run(threading.Event().wait))
    await asyncio.sleep(0.05)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
