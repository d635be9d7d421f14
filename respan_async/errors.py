"""The exceptions of this library, on one screen.

    RespanError
    ├── ConfigurationError          (also ValueError)  a wrong setting, at construction
    ├── InvalidRequestError         (also ValueError)  a wrong argument; nothing was sent
    ├── ClientStateError                               closed, used before a fork, or on a second loop
    ├── APIConnectionError                             no whole answer came
    │   └── APITimeoutError                            ... in time
    ├── InvalidResponseError                           an answer that is not the documented one
    ├── DeadlineExceededError       (also TimeoutError) the whole call's time is up
    ├── LedgerError                                    the ledger could not be read or written
    │   └── TicketConflictError                        a ticket was issued before, with other fields
    └── APIStatusError                                 the server refused
        ├── BadRequestError 400        ├── AuthenticationError 401   ├── PermissionDeniedError 403
        ├── NotFoundError 404          ├── ConflictError 409         ├── UnprocessableEntityError 422
        └── RateLimitError 429         └── InternalServerError 5xx

The class says what was *seen*. `effect` says what it *means* for what exists on the server, and `retryable` whether
the same call may succeed later; code that decides reads those two, never a status. Every error pickles, and none
holds a request, a response object or a secret.
"""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs


class Effect(enum.Enum):
    """Say what a failure *means*, where the class of an error says what was *seen*.

    The order is from harmless to worst; an error carries the worst over all attempts of its call.
    """

    NONE = "none"
    """Nothing was made or changed."""
    UNKNOWN = "unknown"
    """Something may have been made or changed: the request left and no complete answer came back."""
    LOST = "lost"
    """A key was made, and its secret, shown only once, did not arrive."""

    def or_worse(self, other: "Effect") -> "Effect":
        """Return the worse of two effects."""
        return max(self, other, key=_SEVERITY.__getitem__)


_SEVERITY = {effect: severity for severity, effect in enumerate(Effect)}


@attrs.frozen(kw_only=True)
class Suspect:
    """One attempt to create a key that may have left an orphaned live key.

    Attributes:
        name: The key's name as it was sent, with the tag if there was one.
        tag: The random tag at the end of `name`; the proof of origin that a sweep needs. None: untagged, so the suspect
            is reported, and its key, if it exists, never touched.
        id: The key's id if the server told it: then the key is known and can be revoked by its id.
        effect: `UNKNOWN` or `LOST`.
        sent_at: When the attempt began, aware, by the local clock.
        sent: The fields of the POST as they went out, in JSON types.
        reason: A few words about what happened to the answer.
        taken_over_at: When this copy of a ledger took the attempt over from a process that is gone, aware, by the local
            clock: whether an answer came is unknown then. None: the process that made the attempt knows that no answer
            came.
    """

    name: str | None
    tag: str | None
    id: str | None = None
    effect: Effect
    sent_at: datetime
    sent: Mapping[str, Any] = attrs.field(repr=False)
    reason: str
    # Not compared, because it is by the clock of the process that took it over.
    taken_over_at: datetime | None = attrs.field(default=None, eq=False)


class RespanError(Exception):
    """The call to Respan did not succeed.

    Attributes:
        effect: The worst effect over all attempts of the call.
        suspects: The attempts that may have left an orphaned key.
        status: The HTTP status of the last answer, or None when there was none.
        request_id: The server's id of the last request, if it sent one.
        body: The last answer's body: text, at most 2,000 characters, with secrets masked; in a 2xx, which may hold a
            key of any form, every long word is masked.
        attempts: The number of requests made, including those that met no server or a refusal.
        retryable: Whether the same call may succeed later.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        effect: Effect = Effect.NONE,
        suspects: tuple[Suspect, ...] = (),
        status: int | None = None,
        request_id: str | None = None,
        body: str | None = None,
        attempts: int = 0,
        retryable: bool = False,
    ) -> None:
        # A subclass's docstring is its default message.
        super().__init__(message if message is not None else (self.__doc__ or "").partition("\n")[0])
        self.effect = effect
        self.suspects = suspects
        self.status = status
        self.request_id = request_id
        self.body = body
        self.attempts = attempts
        self.retryable = retryable


class ConfigurationError(RespanError, ValueError):
    """A setting of the client is wrong."""


class InvalidRequestError(RespanError, ValueError):
    """An argument is wrong; nothing was sent."""


class ClientStateError(RespanError):
    """The client is closed, or is used where it cannot work."""


class APIConnectionError(RespanError):
    """No whole answer came."""


class APITimeoutError(APIConnectionError):
    """No whole answer came in time."""


class InvalidResponseError(RespanError):
    """The server's answer is not the documented one."""


class DeadlineExceededError(RespanError, TimeoutError):
    """The time for the whole call is up.

    `status`, `body` and `request_id` are those of the last answer that the call got, if it got one.

    Attributes:
        retry_at: The earliest time at which the call could be made, aware, by the local clock; None if unknown.
    """

    retry_at: datetime | None = None


class APIStatusError(RespanError):
    """The server refused.

    Attributes:
        retry_after: Seconds the server asked to wait before trying again; None if it did not say.
    """

    retry_after: float | None = None


class BadRequestError(APIStatusError):
    """The server found the request wrong (400)."""


class AuthenticationError(APIStatusError):
    """The API key was not accepted (401)."""


class PermissionDeniedError(APIStatusError):
    """The API key may not do this, or was not accepted (403)."""


class NotFoundError(APIStatusError):
    """There is no such key (404)."""


class ConflictError(APIStatusError):
    """The request conflicts with the server's state (409)."""


class UnprocessableEntityError(APIStatusError):
    """The server could not process the request (422)."""


class RateLimitError(APIStatusError):
    """The account's rate limit refused the request (429)."""


class InternalServerError(APIStatusError):
    """The server failed (5xx)."""


class LedgerError(RespanError):
    """The ledger could not be read or written."""


class TicketConflictError(LedgerError):
    """The ticket is known with other fields; a new issuance is a new ticket."""


_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def class_for(status: int) -> type[APIStatusError]:
    """Return the error class for an HTTP status outside 2xx."""
    return _BY_STATUS.get(status) or (InternalServerError if status >= 500 else APIStatusError)
