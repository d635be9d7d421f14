"""The clock for what goes on while this machine is asleep: leases that others hold us to.

`time.monotonic()` stands still in suspend on Linux and macOS, as the event loop's clock does, so that a lease of 30 s
would seem to hold after a night in which others have taken it over. On Windows it goes on.
"""

import time
from typing import Final

# Linux has a clock of its own for this; on macOS the system's monotonic clock runs on, and Python's takes another.
_ID: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Return seconds since some moment, those in which this machine was asleep among them; it never goes back."""
    return time.monotonic() if _ID is None else time.clock_gettime(_ID)
