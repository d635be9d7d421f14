"""Revoking the keys that lost answers left behind, and nothing else.

Rules:

1. Only a key that carries our own random tag, at the end of its name, is ever looked for. The tag alone says whose it
   is: a server normalises names, a plan overrides limits, decimals come back as text and dates cut. A key that was used
   or handed out is somebody's, and left alone. It is asked for once more right before it is revoked. A key whose id the
   server told us, in the answer to our own POST, needs no further proof.
2. The list is read to its end before anything is deleted: deleting moves the pages under the reader.
3. Absence proves nothing. A key may be made long after we gave up, and pages shift under other processes: a suspect
   ends by being revoked, or by its expiry.
4. An expiry is the server's, and this machine's clock may be set wrong: a key that should have died by itself is looked
   for once more before its suspect ends.
"""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from respan_async._calls.lifecycle import Lifecycle, Stage
from respan_async._calls.pagination import Listing
from respan_async._calls.service import Service
from respan_async._calls.suspects import SuspectStore, expires_at, tag_in
from respan_async._http import codec, protocol
from respan_async.errors import (
    APIStatusError,
    AuthenticationError,
    ClientStateError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RespanError,
    Suspect,
)
from respan_async.events import RevokedEvent, SweepEvent, logger
from respan_async.models import TemporaryKey

GRACE: Final = 60.0
"""Seconds to wait after an attempt before its key is looked for: a server may make it after we gave up."""

EVERY: Final = 600.0
"""Seconds from one sweep to the next, when nobody asks for them."""

AFTER_EXPIRY: Final = timedelta(hours=1)
"""How long past its expiry a key may be alive, by a local clock that may be fast."""

LONG_AFTER_EXPIRY: Final = timedelta(days=7)
"""The same by a clock that may be set wrong: before that, nothing is given up that cannot be had again."""


_PAGE: Final = 100
"""Keys on a page of the list."""


@attrs.frozen(kw_only=True)
class SweepReport:
    """What a sweep did, and not what another did at the same time.

    Attributes:
        revoked: The ids of the keys it revoked.
        expired: The suspects whose key has died by itself.
        left: The suspects that are left, those without a tag among them.
    """

    revoked: tuple[str, ...]
    expired: tuple[Suspect, ...]
    left: tuple[Suspect, ...]


async def sweep(service: Service, store: SuspectStore, grace: float = GRACE) -> SweepReport:
    """Look for the keys of all suspects once, and revoke those that are proven; until the client is closed.

    Args:
        service: Reads and revokes, behind everything else.
        store: Where the suspects are kept.
        grace: Seconds to let pass after the last suspect's attempt, before the list is read.

    Raises:
        ClientStateError: The client is closed, or was closed meanwhile.
        RespanError: The list could not be read, or a key not be revoked. The suspects stay.
    """
    lifecycle = service.context.lifecycle
    lifecycle.check()
    task = lifecycle.spawn(_sweep(service.lowest(), store, grace))
    lifecycle.release(task)  # its grace may be longer than that of a client which is being closed
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        raise ClientStateError("the client was closed during the sweep")
    return task.result()


async def _sweep(service: Service, store: SuspectStore, grace: float) -> SweepReport:
    clock = service.context.clock
    # What cannot be looked for, or has long been dead by any clock, need not be looked for.
    gone, suspects = _parted(
        await store.pending(), lambda it: _has_died(it, clock(), LONG_AFTER_EXPIRY if it.tag else AFTER_EXPIRY)
    )
    expired = [suspect for suspect in gone if await store.close_suspect(suspect, revoked=False)]
    revoked: dict[str, Suspect] = {}
    failure: RespanError | None = None
    for suspect in [suspect for suspect in suspects if suspect.id is not None]:
        try:
            await _revoke(suspect.id or "", suspect, service, store, revoked)
        except (APIStatusError, InvalidRequestError) as error:
            failure = failure or error  # about this one key; the others are revoked all the same
    tagged = [suspect for suspect in suspects if suspect.id is None and suspect.tag is not None]
    if tagged:
        dead, alive = _parted(tagged, lambda it: _has_died(it, clock(), AFTER_EXPIRY))
        await _wait_out(alive, grace, clock)
        for key_id, suspect in await _proven(tagged, service, store):
            if await _still(key_id, suspect, service):
                await _revoke(key_id, suspect, service, store, revoked)
        expired += [suspect for suspect in dead if await store.close_suspect(suspect, revoked=False)]
    report = SweepReport(revoked=tuple(revoked), expired=tuple(expired), left=tuple(await store.pending()))
    service.context.dispatcher.emit(SweepEvent, revoked=len(report.revoked), left=len(report.left))
    if failure is not None:
        raise failure
    return report


