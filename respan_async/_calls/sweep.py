"""Revokes the keys that lost answers left behind, and no others.

An orphan is harmless, because its secret was never seen; a revoked key that is in use is an outage. So when in doubt, a
sweep leaves a key alive. Rules:

1. A sweep looks only for keys that carry our own random tag at the end of their name. The tag alone proves the origin,
   because a server normalises names, a plan overrides limits, decimals come back as text and dates cut. A key that was
   used or handed out is left alone. A key is read once more right before it is revoked. A key whose id the server told
   us, in the answer to our own POST, needs no tag.
2. The list is read to its end before anything is deleted, because deleting moves the pages under the reader.
3. Absence from the list proves nothing: a key may be made long after we gave up, and pages shift when other processes
   delete keys. A suspect ends by being revoked, or by its expiry.
4. The server decides about an expiry, and this machine's clock may be wrong: a key that should have expired is looked
   for once more before its suspect ends.
5. A suspect that was *taken over* may be another process's key: a copy of the ledger may have recorded the answer
   since. An automatic sweep revokes it only a day after the takeover, only if the server states that the key was never
   used, and only if no other key has its tag. A person may state that there is no such copy.
6. A 404 to a DELETE proves that the key does not exist only if it is the API's own JSON, if a second read finds no key
   either, and if the key was not made just now, because a replica of the server's database may lag.
7. A key that cannot be revoked does not hold up others: known ids are taken in another order each time, and the list is
   read even if they fail.
"""

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from respan_async._calls.call_service import CallService
from respan_async._calls.lifecycle import check_grace
from respan_async._calls.name_tags import tag_in
from respan_async._calls.pagination import Listing
from respan_async._calls.suspect_store import SuspectStore, expires_at
from respan_async._http import key_ids, operations, response_parsing
from respan_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    ClientStateError,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RespanError,
    Suspect,
)
from respan_async.events import RevokedEvent, SweepEvent, logger
from respan_async.models import TemporaryKey

GRACE: Final = 60.0
"""Seconds to wait after an attempt before its key is looked for, because a server may make it after we gave up."""

TAKEOVER_AGE: Final = timedelta(days=1)
"""How long a suspect that was taken over is left alone, unless a person says otherwise."""

AFTER_EXPIRY: Final = timedelta(hours=1)
"""How long past its expiry a key may be alive, according to a local clock that may be fast."""

LONG_AFTER_EXPIRY: Final = timedelta(days=7)
"""The same for a clock that may be wrong; before that, the sweep drops nothing that cannot be restored."""

_JUST_MADE: Final = timedelta(seconds=60)
"""How long after its attempt a key may be missing in a database replica that lags."""

_WRONG_CLOCK: Final = timedelta(days=1)
"""If a suspect was taken over longer than this before its own attempt, the clock was wrong then."""

_SEVERAL: Final = 3
"""The number of keys in a row, refused by a 403 or an outage, after which the sweep stops."""

_OF_A_KEY: Final = (APIConnectionError, APIStatusError, InvalidRequestError, InvalidResponseError)
"""Errors that may concern one key alone."""

_CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How long before its attempt a key may have been made, if two clocks differ a little."""

_PAGE: Final = 100
"""The number of keys on a page of the list."""


@attrs.frozen(kw_only=True)
class SweepPolicy:
    """The limits of a sweep.

    Attributes:
        grace: Seconds to let pass after the last suspect's attempt, before the list is read.
        takeover_age: How long ago a suspect must have been taken over; None: such a suspect is left alone.
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
        """Return how long a suspect's key must still be left alone; infinity for ever."""
        if suspect.taken_over_at is None or self.taken_over:
            return 0.0
        if self.takeover_age is None:
            return math.inf
        if suspect.taken_over_at + _WRONG_CLOCK < suspect.sent_at:
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


async def sweep(service: CallService, store: SuspectStore, policy: SweepPolicy) -> SweepReport:
    """Look once for the keys of all suspects, and revoke those that are proven orphans.

    Args:
        service: Reads and revokes, at the lowest priority.
        store: The store of suspects.
        policy: The limits of the sweep.

    Raises:
        ClientStateError: The client is closed, or was closed meanwhile.
        RespanError: The list could not be read, or a key could not be revoked. The suspects stay.
    """
    lifecycle = service.context.lifecycle
    lifecycle.check()
    task = lifecycle.tasks.spawn(_Sweep(service.lowest(), store, policy).run())
    lifecycle.release(task)  # the sweep's grace may be longer than that of the closing client
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        raise ClientStateError("the client was closed during the sweep")
    return task.result()


