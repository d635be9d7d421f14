"""A run of an issuer in which something happens at one certain step.

There are two kinds of steps: every turn of the event loop, and every operation of the ledger, right before and right
after it. The ledger writes in a thread, so the loop's turns differ from run to run; its operations do not.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from respan_async import Failed, Issued
from respan_async.testing import FakeRespan
from tests.hostile.issuer_faults import Happening
from tests.hostile.issuing_world import HUNG, Life, MakesLedger, Scenario, World, in_file, memory_folder
from tests.stepped import SteppedRealLoop, run


def all_survived(
    scenario: Scenario,
    happening: Happening,
    *,
    turns: bool = False,
    fresh: Callable[[], MakesLedger] | None = None,
) -> list[str]:
    """Let something happen at each step, in a world of its own each time; give the steps.

    Args:
        scenario: What is done.
        happening: What happens.
        turns: Whether steps are turns of the event loop instead of operations of the ledger.
        fresh: Prepares a ledger that is empty; None for one in a file.
    """
    steps: list[str] = []
    while True:
        with memory_folder() as folder:
            make = fresh() if fresh is not None else in_file(folder / "keys.db")
            step = run(survives(scenario, make, happening, len(steps), turns=turns), SteppedRealLoop)
        if step is None:
            return steps
        steps.append(step)


async def survives(
    scenario: Scenario, make: MakesLedger, happening: Happening, at: int, *, turns: bool = False
) -> str | None:
    """Run a life in which something happens at a step, and check what is left; tell where that was, or None if nowhere.

    Args:
        scenario: What is done.
        make: Makes the ledger.
        happening: What happens.
        at: At which step from the first.
        turns: Whether steps are turns of the event loop instead of operations of the ledger.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedRealLoop)
    async with FakeRespan(**scenario.server) as fake:
        world = World(scenario, fake, make)
        if scenario.before is not None:
            fake.script(*scenario.before)
            async with world.life("fails" if scenario.deliver else "") as earlier:
                await earlier.issue(0)
        fake.script(*scenario.script)
        async with world.life(scenario.deliver) as life:
            if turns:
                loop.interrupt(at + 1, "before", lambda: _begun(life, happening.act(life)))
            else:
                life.ledger.interrupt(at, lambda _: happening.act(life))
            life.call = asyncio.create_task(life.run())
            await asyncio.wait({life.call}, timeout=HUNG)
            assert life.call.done(), f"it hangs after {life.ledger.reached}"
            reached = f"turn {at}" if turns and loop.leave_alone() else ""
            async with asyncio.timeout(HUNG):
                await _ended(life, happening)
                if happening.goes_on and not scenario.closes:
                    await _issue_again(life, happening)
        await _ended(life, happening)
        reached = reached or life.ledger.reached
        _judge(life, happening)
        await _nothing_is_left(fake)
        await world.check(life)
        await _nothing_is_left(fake)
    return reached or None


async def _ended(life: Life, happening: Happening) -> None:
    """Wait for what was begun besides, and see that it ended as it may."""
    for outcome in await asyncio.gather(*life.others, return_exceptions=True):
        assert not isinstance(outcome, BaseException) or isinstance(outcome, happening.raises), repr(outcome)


async def _issue_again(life: Life, happening: Happening) -> None:
    """See that the same issuer gives every ticket its key, the third time at last: step and fault may be to come."""
    stuck: list[Any] = []
    for _ in range(3):
        try:
            outcomes = life.take(await life.issuer.issue_many(life.tickets()))
            stuck = [outcome.error for outcome in outcomes if not isinstance(outcome, Issued)]
        except happening.raises as error:
            stuck = [error]
        if not stuck:
            return
        await _ended(life, happening)
    raise AssertionError(f"tickets are stuck: {stuck}")


def _begun(life: Life, waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        life.beside(waiting)


def _judge(life: Life, happening: Happening) -> None:
    """See that a call ended as it may: a cancelled one is cancelled, and no error is a foreign one."""
    call = life.call
    assert call is not None
    if life.cancelled:
        assert call.cancelled(), f"the cancelling was swallowed: {call}"
    elif not call.cancelled() and (error := call.exception()) is not None:
        assert isinstance(error, happening.raises), f"{error!r}"
    else:
        outcomes = call.result()
        for outcome in outcomes if isinstance(outcomes, list) else []:
            assert not isinstance(outcome, Failed) or isinstance(outcome.error, happening.raises), outcome


async def _nothing_is_left(fake: FakeRespan) -> None:
    """See that a life has left no task, no thread, no open file and no connection."""
    async with asyncio.timeout(HUNG):
        while fake._running.server.connections or _threads():  # noqa: ASYNC110  both end a moment after they are told to
            await asyncio.sleep(0.0005)
    assert [task for task in asyncio.all_tasks() if "respan_async/issuing" in str(task.get_coro())] == []
    assert _open_ledgers() == []


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "respan-ledger"]


def _open_ledgers() -> list[str]:
    return [target for file in Path("/proc/self/fd").glob("*") if "keys.db" in (target := _target(file))]


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # it was the listing's own
        return ""
