"""Makes one call: waits for a slot, sends, reads the answer, decides about a retry, and tells the hooks.

The life of a create. The call waits for a slot; then a fresh tag and expiry are drawn; then the attempt log notes the
attempt; then the bytes leave. The answer releases the slot, and becomes a key, or an error that says what the attempt
may have left; a suspect is remembered before anything else is done. Only then the retry policy decides. An attempt
*returns* its error: only `run` raises, so that no frame of the traceback holds a secret.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.attempt_outcome import outcome_of, problem_of, reason_of
from respan_async._calls.call_recorder import CallRecorder
from respan_async._calls.client_context import ClientContext, Options
from respan_async._calls.prepared_request import PreparedRequest, prepare_create
from respan_async._calls.slot_and_token import SlotAndToken
from respan_async._http import body_excerpt, body_origin, failure_table, operations, response_parsing
from respan_async._http.rate_headers import rate_hint
from respan_async._http.response import Response, TransportFailure, response_of
from respan_async._http.transport import TrackedBody, bound_of
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.slots import DeadlineUnreachable, Slot, SlotOutcome
from respan_async.errors import (
    APIConnectionError,
    AuthenticationError,
    ClientStateError,
    DeadlineExceededError,
    Effect,
    PermissionDeniedError,
    RespanError,
)
from respan_async.models import CreatedKey, CreateKeyRequest
from respan_async.retry import AttemptCounts, retry_after_of
from respan_async.secret import Secret

T = TypeVar("T")


class Call(Generic[T]):
    """One call, from its first attempt to its result.

    Args:
        context: The state that all calls share.
        subject: The request to make; or the fields of a key, for which each attempt prepares a new request.
        options: The options of the call.
        priority: The class in which it waits, unless the options name another.
        attempt_log: The log of its attempts; None for the client's own.
    """

    __slots__ = (
        "_abandoned",
        "_attempt_log",
        "_context",
        "_deadline",
        "_final",
        "_in_air",
        "_keeps_place",
        "_operation",
        "_options",
        "_permit",
        "_priority",
        "_refused_at",
        "_started",
        "_stats",
        "_subject",
        "_task",
        "_tracked_body",
        "_wanted",
        "_was_cut",
    )

    @property
    def replayed(self) -> bool:
        """Whether the result existed before this call; it never did."""
        return False

    @property
    def quota_exhausted(self) -> bool:
        """Whether the limit refused the call for so long that no other call would succeed."""
        counts = self._stats.counts
        return counts is not None and self._options.retry.quota_exhausted(counts)

    @property
    def delivered(self) -> bool:
        """Whether the result was delivered; that is left to the caller."""
        return False

    def __init__(
        self,
        context: ClientContext,
        subject: operations.Request[T] | CreateKeyRequest,
        options: Options,
        priority: Priority = Priority.INTERACTIVE,
        attempt_log: AttemptLog | None = None,
    ) -> None:
        self._context = context
        self._operation = operations.CREATE if isinstance(subject, CreateKeyRequest) else subject.operation
        self._subject = subject
        self._options = options
        self._priority = priority if options.priority is None else options.priority
        self._attempt_log = context.attempt_log if attempt_log is None else attempt_log
        self._stats = CallRecorder(context, self._operation.name, self._attempt_log)
        self._permit = SlotAndToken(context.pacer, context.tokens, bound_of(options.timeout))
        self._tracked_body: TrackedBody | None = None
        self._in_air = False
        self._was_cut = False  # when something may have left
        self._abandoned = False
        self._wanted = True
        self._final = False
        self._task: asyncio.Task[Any] | None = None
        self._deadline: float | None = None
        self._started = -1.0
        self._refused_at: float | None = None
        self._keeps_place = False  # the call lost its slot for a reason outside it, so it keeps its place in the queue

    @property
    def deadline(self) -> float | None:
        """Seconds for the whole call, or None."""
        return self._options.deadline

    def begin(self) -> None:
        """Start the deadline of the whole call, if it has not started."""
        if self._started < 0:
            self._started = asyncio.get_running_loop().time()
            if self._options.deadline is not None:
                self._deadline = self._started + self._options.deadline

    async def run(self) -> T:
        """Make the call.

        Raises:
            RespanError: The call failed.
        """
        self._task = asyncio.current_task()
        if self._abandoned:
            raise self.abandoned_error()
        self.begin()
        result = await self._attempt()
        counts = self._stats.counts
        if isinstance(result, RespanError) and counts is not None and self._wants(result):
            result = await self._retry(result, counts)
        if isinstance(result, RespanError):
            raise self._stats.with_totals(result)
        if isinstance(result, CreatedKey) and self._wanted:
            self._stats.emit_issued(result, self._started)
        return result

    def promote(self, priority: Priority) -> None:
        """Wait in a higher class from now on, because a caller of that class waits for this call."""
        if priority < self._priority:
            self._priority = priority
            self._permit.promote(priority)

    def abandoned_error(self) -> ClientStateError:
        """Return the error of a call that was abandoned before it could succeed."""
        message = "the call was given up before it was sent, or sent again"
        if self._was_cut or self._may_have_left:
            host = self._context.transport.host
            message = f"{self._operation.name}: the call was given up before {host} had answered"
        return self._stats.with_totals(ClientStateError(message, effect=self._effect_if_sent))

    def abandon(self, *, wanted: bool = False) -> bool:
        """Send nothing more; return whether the call goes on.

        An attempt whose bytes may have left runs to its end, and is not repeated. Anything else is cancelled.

        Args:
            wanted: Whether a key that arrives all the same is still taken; if False, the caller is gone.
        """
        self._abandoned, self._wanted = True, wanted
        if self._in_air and (self._tracked_body is None or not self._tracked_body.recall()):
            return True
        if self._task is not None:
            self._task.cancel()
        return False

    def deadline_error(self) -> DeadlineExceededError:
        """Return the error of a call whose time ran out while it was waiting."""
        what = "no answer"
        if self._permit.is_asking:
            what = "no token from the api_key function"
        elif self._in_air:
            what = f"no answer from {self._context.transport.host}"
        return self._stats.with_totals(
            self._deadline_error(
                f"{what} within the deadline of {self._options.deadline:g} s",
                effect=self._effect_if_sent,
                retryable=True,
            )
        )

    def _deadline_error(self, what: str, *, effect: Effect = Effect.NONE, retryable: bool) -> DeadlineExceededError:
        """Return the error of a call that is too late, with its last answer, or with its last failure."""
        message = f"{self._operation.name}: {what}{self._stats.after_what()}"
        return DeadlineExceededError(message, effect=effect, retryable=retryable)

    @property
    def _effect_if_sent(self) -> Effect:
        """The effect that the attempt in flight may have had."""
        return self._unconfirmed_effect if self._may_have_left else Effect.NONE

    @property
    def _may_have_left(self) -> bool:
        """Whether an attempt is in the air of which something may have left."""
        return self._in_air and (self._tracked_body is None or self._tracked_body.may_have_left)

    # ------------------------------------------------------------- an attempt

    async def _attempt(self) -> T | RespanError:
        """Make one attempt; make a second one if the refused token has been replaced meanwhile."""
        while True:
            result = await self._attempt_in_turn()
            if not isinstance(result, AuthenticationError | PermissionDeniedError):
                self._permit.accepted()
                return result
            try:
                if self._abandoned or not await self._permit.renew_token():
                    return result
            except RespanError as error:
                self._stats.add_last_answer(error)  # for the event of a retry
                return error
            self._keeps_place = True
            self._stats.failure_counts().counted -= 1
            self._stats.emit_retry(result, 0.0)

    async def _attempt_in_turn(self) -> T | RespanError:
        """Make an attempt when its turn has come."""
        try:
            slot, token = await self._permit.enter(
                self._priority, self._deadline, self._started, again=self._keeps_place
            )
            return await self._send(slot, token)
        except DeadlineUnreachable as late:
            wait = late.wait
        except RespanError as error:
            if isinstance(error, APIConnectionError):
                self._count(SlotOutcome.UNREACHED, error)
                self._stats.note_last(error)
            # The client was closed or no token was available; `run` adds the effect of earlier attempts, and raises it.
            return error
        return self._too_late(wait, "the rate limit has no room for")

    async def _send(self, slot: Slot, token: Secret) -> T | RespanError:
        context, attempt_log = self._context, self._attempt_log
        outcome = SlotOutcome.UNUSED
        answer: Any = None
        sendings = 1
        hint: RateHint | None = None
        let_in: operations.Operation[Any] | None = None
        try:
            prepared = self._prepare()
            request = prepared.request
            await self._claim_attempt(prepared)
            departed = asyncio.get_running_loop().time() if context.dispatcher.listening else 0.0
            tracked_body = TrackedBody(request.body, attempt_log.permits) if request.body is not None else None
            self._tracked_body = tracked_body
            self._in_air = True
            self._stats.requests += 1
            try:
                result = await context.transport.send(
                    request, tracked_body, token, self._options.timeout, self._options.extra_headers
                )
            except BaseException as cut:
                outcome = self._cut_off(cut, prepared)
                self._stats.emit_attempt(request, None, cut, slot, departed)
                raise
            finally:
                self._in_air = False
            if result.resends:
                sendings += result.resends
                self._stats.resent(result.resends, self._unconfirmed_effect)
            now = context.clock()
            answer = response_parsing.parse(request, result, token, now, self._refusals)
            if (response := response_of(result)) is not None:
                hint = rate_hint(response.headers, now)
                answer = self._if_alive(answer, prepared, response, token, now)
            outcome = outcome_of(result, answer, self._refusals)
            if not failure_table.is_refusal(result, self._refusals):
                let_in = self._operation
            if isinstance(answer, RespanError):
                self._note_failure(answer, outcome, prepared, result, slot)
        finally:
            error = answer if isinstance(answer, RespanError) else None
            context.pacer.release(
                slot,
                outcome,
                caller=self._permit,  # not the call itself, because a reference cycle would keep its request alive
                let_in=let_in,
                retry_after=None if error is None else retry_after_of(error),
                sendings=sendings,
                hint=hint,
                problem=None if error is None else problem_of(error),
            )
        if context.dispatcher.listening:
            request_id = response_parsing.request_id_of(answer, result, token)
            self._stats.emit_attempt(request, result, answer, slot, departed, request_id)
        return cast("T | RespanError", answer)

    def _prepare(self) -> PreparedRequest[T]:
        now = self._context.clock()
        if isinstance(self._subject, CreateKeyRequest):
            ahead = self._context.skew.ahead
            prepared = prepare_create(self._subject, now, ahead, tag_name=self._attempt_log.tag_names)
            return cast("PreparedRequest[T]", prepared)  # such a call is a Call[CreatedKey]
        return PreparedRequest(request=self._subject, sent_at=now)

    def _if_alive(
        self,
        answer: T | RespanError,
        prepared: PreparedRequest[T],
        result: Response,
        token: Secret,
        now: datetime,
    ) -> T | RespanError:
        """Return the answer; or the error of a key that was dead on arrival, which has left nothing."""
        skew = self._context.skew
        if isinstance(answer, RespanError) and not body_origin.is_of_the_api(result.body):
            return answer  # written by a proxy: its `Date` is not the API's clock
        made = answer.created_at if isinstance(answer, CreatedKey) else None
        cacheable = not self._operation.changes
        there = skew.measure(result.headers, made, prepared.sent_at, now, cacheable=cacheable)
        if not isinstance(answer, CreatedKey) or not isinstance(self._subject, CreateKeyRequest):
            return answer
        sent = prepared.fields or {}
        dead = skew.dead_on_arrival(answer, self._subject, sent, prepared.sent_at, now, there)
        if dead is None:
            return answer
        dead.status, dead.request_id = result.status, answer.request_id
        dead.body = body_excerpt.shown(result.body, token, made=True)
        return dead

    def _cut_off(self, cut: BaseException, prepared: PreparedRequest[T]) -> SlotOutcome:
        """Note an attempt that was cancelled, or that the session cannot carry."""
        # Assume bytes were sent unless proven otherwise. The transport raises a RespanError only before sending.
        if not isinstance(cut, RespanError) and self._may_have_left:
            self._was_cut = True
            self._stats.mark_suspect(prepared, self._unconfirmed_effect, "the request was cut off")
            return SlotOutcome.LOST
        self._attempt_log.mark_void(prepared)
        return SlotOutcome.UNUSED

    def _note_failure(
        self,
        error: RespanError,
        outcome: SlotOutcome,
        prepared: PreparedRequest[T],
        result: Response | TransportFailure,
        slot: Slot,
    ) -> None:
        self._stats.note_last(error)
        if failure_table.is_refusal(result, self._refusals):
            counts = self._stats.failure_counts()
            counts.refused += 1
            self._keeps_place = True
            if self._refused_at is None:
                self._refused_at = slot.granted_at
            counts.only_refused = not self._context.pacer.let_in_since(self._refused_at, self._operation)
        else:
            self._count(outcome, error)
        if error.effect is not Effect.NONE:
            self._stats.mark_suspect(prepared, error.effect, reason_of(error), response_parsing.answered_id(result))
        else:
            unused = outcome in (SlotOutcome.REFUSED, SlotOutcome.UNREACHED)
            self._attempt_log.mark_void(prepared, answered=not unused)

    def _count(self, outcome: SlotOutcome, error: RespanError) -> None:
        """Count a failure other than a refusal; during an outage it does not use up the attempts of an item."""
        counts = self._stats.failure_counts()
        if self._is_patient and (
            (outcome is SlotOutcome.UNREACHED and self._context.pacer.outage)
            or (outcome is SlotOutcome.FAILED and retry_after_of(error) is not None)
        ):
            counts.held_back += self._permit.held
        else:
            counts.counted += 1

    async def _claim_attempt(self, prepared: PreparedRequest[T]) -> None:
        try:
            await self._attempt_log.claim_attempt(prepared)
        except RespanError:
            self._final = True  # do not retry: a new attempt would fail the same way
            raise
        except BaseException:
            self._attempt_log.mark_void(prepared)
            raise

    # --------------------------------------------------------------- retrying

    @property
    def _refusals(self) -> frozenset[int]:
        """The statuses, besides 429, by which a proxy refuses for the limit."""
        return self._options.retry.refusal_statuses

    @property
    def _unconfirmed_effect(self) -> Effect:
        """The effect that a request may have had if it was sent, and no answer came."""
        return Effect.UNKNOWN if self._operation.changes else Effect.NONE

    @property
    def _is_patient(self) -> bool:
        """Whether the call waits without limit."""
        return self._priority is not Priority.INTERACTIVE

    def _wants(self, error: RespanError) -> bool:
        return not (self._abandoned or self._final) and self._options.retry.wants(
            error, creates=self._operation.creates, patient=self._is_patient
        )

    async def _retry(self, first: RespanError, counts: AttemptCounts) -> T | RespanError:
        """Let tenacity retry after a first failure. A call that succeeds at once never pays for tenacity."""
        pending = [first]

        async def attempt() -> T | RespanError:
            if pending:
                return pending.pop()
            result = await self._attempt()
            if isinstance(result, RespanError) and (self._abandoned or self._final):
                result.retryable = False
            return result

        retrying = self._options.retry.retrying(
            counts,
            creates=self._operation.creates,
            patient=self._is_patient,
            sleep=self._sleep,
            before_sleep=self._stats.emit_retry,
        )
        try:
            return await retrying(attempt)
        except DeadlineUnreachable as late:
            wait = late.wait
        return self._too_late(wait, "the next attempt would come in")

    async def _sleep(self, seconds: float) -> None:
        if self._deadline is not None and asyncio.get_running_loop().time() + seconds > self._deadline:
            raise DeadlineUnreachable(seconds)
        await self._context.pacer.clock.sleep(seconds)

    def _too_late(self, wait: float, why: str) -> DeadlineExceededError:
        error = self._deadline_error(
            f"{why} {wait:.1f} s, beyond the deadline of {self._options.deadline:g} s", retryable=False
        )
        with contextlib.suppress(OverflowError):  # no calendar has that day
            error.retry_at = self._context.clock() + timedelta(seconds=wait)
        return error
