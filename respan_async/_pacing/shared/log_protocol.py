"""What a process and the account's shared log say to each other, whatever store the log is in.

Rules:

1. One request reports and asks, and the log does all of it in one step, by the clock of its store. Times travel as
   ages and as seconds from now, because clocks differ.
2. A request that arrives twice means the same as one that arrives once. A slot has a name, and is granted once.
3. A grant says from when its slot may be used. While all slots are taken, it is the one that comes back next.
4. While an interactive call waits in one process, batches of the others get nothing but every twentieth slot.
5. A log has a name. One that takes the place of a lost one has a name of its own, and counts as full for a period.
6. What was sent without a slot is reported as any other: the log counts it.
"""

import enum
from typing import Protocol

import attrs

from respan_async._pacing.rate_limit import RateLimit


class SlotStatus(enum.StrEnum):
    """What has become of a slot, or is to be known by everybody."""

    ANSWERED = "answered"
    """It was answered, so many seconds ago."""
    UNUSED = "unused"
    """It was never sent, or the server turned it away: the next request may have it."""
    FLYING = "flying"
    """It is still in the air, or held."""
    PAUSE = "pause"
    """The server asks everybody to wait, for so many seconds."""


@attrs.frozen
class SlotReport:
    """What has become of a slot.

    Attributes:
        status: What.
        slot: Which; empty for a pause.
        seconds: How long ago, or for how long.
    """

    status: SlotStatus
    slot: str = ""
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ReserveRequest:
    """What a process tells the log, and wants of it. What is said twice means the same as said once.

    Attributes:
        limit: The account's.
        lease: Seconds after which a slot counts as answered, if no process reports it any more.
        owner: The process.
        epoch: The log as the process knows it; empty if it knows none that could still be there.
        fresh: A name for the log, should there be none.
        urgent: Slots wanted for interactive calls.
        patient: Slots wanted for batches and sweeps.
        waiting: Interactive calls that wait, whether or not slots are wanted for them now.
        left: How much batches and sweeps have left altogether.
        first: Granted slots are called `owner:first` and so on.
        away: Seconds for which processes that could not reach the log may go on by themselves after it is back; 0
            from one that could reach it, or nearly all the time.
        heard: `ReserveReply.at` of the last answer that arrived; 0 if none did.
        reports: What has become of slots.
    """

    limit: RateLimit
    lease: float
    owner: str
    epoch: str
    fresh: str
    urgent: int
    patient: int
    waiting: int
    left: float
    first: int
    away: float
    heard: float
    reports: tuple[SlotReport, ...]


@attrs.frozen(kw_only=True)
class ReserveReply:
    """What the log says to that.

    Attributes:
        epoch: Which log it is.
        used: How many slots are taken.
        held: How many of them processes hold ahead of their time, other than by this reply.
        at: When it says so, in seconds of its own clock.
        soonest: Seconds until the next one comes back; 0 when one is free.
        again: Seconds until asking again makes sense, where nothing was granted.
        full: Seconds for which the log still counts as full, because it is new and the one before it was lost, or
            because no process could reach it for a period.
        begins: Seconds until each slot that was granted may be used.
    """

    epoch: str
    used: int
    held: int
    at: float
    soonest: float
    again: float
    full: float
    begins: tuple[float, ...]


class Unreachable(Exception):
    """The log could not be asked, or did not answer in time; what was asked may have been done."""


class SharedLog(Protocol):
    """The account's log, somewhere that all processes can reach."""

    @property
    def loss_hint(self) -> str:
        """What may have happened when the log is gone, and which setting of the store to look at."""
        ...

    async def exchange(self, request: ReserveRequest) -> ReserveReply:
        """Tell and ask, in one step.

        Raises:
            Unreachable: It did not come to an answer.
        """
        ...

    def leave_loop(self) -> None:
        """Forget connections of an event loop that is closed; the next request makes one on the running loop.

        Raises:
            ClientStateError: The connections are the user's own, and cannot be made anew.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the connection."""
        ...
