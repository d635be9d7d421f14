"""Fresh processes: one for each sample, and one for each server."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PINNED: Final = {
    "MALLOC_TOP_PAD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "4194304",
}
"""Keeps glibc from trimming and faulting in again, on some layouts of the heap and not on others, asyncio's receive
buffer of 256 KiB: 14 to 25 µs a request that say nothing about a client."""


def python(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of this package in a fresh interpreter."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def sample(module: str, *arguments: object, environment: Mapping[str, str] = PINNED) -> Any:
    """Run a module of this package in a fresh interpreter, and return the JSON it prints."""
    process = subprocess.run(
        python(module, *arguments),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


class Server:
    """A server in a process of its own, which prints its port when it listens, and its counts when it is ended."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._said.readline())}"

    def stop(self) -> str:
        """End it; return what it has to say."""
        self._process.terminate()
        with self._said:
            said = self._said.read()
        self._process.wait()
        return said


@contextmanager
def canned_server() -> Iterator[str]:
    """Run the server of canned answers; give its base URL."""
    server = Server(python("server"))
    try:
        yield server.url
    finally:
        server.stop()


def spent() -> float:
    """Return the CPU time of this process so far, user and system, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux that starts from what the parent had when it forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
