"""The log in which the attempts of calls are noted; the default one keeps only suspects, in memory."""

from typing import Any

from respan_async._calls.prepared_request import PreparedRequest
from respan_async._calls.suspect_store import SuspectStore
from respan_async.errors import Suspect


class AttemptLog:
    """The default attempt log: it keeps only suspects, in memory. Subclasses may record every attempt.

    Args:
        suspects: The store of suspects.
        tag_names: Whether every name that is sent carries a fresh random tag.
    """

    def __init__(self, suspects: SuspectStore, *, tag_names: bool) -> None:
        self._suspects = suspects
        self.tag_names = tag_names

    async def claim_attempt(self, prepared: PreparedRequest[Any]) -> None:
        """Note an attempt, after it has its slot and its tag, and before any byte may leave."""

    def permits(self) -> bool:
        """Whether the attempt may still be sent, asked when its first byte is about to leave."""
        return True

    def mark_void(self, prepared: PreparedRequest[Any], *, answered: bool = False) -> None:
        """Note that an attempt is proven to have left nothing.

        Args:
            prepared: The attempt.
            answered: Whether the attempt used its slot of the limit; if False, it was refused for now, or never sent.
        """

    def mark_suspect(self, suspect: Suspect) -> None:
        """Note that an attempt may have left a key."""
        self._suspects.add(suspect)
