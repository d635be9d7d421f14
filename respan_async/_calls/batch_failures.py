"""Which failures of items end a batch.

Rules:

1. A key that the server does not accept, a client that is closed, and a wrong setting end it: no item would succeed.
   So does a connection that no attempt will mend: a certificate that does not verify, or what a proxy asks for.
2. So does an exhausted quota.
3. An answer that may be every item's (a redirect, a 403, a missing route, a 2xx without a key) is the item's own,
   until several such come in a row with nothing made in between.
4. By a 403 the server also says that the API key is not accepted. So a 403 of every item is raised, however few there
   were.
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
"""So many items in a row with an answer that may be every item's are no chance; of a 403, by which the server also says
that the API key is not accepted, fewer."""

_OF_AN_ITEM: Final = frozenset({400, 409, 413, 422, 429})
"""Statuses that are about what was sent for one item, or about when."""


class BatchFailures:
    """Look at one failure after the other."""

    def __init__(self) -> None:
        self._alike: deque[RespanError] = deque(maxlen=_SEVERAL)  # in a row, what may be every item's

    def made(self) -> None:
        """Note that a key was made."""
        self._alike.clear()

    def ends_batch(self, error: RespanError, *, halted: bool) -> bool:
        """Note the failure of an item; return whether it is not about that item alone (rules 1 and 3).

        Args:
            error: The failure.
            halted: What was not sent was given up already, which is no failure of the client's.
        """
        if halted:  # and what was given up tells nothing of the next item
            return isinstance(error, _FATAL) and not isinstance(error, ClientStateError)
        if _may_be_of_all(error):
            self._alike.append(error)
            forbidden = sum(isinstance(one, PermissionDeniedError) for one in self._alike)
            return len(self._alike) >= _SEVERAL or forbidden >= _SEVERAL_FORBIDDEN
        return isinstance(error, _FATAL) or (isinstance(error, APIConnectionError) and not error.retryable)

    def of_all(self, made_or_failed: int) -> RespanError | None:
        """Return the 403 that so many outcomes were, all of them (rule 4); None if they were not."""
        forbidden = [error for error in self._alike if isinstance(error, PermissionDeniedError)]
        return forbidden[-1] if forbidden and len(forbidden) == made_or_failed else None


def _may_be_of_all(error: RespanError) -> bool:
    """Whether another item would most likely fare no better: the host, the route or the API key is wrong."""
    if isinstance(error, APIStatusError):
        return not isinstance(error, AuthenticationError) and not error.retryable and error.status not in _OF_AN_ITEM
    # A key that was dead when it was made is of no effect, and a matter of its own expiry.
    return isinstance(error, InvalidResponseError) and error.effect is not Effect.NONE
