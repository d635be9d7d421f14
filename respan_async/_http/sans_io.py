"""The protocol, without I/O: writes a `Request` for each call, and reads its result as a value or an error.

The failure table of this library is `_meaning`: it says, for everything that can happen to a request, what may now
exist on the server. No other part of the library looks at a status code to decide that.
"""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Generic, TypeGuard, TypeVar
from urllib.parse import quote, urlencode

import attrs

from respan_async import errors
from respan_async._http import body_excerpt, body_origin, codec
from respan_async._http.header_parsing import charset
from respan_async._http.retry_after import retry_after
from respan_async.errors import (
    APIConnectionError,
    APITimeoutError,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    RespanError,
)
from respan_async.models import CreatedKey, KeyPage, TemporaryKey
from respan_async.secret import Secret

PATH: Final = "/api/temporary-keys/"
"""The trailing slash matters: without it Django redirects, and a redirected POST turns into a list."""

T = TypeVar("T")

_ONLY_429: Final[frozenset[int]] = frozenset()


@attrs.frozen(kw_only=True, eq=False)
class Operation(Generic[T]):
    """A kind of request.

    Attributes:
        name: Its name in events and messages.
        method: The HTTP method.
        model: The model of a good answer; None if the body does not matter.
        changes: Whether a request changes the server's state.
        creates: Whether a request may leave a key.
    """

    name: str
    method: str
    model: type[T] | None
    changes: bool
    creates: bool = False


CREATE: Final = Operation(name="create", method="POST", model=CreatedKey, changes=True, creates=True)
LIST: Final = Operation(name="list", method="GET", model=KeyPage, changes=False)
RETRIEVE: Final = Operation(name="retrieve", method="GET", model=TemporaryKey, changes=False)
UPDATE: Final = Operation(name="update", method="PATCH", model=TemporaryKey, changes=True)
DELETE: Final[Operation[None]] = Operation(name="delete", method="DELETE", model=None, changes=True)


@attrs.define
class Request(Generic[T]):
    """One request of the protocol.

    Attributes:
        operation: The operation that it asks for.
        path: From the host's root, percent-encoded, with the query.
        body: JSON text, or None.
        changes: For an update, the key's id and the fields that are sent, in JSON types.
    """

    operation: Operation[T]
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    changes: Mapping[str, Any] | None = attrs.field(default=None, repr=False)


@attrs.define
class Response:
    """An answer whose status is certain.

    Attributes:
        status: The HTTP status.
        headers: With case-insensitive names; aiohttp's have every line of each (`getall`).
        body: The part of the body that was read.
        oversize: Whether the body exceeded the size bound and was not read to its end.
        cut: Whether the body broke off.
        resends: How often aiohttp sent the request again before this answer.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    oversize: bool = False
    resends: int = 0
    cut: bool = False


@attrs.frozen
class TransportFailure:
    """The failure of a request that got no complete answer.

    Attributes:
        reason: A few words about what happened.
        left: Whether bytes of the request may have reached the server.
        status: The status of an answer that broke off; None if no answer had begun.
        timed_out: Whether the time for the attempt was up.
        not_http: Whether the received bytes are not HTTP.
        permanent: Whether no connection can be made until a setting is changed.
        resends: How often aiohttp sent the request again before that.
        received: The part of the answer that had come.
    """

    reason: str
    left: bool
    status: int | None = None
    timed_out: bool = False
    not_http: bool = False
    permanent: bool = False
    resends: int = 0
    received: Response | None = None


def create(fields: Mapping[str, Any]) -> Request[CreatedKey]:
    """Make a key with these fields, in JSON types."""
    return Request(CREATE, PATH, codec.encode(fields))


def list_page(page: int, page_size: int | None) -> Request[KeyPage]:
    """Read one page of the list; pages count from 1."""
    query = {"page": page} if page_size is None else {"page": page, "page_size": page_size}
    return Request(LIST, f"{PATH}?{urlencode(query)}")


def retrieve(key_id: str) -> Request[TemporaryKey]:
    """Read one key."""
    return Request(RETRIEVE, _path_of(key_id))


def update(key_id: str, fields: Mapping[str, Any]) -> Request[TemporaryKey]:
    """Change these fields of one key."""
    return Request(UPDATE, _path_of(key_id), codec.encode(fields), {**fields, "id": key_id})


def delete(key_id: str) -> Request[None]:
    """Revoke one key."""
    return Request(DELETE, _path_of(key_id))


def _path_of(key_id: str) -> str:
    if not isinstance(key_id, str) or not key_id.strip():
        raise InvalidRequestError(f"id: expected a non-empty string, got {key_id!r:.100}")
    if len(key_id) > codec.MAX_ID:
        raise InvalidRequestError(f"id: expected at most {codec.MAX_ID} characters, got {len(key_id)}")
    if codec.has_dots(key_id):
        raise InvalidRequestError(f"id: expected no '.' or '..' as a path segment, got {key_id!r:.100}")
    try:
        return f"{PATH}{quote(key_id, safe='')}/"
    except UnicodeEncodeError:
        raise InvalidRequestError(f"id: expected text that UTF-8 can carry, got {key_id!r:.100}") from None


_NOT_PROCESSED: Final = frozenset({501, 505, 511})
"""The request was not processed, and another one like it would fail the same way.

    501   RFC 9110, 15.6.2   the server does not support what the request needs, for any resource
    505   RFC 9110, 15.6.6   the server does not support this version of HTTP, or refuses to
    511   RFC 6585, 6        a captive network wants a login first; an origin never answers it
