"""Defines the limits of a sweep, such as how long it leaves a key alone, and the report of a sweep."""

import math
from datetime import datetime, timedelta
from typing import Final

import attrs

from respan_async._calls.lifecycle import check_grace
from respan_async.errors import Suspect

GRACE: Final = 60.0
"""Seconds to wait after an attempt before its key is looked for, because a server may make it after we gave up."""

TAKEOVER_AGE: Final = timedelta(days=1)
"""How long a suspect that was taken over is left alone, unless a person says otherwise."""

AFTER_EXPIRY: Final = timedelta(hours=1)
"""How long past its expiry a key may be alive, according to a local clock that may be fast."""

LONG_AFTER_EXPIRY: Final = timedelta(days=7)
"""How long past a key's expiry its suspect or undelivered secret is dropped for good, because a clock may be wrong."""

_WRONG_CLOCK: Final = timedelta(days=1)
"""If a suspect was taken over longer than this before its own attempt, the clock was wrong then."""


@attrs.frozen(kw_only=True)
class SweepPolicy:
    """The limits of a sweep.

    Attributes:
        grace: Seconds to let pass after the last suspect's attempt, before the list is read.
        takeover_age: How long ago a suspect must have been taken over; with None, such a suspect is left alone.
        taken_over: Whether a person states that no other copy of the ledger is or was in use; suspects that were taken
            over are then treated as any other.
        dry_run: Whether to report only what would be done.
    """

    grace: float = attrs.field(default=GRACE, validator=lambda _, __, grace: check_grace(grace, finite=True))
    takeover_age: timedelta | None = TAKEOVER_AGE
    taken_over: bool = False
    dry_run: bool = False

    def is_doubtful(self, suspect: Suspect) -> bool:
        """Whether a suspect's key may have another owner, so that the server must state that it was never used."""
        return suspect.taken_over_at is not None and not self.taken_over

    def seconds_to_wait(self, suspect: Suspect, now: datetime) -> float:
        """Return for how many seconds a suspect's key must still be left alone; infinity means for ever."""
        if suspect.taken_over_at is None or self.taken_over:
            return 0.0
        if self.takeover_age is None:
            return math.inf
        if suspect.sent_at - suspect.taken_over_at > _WRONG_CLOCK:
            return math.inf  # the takeover time came from a wrong clock, so the real one is unknown: never revoke
        since = max(suspect.taken_over_at, suspect.sent_at)
        return max(self.takeover_age.total_seconds() - (now - since).total_seconds(), 0.0)


@attrs.frozen(kw_only=True)
class SweepReport:
    """What one sweep did; after a dry run, what it would have done.

    Attributes:
        revoked: The ids of the keys that it revoked.
        expired: The suspects whose key has expired, or no longer exists.
        left: The suspects that are left, including those without a tag.
        dry_run: Whether it was a dry run.
    """

    revoked: tuple[str, ...]
    expired: tuple[Suspect, ...]
    left: tuple[Suspect, ...]
    dry_run: bool = False
