"""Revokes the keys that lost answers left behind, and no others.

An orphan is harmless, because its secret was never shown. If a sweep revokes a key that is in use, that is an outage.
So a sweep leaves a key alive when it is in doubt. Rules:

1. A sweep looks only for keys whose names end in one of our own random tags. It compares the tag alone, because a
   server normalises names, overrides limits by its plan, answers decimals as text, and truncates dates. A key that was
   used or handed out has an owner, and is left alone. The sweep reads each key once more right before it revokes it.
   If the answer to our own POST told a key's id, that key needs no tag.
2. A sweep reads the list to its end before it deletes a key, because a deletion shifts the pages that are not read yet.
3. If the list or a request for an id does not show a key, that proves nothing: the server may make a key long after we
   gave up, other processes shift the pages, and an API key of another account sees none of our keys. So a suspect ends
   only when its key is revoked or expires; a suspect without an expiry stays. Known ids that the server does not show
   are asked for last, a few in each sweep.
4. A key expires by the server's clock, and this machine's clock may be wrong. So a sweep looks once more for a key that
   should have expired, before its suspect ends. While the server shows the key, the suspect stays.
5. The key of a suspect that was *taken over* may be in use: another process may have recorded the answer since, in a
   copy of the ledger. On its own, a sweep revokes such a key only a day after the takeover, only if the server states
   that the key was never used, and only if no other key has the same tag. The user may state that there is no such
   copy. The day must have passed by this machine's clock and by the server's, which the sweep learns when it reads the
   key right before it revokes it.
6. A 404 to a DELETE proves little (`key_revocation.py`). Nor does a tag prove much, because a program may copy a name.
   So a sweep leaves a key alone that was made long after the attempt, and keys with the same tag that were made long
   after each other (`key_origin.py`).
7. A key that cannot be revoked does not hold up the others: each sweep takes the keys in another order, takes those
   that could not be revoked before last, and reads the list even if keys with known ids could not be revoked.
8. The log names each suspect that a sweep closes without having revoked its key.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from respan_async._calls import key_revocation
from respan_async._calls.call_service import CallService
from respan_async._calls.key_origin import ARRIVES_WITHIN, is_another
from respan_async._calls.key_revocation import KeyEnd
from respan_async._calls.key_search import FoundKeys, KeySearch
from respan_async._calls.suspect_store import SuspectStore, expires_at
from respan_async._calls.sweep_policy import AFTER_EXPIRY, LONG_AFTER_EXPIRY, SweepPolicy, SweepReport
from respan_async._http import key_ids
from respan_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    ClientStateError,
    InvalidRequestError,
    InvalidResponseError,
    PermissionDeniedError,
    RateLimitError,
    RespanError,
    Suspect,
)
from respan_async.events import RevokedEvent, SweepEvent, logger
from respan_async.models import TemporaryKey

_JUST_MADE: Final = timedelta(seconds=60)
"""How long after its attempt a key may be missing in a database replica that lags."""

_SEVERAL: Final = 3
"""The number of failed keys in a row, because of a 403 or an outage, after which the sweep stops."""

_OF_A_KEY: Final = (APIConnectionError, APIStatusError, InvalidRequestError, InvalidResponseError)
"""Errors that may concern one key alone."""

_OF_THE_API_KEY: Final = (AuthenticationError, RateLimitError)
"""Errors that concern all keys."""

_UNSHOWN: Final = 20
"""The number of known ids in a row that the server does not show, after which the sweep asks for no more of them.

