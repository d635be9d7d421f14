"""The messages between a process and the account's shared log, in any store.

Rules:

1. One request reports and asks, and the log does both in one step, by the clock of its store. Times travel as ages and
   as seconds from now, because clocks differ.
2. A request that arrives twice has the same effect as one that arrives once. A slot has a name, and is granted once.
3. A grant says from when its slot may be used. While all slots are taken, it is the one that comes back next.
4. While an interactive call waits in one process, batches of the others get only every twentieth slot.
5. A log has a name. A log that replaces a lost one has a new name, and counts as full for a period.
6. A request sent without a slot is reported as any other, and the log counts it.
"""

import enum
from typing import Protocol

import attrs

from respan_async._pacing.rate_limit import RateLimit


class SlotStatus(enum.StrEnum):
    """The status of a reported slot, or a pause for all processes."""

    ANSWERED = "answered"
    """The request was answered, so many seconds ago."""
    UNUSED = "unused"
    """The request was never sent, or the server turned it away: another request may have the slot."""
    FLYING = "flying"
    """The slot is still in flight, or held."""
    PAUSE = "pause"
    """The server asks all processes to wait, for so many seconds."""


@attrs.frozen
class SlotReport:
    """The report of one slot, or of a pause.

    Attributes:
        status: The status.
        slot: The slot's name; empty for a pause.
        seconds: The age of the status, or the length of the pause.
    """

    status: SlotStatus
    slot: str = ""
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ReserveRequest:
    """The reports and the demand of a process. Sending it twice has the same effect as sending it once.

    Attributes:
        limit: The account's limit.
        lease: Seconds after which a slot counts as answered, if no process reports it any more.
        owner: The process.
        epoch: The name of the log that the process knows; empty if it knows none that could still exist.
        fresh: A name for a new log, if there is none.
        urgent: The number of slots wanted for interactive calls.
        patient: The number of slots wanted for batches and sweeps.
        waiting: The number of waiting interactive calls, whether or not slots are wanted for them now.
        left: The remaining demand of batches and sweeps altogether.
        first: Granted slots are named `owner:first` and so on.
        away: Seconds for which processes that could not reach the log may use their shares after it is back; 0 from a
            process that could reach it nearly all the time.
        heard: `ReserveReply.at` of the last reply that arrived; 0 if none did.
        reports: The reports.
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
    """The log's reply.

    Attributes:
        epoch: The name of the log.
        used: The number of taken slots.
        held: The number of slots that processes hold ahead of their time, without those of this reply.
        at: The time of the reply, in seconds of the log's clock.
        soonest: Seconds until the next slot comes back; 0 if one is free.
        again: Seconds until asking again makes sense, if nothing was granted.
        full: Seconds for which the log still counts as full, because it is new and the previous one was lost, or
            because no process could reach it for a period.
        begins: Seconds until each granted slot may be used.
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
    """The log could not be reached, or did not answer in time; the request may have been executed."""


class SharedLog(Protocol):
    """The account's log, in a store that all processes can reach."""

    @property
    def loss_hint(self) -> str:
        """A hint for the case that the log is lost: a likely cause, and the setting of the store to check."""
        ...

    async def exchange(self, request: ReserveRequest) -> ReserveReply:
        """Report and ask, in one step.

        Raises:
            Unreachable: No reply came.
        """
        ...

    def leave_loop(self) -> None:
        """Forget the connections of a closed event loop; the next request makes one on the running loop.

        Raises:
            ClientStateError: The connections belong to the user, and cannot be made anew.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...
