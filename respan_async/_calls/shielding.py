"""Runs a job in its own task to its end, even if its caller is cancelled.

A key whose caller is gone lives on, and its secret is lost. So a job runs in its own task. If the caller is cancelled,
or its deadline passes, an attempt whose bytes may have left goes on, and the key that then arrives is discarded:
revoked by its id. Calls that make no key run in a task, too, because aiohttp, whose own timeout fires in the same turn
of the loop, would otherwise swallow the cancellation of the caller.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from respan_async._calls.lifecycle import Lifecycle
from respan_async._pacing.priority import Priority
from respan_async.errors import RespanError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """Work towards one result: a call, a wrapper of a call, or an item of a batch."""

    @property
    def deadline(self) -> float | None:
        """Seconds for the whole job, or None."""
        ...

    @property
    def replayed(self) -> bool:
        """Whether the result existed already, so that nothing was sent; known once the job is done."""
        ...

    @property
    def delivered(self) -> bool:
        """Whether the result was delivered; known once the job is done."""
        ...

    @property
    def quota_exhausted(self) -> bool:
        """Whether the limit refused the job for so long that no other job would succeed; known once the job is done."""
        ...

    def begin(self) -> None:
        """Start the deadline of the job."""
        ...

    async def run(self) -> T_co:
        """Do the job."""
        ...

    def promote(self, priority: Priority) -> None:
        """Wait in a higher class from now on."""
        ...

    def abandon(self, *, wanted: bool = False) -> bool:
        """Send nothing more; return whether the job goes on, because bytes may have left already.

        Args:
            wanted: Whether a result that comes all the same is still taken; if False, the caller is gone.
        """
        ...

    def abandoned_error(self) -> RespanError:
        """Return the error of a job that was abandoned or cancelled, and has ended."""
        ...

    def deadline_error(self) -> RespanError:
        """Return the error of a job whose time ran out while a request was in flight."""
        ...


async def run_shielded(job: Job[T], lifecycle: Lifecycle, discard: Callable[[T], None], *, needed: bool = True) -> T:
    """Run a job to its end.

    Args:
        job: The job.
        lifecycle: The lifecycle of the client, which runs the task.
        discard: Called with a result whose caller is gone.
        needed: Whether closing the client waits for a job whose caller is gone. If False, the job still runs until
            then, because the pace counts a request correctly only if it knows when the answer came.

    Raises:
        ClientStateError: The client was closed, and did not wait for the job.
        DeadlineExceededError: The deadline passed while an attempt was in flight.
        RespanError: The job failed.
    """
    # Started here, so that the job itself reports a deadline that passes while it waits, because it knows the reason.
    job.begin()
    results: list[T] = []

    async def run() -> None:
        # Kept in a list: if a hook cancels the task it runs in, the task ends as cancelled although there is a result.
        results.append(await job.run())

    def leave() -> None:
        job.abandon()
        if task.done():
            over(task)  # now, not in a callback, so that a closing client sees the resulting task and waits for it
        else:
            task.add_done_callback(over)
            if not needed:
                lifecycle.release(task)

    def over(_: asyncio.Task[None]) -> None:
        for result in results:
            discard(result)

    def cut() -> None:
        if not lifecycle.closing:  # the caller is gone with its event loop
            over(task)

    task = lifecycle.tasks.spawn(run(), if_cut=cut, awaited=True)
    try:
        await asyncio.wait({task}, timeout=job.deadline)
    except asyncio.CancelledError:
        leave()
        raise
    if not task.done():
        error = job.deadline_error()
        leave()
        raise error
    if task.cancelled() and not results:
        # The client was closed and its grace was over, so the task was cancelled. The caller itself was not cancelled.
        raise job.abandoned_error()
    if not results:
        task.result()  # raises
    return results[0]