class _Sweep:
    """One sweep; see `sweep`."""

    def __init__(self, service: CallService, store: SuspectStore, policy: SweepPolicy) -> None:
        self._service = service
        self._store = store
        self._policy = policy
        self._clock = service.context.clock
        self._revoked: dict[str, Suspect] = {}
        self._expired: list[Suspect] = []
        self._failure: RespanError | None = None
        self._failed_in_a_row = 0

    async def run(self) -> SweepReport:
        """Sweep."""
        # A suspect that cannot be looked for, or that expired long ago by any clock, is not looked for.
        gone, suspects = _parted(
            await self._store.pending(), lambda it: self._has_died(it, LONG_AFTER_EXPIRY if it.tag else AFTER_EXPIRY)
        )
        await self._expire(gone)
        due = [suspect for suspect in suspects if not self._policy.seconds_to_wait(suspect, self._clock())]
        known = [suspect for suspect in due if suspect.id is not None]
        random.shuffle(known)
        for suspect in known:
            await self._revoke_known(suspect)
            if self._failed_in_a_row >= _SEVERAL:
                break
        self._failed_in_a_row = 0
        await self._look_for([it for it in due if it.id is None and it.tag], [it for it in suspects if it.id is None])
        report = await self._report()
        if not self._policy.dry_run:
            self._service.context.dispatcher.emit(SweepEvent, revoked=len(report.revoked), left=len(report.left))
        if self._failure is not None:
            raise self._failure
        return report

    async def _look_for(self, due: Sequence[Suspect], suspects: Sequence[Suspect]) -> None:
        """Look for the keys of the suspects that are due, and of those that should have expired."""
        dead = [suspect for suspect in suspects if suspect.tag and self._has_died(suspect, AFTER_EXPIRY)]
        if not due and not dead:
            return
        dead_tags, due_tags = {suspect.tag for suspect in dead}, {suspect.tag for suspect in due}
        await self._wait_out([suspect for suspect in due if suspect.tag not in dead_tags])
        left = {suspect.tag for suspect in await self._store.pending()}  # skip suspects dismissed while we waited
        due, dead = [it for it in due if it.tag in left], [it for it in dead if it.tag in left]
        if not due and not dead:
            return
        found = await self._keys_of([*due, *dead])
        failed: set[str | None] = set()
        for suspect in due:
            for key_id in found.get(suspect.tag or "", ()):
                try:
                    if await self._is_still(key_id, suspect):
                        await self._revoke(key_id, suspect)
                except _OF_A_KEY as error:
                    failed.add(suspect.tag)
                    self._note_failure(error)
                    if self._failed_in_a_row >= _SEVERAL:
                        raise
        # If an "expired" key is still listed, our clock is wrong: keep its suspect open.
        await self._expire([it for it in dead if it.tag not in found or it.tag in due_tags - failed])

    def _has_died(self, suspect: Suspect, since: timedelta) -> bool:
        """Whether a suspect's key, if it exists, expired that long ago, by this machine's clock."""
        end = expires_at(suspect)
        return end is not None and end < self._clock() - since  # not `end + since`, which overflows in the year 10,000

    async def _wait_out(self, suspects: Sequence[Suspect]) -> None:
        if not suspects:
            return
        grace = self._policy.grace
        youngest = max(suspect.sent_at for suspect in suspects)
        # Bounded by the grace itself: a wall clock that was set back must not make it longer.
        seconds = min(max(grace - (self._clock() - youngest).total_seconds(), 0.0), grace)
        await self._service.context.pacer.clock.sleep(seconds)

    async def _keys_of(self, suspects: Sequence[Suspect]) -> dict[str, set[str]]:
        """Read the list to its end; return the ids of the keys that carry a suspect's tag, by tag."""
        by_tag = {suspect.tag: suspect for suspect in suspects}
        # Only ids, because the keys may hold much more; in sets, because a key may be on two pages.
        found: defaultdict[str, set[str]] = defaultdict(set)
        alive: defaultdict[str, set[str]] = defaultdict(set)
        async for key in Listing(self._service, 1, _PAGE):
            tag = tag_in(key.name)
            suspect = by_tag.get(tag) if key_ids.is_usable_id(key.id) else None
            if suspect is None or key.revoked:
                continue
            alive[tag].add(key.id)
            if is_left_by(suspect, key) and not await self._store.owns_key(key.id):
                found[tag].add(key.id)
        for tag, keys in alive.items():
            # If one attempt has two keys, one of them may be in use, and the sweep cannot know which.
            if len(keys) > 1 and self._policy.is_doubtful(by_tag[tag]):
                found[tag].clear()
        return found

    async def _is_still(self, key_id: str, suspect: Suspect) -> bool:
        """Read a key again, because the list may be outdated."""
        key = await self._read(key_id)
        return key is not None and is_left_by(suspect, key) and self._may_be_revoked(key, suspect)

    async def _read(self, key_id: str) -> TemporaryKey | None:
        """Return a key as the server shows it now; None if the server states that it does not exist."""
        try:
            return await self._service.send(operations.retrieve(key_id))
        except NotFoundError as error:
            if response_parsing.states_absence(error):
                return None
            raise

    def _may_be_revoked(self, key: TemporaryKey, suspect: Suspect) -> bool:
        """Whether a key was not used; if it may have another owner, the server must state that."""
        return not key.used and (key.used is False or not self._policy.is_doubtful(suspect))

    async def _revoke_known(self, suspect: Suspect) -> None:
        """Revoke a key whose id the server told, unless it was recorded or used after all."""
        key_id = suspect.id or ""
        try:
            if await self._store.owns_key(key_id):
                return
            key = await self._read(key_id)
            if key is not None and _is_another(suspect, key, self._service.context.skew.ahead):
                logger.warning("key %s was told for an attempt that did not make it, and is left alone", key_id)
            elif key is None or key.revoked:
                if not self._is_just_made(suspect):
                    await self._expire([suspect])
            elif self._may_be_revoked(key, suspect):
                await self._revoke(key_id, suspect)
        except _OF_A_KEY as error:
            self._note_failure(error)

    def _is_just_made(self, suspect: Suspect) -> bool:
        """Whether a suspect's key is so new that a lagging replica may not show it yet."""
        return self._clock() - suspect.sent_at < _JUST_MADE

    def _note_failure(self, error: RespanError) -> None:
        """Remember a failure, so that other keys can still be revoked; raise it if it concerns more than its key."""
        self._failure = self._failure or error
        self._failed_in_a_row += isinstance(error, PermissionDeniedError | InvalidResponseError) or error.retryable
        if isinstance(error, AuthenticationError | RateLimitError):
            raise error

    async def _revoke(self, key_id: str, suspect: Suspect) -> None:
        if self._policy.dry_run:
            self._revoked[key_id] = suspect
            return
        try:
            await self._service.send(operations.delete(key_id))
        except NotFoundError as error:
            if not response_parsing.states_absence(error):
                raise
            if error.effect is Effect.NONE:  # this 404 is not the echo of our own earlier DELETE whose answer was lost
                if not self._is_just_made(suspect):
                    if await self._read(key_id) is not None:
                        raise  # the key was seen just now and still exists: a right is missing, or the account is wrong
                    await self._expire([suspect])
                return
        self._failed_in_a_row = 0
        closed = await self._store.close_suspect(suspect, revoked=True)
        if not closed and suspect not in self._revoked.values():
            return  # another sweep was faster; a suspect of this sweep may have left two keys
        self._revoked[key_id] = suspect
        logger.info("revoked key %s, which nobody holds: %s", key_id, suspect.reason)
        self._service.context.dispatcher.emit(RevokedEvent, id=key_id, reason=suspect.reason)

    async def _expire(self, suspects: Sequence[Suspect]) -> None:
        """Close suspects whose keys have expired."""
        for suspect in suspects:
            if self._policy.dry_run or await self._store.close_suspect(suspect, revoked=False):
                self._expired.append(suspect)

    async def _report(self) -> SweepReport:
        left = await self._store.pending()
        if self._policy.dry_run:
            ended = [*self._revoked.values(), *self._expired]
            left = [suspect for suspect in left if suspect not in ended]
        return SweepReport(
            revoked=tuple(self._revoked),
            expired=tuple(self._expired),
            left=tuple(left),
            dry_run=self._policy.dry_run,
        )


def _parted(suspects: Sequence[Suspect], died: Callable[[Suspect], bool]) -> tuple[list[Suspect], list[Suspect]]:
    """Return the suspects that have died, and the others."""
    dead: list[Suspect] = []
    alive: list[Suspect] = []
    for suspect in suspects:
        (dead if died(suspect) else alive).append(suspect)
    return dead, alive


def _is_another(suspect: Suspect, key: TemporaryKey, ahead: timedelta) -> bool:
    """Whether a key is not the one that a suspect's attempt made, though the answer to that attempt told its id.

    A server or a cache may have answered with an older key.

    Args:
        suspect: The suspect.
        key: The key with that id.
        ahead: How far the server's clock is ahead of this machine's.
    """
    if suspect.tag and key.name is not None and suspect.tag != tag_in(key.name):
        return True
    return not suspect.tag and key.created_at is not None and key.created_at < suspect.sent_at + ahead - _CLOCKS_DIFFER


def is_left_by(suspect: Suspect, key: TemporaryKey) -> bool:
    """Whether this key is the one that a suspect's attempt made, and was never used."""
    return bool(suspect.tag) and suspect.tag == tag_in(key.name) and not (key.revoked or key.used)
