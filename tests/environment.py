"""The environment of a process that a test starts."""

import os
import sys
from pathlib import Path

from respan_async.testing import FakeRespan

SERVERS = ("REDIS_URL", "DATABASE_URL", "RESPAN_LEDGER_KEY")
"""What programs find their other servers and their cipher's key by."""


def environment(fake: FakeRespan | None, **variables: str) -> dict[str, str]:
    """Return a process's environment: this one's commands, the settings of the fake server, and variables.

    Settings of the person who runs the tests are left out.
    """
    env = {name: value for name, value in os.environ.items() if name not in SERVERS and not name.startswith("RESPAN_")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    if fake is not None:
        env |= {"RESPAN_API_KEY": fake.api_key, "RESPAN_BASE_URL": fake.url}
    return env | variables
