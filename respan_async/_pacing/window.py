"""Where slots come from, as the pacer sees it."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit

GRACE: Final = 2.0
"""Seconds by which a request that was never answered may have reached the server later than we gave it up."""

OnPause = Callable[[str, float, bool], None]
"""Told of a pause: the reason, the seconds, and whether only the lower classes are held back."""


@runtime_checkable
class Window(Protocol):
    """A source of slots. Times are those of one `LoopClock`, in seconds."""

    @property
    def limit(self) -> RateLimit | None:
        """What is allowed now, or None while nothing is known."""
        ...

    @property
    def learned(self) -> bool:
        """Whether `limit` comes from the server rather than from a setting."""
        ...

    @property
    def shared(self) -> bool:
        """Whether slots must be asked for by `request_slots`, and come spread already."""
        ...

    def attach(self, wake: Callable[[], None], on_pause: OnPause, clock: LoopClock) -> None:
        """Have a function to call when slots have come, one to tell of a pause, and the clock that all times are of."""
        ...

    def leave_loop(self) -> None:
        """Forget what belonged to an event loop that is closed, and go on with the next one.

        Raises:
            ClientStateError: Something that was given cannot be used on another loop.
        """
        ...

    async def park(self) -> None:
        """Let go of what is open on an event loop that is about to end; what is to come is on another one."""
        ...

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Hear how many interactive calls and others could go if there were slots, and what the others have left."""
        ...

    def used(self, now: float) -> int:
        """Return how many slots are taken by us, or by all who share the window."""
        ...

    def others(self, now: float) -> int:
        """Return how many slots are believed to be taken by others."""
        ...

    def free(self, now: float) -> int:
        """Return how many slots are left."""
        ...

    def spread_interval(self, now: float) -> float:
        """Return the seconds between two requests that are spread evenly."""
        ...

    def room(self, now: float, in_air: int) -> float:
        """Return how many more requests may be in the air, apart from slots; less than one means none."""
        ...

    def paused_until(self, now: float) -> float | None:
        """Return until when everything is held back by a refusal, if it is."""
        ...

    def delay(self, now: float, ahead: int = 0) -> float:
        """Return the least seconds until a slot is free for one who has `ahead` others before it; 0: now."""
        ...

    def wakes_at(self, now: float) -> float | None:
        """Return when time alone may change what is free, or None if only an answer can."""
        ...

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Count requests that were let in some seconds ago, before this window was there; the oldest first."""
        ...

    def take(self, now: float) -> None:
        """Take a free slot."""
        ...

    def unused(self, now: float) -> None:
        """Give back a slot of which the server knows nothing."""
        ...

    def answered(self, now: float, sent_at: float, sendings: int) -> None:
        """Note that the server let the request in, or its `sendings` repetitions."""
        ...

    def lost(self, now: float) -> None:
        """Note that the request left, and no answer came."""
        ...

    def resent(self, now: float, times: int) -> None:
        """Note that a request whose end is no answer left so many times before, and none came then either."""
        ...

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """Note that the server turned the request away, and asked to wait so many seconds if it did."""
        ...

    def told(self, now: float, hint: RateHint) -> None:
        """Take what an answer states of the limit as a hypothesis."""
        ...

    async def aclose(self) -> None:
        """Let go of what is open."""
        ...
