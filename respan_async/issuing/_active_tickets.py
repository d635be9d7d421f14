"""The tickets that an issuer works on at this moment, one job at a time for each."""

import asyncio
from typing import Any

from respan_async._calls.shielding import Job
from respan_async._pacing.priority import Priority
from respan_async.errors import ClientStateError


class ActiveTickets:
    """Let one job at a time work on a ticket, and know them all."""

    def __init__(self) -> None:
        self._turns: dict[str, list[asyncio.Future[None]]] = {}  # who waits for a ticket that is being worked on
        self._jobs: dict[Job[Any], tuple[str, asyncio.Task[Any] | None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def begin(self, ticket_id: str, job: Job[Any], priority: Priority) -> None:
        """Note that the running task works on a ticket, once no other does; until then, that one has our priority.

        Raises:
            ClientStateError: The issuer is closed.
        """
        while (waiting := self._turns.get(ticket_id)) is not None:
            self._promote(ticket_id, priority)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            await turn
        if self._closed:
            raise ClientStateError("the issuer is closed")
        self._turns[ticket_id] = []
        self._jobs[job] = ticket_id, asyncio.current_task()
        self._idle.clear()

    def end(self, ticket_id: str, job: Job[Any]) -> None:
        """Note that a ticket is no longer worked on."""
        for turn in self._turns.pop(ticket_id, ()):
            if not turn.done():
                turn.set_result(None)
        self._forget(job)

    def has_other(self, ticket_id: str, job: Job[Any]) -> bool:
        """Whether another job works on the same ticket now."""
        return any(other is not job and known == ticket_id for other, (known, _) in self._jobs.items())

    def close(self) -> None:
        """Let no job begin from now on."""
        self._closed = True

    def leave_loop(self) -> None:
        """Forget who waits on an event loop that is closed."""
        for waiting in self._turns.values():
            waiting.clear()

    def arrive(self) -> None:
        """Begin anew on the next event loop."""
        self._turns.clear()
        self._jobs.clear()
        self._idle = asyncio.Event()
        self._idle.set()

    def abandon(self, acting: asyncio.Task[Any] | None) -> None:
        """Give up what has not been sent.

        Args:
            acting: The task that does so, or that it is done for.
        """
        for job, (_, task) in list(self._jobs.items()):
            if task is acting:
                self._forget(job)  # `deliver` closes the issuer, from within work that cannot wait for itself
            else:
                job.abandon()

    async def finished(self) -> None:
        """Wait until no ticket is worked on."""
        await self._idle.wait()

    def _promote(self, ticket_id: str, priority: Priority) -> None:
        for job, (known, _) in self._jobs.items():
            if known == ticket_id:
                job.promote(priority)

    def _forget(self, job: Job[Any]) -> None:
        self._jobs.pop(job, None)
        if not self._jobs:
            self._idle.set()
