"""Decides which failures of items end a batch.

Rules:

1. These end it, because no item would succeed: a key that the server does not accept, a closed client, a wrong setting,
   and a connection that no further attempt will mend (an invalid certificate, a demand of the proxy).
2. An exhausted quota ends it.
3. An answer that every item may get (a redirect, a 403, a missing route, a 2xx without a key) counts as the item's own,
   until several such answers come in a row with no key made in between.
4. A 403 can also mean that the API key is not accepted. So the batch raises a 403 that every item got, however few
   items there were.
"""

from collections import deque
from typing import Final

from respan_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    ClientStateError,
    ConfigurationError,
    Effect,
    InvalidResponseError,
    PermissionDeniedError,
    RespanError,
)

_FATAL: Final = (AuthenticationError, ClientStateError, ConfigurationError)

_SEVERAL: Final = 10
_SEVERAL_FORBIDDEN: Final = 5
"""The number of such answers in a row that is no coincidence; lower for a 403, which can also mean that the API key is
not accepted."""

_OF_AN_ITEM: Final = frozenset({400, 409, 413, 422, 429})
"""Statuses that concern one item's request, or its time."""


class BatchFailures:
    """Judge the failures of a batch, one after the other."""

    def __init__(self) -> None:
        self._alike: deque[RespanError] = deque(maxlen=_SEVERAL)  # answers in a row that every item may get

    def made(self) -> None:
        """Note that a key was made."""
        self._alike.clear()

    def ends_batch(self, error: RespanError, *, halted: bool) -> bool:
        """Note the failure of an item; return whether it concerns more than that item (rules 1 and 3).

        Args:
            error: The failure.
            halted: Whether the batch was stopped, so that unsent items fail through no fault of the client.
        """
        if halted:  # an abandoned item tells nothing about the next one
            return isinstance(error, _FATAL) and not isinstance(error, ClientStateError)
        if _may_be_of_all(error):
            self._alike.append(error)
            forbidden = sum(isinstance(one, PermissionDeniedError) for one in self._alike)
            return len(self._alike) >= _SEVERAL or forbidden >= _SEVERAL_FORBIDDEN
        return isinstance(error, _FATAL) or (isinstance(error, APIConnectionError) and not error.retryable)

    def of_all(self, made_or_failed: int) -> RespanError | None:
        """Return the 403 that every outcome was (rule 4); None if any outcome was another."""
        forbidden = [error for error in self._alike if isinstance(error, PermissionDeniedError)]
        return forbidden[-1] if forbidden and len(forbidden) == made_or_failed else None


def _may_be_of_all(error: RespanError) -> bool:
    """Whether another item would most likely fail as well: the host, the route or the API key is wrong."""
    if isinstance(error, APIStatusError):
        return not isinstance(error, AuthenticationError) and not error.retryable and error.status not in _OF_AN_ITEM
    # A key that was dead on arrival has no effect, and only its own expiry caused that.
    return isinstance(error, InvalidResponseError) and error.effect is not Effect.NONE
