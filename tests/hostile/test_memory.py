"""Two hundred megabytes, in every way to send them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOUND = 40
"""MiB. What is read of an answer, 8 MiB, in pieces and then in one; and some for the server in the same process."""
OBJECTS = {"list: 8 MiB of numbers": 180, "list: 8 MiB of texts": 180, "create: a refusal that says 8 MiB": 100}
"""MiB, where what is read becomes objects: some twenty times as much."""


@pytest.mark.hostile
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="tells the resident memory by /proc")
def test_what_a_server_sends_does_not_grow_in_memory() -> None:
    """Bodies, bombs, heads and lists: some tens of MiB, and seconds, for each; and always an error of ours."""
    command = [sys.executable, "-W", "error", "-m", "tests.hostile.memory_probe"]

    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr[-2000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) > 50
    assert [one for one in told if one["grown"] > OBJECTS.get(one["case"], BOUND)] == []
    assert [one for one in told if one["seconds"] > 10] == []
    assert {one["ended"] for one in told} == {
        "APIConnectionError",
        "BadRequestError",
        "InternalServerError",
        "InvalidResponseError",
        "NotFoundError",
    }
