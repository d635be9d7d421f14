"""Holds the parts of a client that all its calls share, and the options of a call."""

import logging
from collections.abc import Callable
from datetime import datetime

import attrs

from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.clock_skew import ClockSkew
from respan_async._calls.lifecycle import Lifecycle
from respan_async._calls.revocations_after_close import RevocationsAfterClose
from respan_async._calls.suspect_store import InMemorySuspectStore
from respan_async._calls.sweep_memory import SweepMemory
from respan_async._calls.token_provider import TokenProvider
from respan_async._calls.wall_clock import WallClock
from respan_async._http.transport import Timeout, Transport
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async.events import EventDispatcher, PauseEvent, logger
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret


@attrs.frozen(kw_only=True)
class Options:
    """The options of one call.

    Attributes:
        timeout: The timeout of one attempt.
        deadline: Seconds for the whole call, or None.
        retry: When a failed attempt is made again.
        priority: The class in which the call waits, or None for the default of its operation.
        extra_headers: Additional headers; an empty value is a plain text, not a secret.
    """

    timeout: Timeout
    deadline: float | None
    retry: RetryPolicy
    priority: Priority | None = None
    extra_headers: tuple[tuple[str, Secret | str], ...] = ()


@attrs.frozen(kw_only=True)
class ClientContext:
    """The state that a client, all its views and all its calls share.

    Attributes:
        transport: Sends requests.
        pacer: Says when a request may be sent.
        dispatcher: Calls the hooks.
        tokens: Gives the bearer token for each request.
        suspects: The store of suspects.
        attempt_log: The log of attempts, unless a call brings another.
        clock: The wall clock, aware.
        skew: The difference between that clock and the server's.
        lifecycle: Where and until when the client may be used.
        revocations_after_close: The keys whose revocation was requested after the client was closed.
        sweep_memory: What one sweep remembers for the next.
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
    revocations_after_close: RevocationsAfterClose
    sweep_memory: SweepMemory
    base_url: str

    def advance(self, seconds: float) -> None:
        """Advance the wall clock and the pacer's clock for a test, so that waiting tasks go on at once."""
        if isinstance(self.clock, WallClock):  # a test may have given another clock
            self.clock.advance(seconds)
        self.pacer.advance(seconds)

    def paused(self, reason: str, seconds: float, lower_only: bool) -> None:
        """Log a pause of the requests, and emit its event."""
        limit = self.pacer.window.limit
        said = str(limit) if limit else None
        problem = self.pacer.last_problem
        holds_nothing = lower_only and not self.pacer.has_patient_work
        # Log at INFO: 429s are routine, and StoreOutage has already logged an unreachable store.
        is_news = reason not in ("refused", "unreachable") and not holds_nothing
        level = logging.WARNING if is_news else logging.INFO
        message = "requests are held back for %.1f s: %s; the limit is %s; last seen: %s"
        logger.log(level, message, seconds, reason, said or "unknown", problem or "nothing")
        self.dispatcher.emit(
            PauseEvent, reason=reason, seconds=seconds, lower_only=lower_only, limit=said, problem=problem
        )
