"""What the installed aiohttp lacks: refused in a sentence, or done without."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from respan_async._http.aiohttp_features import ResendCounter

ROOT = Path(__file__).parent.parent.parent


class Tracker:
    """Counts as aiohttp's UploadTracker does: no sending before the first, and each one after it."""

    attempts = 0


def test_an_aiohttp_that_proves_nothing_is_refused_at_import() -> None:
    """An install by force, such as `pip install --no-deps`: one sentence with both versions, before anything is sent.

    Without `write_with_length` a request that has left would be called unsent, and the key that it made not looked for.
    """
    program = "import aiohttp; del aiohttp.Payload.write_with_length; aiohttp.__version__ = '3.11.18'; import {}"
    for module in ("respan_async", "respan_async.issuing", "respan_async.testing", "respan_async.cli"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(module)], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("ImportError: respan_async needs aiohttp 3.12 or newer, and ")
        assert "aiohttp 3.11.18 is installed" in done.stderr


@pytest.mark.parametrize(("attempts", "resends"), [(0, 0), (1, 0), (2, 1), (5, 4)])
def test_each_sending_after_the_first_is_counted(attempts: int, resends: int) -> None:
    """None for a request that was never sent, as under a mock."""
    counter = ResendCounter(Tracker)

    counter.options["upload_tracker"].attempts = attempts

    assert counter.resends == resends


def test_an_aiohttp_without_a_counter_is_asked_for_none() -> None:
    """It would refuse the argument; what it sends again is not counted."""
    counter = ResendCounter(None)

    assert counter.options == {}
    assert counter.resends == 0


async def test_what_is_asked_of_this_aiohttp_it_takes() -> None:
    """The argument is one of its `request`, or there is none."""
    options: dict[str, Any] = ResendCounter().options

    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.InvalidURL):  # and no TypeError
            await session.request("GET", "http://", **options)
