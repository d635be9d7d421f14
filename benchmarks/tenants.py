"""What is asked of every client alike: a key for each tenant, with a name, a lifetime and a number of uses."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

API_KEY: Final = "test-key"  # the one that FakeRespan accepts
PATH: Final = "/api/temporary-keys/"
IN_FLIGHT: Final = 64
LIFETIME: Final = timedelta(days=30)  # longer than any benchmark, in virtual time as well
MAX_USAGE: Final = 1000


def name(number: int) -> str:
    """Return the name of a tenant's key."""
    return f"tenant-{number}"


def expiry() -> datetime:
    """Return when a key that is asked for now is to die."""
    return datetime.now(UTC) + LIFETIME


def fields(number: int) -> dict[str, Any]:
    """Return what is sent for a tenant."""
    return {"name": name(number), "expiry_date": expiry().isoformat(), "max_usage": MAX_USAGE}
