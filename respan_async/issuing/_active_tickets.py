"""Tracks the tickets that an issuer is working on, and admits one job at a time for each."""

import asyncio
from typing import Any

from respan_async._calls.shielding import Job
from respan_async._pacing.priority import Priority
from respan_async.errors import ClientStateError


class ActiveTickets:
    """Let one job at a time work on a ticket."""

    def __init__(self) -> None:
        self._turns: dict[str, list[asyncio.Future[None]]] = {}  # the jobs that wait for a ticket
        self._jobs: dict[Job[Any], tuple[str, asyncio.Task[Any] | None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def begin(self, ticket_id: str, job: Job[Any], priority: Priority) -> None:
        """Note that the running task works on a ticket, once no other job does; that job gets our priority until then.

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
        """Note that a job has ended its work on a ticket."""
        for turn in self._turns.pop(ticket_id, ()):
            if not turn.done():
                turn.set_result(None)
        self._forget(job)

    def has_other(self, ticket_id: str, job: Job[Any]) -> bool:
        """Whether another job works on the same ticket now."""
        return any(other is not job and known == ticket_id for other, (known, _) in self._jobs.items())

    def close(self) -> None:
        """Let no job begin any more."""
        self._closed = True

    def leave_loop(self) -> None:
        """Forget the waiters of a closed event loop."""
        for waiting in self._turns.values():
            waiting.clear()

    def arrive(self) -> None:
        """Begin anew on the next event loop."""
        self._turns.clear()
        self._jobs.clear()
        self._idle = asyncio.Event()
        self._idle.set()

    def abandon(self, acting: asyncio.Task[Any] | None) -> None:
        """Give up the jobs that have not been sent.

        Args:
            acting: The task that calls this, or on whose behalf it is called.
        """
        for job, (_, task) in list(self._jobs.items()):
            if task is acting:
                self._forget(job)  # `deliver` closes the issuer from within this job, which cannot wait for itself
            else:
                job.abandon()

    async def finished(self) -> None:
        """Wait until no ticket is being worked on."""
        await self._idle.wait()

    def _promote(self, ticket_id: str, priority: Priority) -> None:
        for job, (known, _) in self._jobs.items():
            if known == ticket_id:
                job.promote(priority)

    def _forget(self, job: Job[Any]) -> None:
        self._jobs.pop(job, None)
        if not self._jobs:
            self._idle.set()
