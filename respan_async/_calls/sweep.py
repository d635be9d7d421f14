"""Revoking the keys that lost answers left behind, and nothing else.

An orphan is harmless, because nobody has ever seen its secret; a key that somebody holds and that is revoked is an
outage. So when in doubt, a key is left alive. Rules:

1. Only a key that carries our own random tag, at the end of its name, is ever looked for. The tag alone says whose it
   is: a server normalises names, a plan overrides limits, decimals come back as text and dates cut. A key that was used
   or handed out is somebody's, and left alone. It is asked for once more right before it is revoked. A key whose id the
   server told us, in the answer to our own POST, needs no tag.
2. The list is read to its end before anything is deleted: deleting moves the pages under the reader.
3. Absence proves nothing, from the list or of a known id. A key may be made long after we gave up, pages shift under
   other processes, and an API key of another account sees none of ours: a suspect ends by being revoked, or by its
   expiry; one without an expiry stays. Known ids that the server does not show are asked for last, a few each time.
4. An expiry is the server's, and this machine's clock may be set wrong: a key that should have died by itself is looked
   for once more before its suspect ends. While the list shows it, its suspect stays.
5. A suspect that was *taken over* may be another's key: in a copy of a ledger, the answer may have been recorded since,
   elsewhere. By itself a sweep revokes it only a day after the takeover, only if the server states that the key was
   never used, and only if no other key has its tag. A person may say that there is no such copy. The day has to have
   passed by this machine's clock and by the server's, which is asked for the key right before it is revoked.
6. A 404 to a DELETE proves little (`key_revocation.py`). A tag that was copied to another key proves nothing: a key
   that was made long after the attempt is left alone, and so are keys with one tag that were made long after each
   other (`key_origin.py`).
7. Keys that cannot be revoked hold up no others: keys are taken in another order each time, those that could not be
   revoked before come last, and the list is read whatever became of the known ids.
8. The log names each suspect that is let go without this sweep having revoked its key.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from respan_async._calls import key_revocation
from respan_async._calls.call_service import CallService
from respan_async._calls.key_origin import ARRIVES_WITHIN, is_another, is_left_by
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
"""The number of keys in a row, refused by a 403 or an outage, after which the sweep stops."""

_OF_A_KEY: Final = (APIConnectionError, APIStatusError, InvalidRequestError, InvalidResponseError)
"""Errors that may concern one key alone."""

_OF_THE_API_KEY: Final = (AuthenticationError, RateLimitError)
"""What is the matter with all keys."""

_UNSHOWN: Final = 20
"""So many known keys in a row that the server does not show say that it shows this API key none of them now."""


async def sweep(service: CallService, store: SuspectStore, policy: SweepPolicy) -> SweepReport:
    """Look for the keys of all suspects once, and revoke those that are proven; until the client is closed.

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
    task = lifecycle.tasks.spawn(_Sweep(service.lowest(), store, policy).run(), awaited=True)
    lifecycle.release(task)  # its grace may be longer than that of a client which is being closed
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
        # A suspect that cannot be looked for, or that expired long ago by any clock, is not looked for.
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
        """Revoke the keys of those that are due, and look for those that should have died by themselves."""
        unshown = 0
        for suspect in self._context.sweep_memory.in_order(suspects):
            if not (self._is_due(suspect) or self._has_died(suspect, AFTER_EXPIRY)):
                continue
            try:
                is_shown = await self._revoke_by_id(suspect.id or "", suspect)
            except _OF_A_KEY as error:
                self._note_failure(error, suspect)
            else:
                unshown = 0 if is_shown else unshown + 1
                if not is_shown:
                    self._context.sweep_memory.put_last(suspect)
            if self._failed_in_a_row >= _SEVERAL or unshown >= _UNSHOWN:
                return

    async def _revoke_by_id(self, key_id: str, suspect: Suspect) -> bool:
        """Revoke a key whose id the server told: unless it was recorded or used after all, and so is somebody's.

        Returns:
            False where the server does not show the key, though it may be alive.
        """
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
        """Revoke the keys that a suspect has left, after another look at each: what the list said may be old."""
        tag = suspect.tag or ""
        ends: dict[str, KeyEnd] = {}
        failures: list[RespanError] = []
        for key_id in found.left.get(tag, ()):
            try:
                key = await key_revocation.read(self._service, key_id)
                if key is None or key.revoked:
                    found.alive[tag].discard(key_id)
                elif self._is_left_by(suspect, key) and self._may_be_revoked(key, suspect):
                    ends[key_id] = await self._revoke(key_id, suspect)
            except _OF_A_KEY as error:
                failures.append(error)
                if len(failures) >= _SEVERAL or isinstance(error, _OF_THE_API_KEY):
                    break
        found.alive[tag] -= {key_id for key_id, end in ends.items() if end is not KeyEnd.UNSEEN}
        await self._close(suspect, ends, failed=bool(failures))
        for failure in failures:
            self._note_failure(failure, suspect)

    def _is_left_by(self, suspect: Suspect, key: TemporaryKey) -> bool:
        return is_left_by(suspect, key) and not self._search.is_copy(suspect, key)

    # ------------------------------------------------------------- what is proven

    def _now(self) -> datetime:
        """Return the earliest time by this machine's clock or the server's, because either may be wrong."""
        now, skew = self._context.clock(), self._context.skew
        return now + min(skew.ahead, skew.last_ahead, timedelta(0))

    def _is_due(self, suspect: Suspect) -> bool:
        """Whether a suspect's key need not be left alone any longer."""
        return not self._policy.seconds_to_wait(suspect, self._now())

    def _has_died(self, suspect: Suspect, since: timedelta) -> bool:
        """Whether a suspect's key, if there is one, has died by itself that long ago."""
        end = expires_at(suspect)
        return end is not None and end < self._now() - since  # and not `end + since`: there is no year 10,000

    def _may_be_revoked(self, key: TemporaryKey, suspect: Suspect) -> bool:
        """Whether nobody has used a key, which for one that may be somebody's has to be stated; and it is due still.

        The answer that shows the key has just told the server's time.
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
        """Let go of a suspect whose keys were revoked, and tell it; if one of them could not be, it stays a suspect."""
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
        """Let go of suspects whose keys have died without this sweep."""
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
    """Return those for which something holds, and the others."""
    these: list[Suspect] = []
    others: list[Suspect] = []
    for suspect in suspects:
        (these if belongs(suspect) else others).append(suspect)
    return these, others