"""

_ORIGIN_NOT_REACHED: Final = frozenset({521, 523, 525, 526, 530})
"""Cloudflare has no connection to the API's server, as its documentation of 5xx errors says of each.

    521   the origin refused the connection              525   the TLS handshake with it failed
    523   there is no route to it                        526   its certificate does not verify
    530   its name is not found

All of them are tried again: they say that the API is down, which its operators repair, and a batch waits for it.

Statuses that leave it open whether the request arrived stay UNKNOWN, as every other 5xx does:

    520   the origin's answer was empty or unreadable
    522   no SYN+ACK of the origin came in time, *or* no ACK of the request
    524   the origin was connected, and did not answer in time
    527   the connection to Cloudflare's own Railgun, at the origin, was interrupted
    508   RFC 5842, 7.2: an operation was ended in a loop, after it had begun; some hosters mean a lack of resources
"""


def _meaning(
    operation: Operation[Any], result: Response | TransportFailure, refusals: frozenset[int] = _ONLY_429
) -> tuple[Effect, bool]:
    """Return what a failure left on the server, and whether trying again may help: the library's failure table."""
    match result:
        case TransportFailure(left=False, permanent=permanent):
            meaning = Effect.NONE, not permanent
        case TransportFailure(not_http=True):
            meaning = Effect.UNKNOWN, False  # the wrong host: trying again will not help
        case TransportFailure(status=status):
            meaning = (Effect.LOST if status is not None and 200 <= status < 300 else Effect.UNKNOWN), True
        case Response() if is_refusal(result, refusals):
            meaning = Effect.NONE, True  # refused before the server made anything
        case Response(status=408):
            meaning = Effect.UNKNOWN, True
        case Response(status=status) if 200 <= status < 300:
            # Do not retry: if the server changed its format, each retry would create one more lost key.
            meaning = Effect.LOST, False
        case Response(status=status) if status < 400:
            meaning = Effect.UNKNOWN, False  # a redirect, never followed: the wrong host
        case Response(status=status) if status < 500:
            meaning = Effect.NONE, False
        case Response(status=status) if status in _NOT_PROCESSED:
            meaning = Effect.NONE, False
        case Response(status=status) if status in _ORIGIN_NOT_REACHED:
            meaning = Effect.NONE, True
        case _:
            meaning = Effect.UNKNOWN, True
    effect, retryable = meaning
    if not operation.changes:
        effect = Effect.NONE
    elif not operation.creates and effect is Effect.LOST:
        effect = Effect.UNKNOWN  # there is no key to lose; the change was made, if it was the API that answered
    return effect, retryable


def is_success(result: Response | TransportFailure) -> TypeGuard[Response]:
    """Whether the status reports success, and the answer can be read."""
    return isinstance(result, Response) and 200 <= result.status < 300 and not result.oversize


def is_refusal(result: Response | TransportFailure, refusals: frozenset[int] = _ONLY_429) -> bool:
    """Whether a request was turned away for now, before the server made anything.

    Args:
        result: The result of the request.
        refusals: The statuses, besides 429, by which a proxy refuses for the limit.
    """
    # 425 (RFC 8470): the server does not risk to process the request yet.
    return is_over_limit(result, refusals) or (isinstance(result, Response) and result.status == 425)


def is_over_limit(result: Response | TransportFailure, refusals: frozenset[int] = _ONLY_429) -> bool:
    """Whether the account's limit turned the request away; arguments as of `is_refusal`."""
    if not isinstance(result, Response):
        return False
    if result.status == 429:
        return True
    # Only a complete body shows who answered; if the API wrote it, the proxy did let the request through.
    whole = not result.cut and not result.oversize
    return result.status in refusals and whole and not body_origin.is_of_the_api(result.body)


def parse(
    request: Request[T],
    result: Response | TransportFailure,
    token: Secret | None,
    now: datetime,
    refusals: frozenset[int] = _ONLY_429,
) -> T | RespanError:
    """Return the value or the error that a result means.

    Args:
        request: The request.
        result: The result of the request.
        token: The bearer token, to be masked in a body that echoes it.
        now: The wall clock, aware; for a Retry-After date.
        refusals: The statuses, besides 429, by which a proxy refuses for the limit.
    """
    if is_success(result):
        return read(request, result, token)
    received = result.received if isinstance(result, TransportFailure) else None
    if received is not None and received.body.strip() and request.operation.model is not None:
        # If the truncated body still parses as complete JSON, only trailing framing was lost: use it.
        with contextlib.suppress(codec.DecodeError):
            codec.parse(received.body, charset(received.headers))
            return read(request, received, token)
    return failure(request, result, token, now, refusals)


