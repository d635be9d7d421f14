"""The slot that the pacer grants for one request, and how it ended; a batch's pending demand."""

import enum
import math

import attrs

from respan_async._pacing.priority import Priority


class SlotOutcome(enum.Enum):
    """How a granted slot ended."""

    ANSWERED = enum.auto()
    """The server let the request in and served it, even if with a 4xx."""
    FAILED = enum.auto()
    """The server let the request in, and failed."""
    REFUSED = enum.auto()
    """The limit turned it away."""
    LOST = enum.auto()
    """The request left, and no answer came."""
    UNREACHED = enum.auto()
    """No connection could be made."""
    UNUSED = enum.auto()
    """The request was not sent."""


class DeadlineUnreachable(Exception):
    """Even the least possible wait ends after the deadline."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait)
        self.wait = wait


@attrs.define(eq=False)
class Slot:
    """The right to send one request; released once.

    Attributes:
        priority: The class that it was granted to.
        asked_at: When the call asked for it, by the pace's clock.
        granted_at: When it was granted.
        interval: Seconds by which it moved the time of the next spread request.
        loops_left: How many event loops the client had left by then.
    """

    priority: Priority
    asked_at: float
    granted_at: float
    interval: float = 0.0
    loops_left: int = 0


@attrs.define(eq=False)
class PendingWork:
    """The remaining demand of a batch.

    Attributes:
        more: The number of slots beyond the waiting calls; infinite if unknown.
        spread: Whether they may be spread over the period, so that others find slots too.
    """

    more: float = math.inf
    spread: bool = True
