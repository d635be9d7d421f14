"""Loads SQL statements from files; each statement follows a line `-- name: something`."""

import functools
import re
from importlib import resources
from typing import Final

from respan_async.issuing.states import AttemptState, TicketState

STATES: Final = {state.name.lower(): str(state) for state in (*TicketState, *AttemptState)}
"""The states, under the names that statements use for them."""

_NAME: Final = re.compile(r"^-- name: (\w+)$", flags=re.MULTILINE)


@functools.cache
def load(file: str) -> dict[str, str]:
    """Return the statements of a file in this package, by name."""
    text = resources.files("respan_async.issuing").joinpath(file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)}
