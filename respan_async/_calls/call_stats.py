"""What the attempts of one call have come to: counted, remembered, and told to the hooks."""

import asyncio
from datetime import datetime
from typing import TypeVar

from respan_async._calls.context import ClientContext
from respan_async._calls.operation import Draft, Journal
from respan_async._http import protocol
from respan_async._pacing.slots import Slot
from respan_async.errors import Effect, RespanError, Suspect
from respan_async.events import AttemptEvent, IssuedEvent, RetryEvent, SuspectEvent, logger
from respan_async.models import CreatedKey
from respan_async.retry import Tally

Error = TypeVar("Error", bound=RespanError)


class Account:
    """Keep account of one call.

    Args:
        context: What all calls share.
        operation: The name of the operation.
        journal: Where suspects are noted; None for the client's memory of them.

    Attributes:
        requests: How many were sent.
        tally: What failed, once something has.
        effect: The worst of what the attempts may have done.
        suspects: Those that may have left a key.
    """

    __slots__ = ("_context", "_journal", "_operation", "effect", "requests", "suspects", "tally")

    def __init__(self, context: ClientContext, operation: str, journal: Journal | None) -> None:
        self._context = context
        self._operation = operation
        self._journal = journal
        self.requests = 0
        self.tally: Tally | None = None
        self.effect = Effect.NONE
        self.suspects: tuple[Suspect, ...] = ()

    def resent(self, times: int, effect: Effect) -> None:
        """Count what the transport sent again by itself, and what that may have done."""
        self.requests += times
        self.effect = self.effect.or_worse(effect)

    def summed_up(self, error: Error) -> Error:
        """Give the last error what all attempts together mean."""
        error.effect = self.effect.or_worse(error.effect)
        error.suspects = self.suspects
        error.attempts = self.requests
        return error

    def suspect(self, draft: Draft, sent_at: datetime, effect: Effect, reason: str, key_id: str | None = None) -> None:
        """Note that an attempt may have had an effect, and if it was a create, remember it as a suspect.

        Args:
            draft: The attempt.
            sent_at: When it was sent, aware.
            effect: What it may have done.
            reason: Why that is not known.
            key_id: The key's id, where the server has told it.
        """
        self.effect = self.effect.or_worse(effect)
        if draft.fields is None:
            return
        suspect = Suspect(
            name=draft.fields.get("name"),
            tag=draft.tag,
            id=key_id,
            effect=effect,
            sent_at=sent_at,
            sent=draft.fields,
            reason=reason,
        )
        self.suspects += (suspect,)
        if self._journal is None:
            self._context.book.add(suspect)
        else:
            self._journal.doubt(suspect)
        logger.warning("a key may have been made that nobody holds: name %r, %s", suspect.name, reason)
        self._context.hub.tell(SuspectEvent, suspect=suspect)

    def tell_issued(self, key: CreatedKey, began: float) -> None:
        """Tell that the call, which began at this time of the loop, has its key."""
        if self._context.hub.listening:
            elapsed = asyncio.get_running_loop().time() - began
            self._context.hub.tell(IssuedEvent, id=key.id, name=key.name, attempts=self.requests, elapsed=elapsed)

    def tell_attempt(
        self,
        request: protocol.Request,
        result: protocol.Answer | protocol.NoAnswer | None,
        answer: object,
        slot: Slot,
        departed: float,
    ) -> None:
        """Tell how an attempt ended.

        Args:
            request: What was asked.
            result: What came back; None if it was cut off.
            answer: What that was read as, or the exception.
            slot: The slot it had.
            departed: When it was sent, by the loop's clock.
        """
        failed = answer if isinstance(answer, BaseException) else None
        error = failed if isinstance(failed, RespanError) else None
        self._context.hub.tell(
            AttemptEvent,
            operation=self._operation,
            method=request.method,
            number=self.requests,
            waited=slot.granted_at - slot.asked_at,
            elapsed=asyncio.get_running_loop().time() - departed,
            status=result.status if result is not None else None,
            effect=error.effect if error else None,
            error=type(failed).__name__ if failed else None,
            request_id=error.request_id if error else None,
        )

    def tell_retry(self, error: RespanError, wait: float) -> None:
        """Tell that the call is tried again in so many seconds."""
        logger.info("%s: trying again in %.1f s after %s", self._operation, wait, type(error).__name__)
        self._context.hub.tell(
            RetryEvent,
            operation=self._operation,
            reason=type(error).__name__,
            status=error.status,
            wait=wait,
            attempts=self.requests,
        )
