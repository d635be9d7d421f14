"""Records the counters, suspects, events and last answer of one call."""

import asyncio
from typing import Any, TypeVar

from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.client_context import ClientContext
from respan_async._calls.prepared_request import PreparedRequest
from respan_async._http import operations
from respan_async._http.response import Response, TransportFailure
from respan_async._pacing.slots import Slot
from respan_async.errors import Effect, RespanError, Suspect
from respan_async.events import AttemptEvent, IssuedEvent, RetryEvent, SuspectEvent, logger
from respan_async.models import CreatedKey
from respan_async.retry import AttemptCounts

Error = TypeVar("Error", bound=RespanError)


class CallRecorder:
    """Record what happens to one call.

    Args:
        context: The state that all calls share.
        operation: The name of the operation.
        attempt_log: The log in which suspects are noted.

    Attributes:
        requests: The number of requests sent.
        counts: The failed attempts, by kind; None before the first failure.
        effect: The worst effect that the attempts may have had.
        suspects: The attempts that may have left a key.
    """

    __slots__ = (
        "_attempt_log",
        "_context",
        "_last_answer",
        "_last_failure",
        "_operation",
        "counts",
        "effect",
        "requests",
        "suspects",
    )

    def __init__(self, context: ClientContext, operation: str, attempt_log: AttemptLog) -> None:
        self._context = context
        self._operation = operation
        self._attempt_log = attempt_log
        self.requests = 0
        self.counts: AttemptCounts | None = None
        self.effect = Effect.NONE
        self.suspects: tuple[Suspect, ...] = ()
        self._last_answer: RespanError | None = None
        self._last_failure: RespanError | None = None  # the failure of the last attempt, if it got no answer

    def failure_counts(self) -> AttemptCounts:
        """Return `counts`, from now on not None."""
        self.counts = self.counts or AttemptCounts()
        return self.counts

    def note_last(self, error: RespanError) -> None:
        """Remember how the last attempt failed, for errors that have no answer of their own."""
        if error.status is None:
            self._last_failure = error
        else:
            self._last_answer, self._last_failure = error, None

    def after_what(self) -> str:
        """Describe the last answer or failure, as the end of a message."""
        after = f"; the last answer was {self._last_answer.status}" if self._last_answer else ""
        if self._last_failure is not None:
            after += f"; the last attempt failed: {self._last_failure!s:.300}"
        return after

    def resent(self, times: int, effect: Effect) -> None:
        """Count requests that the transport repeated by itself, and note their effect."""
        self.requests += times
        self.effect = self.effect.or_worse(effect)

    def with_totals(self, error: Error) -> Error:
        """Add the totals of all attempts to the last error; and the last answer, if it has none of its own."""
        self.add_last_answer(error)
        error.effect = self.effect.or_worse(error.effect)
        error.suspects = self.suspects
        error.attempts = self.requests
        return error

    def add_last_answer(self, error: RespanError) -> None:
        """Give an error without an answer of its own the status, request id and body of the last answer."""
        answer = self._last_answer
        if error.status is None and answer is not None:
            error.status, error.request_id, error.body = answer.status, answer.request_id, answer.body

    def mark_suspect(
        self, prepared: PreparedRequest[Any], effect: Effect, reason: str, key_id: str | None = None
    ) -> None:
        """Note that an attempt may have had an effect, and if it was a create, remember it as a suspect.

        Args:
            prepared: The attempt.
            effect: The effect that it may have had.
            reason: Why the effect is not known.
            key_id: The id of the key, if the server has told it.
        """
        self.effect = self.effect.or_worse(effect)
        if prepared.fields is None:
            return
        suspect = Suspect(
            name=prepared.fields.get("name"),
            tag=prepared.tag,
            id=key_id,
            effect=effect,
            sent_at=prepared.sent_at,
            sent=prepared.fields,
            reason=reason,
        )
        self.suspects += (suspect,)
        self._attempt_log.mark_suspect(suspect)
        logger.warning("a key may have been made that nobody holds: name %r, %s", suspect.name, reason)
        self._context.dispatcher.emit(SuspectEvent, suspect=suspect)

    def emit_issued(self, key: CreatedKey, began: float) -> None:
        """Emit the event of a successful create, which began at this time of the loop."""
        if self._context.dispatcher.listening:
            elapsed = asyncio.get_running_loop().time() - began
            self._context.dispatcher.emit(
                IssuedEvent, id=key.id, name=key.name, attempts=self.requests, elapsed=elapsed
            )

    def emit_attempt(
        self,
        request: operations.Request[Any],
        result: Response | TransportFailure | None,
        answer: object,
        slot: Slot,
        departed: float,
        request_id: str | None = None,
    ) -> None:
        """Emit the event of an ended attempt.

        Args:
            request: The request.
            result: The response or failure; None if the attempt was cut off.
            answer: The value or error that was read from it, or the exception.
            slot: The slot of the attempt.
            departed: When it was sent, by the loop's clock.
            request_id: The server's id of the request, if it sent one.
        """
        failed = answer if isinstance(answer, BaseException) else None
        error = failed if isinstance(failed, RespanError) else None
        self._context.dispatcher.emit(
            AttemptEvent,
            operation=self._operation,
            method=request.operation.method,
            number=self.requests,
            waited=slot.granted_at - slot.asked_at,
            elapsed=asyncio.get_running_loop().time() - departed,
            status=result.status if result is not None else None,
            effect=error.effect if error else None,
            error=type(failed).__name__ if failed else None,
            request_id=request_id,
        )

    def emit_retry(self, error: RespanError, wait: float) -> None:
        """Emit the event of a retry after so many seconds."""
        logger.info("%s: trying again in %.1f s after %s", self._operation, wait, type(error).__name__)
        self._context.dispatcher.emit(
            RetryEvent,
            operation=self._operation,
            reason=type(error).__name__,
            status=error.status,
            wait=wait,
            attempts=self.requests,
        )
