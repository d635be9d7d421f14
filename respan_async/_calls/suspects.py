"""What is remembered of attempts that may have left a key nobody holds."""

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from respan_async.errors import Suspect
from respan_async.events import logger
from respan_async.models import MAX_NAME

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_MARK: Final = " ~"
_TAG: Final = 12
MAX_TAGGED_NAME: Final = MAX_NAME - len(_MARK) - _TAG
"""Characters left for a name that is to carry a tag."""


MOST: Final = 10_000
MOST_UNTRACEABLE: Final = 1_000
"""Suspects that are kept in memory, and those among them that have neither a tag nor an id."""

_TO_ALPHABET: Final = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))


def new_tag() -> str:
    """Return 12 random base-32 characters: 60 bits, the proof that a key comes from one certain attempt.

    Of the system's, each for itself: what is kept ready in memory would be the same in a copy of this process, by a
    fork or by a snapshot of its machine, and then one of them would revoke what the other holds.
    """
    return secrets.token_bytes(_TAG).translate(_TO_ALPHABET).decode("ascii")


def tagged(name: str, tag: str) -> str:
    """Return a name with its tag."""
    return f"{name}{_MARK}{tag}" if name else f"{_MARK}{tag}".lstrip()


def tag_in(name: str | None) -> str:
    """Return what would be the tag at the end of a key's name, which the server may have normalised.

    Sixty random bits in letters of one case: white space after them and their case say nothing.
    """
    return (name or "").rstrip()[-_TAG:].lower()


class SuspectStore(Protocol):
    """Where suspects are kept."""

    def add(self, suspect: Suspect) -> None:
        """Remember a suspect."""
        ...

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        ...

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id was handed out, and so is somebody's."""
        ...

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Let go of a suspect: its key was revoked, or else has died by itself; return whether it was one still."""
        ...


class InMemorySuspectStore:
    """Suspects in this process's memory, a bounded number of them: of those that cannot be found, fewer.

    Attributes:
        added: Called with each suspect that is added.
    """

    def __init__(self) -> None:
        self._findable: deque[Suspect] = deque()  # by their tags or ids
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
        """Forget a suspect; return whether it was one still."""
        kept, _ = self._kept(suspect)
        # Two sweeps at once, or two keys with one tag, may let go of the same one.
        if suspect not in kept:
            return False
        kept.remove(suspect)
        return True

    async def pending(self) -> Sequence[Suspect]:
        """Return all suspects."""
        return tuple(self)

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id was handed out, and so is somebody's."""
        # Every attempt has a tag of its own, and an attempt that became a suspect has handed out nothing.
        return False

    async def close_suspect(self, suspect: Suspect, *, revoked: bool) -> bool:
        """Let go of a suspect: its key was revoked, or else has died by itself; return whether it was one still."""
        return self.dismiss(suspect)

    def _kept(self, suspect: Suspect) -> tuple[deque[Suspect], int]:
        """Return where a suspect is kept, and how many at most."""
        return (self._findable, MOST) if suspect.tag or suspect.id else (self._untraceable, MOST_UNTRACEABLE)


def expires_at(suspect: Suspect) -> datetime | None:
    """Return when a suspect's key dies by itself, if it does."""
    value = suspect.sent.get("expiry_date")
    return datetime.fromisoformat(value) if isinstance(value, str) else None
