"""What may happen to an issuer at any step."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import attrs

from respan_async.issuing import LedgerError
from tests.hostile.issuing_world import Life

Act = Callable[[Life], Awaitable[None] | None]


@attrs.frozen(kw_only=True)
class Happening:
    """What happens at a step.

    Attributes:
        act: Does it.
        raises: What the call may then raise, and its tickets may fail with.
        goes_on: Whether the issuer can be used after it.
    """

    act: Act
    raises: tuple[type[BaseException], ...] = ()
    goes_on: bool = True


def cancel(life: Life) -> None:
    """Cancel the call."""
    if life.call is not None:
        life.cancelled = life.call.cancel() or life.cancelled


def cancel_twice(life: Life) -> None:
    """Cancel the call, and again while it is being cancelled."""
    cancel(life)
    asyncio.get_running_loop().call_soon(cancel, life)


def time_out(life: Life) -> None:
    """Let the timeout around the call be over."""
    if life.timeout is not None and life.call is not None and not life.call.done():
        life.timeout.reschedule(asyncio.get_running_loop().time())


def close_issuer(life: Life) -> None:
    """Close the issuer."""
    life.beside(life.issuer.aclose())


def close_client(life: Life) -> None:
    """Close the client."""
    life.beside(life.respan.aclose())


def close_at_once(life: Life) -> None:
    """Close the client without any grace."""
    life.beside(life.respan.aclose(grace=0.0))


def close_and_let_go(life: Life) -> None:
    """Close the issuer, and cancel that after a moment."""

    async def close() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await life.issuer.aclose()

    life.beside(close())


def fail(life: Life) -> None:
    """Fail as a store does on a full disk: before the step nothing was written, after it everything was."""
    if "aclose" not in life.ledger.reached:  # which has nobody to tell
        raise LedgerError("the disk is full")


def set_clock(by: timedelta) -> Act:
    """Set the machine's clock forward or back."""

    def act(life: Life) -> None:
        life.world.clock.offset += by

    return act


def set_clock_for_a_moment(by: timedelta) -> Act:
    """Set the machine's clock forward or back, and right again."""

    async def correct(life: Life) -> None:
        await asyncio.sleep(0.002)
        life.world.clock.offset -= by

    def act(life: Life) -> None:
        life.world.clock.offset += by
        life.beside(correct(life))

    return act


async def take_over(life: Life) -> None:
    """Stop this process until its lease is over, while another on the same ledger issues the same tickets and ends."""
    world = life.world

    async def live() -> None:
        async with world.life("at once" if world.scenario.deliver else "") as other:
            other.take(await other.issuer.issue_many(life.tickets()))
            await other.issuer.sweep(grace=0, taken_over=True)
        life.handed_out += other.handed_out

    world.clock.offset += timedelta(minutes=1)
    await asyncio.shield(life.beside(live()))
