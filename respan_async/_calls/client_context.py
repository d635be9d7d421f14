"""What calls share, and how they are made: the options of a call, and the parts of a client."""

import logging
from collections.abc import Callable
from datetime import datetime

import attrs

from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.clock_skew import ClockSkew
from respan_async._calls.lifecycle import Lifecycle
from respan_async._calls.suspects import InMemorySuspectStore
from respan_async._calls.sweep_memory import SweepMemory
from respan_async._calls.token_provider import TokenProvider
from respan_async._calls.unrevoked_keys import UnrevokedKeys
from respan_async._http.transport import Timeout, Transport
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.slots import Priority
from respan_async.events import EventDispatcher, PauseEvent, logger
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret


@attrs.frozen(kw_only=True)
class Options:
    """What may differ from call to call.

    Attributes:
        timeout: For one attempt.
        deadline: Seconds for the whole call, or None.
        retry: When a failed attempt is made again.
        priority: The class in which the call waits, or None for the one its kind has by itself.
        extra_headers: Sent besides; an empty value is a text.
    """

    timeout: Timeout
    deadline: float | None
    retry: RetryPolicy
    priority: Priority | None = None
    extra_headers: tuple[tuple[str, Secret | str], ...] = ()


@attrs.frozen(kw_only=True)
class ClientContext:
    """What a client, all views of it and all calls share.

    Attributes:
        transport: Sends.
        pacer: Says when.
        dispatcher: Tells the hooks.
        tokens: Gives the bearer token for each request.
        suspects: Where suspects are remembered.
        attempt_log: Where attempts are noted, unless a call has a log of its own.
        clock: The wall clock, aware.
        skew: How far it is from the server's.
        lifecycle: Where and until when the client may be used.
        unrevoked_keys: What was to be revoked after that.
        sweep_memory: What sweeps remember of each other.
        base_url: Scheme, host and port.
    """

    transport: Transport
    pacer: Pacer
    dispatcher: EventDispatcher
    tokens: TokenProvider
    suspects: InMemorySuspectStore
    attempt_log: AttemptLog
    clock: Callable[[], datetime]
    skew: ClockSkew
    lifecycle: Lifecycle
    unrevoked_keys: UnrevokedKeys
    sweep_memory: SweepMemory
    base_url: str

    def paused(self, reason: str, seconds: float, lower_only: bool) -> None:
        """Tell that requests are held back."""
        limit = self.pacer.window.limit
        said = str(limit) if limit else None
        problem = self.pacer.last_problem
        holds_nothing = lower_only and not self.pacer.has_patient_work
        # A refusal is everyday; that a store is unreachable was told with what becomes of it.
        is_news = reason not in ("refused", "unreachable") and not holds_nothing
        level = logging.WARNING if is_news else logging.INFO
        message = "requests are held back for %.1f s: %s; the limit is %s; last seen: %s"
        logger.log(level, message, seconds, reason, said or "unknown", problem or "nothing")
        self.dispatcher.emit(
            PauseEvent, reason=reason, seconds=seconds, lower_only=lower_only, limit=said, problem=problem
        )
