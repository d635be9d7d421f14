"""Event loops that count their turns, and on which something can be done in a certain one."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from tests.leftovers import nothing_left
from tests.virtual import VirtualLoop

Place = Literal["before", "after"]
"""Before the callbacks of a turn, or after those that are ready in it."""


class Stepped:
    """What makes a loop count its turns; to be mixed in before one of asyncio's."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self._acts: list[tuple[int, Place, Callable[[], object]]] = []

    def interrupt(self, after: int, place: Place, act: Callable[[], object]) -> None:
        """Do something so many turns from now, before the turn's callbacks or after those that are ready."""
        self._acts.append((self.turn + after, place, act))

    def leave_alone(self) -> bool:
        """Forget what was to be done; tell whether all of it had been."""
        carried_out = not self._acts
        self._acts.clear()
        return carried_out

    def _due(self, place: Place) -> list[Callable[[], object]]:
        due = [planned for planned in self._acts if planned[:2] == (self.turn, place)]
        for planned in due:
            self._acts.remove(planned)
        return [act for _, _, act in due]

    def _run_once(self) -> None:
        self.turn += 1
        for act in self._due("before") if self._acts else ():
            act()
        super()._run_once()  # type: ignore[misc]  # every loop of asyncio's has it

    def _process_events(self, event_list: Any) -> None:
        super()._process_events(event_list)  # type: ignore[misc]  # as above
        for act in self._due("after") if self._acts else ():
            asyncio.get_running_loop().call_soon(act)


class SteppedLoop(Stepped, VirtualLoop):
    """One with virtual time and sockets in memory."""


class SteppedRealLoop(Stepped, asyncio.SelectorEventLoop):
    """One with real time and real sockets."""


def turns_until(is_over: Callable[[int], bool]) -> int:
    """Give the first turn that came too late.

    How many turns there are is for each Python to say. Whoever wants to see that they were gone through asks for half
    of what one has.
    """
    return next(turn for turn in itertools.count(1) if is_over(turn))


def run(
    main: Awaitable[Any], loop: Callable[[], asyncio.AbstractEventLoop] = SteppedLoop, *, debug: bool = False
) -> Any:
    """Run something on a loop of its own whose turns are counted, and see that it leaves nothing on it."""

    async def wrapped() -> Any:
        with nothing_left():
            return await main

    with asyncio.Runner(loop_factory=loop, debug=debug) as runner:
        return runner.run(wrapped())
