"""The sliding log of our own requests: the first of the two counts, by which a limit is kept and learned."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Final

_KEPT: Final = 20_000


class SlidingLog:
    """The times at which a server let requests in, the newest last, and the number of requests in flight.

    A request is noted when its *answer* arrives. The server let it in before that, so a slot that comes back one
    period after the answer never comes back too early, even if the network's delays vary.

    All times are in seconds of one monotonic clock, and never decrease from call to call.
    """

    def __init__(self, grace: float) -> None:
        self.in_air = 0
        self._grace = grace
        self._times: list[float] = []
        self._live = 0  # the index of the first of _times that is younger than a period
        self._lost: deque[float] = deque()

    def answered(self, now: float, times: int = 1) -> None:
        """Note that a request was let in, or that it was sent `times` times."""
        self._times.extend([now] * times)

    def preload(self, times: Iterable[float]) -> None:
        """Note requests that were let in before this log existed."""
        self._times = sorted([*times, *self._times])

    def lost(self, now: float) -> None:
        """Note that a request was never answered: the server may have let it in, and late."""
        self._lost.append(now)

    def used(self, now: float, per: float) -> int:
        """Return how many slots of a period are taken: in flight, let in, or lost."""
        self._forget(now, per)
        return self.in_air + len(self._times) - self._live + len(self._lost)

    def admitted_within(self, now: float, per: float) -> int:
        """Return how many requests were let in during the last `per` seconds."""
        return len(self._times) - bisect_right(self._times, now - per)

    def expiries(self, now: float, number: int, per: float) -> list[float]:
        """Return when the first `number` taken slots come back; fewer times, if the other slots are still in flight."""
        self._forget(now, per)
        ends = [time + per for time in self._times[self._live : self._live + number]]
        if self._lost:
            ends = sorted(ends + [time + per + self._grace for time in self._lost])[:number]
        return ends

    def burst(self, now: float, pause: float) -> tuple[int, float] | None:
        """Return how many were let in since the last pause of at least `pause` seconds, and the age of the oldest."""
        times = self._times
        if not times:
            return None
        start = len(times) - 1
        while start > 0 and times[start] - times[start - 1] < pause:
            start -= 1
        return len(times) - start, now - times[start]

    def age(self, now: float, number: int) -> float:
        """Return how long ago the oldest of the newest `number` was let in; infinity if there are fewer."""
        return now - self._times[-number] if number <= len(self._times) else math.inf

    def trim(self) -> None:
        """Drop all but the newest times, because no limit is known that needs them."""
        if len(self._times) > 2 * _KEPT:
            del self._times[:-_KEPT]

    def period_changed(self, now: float, per: float) -> None:
        """Sort the times anew after the period was learned or corrected."""
        self._live = bisect_right(self._times, now - per)

    def _forget(self, now: float, per: float) -> None:
        times, live = self._times, self._live
        while live < len(times) and times[live] + per <= now:
            live += 1
        while self._lost and self._lost[0] + per + self._grace <= now:
            self._lost.popleft()
        # Expired times are kept for a while, because a longer period may make some of them count again.
        if live > 2 * _KEPT:
            del times[: live - _KEPT]
            live = _KEPT
        self._live = live
