"""The protocol of a window: the source of slots, as the pacer sees it."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit

GRACE: Final = 2.0
"""Seconds by which a request that was never answered may have reached the server after it was given up."""

OnPause = Callable[[str, float, bool], None]
"""Called with a pause: the reason, the seconds, and whether only the lower classes are held back."""


@runtime_checkable
class Window(Protocol):
    """A source of slots. Times are those of one `LoopClock`, in seconds."""

    @property
    def limit(self) -> RateLimit | None:
        """The limit that applies now, or None while it is unknown."""
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
        """Set what to call when slots have come, what to call with a pause, and the clock of all times."""
        ...

    def leave_loop(self) -> None:
        """Forget what belongs to a closed event loop, and continue on the next one.

        Raises:
            ClientStateError: A given object cannot be used on another loop.
        """
        ...

    async def park(self) -> None:
        """Close open resources on an event loop that is about to end; the window lives on, on another loop."""
        ...

    def request_slots(self, urgent: int, patient: int, left: float) -> None:
        """Note how many interactive and other calls could go if there were slots, and what the others have left."""
        ...

    def used(self, now: float) -> int:
        """Return how many slots are taken: by us, or by all who share the window."""
        ...

    def others(self, now: float) -> int:
        """Return how many slots other users are believed to hold."""
        ...

    def free(self, now: float) -> int:
        """Return how many slots are left."""
        ...

    def spread_interval(self) -> float:
        """Return the seconds between two evenly spread requests."""
        ...

    def room(self, now: float, in_air: int) -> float:
        """Return how many more requests may be in flight, apart from slots; below one, none may."""
        ...

    def paused_until(self, now: float) -> float | None:
        """Return until when a refusal holds all requests back, if one does."""
        ...

    def delay(self, now: float, ahead: int = 0) -> float:
        """Return the least seconds until a slot is free for a call with `ahead` others before it; 0: now."""
        ...

    def wakes_at(self, now: float) -> float | None:
        """Return when time alone may free a slot, or None if only an answer can."""
        ...

    def preload(self, now: float, ages: Iterable[float]) -> None:
        """Count requests that were let in so many seconds ago, before this window existed; the oldest first."""
        ...

    def take(self, now: float) -> None:
        """Take a free slot."""
        ...

    def unused(self, now: float) -> None:
        """Give back a slot whose request never reached the server."""
        ...

    def answered(self, now: float, sent_at: float, sendings: int) -> None:
        """Note that the server let the request in, or its `sendings` repetitions."""
        ...

    def lost(self, now: float) -> None:
        """Note that the request left, and no answer came."""
        ...

    def resent(self, now: float, times: int) -> None:
        """Record `times` earlier sendings of a request that never got any answer."""
        ...

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> None:
        """Note that the server turned the request away, and which wait it asked for, if any."""
        ...

    def told(self, now: float, hint: RateHint) -> None:
        """Take the limit that an answer states as a hypothesis."""
        ...

    async def aclose(self) -> None:
        """Close open resources."""
        ...
