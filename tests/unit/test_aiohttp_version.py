"""An aiohttp that is too old: refused in a sentence."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


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