The server then probably shows none of these keys to this API key now."""


async def sweep(service: CallService, store: SuspectStore, policy: SweepPolicy) -> SweepReport:
    """Look for the keys of all suspects once, and revoke those that are proven orphans; stop if the client is closed.

    Args:
        service: Reads and revokes, at the lowest priority.
        store: The store of suspects.
        policy: The limits of the sweep.

    Raises:
        ClientStateError: The client is closed, or was closed during the sweep.
        RespanError: The list could not be read, or a key could not be revoked. The suspects stay.
    """
    lifecycle = service.context.lifecycle
    lifecycle.check()
    task = lifecycle.tasks.spawn(_Sweep(service.lowest(), store, policy).run(), awaited=True)
    lifecycle.release(task)  # a closing client cancels the sweep, whose grace may be longer than the client's
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
        self._context = service.context
        self._store = store
        self._policy = policy
        self._search = KeySearch(service, store, max(ARRIVES_WITHIN, policy.grace))
        self._revoked: dict[str, Suspect] = {}
        self._expired: list[Suspect] = []
        self._failure: RespanError | None = None
        self._failed_in_a_row = 0

    async def run(self) -> SweepReport:
        """Sweep."""
        # Do not look for a suspect without a tag or an id, nor for one that expired long ago by any clock.
        gone, suspects = _parted(
            await self._store.pending(),
            lambda it: self._has_died(it, LONG_AFTER_EXPIRY if it.tag or it.id else AFTER_EXPIRY),
        )
        await self._expire(gone, "its key has expired")
        known, others = _parted(suspects, lambda it: it.id is not None and key_ids.is_usable_id(it.id))
        await self._revoke_known(known)
        self._failed_in_a_row = 0
        await self._look_for([suspect for suspect in others if suspect.tag])
        report = await self._report()
        if not self._policy.dry_run:
            self._context.dispatcher.emit(SweepEvent, revoked=len(report.revoked), left=len(report.left))
        if self._failure is not None:
            raise self._failure
        return report

    # ------------------------------------------------------- keys whose ids are known

    async def _revoke_known(self, suspects: Iterable[Suspect]) -> None:
        """Revoke the keys of the suspects that are due, and look for the keys that should have expired."""
        unshown = 0
        for suspect in self._context.sweep_memory.in_order(suspects):
            if not (self._is_due(suspect) or self._has_died(suspect, AFTER_EXPIRY)):
                continue
            try:
                is_shown = await self._revoke_by_id(suspect)
            except _OF_A_KEY as error:
                self._note_failure(error, suspect)
            else:
                unshown = 0 if is_shown else unshown + 1
                if not is_shown:
                    self._context.sweep_memory.put_last(suspect)
            if self._failed_in_a_row >= _SEVERAL or unshown >= _UNSHOWN:
                return

    async def _revoke_by_id(self, suspect: Suspect) -> bool:
        """Revoke a key whose id the server told, unless the key was recorded or used after all, and so has an owner.

        Returns:
            False if the server does not show the key, though it may be alive.
        """
        key_id = suspect.id or ""
        if await self._store.owns_key(key_id):
            return True
        key = await key_revocation.read(self._service, key_id)
        if key is None:
            if not self._has_died(suspect, AFTER_EXPIRY):
                return False
            await self._expire([suspect], "its key has expired, and is not there any more")
        elif is_another(suspect, key, self._context.skew.ahead):
            if self._context.sweep_memory.is_news(key_id):
                logger.warning("key %s was told for an attempt that did not make it, and is left alone", key_id)
        elif key.revoked:
            await self._expire([suspect], "another has revoked its key")
        elif self._may_be_revoked(key, suspect):
            await self._close(suspect, {key_id: await self._revoke(key_id, suspect)})
        return True

    # ---------------------------------------------------- keys that are found by tags

    async def _look_for(self, suspects: Sequence[Suspect]) -> None:
        """Look for the keys of the suspects that are due, and of those that should have expired."""
        dead, alive = _parted(suspects, lambda it: self._has_died(it, AFTER_EXPIRY))
        await self._wait_out([suspect for suspect in alive if self._is_due(suspect)])
        left = {suspect.tag for suspect in await self._store.pending()}  # skip suspects dismissed while we waited
        due = [it for it in suspects if it.tag in left and self._is_due(it)]
        dead = [it for it in dead if it.tag in left]
        if not due and not dead:
            return
        found = await self._search.find([*due, *dead], self._policy.is_doubtful)
        for suspect in self._context.sweep_memory.in_order(due):
            await self._revoke_found(suspect, found)
            if self._failed_in_a_row >= _SEVERAL:
                break
        # If an "expired" key is still listed, our clock is wrong: keep its suspect open.
        dead = [it for it in dead if not found.alive.get(it.tag or "")]
        await self._expire(dead, "its key has expired, and the list does not show it")

    async def _wait_out(self, suspects: Sequence[Suspect]) -> None:
        if not suspects:
            return
        grace = self._policy.grace
        youngest = max(suspect.sent_at for suspect in suspects)
        # Bounded by the grace, because a wall clock that was set back must not make the wait longer.
        seconds = min(max(grace - (self._context.clock() - youngest).total_seconds(), 0.0), grace)
        await self._context.pacer.clock.sleep(seconds)

    async def _revoke_found(self, suspect: Suspect, found: FoundKeys) -> None:
        """Revoke the keys that a suspect has left; read each one again first, because the list may be out of date."""
        tag = suspect.tag or ""
        ends: dict[str, KeyEnd] = {}
        failures: list[RespanError] = []
        is_unshown = False  # a key of several may be alive although the server does not show it now (rule 3)
        for key_id in found.left.get(tag, ()):
            try:
                key = await key_revocation.read(self._service, key_id)
                if key is None or key.revoked:
                    is_unshown |= key is None
                    found.alive[tag].discard(key_id)
                elif self._search.is_left_by(suspect, key) and self._may_be_revoked(key, suspect):
                    ends[key_id] = await self._revoke(key_id, suspect)
            except _OF_A_KEY as error:
                failures.append(error)
                if len(failures) >= _SEVERAL or isinstance(error, _OF_THE_API_KEY):
                    break
        found.alive[tag] -= {key_id for key_id, end in ends.items() if end is not KeyEnd.UNSEEN}
        is_unshown |= KeyEnd.UNSEEN in ends.values()
        await self._close(suspect, ends, failed=bool(failures) or is_unshown)
        for failure in failures:
            self._note_failure(failure, suspect)

    # ------------------------------------------------------------- what is proven

    def _now(self) -> datetime:
        """Return the earliest time by this machine's clock or the server's, because either may be wrong."""
        now, skew = self._context.clock(), self._context.skew
        return now + min(skew.ahead, skew.last_ahead, timedelta(0))

    def _is_due(self, suspect: Suspect) -> bool:
        """Whether the policy lets a suspect's key be revoked now."""
        return not self._policy.seconds_to_wait(suspect, self._now())

    def _has_died(self, suspect: Suspect, since: timedelta) -> bool:
        """Whether a suspect's key, if there is one, expired longer than `since` ago."""
        end = expires_at(suspect)
        return end is not None and end < self._now() - since  # `end + since` may exceed the year 9999

    def _may_be_revoked(self, key: TemporaryKey, suspect: Suspect) -> bool:
        """Whether a key is unused and its suspect is still due; if it is doubtful, the server must state "unused".

        The answer with the key has just told the server's time, so the suspect may no longer be due.
        """
        is_unused = not key.used and (key.used is False or not self._policy.is_doubtful(suspect))
        return is_unused and self._is_due(suspect)

    # ------------------------------------------------------------ what becomes of it

    async def _revoke(self, key_id: str, suspect: Suspect) -> KeyEnd:
        if self._policy.dry_run:
            return KeyEnd.REVOKED
        just_made = self._now() - suspect.sent_at < _JUST_MADE
        end = await key_revocation.revoke(self._service, key_id, just_made=just_made)
        if end is KeyEnd.REVOKED:
            self._failed_in_a_row = 0
        return end

    async def _close(self, suspect: Suspect, ends: Mapping[str, KeyEnd], *, failed: bool = False) -> None:
        """Close a suspect whose keys were revoked, and tell the hooks; if one key could not be revoked, keep it."""
        revoked = [key_id for key_id, end in ends.items() if end is KeyEnd.REVOKED]
        if self._policy.dry_run:
            self._revoked.update(dict.fromkeys(revoked, suspect))
        elif revoked:
            if not failed and not await self._store.close_suspect(suspect, revoked=True):
                return  # another sweep was faster
            for key_id in revoked:
                self._revoked[key_id] = suspect
                logger.info("revoked key %s, which nobody holds: %s", key_id, suspect.reason)
                self._context.dispatcher.emit(RevokedEvent, id=key_id, reason=suspect.reason)
        elif KeyEnd.GONE in ends.values() and not failed:
            await self._expire([suspect], "another has revoked its key")

    async def _expire(self, suspects: Sequence[Suspect], reason: str) -> None:
        """Close suspects whose keys have expired, or were revoked by another program."""
        for suspect in suspects:
            if self._policy.dry_run:
                if suspect not in self._revoked.values():
                    self._expired.append(suspect)
            elif await self._store.close_suspect(suspect, revoked=False):
                self._expired.append(suspect)
                logger.info("let go of suspect %r, whose key was not revoked: %s", suspect.id or suspect.name, reason)

    def _note_failure(self, error: RespanError, suspect: Suspect) -> None:
        """Remember a failure, so that other keys can still be revoked; raise it if it concerns more than its key."""
        self._context.sweep_memory.put_last(suspect)
        self._failure = self._failure or error
        self._failed_in_a_row += isinstance(error, PermissionDeniedError | InvalidResponseError) or error.retryable
        if isinstance(error, _OF_THE_API_KEY):
            raise error

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


def _parted(suspects: Sequence[Suspect], belongs: Callable[[Suspect], bool]) -> tuple[list[Suspect], list[Suspect]]:
    """Return the suspects for which `belongs` is true, and the others."""
    these: list[Suspect] = []
    others: list[Suspect] = []
    for suspect in suspects:
        (these if belongs(suspect) else others).append(suspect)
    return these, others
