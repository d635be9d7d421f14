"""Reads the account's list of keys, and finds those of suspects by their tags."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs

from respan_async._calls.call_service import CallService
from respan_async._calls.key_origin import is_left_by, is_made_late
from respan_async._calls.name_tags import tag_in
from respan_async._calls.pagination import Listing
from respan_async._calls.suspect_store import SuspectStore
from respan_async._http import key_ids
from respan_async._http.redaction import printable
from respan_async.errors import Suspect
from respan_async.events import logger
from respan_async.models import TemporaryKey

_PAGE: Final = 100
"""The number of keys on a page of the list."""


def _ids_by_tag() -> defaultdict[str, set[str]]:
    return defaultdict(set)  # sets, because a key may be on two pages


@attrs.frozen
class FoundKeys:
    """By the tag of a suspect, the ids of the keys in the list that have this tag and are not revoked.

    Attributes:
        alive: The ids of all these keys.
        left: The ids of the keys that the attempt has left, as far as the list tells, and that may be revoked.
    """

    alive: dict[str, set[str]] = attrs.field(factory=_ids_by_tag)
    left: dict[str, set[str]] = attrs.field(factory=_ids_by_tag)


class KeySearch:
    """Find the keys of suspects by their tags.

    Args:
        service: Reads the list.
        store: Knows which keys were handed out.
        within: Seconds after its attempt in which a key may be made.
    """

    def __init__(self, service: CallService, store: SuspectStore, within: float) -> None:
        self._service = service
        self._store = store
        self._within = within

    async def find(self, suspects: Sequence[Suspect], is_doubtful: Callable[[Suspect], bool]) -> FoundKeys:
        """Read the list to its end.

        Args:
            suspects: Suspects with a tag.
            is_doubtful: Whether a suspect's key may be in use. If several keys have its tag, none is revoked, because
                one of them may be in use, and the sweep cannot know which. For any suspect, none is revoked if one of
                several keys may be a copy.
        """
        by_tag = {suspect.tag: suspect for suspect in suspects}
        # Keep only ids and times, because the keys' other fields may take much memory.
        found = FoundKeys()
        made: defaultdict[str, list[datetime]] = defaultdict(list)
        async for key in Listing(self._service, 1, _PAGE):
            tag = tag_in(key.name)
            suspect = by_tag.get(tag)
            if suspect is None or key.revoked:
                continue
            found.alive[tag].add(key.id)
            if key.created_at is not None:
                made[tag].append(key.created_at)
            is_usable = key_ids.is_usable_id(key.id) and self.is_left_by(suspect, key)
            if is_usable and not await self._store.owns_key(key.id):
                found.left[tag].add(key.id)
        for tag, ids in found.alive.items():
            if len(ids) > 1 and (is_doubtful(by_tag[tag]) or self._is_copied(ids, made[tag])):
                found.left.pop(tag, None)
        return found

    def is_left_by(self, suspect: Suspect, key: TemporaryKey) -> bool:
        """Whether a suspect's attempt has left a key, as far as the key itself tells."""
        return is_left_by(suspect, key) and not self._is_copy(suspect, key)

    def _is_copy(self, suspect: Suspect, key: TemporaryKey) -> bool:
        """Whether another program may have made a key with a suspect's tag, by copying the name."""
        is_late = is_made_late(suspect, key, self._service.context.skew.ahead, self._within)
        if is_late:
            self._tell_copy([key.id])
        return is_late

    def _is_copied(self, ids: Iterable[str], made: Sequence[datetime]) -> bool:
        """Whether keys with one tag were made so long after each other that a program may have copied the name."""
        is_copied = bool(made) and (max(made) - min(made)).total_seconds() > self._within
        if is_copied:
            self._tell_copy(ids)
        return is_copied

    def _tell_copy(self, ids: Iterable[str]) -> None:
        told = [key_id for key_id in ids if self._service.context.sweep_memory.is_news(key_id)]
        if told:
            logger.warning(
                "left alone, because another program may have copied the name with its tag, or a clock was set: key %s",
                ", ".join(map(printable, told)),
            )