def _parted(suspects: Sequence[Suspect], died: Callable[[Suspect], bool]) -> tuple[list[Suspect], list[Suspect]]:
    """Return those that have died, and the others."""
    dead: list[Suspect] = []
    alive: list[Suspect] = []
    for suspect in suspects:
        (dead if died(suspect) else alive).append(suspect)
    return dead, alive


def _has_died(suspect: Suspect, now: datetime, since: timedelta) -> bool:
    """Whether a suspect's key, if there is one, has died by itself that long ago, by this machine's clock."""
    end = expires_at(suspect)
    return end is not None and end + since < now


async def _wait_out(suspects: Sequence[Suspect], grace: float, clock: Callable[[], datetime]) -> None:
    if not suspects:
        return
    youngest = max(suspect.sent_at for suspect in suspects)
    # Bounded by the grace itself: a wall clock that was set back must not make it longer.
    await asyncio.sleep(min(max(grace - (clock() - youngest).total_seconds(), 0.0), grace))


async def _proven(suspects: Sequence[Suspect], service: Service, store: SuspectStore) -> list[tuple[str, Suspect]]:
    """Read the list to its end, and return the ids of the keys that are a suspect's."""
    by_tag = {suspect.tag: suspect for suspect in suspects}
    found: dict[str, Suspect] = {}  # without what else the keys hold, which may be a lot
    async for key in Listing(service, 1, _PAGE):
        suspect = by_tag.get(tag_in(key.name)) if codec.is_usable_id(key.id) else None
        if suspect is not None and is_left_by(suspect, key) and not await store.owns_key(key.id):
            found[key.id] = suspect
    return list(found.items())


async def _still(key_id: str, suspect: Suspect, service: Service) -> bool:
    """Ask for a key again: what the list said may be old."""
    try:
        return is_left_by(suspect, await service.send(protocol.retrieve(key_id)))
    except NotFoundError:
        return False


async def _revoke(
    key_id: str, suspect: Suspect, service: Service, store: SuspectStore, revoked: dict[str, Suspect]
) -> None:
    with contextlib.suppress(NotFoundError):
        await service.send(protocol.delete(key_id))
    if not await store.close_suspect(suspect, revoked=True) and suspect not in revoked.values():
        return  # another sweep was faster; a suspect of this one may have left two keys
    revoked[key_id] = suspect
    logger.info("revoked key %s, which nobody holds: %s", key_id, suspect.reason)
    service.context.dispatcher.emit(RevokedEvent, id=key_id, reason=suspect.reason)


def is_left_by(suspect: Suspect, key: TemporaryKey) -> bool:
    """Whether this key is the one that a suspect's attempt made, and nobody has used it."""
    return bool(suspect.tag) and suspect.tag == tag_in(key.name) and not (key.revoked or key.used)


class AutoSweep:
    """Sweep by itself while there are suspects, at most every ten minutes.

    Args:
        once: Sweeps once.
        store: Where the suspects are kept.
        lifecycle: Where the task belongs.
        every: Seconds between two sweeps.
    """

    def __init__(
        self,
        once: Callable[[], Awaitable[object]],
        store: SuspectStore,
        lifecycle: Lifecycle,
        every: float = EVERY,
    ) -> None:
        self._once = once
        self._store = store
        self._lifecycle = lifecycle
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._woken = self._refused = False
        self._last = -math.inf
        lifecycle.register(Stage.STOP, self._stop)

    def wake(self) -> None:
        """There may be a suspect."""
        self._woken = True
        if self._refused or self._lifecycle.closing or (self._task is not None and not self._task.done()):
            return
        # In a context of its own: it outlives the call that has left the suspect.
        self._task = self._lifecycle.spawn(self._run(), contextvars.Context())

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._woken:
            self._woken = False
            try:
                if await self._store.pending():
                    self._woken = True  # until there are none, looked at after this sweep
                    await asyncio.sleep(max(self._last + self._every - loop.time(), 0.0))
                    self._last = loop.time()
                    await self._once()
            except (PermissionDeniedError, AuthenticationError) as error:
                self._refused = True
                logger.warning("this API key may not sweep (%s); suspects are only reported", type(error).__name__)
                return
            except ClientStateError:
                return
            except RespanError as error:
                logger.info("a sweep did not get through: %s", type(error).__name__)
