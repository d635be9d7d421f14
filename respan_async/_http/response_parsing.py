"""Turns a `Response` or a `TransportFailure` into the value that was asked for, or into the error; no I/O."""

import contextlib
from datetime import datetime
from typing import Any, TypeVar

from respan_async import errors
from respan_async._http import body_excerpt, body_origin, codec, failure_table, json_text
from respan_async._http.header_parsing import charset
from respan_async._http.operations import Request
from respan_async._http.response import Response, TransportFailure, response_of
from respan_async._http.retry_after import retry_after
from respan_async.errors import APIConnectionError, APITimeoutError, InvalidResponseError, RespanError
from respan_async.models import KeyPage, TemporaryKey
from respan_async.secret import Secret

T = TypeVar("T")


def parse(
    request: Request[T],
    result: Response | TransportFailure,
    token: Secret | None,
    now: datetime,
    refusals: frozenset[int] = failure_table.ONLY_429,
) -> T | RespanError:
    """Return the value or the error that a result means.

    Args:
        request: The request.
        result: The result of the request.
        token: The bearer token, to be masked in a body that echoes it.
        now: The wall clock, aware; for a Retry-After date.
        refusals: The statuses, besides 429, by which a proxy refuses for the limit.
    """
    if failure_table.is_success(result):
        return read(request, result, token)
    received = result.received if isinstance(result, TransportFailure) else None
    if received is not None and received.body.strip() and request.operation.model is not None:
        # If the truncated body still parses as complete JSON, only trailing framing was lost: use it.
        with contextlib.suppress(json_text.DecodeError):
            json_text.parse(received.body, charset(received.headers))
            return read(request, received, token)
    return failure(request, result, token, now, refusals)


def failure(
    request: Request[Any],
    result: Response | TransportFailure,
    token: Secret | None,
    now: datetime,
    refusals: frozenset[int] = failure_table.ONLY_429,
) -> RespanError:
    """Return the error for an unsuccessful result; see `parse`."""
    effect, retryable = failure_table.meaning_of(request.operation, result, refusals)
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
    except json_text.DecodeError as error:
        problem = str(error)
    # Created outside of the handler, so that no frame which holds the answer is chained to it.
    effect, retryable = failure_table.meaning_of(request.operation, answer)
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
            raise json_text.DecodeError("with a page, which the API never writes")
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
        data = json_text.parse((error.body or "").encode())
    except json_text.DecodeError:
        return False
    return isinstance(data, dict) and isinstance(data.get("detail"), str)


def answered_id(result: Response | TransportFailure) -> str | None:
    """Return the id in an otherwise unusable 2xx answer to a create, if the key can be revoked by it.

    In any other answer it may be the id of something else: the error, the request, another caller's key.
    """
    answer = response_of(result)
    if answer is None or not 200 <= answer.status < 300:
        return None
    try:
        return codec.id_in(json_text.parse(answer.body, charset(answer.headers)))
    except json_text.DecodeError:
        return None
