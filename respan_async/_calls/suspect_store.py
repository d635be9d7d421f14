"""Stores suspects: attempts that may have left an orphaned key. Defines the protocol and the store in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from respan_async.errors import Suspect
from respan_async.events import logger

MOST: Final = 10_000
MOST_UNTRACEABLE: Final = 1_000
"""The most suspects kept in memory: those with a tag or an id, and those with neither."""


class SuspectStore(Protocol):
    """A place that keeps suspects."""

    def add(self, suspect: Suspect) -> None:
        """Remember a suspect."""
        ...

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        ...

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id was handed out, and so has an owner."""
        ...

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Remove a suspect whose key was revoked, or else has expired; return whether it was still there."""
        ...


class InMemorySuspectStore:
    """A bounded number of suspects in this process's memory; the bound is lower for those that no sweep can find.

    Attributes:
        added: Called with each suspect that is added.
    """

    def __init__(self) -> None:
        self._findable: deque[Suspect] = deque()  # by tag or id
        self._untraceable: deque[Suspect] = deque()
        self._overflown = False
        self.added: Callable[[Suspect], object] = lambda _: None

    def __iter__(self) -> Iterator[Suspect]:
        return iter(sorted((*self._findable, *self._untraceable), key=lambda suspect: suspect.sent_at))

    def __len__(self) -> int:
        return len(self._findable) + len(self._untraceable)

    def add(self, suspect: Suspect) -> None:
        """Remember a suspect."""
        kept, most = self._kept(suspect)
        kept.append(suspect)
        if len(kept) > most:
            kept.popleft()
            if not self._overflown:
                self._overflown = True
                logger.warning("more than %d suspects: from now on the oldest are forgotten", most)
        self.added(suspect)

    def dismiss(self, suspect: Suspect) -> bool:
        """Forget a suspect; return whether it was still there."""
        kept, _ = self._kept(suspect)
        # Two concurrent sweeps, or two keys with one tag, may remove the same suspect.
        if suspect not in kept:
            return False
        kept.remove(suspect)
        return True

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        return tuple(self)

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id was handed out, and so has an owner."""
        # Every attempt has its own tag, and an attempt that became a suspect has handed out no key.
        return False

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Remove a suspect whose key was revoked, or else has expired; return whether it was still there."""
        return self.dismiss(suspect)

    def _kept(self, suspect: Suspect) -> tuple[deque[Suspect], int]:
        """Return the queue that keeps a suspect, and the most that it keeps."""
        return (self._findable, MOST) if suspect.tag or suspect.id else (self._untraceable, MOST_UNTRACEABLE)


def expires_at(suspect: Suspect) -> datetime | None:
    """Return when a suspect's key expires, if it does."""
    value = suspect.sent.get("expiry_date")
    return datetime.fromisoformat(value) if isinstance(value, str) else None
