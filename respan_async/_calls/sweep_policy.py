"""What a sweep may do, after what time, and what it reports."""

import math
from datetime import datetime, timedelta
from typing import Final

import attrs

from respan_async._calls.lifecycle import check_grace
from respan_async.errors import Suspect

GRACE: Final = 60.0
"""Seconds to wait after an attempt before its key is looked for: a server may make it after we gave up."""

TAKEOVER_AGE: Final = timedelta(days=1)
"""How long a suspect that was taken over is left alone, unless a person says otherwise."""

AFTER_EXPIRY: Final = timedelta(hours=1)
"""How long past its expiry a key may be alive, by a local clock that may be fast."""

LONG_AFTER_EXPIRY: Final = timedelta(days=7)
"""The same by a clock that may be set wrong: before that, nothing is given up that cannot be had again."""

_WRONG_CLOCK: Final = timedelta(days=1)
"""So long before its own attempt a suspect was taken over by a clock that was wrong then; others differ by less."""


@attrs.frozen(kw_only=True)
class SweepPolicy:
    """What a sweep may do.

    Attributes:
        grace: Seconds to let pass after the last suspect's attempt, before the list is read.
        takeover_age: How long ago a suspect must have been taken over; None: such a suspect is left alone.
        taken_over: A person says that no other copy of the ledger is or was in use: suspects that were taken over are
            treated as any other.
        dry_run: Only tell what would be done.
    """

    grace: float = attrs.field(default=GRACE, validator=lambda _, __, grace: check_grace(grace, finite=True))
    takeover_age: timedelta | None = TAKEOVER_AGE
    taken_over: bool = False
    dry_run: bool = False

    def is_doubtful(self, suspect: Suspect) -> bool:
        """Whether a suspect's key may be somebody's, so that it has to be proven that it was never used."""
        return suspect.taken_over_at is not None and not self.taken_over

    def seconds_to_wait(self, suspect: Suspect, now: datetime) -> float:
        """Return how long a suspect's key has still to be left alone; infinity for ever."""
        if suspect.taken_over_at is None or self.taken_over:
            return 0.0
        if self.takeover_age is None:
            return math.inf
        if suspect.sent_at - suspect.taken_over_at > _WRONG_CLOCK:
            return math.inf  # by a clock that was wrong then; nobody knows when that was
        since = max(suspect.taken_over_at, suspect.sent_at)
        return max(self.takeover_age.total_seconds() - (now - since).total_seconds(), 0.0)


@attrs.frozen(kw_only=True)
class SweepReport:
    """What a sweep did, and not what another did at the same time; after a dry run, what it would have done.

    Attributes:
        revoked: The ids of the keys it revoked.
        expired: The suspects whose key has died by itself, or is not there any more.
        left: The suspects that are left, those without a tag among them.
        dry_run: Whether nothing of that was done.
    """

    revoked: tuple[str, ...]
    expired: tuple[Suspect, ...]
    left: tuple[Suspect, ...]
    dry_run: bool = False
