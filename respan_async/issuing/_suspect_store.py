"""The suspects of a ledger, as the sweep and the attempts see them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from respan_async.errors import Suspect
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.issuing.ledger import Ledger
from respan_async.issuing.states import AttemptState

_MOST_SAID: Final = 500
"""Characters of a suspect's reason that are kept."""


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
        """Remember a suspect, soon. Should it not be written, the intent alone says as much."""
        self._writes.add(partial(self._write, suspect))

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        return await self._ledger.suspects()

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id is a ticket's."""
        return await self._ledger.owns_key(key_id)

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Let go of a suspect: its key was revoked, or else has died by itself; return whether it was one still."""
        return await self._ledger.close_suspect(
            suspect.tag or "", AttemptState.REVOKED if revoked else AttemptState.EXPIRED
        )

    async def _write(self, suspect: Suspect) -> None:
        reason = "".join(letter if letter.isprintable() else " " for letter in suspect.reason[:_MOST_SAID])
        await self._ledger.mark_suspect(suspect.tag or "", suspect.effect, reason, suspect.id)
        self._added(suspect)
