"""A clock that runs while this machine is asleep, for leases that other machines hold us to.

On Linux and macOS `time.monotonic()` stands still in suspend, as the event loop's clock does, so that a lease of 30 s
would seem to hold after a night in which another process has taken it over. On Windows it goes on.
"""

import time
from typing import Final

# Linux has a separate clock for this; on macOS the system's monotonic clock runs on, but Python uses another one.
_ID: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Return seconds since an arbitrary origin, including those asleep; the clock never goes back."""
    return time.monotonic() if _ID is None else time.clock_gettime(_ID)
