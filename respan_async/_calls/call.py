"""One call: pace, send, read, decide, retry, tell.

The life of a create. A slot is waited for; then a fresh tag and expiry are drawn; then the attempt is noted where more
than this process's memory must know of it (the journal); then the bytes leave. What comes back settles the slot, and
is a key or an error that says what it may have left; a suspect is remembered before anything else is done. Only then
the retry policy decides. An attempt *returns* its error: what is raised is raised once, by a frame without a secret.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from respan_async._calls.call_stats import Account
from respan_async._calls.context import ClientContext, Options
from respan_async._calls.operation import Draft, Journal, Plan
from respan_async._http import protocol
from respan_async._http.transport import Flight
from respan_async._pacing.slots import End, Priority, Slot, TooLate
from respan_async.errors import (
    ClientStateError,
    ConfigurationError,
    DeadlineExceededError,
    Effect,
    InvalidResponseError,
    RespanError,
)
from respan_async.models import CreatedKey
from respan_async.retry import Tally, retry_after_of
from respan_async.secret import Secret, usable_token, veiled

T = TypeVar("T")


class Call(Generic[T]):
    """One call, from its first attempt to its result.

    Args:
        context: What all calls share.
        plan: The kind of call.
        subject: What it is about, for the plan's `draft`.
        options: How.
        priority: The class in which it waits, unless the options name another.
        journal: Where its attempts are noted; None for the client's memory of suspects.
    """

    __slots__ = (
        "_abandoned",
        "_account",
        "_context",
        "_deadline",
        "_final",
        "_flight",
        "_in_air",
        "_journal",
        "_options",
        "_plan",
        "_priority",
        "_started",
        "_subject",
        "_task",
    )

    @property
    def replayed(self) -> bool:
        """As an item of a batch: whether the key was made earlier, which it never was."""
        return False

    def __init__(
        self,
        context: ClientContext,
        plan: Plan[T],
        subject: Any,
        options: Options,
        priority: Priority = Priority.INTERACTIVE,
        journal: Journal | None = None,
    ) -> None:
        self._context = context
        self._plan = plan
        self._subject = subject
        self._options = options
        self._priority = priority if options.priority is None else options.priority
        self._journal = journal
        self._account = Account(context, plan.operation, journal)
        self._flight: Flight | None = None
        self._in_air = False
        self._abandoned = False
        self._final = False
        self._task: asyncio.Task[Any] | None = None
        self._deadline: float | None = None
        self._started = -1.0

    def begin(self) -> None:
        """Let the time of the whole call begin, if it has not."""
        if self._started < 0:
            self._started = asyncio.get_running_loop().time()
            if self._options.deadline is not None:
                self._deadline = self._started + self._options.deadline

    async def run(self) -> T:
        """Make the call.

        Raises:
            RespanError: It did not succeed.
        """
        self._task = asyncio.current_task()
        if self._abandoned:
            raise self.given_up()
        self.begin()
        result = await self._attempt()
        tally = self._account.tally
        if isinstance(result, RespanError) and tally is not None and self._wants(result):
            result = await self._retry(result, tally)
        if isinstance(result, RespanError):
            raise self._account.summed_up(result)
        if isinstance(result, CreatedKey) and not self._abandoned:
            self._account.tell_issued(result, self._started)
        return result

    def given_up(self) -> ClientStateError:
        """Return the error of a call that was abandoned before it could succeed."""
        error = ClientStateError("the call was given up before it was sent, or sent again", effect=self._in_doubt)
        return self._account.summed_up(error)

    def abandon(self) -> bool:
        """Give up whoever awaits this call; return whether it goes on.

        An attempt whose bytes may have left is carried to its end, and not repeated. Anything else is cancelled.
        """
        self._abandoned = True
        if self._in_air and (self._flight is None or not self._flight.recall()):
            return True
        if self._task is not None:
            self._task.cancel()
        return False

    def overdue(self) -> DeadlineExceededError:
        """Return the error of a call whose time ran out while an attempt was in the air."""
        error = DeadlineExceededError(
            f"{self._plan.operation}: no answer within the deadline of {self._options.deadline:g} s",
            effect=self._in_doubt,
            retryable=True,
        )
        return self._account.summed_up(error)

    @property
    def _in_doubt(self) -> Effect:
        """What the attempt that is in the air now may have done."""
        left = self._in_air and (self._flight is None or self._flight.may_have_left)
        return self._doubt if left else Effect.NONE

    # ------------------------------------------------------------- an attempt

    async def _attempt(self) -> T | RespanError:
        try:
            slot = await self._context.pacer.acquire(self._priority, self._deadline)
            return await self._send(slot)
        except TooLate as late:
            wait = late.wait
        except RespanError as error:
            return error  # closed meanwhile, or no token: raised with what the attempts before it mean
        return self._too_late(wait, "the rate limit has no room for")

    async def _send(self, slot: Slot) -> T | RespanError:
        context, journal = self._context, self._journal
        end = End.UNUSED
        answer: T | RespanError | None = None
        sendings = 1
        try:
            token = await self._token()
            sent_at = context.wall()
            draft = self._plan.draft(self._subject, sent_at)
            request = draft.request
            permits = None
            if journal is not None:
                await self._intend(journal, draft, sent_at)
                permits = journal.permits
            departed = asyncio.get_running_loop().time() if context.hub.listening else 0.0
            flight = self._flight = Flight(request.body, permits) if request.body is not None else None
            self._in_air = True
            self._account.requests += 1
            try:
                result = await context.transport.send(
                    request, flight, token, self._options.timeout, self._options.extra_headers
                )
            except BaseException as cut:
                end = self._cut_off(cut, draft, sent_at, flight)
                self._account.tell_attempt(request, None, cut, slot, departed)
                raise
            finally:
                self._in_air = False
            if result.resends:
                sendings += result.resends
                self._account.resent(result.resends, self._doubt)
            answer = self._read(request, result, token)
            end = _end_of(result)
            if isinstance(answer, RespanError):
                self._note_failure(answer, end, draft, sent_at, result)
        finally:
            retry_after = retry_after_of(answer) if isinstance(answer, RespanError) else None
            context.pacer.settle(slot, end, caller=self, retry_after=retry_after, sendings=sendings)
        if context.hub.listening:
            self._account.tell_attempt(request, result, answer, slot, departed)
        return answer  # type: ignore[return-value]  # a plan without a model is a Plan[None]

    def _read(
        self, request: protocol.Request, result: protocol.Answer | protocol.NoAnswer, token: Secret
    ) -> T | RespanError | None:
        if not protocol.is_success(result):
            return protocol.failure(request, result, token, self._context.wall())
        return None if self._plan.model is None else protocol.read(request, result, self._plan.model, token)

    def _cut_off(self, cut: BaseException, draft: Draft, sent_at: datetime, flight: Flight | None) -> End:
        """Note an attempt that was cancelled, or that the session cannot carry."""
        # Without proof that nothing left, something may have. What the transport raises, it raises before that.
        if not isinstance(cut, RespanError) and (flight is None or flight.may_have_left):
            self._account.suspect(draft, sent_at, self._doubt, "the request was cut off")
            return End.LOST
        if self._journal is not None:
            self._journal.void(draft)
        return End.UNUSED

    def _note_failure(
        self, error: RespanError, end: End, draft: Draft, sent_at: datetime, result: protocol.Answer | protocol.NoAnswer
    ) -> None:
        tally = self._account.tally = self._account.tally or Tally()
        if protocol.is_refusal(result):
            tally.refused += 1
        elif end is End.UNREACHED and self._priority is not Priority.INTERACTIVE and self._context.pacer.outage:
            tally.held_back += 1
        else:
            tally.counted += 1
        if error.effect is not Effect.NONE:
            key_id = protocol.answered_id(result) if isinstance(result, protocol.Answer) else None
            self._account.suspect(draft, sent_at, error.effect, _reason(error), key_id)
        elif self._journal is not None:
            self._journal.void(draft)

    async def _intend(self, journal: Journal, draft: Draft, sent_at: datetime) -> None:
        try:
            await journal.intend(draft, sent_at)
        except RespanError:
            self._final = True  # nothing that trying again now would mend
            raise
        except BaseException:
            journal.void(draft)
            raise

    async def _token(self) -> Secret:
        source = self._context.token
        if isinstance(source, Secret):
            return source
        try:
            token = veiled(await source())
        except Exception as error:
            raise ConfigurationError(f"api_key: the callable raised {type(error).__name__}") from error
        return usable_token(token)

    # --------------------------------------------------------------- retrying

    @property
    def _creates(self) -> bool:
        return self._plan.operation == "create"

    @property
    def _doubt(self) -> Effect:
        """What an attempt may have done of which only the leaving is known."""
        return Effect.UNKNOWN if self._plan.changes else Effect.NONE

    def _wants(self, error: RespanError) -> bool:
        return not (self._abandoned or self._final) and self._options.retry.wants(error, creates=self._creates)

    async def _retry(self, first: RespanError, tally: Tally) -> T | RespanError:
        """Let tenacity go on from a first failure. Entered only now, it costs a call that succeeds nothing."""
        pending = [first]

        async def attempt() -> T | RespanError:
            if pending:
                return pending.pop()
            result = await self._attempt()
            if isinstance(result, RespanError) and (self._abandoned or self._final):
                result.retryable = False
            return result

        retrying = self._options.retry.retrying(
            tally, creates=self._creates, sleep=self._sleep, before_sleep=self._account.tell_retry
        )
        try:
            return await retrying(attempt)
        except TooLate as late:
            wait = late.wait
        return self._too_late(wait, "the next attempt would come in")

    async def _sleep(self, seconds: float) -> None:
        if self._deadline is not None and asyncio.get_running_loop().time() + seconds > self._deadline:
            raise TooLate(seconds)
        await asyncio.sleep(seconds)

    def _too_late(self, wait: float, why: str) -> DeadlineExceededError:
        error = DeadlineExceededError(
            f"{self._plan.operation}: {why} {wait:.1f} s, beyond the deadline of {self._options.deadline:g} s",
            retryable=False,
        )
        error.retry_at = self._context.wall() + timedelta(seconds=wait)
        return error


_SERVED: Final = range(200, 500)


def _end_of(result: protocol.Answer | protocol.NoAnswer) -> End:
    """Say what a result means for the slot."""
    if protocol.is_over_limit(result):
        return End.REFUSED
    if isinstance(result, protocol.Answer):
        return End.ANSWERED if result.status in _SERVED and result.status != 408 else End.FAILED
    if result.status is not None:
        return End.FAILED
    return End.LOST if result.left else End.UNREACHED


def _reason(error: RespanError) -> str:
    if error.status is None:
        return type(error).__name__
    broken = " without a usable key" if isinstance(error, InvalidResponseError) else ""
    return f"{type(error).__name__} after status {error.status}{broken}"
