"""Tells the time of day; a test may advance it."""

from datetime import UTC, datetime, timedelta


class WallClock:
    """Tell the time of day, aware, when called."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Add so many seconds to the time that it tells."""
        self._ahead += timedelta(seconds=seconds)
