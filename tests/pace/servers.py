"""Model servers: what an account's requests meet, as functions of the time.

The limits themselves are the fake server's (`respan_async.testing`), and a few more that others have. A `Server` adds
what else there is: other users of the account, strays, chance, and what a refusal says of the time to wait.
"""

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from typing import Literal

import attrs

from respan_async.testing import Limit, SlidingLog

Said = Literal["whole", "exact", "nothing"]
"""What a refusal says of the time to wait: whole seconds, rounded up; the exact time; nothing."""

BEFORE = -0.05
"""When a process that came before this one used slots, in seconds."""


@attrs.define
class Concurrency:
    """Let a request in while fewer than `limit` are being served.

    Attributes:
        limit: Requests at once.
        asks: Seconds that a refused one is asked to wait.
        served: How many are being served.
    """

    limit: int
    asks: float = 0.3
    served: int = 0

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        if self.served >= self.limit:
            return self.asks
        self.served += 1
        return None


@attrs.define
class Banning:
    """A sliding log that lets nothing in for `ban` seconds once it was overstepped."""

    log: SlidingLog
    ban: float
    _until: float = -math.inf

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        if now < self._until:
            return self._until - now
        if self.log.admit(now) is None:
            return None
        self._until = now + self.ban
        return self.ban


@attrs.define
class CountingRefused:
    """A sliding log in which refused requests count as well."""

    limit: int
    per: float
    _times: list[float] = attrs.field(factory=list)

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        self._times = [*(time for time in self._times if time > now - self.per), now]
        if len(self._times) <= self.limit:
            return None
        return self._times[-self.limit] + self.per - now


@attrs.define
class Changing:
    """One limit until a time, and another one from then on; what was let in by then counts for both."""

    before: Limit
    after: Limit
    at: float

    def admit(self, now: float) -> float | None:
        """See `Limit.admit`."""
        if now >= self.at:
            return self.after.admit(now)
        wait = self.before.admit(now)
        if wait is None:
            self.after.admit(now)
        return wait


def used_up(number: int) -> Iterable[float]:
    """Return when another process used so many slots: just before this one began."""
    return [BEFORE + 1e-4 * index for index in range(number)]


def steadily(rate: float) -> Iterator[float]:
    """Return when others send so many requests a second, for ever."""
    return (index / rate for index in itertools.count())


@attrs.define
class Server:
    """A server with a limit for the account, of which others may be users too.

    Attributes:
        limit: The limit.
        said: What a refusal says.
        strays: Refusals for a reason of its own: from when, and the seconds they ask to wait; each happens once.
        chance: How often a request is refused for no reason.
        asks: Seconds that a request refused by chance is asked to wait.
        seed: Of chance.
        serves_in: Seconds that it takes to serve a request.
        admissions: When it let our requests in.
        refusals: When it turned ours away.
        others_let_in: How many of the others' it let in.
        others_refused: How many of the others' it turned away.
    """

    limit: Limit
    others: Iterable[float] = ()
    said: Said = "whole"
    strays: Iterable[tuple[float, float]] = ()
    chance: float = 0.0
    asks: float = 60.0
    seed: int = 1
    serves_in: float = 0.0
    admissions: list[float] = attrs.field(factory=list, init=False)
    refusals: list[float] = attrs.field(factory=list, init=False)
    others_let_in: int = attrs.field(default=0, init=False)
    others_refused: int = attrs.field(default=0, init=False)
    _rng: random.Random = attrs.field(init=False)
    _others: Iterator[float] = attrs.field(init=False)
    _next_of_others: float = attrs.field(init=False)
    _strays: list[tuple[float, float]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Line up what is to come."""
        self._rng = random.Random(self.seed)
        self._others = iter(self.others)
        self._next_of_others = next(self._others, math.inf)
        self._strays = sorted(self.strays)

    @property
    def refused(self) -> int:
        """How many of ours it turned away."""
        return len(self.refusals)

    def arrive(self, now: float) -> tuple[bool, float | None]:
        """Let a request of ours in, or refuse it; return whether it was let in, and what `Retry-After` says."""
        self._serve_others(now)
        wait = self._decide(now)
        if wait is None:
            self.admissions.append(now)
            return True, None
        self.refusals.append(now)
        match self.said:
            case "whole":
                return False, float(max(math.ceil(wait - 1e-9), 1))
            case "exact":
                return False, wait
            case "nothing":
                return False, None

    def finish(self) -> None:
        """Note that a request of ours was served."""
        if isinstance(self.limit, Concurrency):
            self.limit.served -= 1

    def _decide(self, now: float) -> float | None:
        if self._strays and now >= self._strays[0][0]:
            return self._strays.pop(0)[1]
        if self.chance and self._rng.random() < self.chance:
            return self.asks
        return self.limit.admit(now)

    def _serve_others(self, now: float) -> None:
        while self._next_of_others <= now:
            if self.limit.admit(self._next_of_others) is None:
                self.others_let_in += 1
            else:
                self.others_refused += 1
            self._next_of_others = next(self._others, math.inf)
