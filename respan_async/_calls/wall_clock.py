"""This machine's wall clock, which a test may move on."""

from datetime import UTC, datetime, timedelta


class WallClock:
    """Tell the time of day, aware, when it is called."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Let it tell a later time from now on."""
        self._ahead += timedelta(seconds=seconds)
