"""Carrying a job to its end, also when its caller is cancelled.

A key that is made and then held by nobody lives on, and its secret is gone. So a job runs in a task of its own. When
the caller is cancelled, or its deadline passes, an attempt whose bytes may have left goes on, and the key that then
arrives is discarded: revoked by its id. Calls that make no key run so too: nothing but a future then stands between
a caller and its cancellation, where aiohttp, whose own timeout fires in the same turn of the loop, would swallow it.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from respan_async._calls.lifecycle import Lifecycle
from respan_async._pacing.slots import Priority
from respan_async.errors import RespanError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """Work towards one result: a call, or something built around one; also one item of a batch."""

    @property
    def deadline(self) -> float | None:
        """Seconds for all of it, or None."""
        ...

    @property
    def replayed(self) -> bool:
        """Whether the result was there already, so that nothing was sent; known once the job is done."""
        ...

    @property
    def delivered(self) -> bool:
        """Whether the result was delivered to the place for it; known once the job is done."""
        ...

    @property
    def quota_exhausted(self) -> bool:
        """Whether it was refused for so long that no other job would fare better; known once the job is done."""
        ...

    def begin(self) -> None:
        """Let the time of the whole job begin."""
        ...

    async def run(self) -> T_co:
        """Do it."""
        ...

    def promote(self, priority: Priority) -> None:
        """Wait in a higher class from now on."""
        ...

    def abandon(self, *, wanted: bool = False) -> bool:
        """Send nothing more; return whether it goes on, because something may have left already.

        Args:
            wanted: A result that comes all the same is still taken; without, its caller is gone.
        """
        ...

    def abandoned_error(self) -> RespanError:
        """Return the error of a job that was abandoned, or cut, and did not go on."""
        ...

    def deadline_error(self) -> RespanError:
        """Return the error of a job whose time ran out while it was in the air."""
        ...


async def run_shielded(job: Job[T], lifecycle: Lifecycle, discard: Callable[[T], None], *, needed: bool = True) -> T:
    """Do a job, and see it through.

    Args:
        job: The job.
        lifecycle: Where its task belongs.
        discard: Given a result that nobody is left to take.
        needed: Whether closing the client waits for a job whose caller is gone. Without, it goes on until then, for
            the pace, which counts a request rightly when it knows when the answer came.

    Raises:
        ClientStateError: The client was closed, and did not wait for the job.
        DeadlineExceededError: The deadline passed while an attempt was in the air.
        RespanError: The job did not succeed.
    """
    # Begun here, so that a deadline which passes while the job waits is told by the job, which knows why.
    job.begin()
    results: list[T] = []

    async def run() -> None:
        # Kept here: a hook may have cancelled the task it runs in, which then ends as cancelled although there is one.
        results.append(await job.run())

    def leave() -> None:
        job.abandon()
        if task.done():
            over(task)  # at once: a client that is being closed waits for what it knows of
        else:
            task.add_done_callback(over)
            if not needed:
                lifecycle.release(task)

    def over(_: asyncio.Task[None]) -> None:
        for result in results:
            discard(result)

    def cut() -> None:
        if not lifecycle.closing:  # the caller went with its event loop
            over(task)

    task = lifecycle.spawn(run(), if_cut=cut, awaited=True)
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
        # Cut, when the client was closed and its grace was over. The caller itself was not cancelled.
        raise job.abandoned_error()
    if not results:
        task.result()  # raises
    return results[0]
