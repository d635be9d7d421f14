"""A limiter that somebody else wrote: how it is started, what it counts, and what could be reached at it."""

from collections.abc import Callable
from typing import Protocol

import attrs

from benchmarks.limiters.optimum import Optimum
from respan_async import RateLimit


@attrs.frozen
class Counts:
    """What a server counted.

    Attributes:
        let_in: Requests that its limiter let in.
        refused: Requests that its limiter refused.
        other: Requests that were answered in another way, which is not to happen.
    """

    let_in: int
    refused: int
    other: int


class Running(Protocol):
    """A server with a limiter, in a process of its own.

    Attributes:
        url: Where it is.
    """

    url: str

    def stop(self) -> Counts:
        """End it."""
        ...


@attrs.frozen
class Software:
    """What brings a limiter.

    Attributes:
        versions: Name and version of each of its parts; none when it is not installed.
        missing: Why it cannot run here; empty when it can.
    """

    versions: tuple[str, ...]
    missing: str = ""


@attrs.frozen(kw_only=True)
class Limiter:
    """A limiter in one of its configurations.

    Attributes:
        name: Of the software and of what it is told.
        limit: The limit.
        optimum: The least time for a number of keys.
        software: Finds out whether it is installed.
        start: Starts a server with this limit, whose limiter has no memory.
        refusal: The status that it refuses with.
    """

    name: str
    limit: RateLimit
    optimum: Optimum
    software: Callable[[], Software]
    start: Callable[[RateLimit], Running]
    refusal: int = 429

    @property
    def label(self) -> str:
        """Name and limit, in words."""
        return f"{self.name}, {self.limit.limit}/{self.limit.per:g} s"

    def even(self, keys: int) -> float:
        """Return the seconds that so many keys take at the rate of the limit."""
        return keys * self.limit.interval
