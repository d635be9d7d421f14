"""Remembers, from one sweep of a client to the next, which keys failed and what the log has said."""

import random
from collections.abc import Iterable
from typing import Final

from respan_async.errors import Suspect

_MOST: Final = 10_000
"""The most suspects that are remembered, and the most keys."""


class SweepMemory:
    """Remember the suspects whose keys could not be revoked, and the keys that the log has named.

    The next sweep takes those suspects last.
    """

    def __init__(self) -> None:
        self._last: dict[str, None] = {}  # in the order of their failures
        self._told: dict[str, None] = {}

    def in_order(self, suspects: Iterable[Suspect]) -> list[Suspect]:
        """Return suspects in the order in which their keys are to be revoked.

        Suspects that have not failed come first, in random order; then the others, and the longest ago failed first.
        """
        places = {name: place for place, name in enumerate(self._last)}
        shuffled = list(suspects)
        random.shuffle(shuffled)
        return sorted(shuffled, key=lambda suspect: places.get(_name_of(suspect), -1))

    def put_last(self, suspect: Suspect) -> None:
        """Note that a suspect's key could not be revoked."""
        self._last.pop(_name_of(suspect), None)
        _add(self._last, _name_of(suspect))

    def is_news(self, key_id: str) -> bool:
        """Return whether the log has not named a key yet; note that it does so now."""
        if key_id in self._told:
            return False
        _add(self._told, key_id)
        return True


def _name_of(suspect: Suspect) -> str:
    return suspect.id or suspect.tag or ""


def _add(names: dict[str, None], name: str) -> None:
    names[name] = None
    if len(names) > _MOST:
        del names[next(iter(names))]
