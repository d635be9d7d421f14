"""Adapts a ledger to the `SuspectStore` that the sweep and the attempts use."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from respan_async.errors import Suspect
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.issuing.ledger import Ledger
from respan_async.issuing.states import AttemptState

_MOST_SAID: Final = 500
"""The most characters of a suspect's reason that are stored."""


class LedgerSuspectStore:
    """A `SuspectStore` in a ledger.

    Args:
        ledger: Where the suspects are kept.
        writes: Writes them.
        added: Called with one that has been added.
    """

    def __init__(self, ledger: Ledger, writes: BackgroundWrites, added: Callable[[Suspect], object]) -> None:
        self._ledger = ledger
        self._writes = writes
        self._added = added

    def add(self, suspect: Suspect) -> None:
        """Remember a suspect, soon. If the write fails, the intent alone still counts as a suspect."""
        self._writes.add(partial(self._write, suspect))

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        return await self._ledger.suspects()

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id belongs to a ticket."""
        return await self._ledger.owns_key(key_id)

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Remove a suspect whose key was revoked, or else has expired; return whether it was still there."""
        return await self._ledger.close_suspect(
            suspect.tag or "", AttemptState.REVOKED if revoked else AttemptState.EXPIRED
        )

    async def _write(self, suspect: Suspect) -> None:
        reason = "".join(letter if letter.isprintable() else " " for letter in suspect.reason[:_MOST_SAID])
        await self._ledger.mark_suspect(suspect.tag or "", suspect.effect, reason, suspect.id)
        self._added(suspect)
