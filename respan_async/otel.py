"""OpenTelemetry: records spans and metrics from the events of a client, and gauges of its state.

    telemetry = OpenTelemetry()
    async with AsyncRespan(hooks=[telemetry]) as respan, telemetry.observing(respan): ...

Needs the extra: `pip install 'respan-async[otel]'`. Only the OpenTelemetry API is used; the records go where the
application's SDK sends them, and nowhere without an SDK. No secret, name or id is ever recorded.

Every HTTP attempt is a client span by the HTTP semantic conventions, under the span that is current for the caller.
Events do not know the server's address, so `server.address` and `url.full` are left out. A span is made after its
attempt has ended, so no `traceparent` header is sent. Beside an instrumentation of aiohttp itself, requests count
twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from respan_async._arguments import is_number, shown
from respan_async._http.operations import PATH
from respan_async.client import AsyncRespan
from respan_async.errors import ConfigurationError, RespanError
from respan_async.events import (
    AttemptEvent,
    Event,
    IssuedEvent,
    PauseEvent,
    RetryEvent,
    RevokedEvent,
    SuspectEvent,
    SweepEvent,
    logger,
)

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError:
    raise ImportError(
        "respan_async.otel needs OpenTelemetry, which is not installed: pip install 'respan-async[otel]'"
    ) from None

__all__ = ["OpenTelemetry"]

_SCOPE: Final = "respan_async"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ONE_KEY: Final = PATH + "{id}/"
_TEMPLATES: Final = {"create": PATH, "list": PATH, "retrieve": _ONE_KEY, "update": _ONE_KEY, "delete": _ONE_KEY}

# The boundaries of the semantic conventions for HTTP metrics.
_REQUEST_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# From a free slot, past the documented minute, to the hours of a large batch.
_WAIT_SECONDS: Final = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 10800)

_Value = str | int | float | bool


class LedgerCounts(Protocol):
    """The number of tickets and attempts in each state."""

    @property
    def tickets(self) -> Mapping[Any, int]:
        """Tickets, by the name of the state."""
        ...

    @property
    def attempts(self) -> Mapping[Any, int]:
        """Attempts, by the name of the state."""
        ...


class Countable(Protocol):
    """The part of an `Issuer` that is needed here."""

    async def counts(self) -> LedgerCounts:
        """Count tickets and attempts by their states."""
        ...


class OpenTelemetry:
    """A hook that records spans and metrics; with `observing`, it also records the state of a client.

    A span: `"POST /api/temporary-keys/"`, `"DELETE /api/temporary-keys/{id}/"`, for each attempt; besides the
    conventional attributes it has `respan.operation` and, on a failure, `respan.effect`: what it may have left. The
    caller's own span gets the events `respan.retry` and `respan.pause`.

    | metric | unit | by |
    |---|---|---|
    | `http.client.request.duration` | s | method, template, status, `error.type` |
    | `respan.client.wait.duration`: for the pace | s | `respan.operation` |
    | `respan.client.retries` | {retry} | `respan.operation`, `error.type` |
    | `respan.client.pauses` | {pause} | `respan.pause.reason`: `refused`, `asked`, `outage`, `unreachable` |
    | `respan.client.keys.issued` | {key} | |
    | `respan.client.keys.revoked`: orphaned keys | {key} | |
    | `respan.client.suspects` | {suspect} | `respan.effect` |
    | `respan.client.sweeps` | {sweep} | |

    And these gauges, read every few seconds inside `observing`:

    | metric | unit | by |
    |---|---|---|
    | `respan.client.pace.limit`: given or learned, once it is known | {request} | |
    | `respan.client.pace.period`: of that limit | s | |
    | `respan.client.pace.used`: what counts against that limit | {request} | |
    | `respan.client.pace.in_flight` | {request} | |
    | `respan.client.pace.waiting` | {request} | `respan.priority`: `interactive`, `batch` or `sweep` |
    | `respan.client.pace.paused`: 1 while held back, else 0 | 1 | `respan.pause.reason` |
    | `respan.client.suspects.remembered`: without an issuer's | {suspect} | |
    | `respan.ledger.tickets` | {ticket} | `respan.ticket.state`: `open`, `claimed`, `issued` or `delivered` |
    | `respan.ledger.attempts`: an issuer's suspects among them | {attempt} | `respan.attempt.state` |

    Args:
        tracer_provider: Where spans go; the application's global one by default.
        meter_provider: Where metrics go; the application's global one by default.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._duration = _histogram(
            meter, "http.client.request.duration", "Duration of HTTP client requests.", _REQUEST_SECONDS
        )
        self._wait = _histogram(
            meter, "respan.client.wait.duration", "How long attempts waited for the pace.", _WAIT_SECONDS
        )
        self._retries = meter.create_counter("respan.client.retries", "{retry}", "Calls to be tried again.")
        self._pauses = meter.create_counter("respan.client.pauses", "{pause}", "Times that requests were held back.")
        self._issued = meter.create_counter("respan.client.keys.issued", "{key}", "Keys made and received.")
        self._revoked = meter.create_counter("respan.client.keys.revoked", "{key}", "Keys revoked as nobody held them.")
        self._suspects = meter.create_counter(
            "respan.client.suspects", "{suspect}", "Attempts that may have left a key nobody holds."
        )
        self._sweeps = meter.create_counter("respan.client.sweeps", "{sweep}", "Sweeps that were completed.")
        self._limit = meter.create_gauge(
            "respan.client.pace.limit", "{request}", "Requests that a period has room for."
        )
        self._period = meter.create_gauge("respan.client.pace.period", "s", "The period of the limit.")
        self._used = meter.create_gauge(
            "respan.client.pace.used", "{request}", "Requests that count against the limit."
        )
        self._in_flight = meter.create_gauge("respan.client.pace.in_flight", "{request}", "Requests in the air.")
        self._waiting = meter.create_gauge("respan.client.pace.waiting", "{request}", "Requests that wait for a turn.")
        self._paused_now = meter.create_gauge("respan.client.pace.paused", "1", "Whether requests are held back.")
        self._remembered = meter.create_gauge(
            "respan.client.suspects.remembered", "{suspect}", "Suspects that the client remembers."
        )
        self._tickets = meter.create_gauge("respan.ledger.tickets", "{ticket}", "Tickets of the ledger, by state.")
        self._attempts = meter.create_gauge("respan.ledger.attempts", "{attempt}", "Attempts of the ledger, by state.")

    @asynccontextmanager
    async def observing(
        self, respan: AsyncRespan, issuer: Countable | None = None, *, every: float = 10.0
    ) -> AsyncGenerator[None]:
        """Read a client's pace and a ledger's states: on entering, then `every` so often, and a last time on leaving.

        One client per process, because the readings of a second one would replace the first one's.

        Args:
            respan: The client.
            issuer: The `Issuer` whose ledger is counted; None for no ledger.
            every: Seconds between readings; less than the exporter's interval, which would otherwise repeat readings.

        Raises:
            ConfigurationError: `every` is not a number of seconds above 0.
        """
        if not is_number(every) or not every > 0:
            raise ConfigurationError(f"every: expected a number of seconds above 0, got {shown(every)}")

        async def keep_reading() -> None:
            while True:
                await asyncio.sleep(every)
                await self._read(respan, issuer)

        await self._read(respan, issuer)
        reading = asyncio.create_task(keep_reading())
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            await self._read(respan, issuer)

    async def _read(self, respan: AsyncRespan, issuer: Countable | None) -> None:
        pace = respan.pace
        if pace.limit is not None:
            self._limit.set(pace.limit.limit)
            self._period.set(pace.limit.per)
            self._used.set(pace.used)
        self._in_flight.set(pace.in_flight)
        for priority, waiting in pace.waiting.items():
            self._waiting.set(waiting, {"respan.priority": priority})
        self._paused_now.set(int(pace.paused_until is not None), {"respan.pause.reason": "refused"})
        self._paused_now.set(int(pace.outage), {"respan.pause.reason": "outage"})
        self._remembered.set(len(respan.suspects))
        if issuer is None:
            return
        try:
            counts = await issuer.counts()
        except RespanError as error:
            logger.warning("the ledger could not be counted: %s", error)
            return
        for state, tickets in counts.tickets.items():
            self._tickets.set(tickets, {"respan.ticket.state": str(state)})
        for state, attempts in counts.attempts.items():
            self._attempts.set(attempts, {"respan.attempt.state": str(state)})

    def __call__(self, event: Event) -> None:
        """Record an event; unknown kinds are ignored."""
        match event:
            case AttemptEvent():
                self._attempted(event)
            case RetryEvent():
                self._retried(event)
            case PauseEvent():
                self._paused(event)
            case IssuedEvent():
                self._issued.add(1)
            case RevokedEvent():
                self._revoked.add(1)
            case SuspectEvent(suspect=suspect):
                self._suspects.add(1, {"respan.effect": suspect.effect.value})
            case SweepEvent():
                self._sweeps.add(1)

    def _attempted(self, event: AttemptEvent) -> None:
        template = _TEMPLATES[event.operation]
        conventional = _known(
            {
                "http.request.method": event.method,
                "url.template": template,
                "http.response.status_code": event.status,
                "error.type": event.error,
            }
        )
        own = _known(
            {
                "http.request.resend_count": event.number - 1 or None,
                "respan.operation": event.operation,
                "respan.effect": event.effect and event.effect.value,
            }
        )
        self._duration.record(event.elapsed, conventional)
        self._wait.record(event.waited, {"respan.operation": event.operation})
        end = _nanoseconds(event.at)
        span = self._tracer.start_span(
            f"{event.method} {template}",
            kind=trace.SpanKind.CLIENT,
            attributes={**conventional, **own},
            start_time=end - round(event.elapsed * 1e9),
        )
        if event.error is not None:
            span.set_status(trace.StatusCode.ERROR)
        span.end(end)

    def _retried(self, event: RetryEvent) -> None:
        attributes = {"respan.operation": event.operation, "error.type": event.reason}
        self._retries.add(1, attributes)
        facts = {"http.response.status_code": event.status, "respan.retry.wait": event.wait}
        _note("respan.retry", event, {**attributes, **facts})

    def _paused(self, event: PauseEvent) -> None:
        attributes = {"respan.pause.reason": event.reason}
        self._pauses.add(1, attributes)
        facts = {
            "respan.pause.duration": event.seconds,
            "respan.pause.lower_only": event.lower_only,
            "respan.pause.limit": event.limit,
        }
        _note("respan.pause", event, {**attributes, **facts})


def _histogram(meter: metrics.Meter, name: str, description: str, boundaries: Sequence[float]) -> metrics.Histogram:
    """Make a histogram of seconds."""
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=boundaries)


def _note(name: str, event: Event, attributes: Mapping[str, _Value | None]) -> None:
    """Add an event to the caller's span, if it is being recorded."""
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(name, _known(attributes), _nanoseconds(event.at))


def _known(attributes: Mapping[str, _Value | None]) -> dict[str, _Value]:
    """Leave out attributes without a value, which OpenTelemetry does not accept."""
    return {name: value for name, value in attributes.items() if value is not None}


def _nanoseconds(at: datetime) -> int:
    """Return a time in nanoseconds since 1970, without a float's rounding."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