def failure(
    request: Request[Any],
    result: Response | TransportFailure,
    token: Secret | None,
    now: datetime,
    refusals: frozenset[int] = _ONLY_429,
) -> RespanError:
    """Return the error for an unsuccessful result; see `parse`."""
    effect, retryable = _meaning(request.operation, result, refusals)
    called = f"{request.operation.method} {request.path}"
    if isinstance(result, TransportFailure):
        kind = InvalidResponseError if result.not_http else APITimeoutError if result.timed_out else APIConnectionError
        error = kind(f"{called}: {result.reason}", effect=effect, retryable=retryable, status=result.status)
        if (received := result.received) is not None:
            error.request_id = body_excerpt.request_id(received.headers, token)
            error.body = body_excerpt.shown(received.body, token, made=True)
        return error
    shown = body_excerpt.shown(result.body, token, made=result.status < 300)
    facts: dict[str, Any] = {
        "effect": effect,
        "retryable": retryable,
        "status": result.status,
        "request_id": body_excerpt.request_id(result.headers, token),
        "body": shown,
    }
    if result.status < 200:  # 101, a change of protocols that the client did not ask for
        return InvalidResponseError(f"{called}: answered {result.status}, which ends no request", **facts)
    if result.status < 300:
        return InvalidResponseError(f"{called}: the answer is larger than this client reads", **facts)
    if result.status < 400:
        return errors.APIStatusError(
            f"{called}: answered {result.status}, a redirect, which is never followed; is base_url right?", **facts
        )
    said = body_excerpt.said(result.body, shown, token) or body_origin.stranger(result.status, shown)
    refused = errors.class_for(result.status)(f"{called}: answered {result.status}{said}", **facts)
    refused.retry_after = retry_after(result.headers, result.body, now)
    return refused


def read(request: Request[T], answer: Response, token: Secret | None) -> T | InvalidResponseError:
    """Read a 2xx answer as the operation's model; return an error if it cannot be read."""
    request_id = body_excerpt.request_id(answer.headers, token)
    try:
        return _value(request, answer, request_id)
    except codec.DecodeError as error:
        problem = str(error)
    # Created outside of the handler, so that no frame which holds the answer is chained to it.
    effect, retryable = _meaning(request.operation, answer)
    return InvalidResponseError(
        f"{request.operation.method} {request.path}: answered {answer.status}, but {problem}",
        effect=effect,
        retryable=retryable,
        status=answer.status,
        request_id=request_id,
        body=body_excerpt.shown(answer.body, token, made=True),
    )


def _value(request: Request[T], answer: Response, request_id: str | None) -> T:
    model = request.operation.model
    if model is None:
        if body_origin.is_page(answer.headers, answer.body):
            raise codec.DecodeError("with a page, which the API never writes")
        return None  # type: ignore[return-value]  # an operation without a model is an Operation[None]
    if request.changes is not None:
        changed: Any = codec.decode_changed(answer.body, request.changes, charset(answer.headers), request_id)
        return changed  # type: ignore[no-any-return]  # a request with changes is a Request[TemporaryKey]
    return codec.decode(answer.body, model, charset(answer.headers), request_id)


def request_id_of(answer: object, result: Response | TransportFailure, token: Secret | None) -> str | None:
    """Return the server's id of a request, if it sent one.

    Args:
        answer: The value or error that was read; None for a delete.
        result: The result of the request.
        token: The bearer token, which a server may echo.
    """
    if isinstance(answer, RespanError | TemporaryKey | KeyPage):
        return answer.request_id
    response = response_of(result)
    return None if response is None else body_excerpt.request_id(response.headers, token)


def states_absence(error: errors.NotFoundError) -> bool:
    """Whether a 404 says that the key does not exist: in the API's own JSON, not as a page for a missing route."""
    try:
        data = codec.parse((error.body or "").encode())
    except codec.DecodeError:
        return False
    return isinstance(data, dict) and isinstance(data.get("detail"), str)


def response_of(result: Response | TransportFailure) -> Response | None:
    """Return the answer, or the part that came before it broke off; None if no answer had begun."""
    return result if isinstance(result, Response) else result.received


def answered_id(result: Response | TransportFailure) -> str | None:
    """Return the id in an otherwise unusable 2xx answer to a create, if the key can be revoked by it.

    In any other answer it may be the id of something else: the error, the request, another caller's key.
    """
    answer = response_of(result)
    if answer is None or not 200 <= answer.status < 300:
        return None
    try:
        return codec.id_in(codec.parse(answer.body, charset(answer.headers)))
    except codec.DecodeError:
        return None
