"""What the sweeps of one client remember of each other."""

import random
from collections.abc import Iterable
from typing import Final

from respan_async.errors import Suspect

_MOST: Final = 10_000
"""Suspects, and keys, that are remembered."""


class SweepMemory:
    """Remember whose keys could not be revoked, so that they come last in the next sweep, and what the log has told."""

    def __init__(self) -> None:
        self._last: dict[str, None] = {}  # the one that failed last at the end
        self._told: dict[str, None] = {}

    def in_order(self, suspects: Iterable[Suspect]) -> list[Suspect]:
        """Return suspects in the order in which their keys are to be revoked.

        Those that did not fail before come first, in another order each time; then the one that failed longest ago.
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
        """Whether the log has not told yet that a key is left alone; from now on it has."""
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
