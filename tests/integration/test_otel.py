"""What OpenTelemetry is told: spans, span events and metrics, and never a secret, a name or an id."""

import asyncio
import logging
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from respan_async import (
    AsyncRespan,
    AuthenticationError,
    ConfigurationError,
    CreatedKey,
    CreateKeyRequest,
    NotFoundError,
    RateLimit,
    RetryPolicy,
)
from respan_async.events import AttemptEvent, Event, SuspectEvent
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.otel import OpenTelemetry
from respan_async.testing import FakeRespan, SlidingLog

QUICK = RetryPolicy(initial=0.01)
ALL = "/api/temporary-keys/"
ONE = "/api/temporary-keys/{id}/"


class Telemetry:
    """An application's SDK that keeps everything in memory, and the hook that feeds it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._last: dict[str, Metric] = {}
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("the application")
        self.hook = OpenTelemetry(self.tracer_provider, self.meter_provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The client's own spans, in the order they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]

    def read(self) -> dict[str, Metric]:
        """Read every metric, by its name, as last exported: older SDKs export a gauge once each time it is set."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                self._last.update({metric.name: metric for metric in scope.metrics})
        return self._last

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Read a metric: the attributes and the value of each series, a histogram's being its count."""
        points: list[tuple[dict[str, Any], Any]] = []
        for point in self.read()[name].data.data_points:
            assert isinstance(point, NumberDataPoint | HistogramDataPoint)
            value = point.value if isinstance(point, NumberDataPoint) else point.count
            points.append((dict(point.attributes or {}), value))
        return points

    def gauge(self, name: str) -> Any:
        """Read a gauge: its one value, or each value by its one attribute's."""
        points = self.points(name) if name in self.read() else []
        values = {"".join(map(str, attributes.values())): value for attributes, value in points}
        return values.get("") if set(values) <= {""} else values

    def exported(self) -> str:
        """Everything that leaves the process, as one text."""
        spans = "".join(span.to_json() for span in self._exporter.get_finished_spans())
        return spans + self._data().to_json()

    def _data(self) -> MetricsData:
        data = self._reader.get_metrics_data()
        assert data is not None
        return data


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def connect(fake: FakeRespan, telemetry: Telemetry, **settings: Any) -> AsyncRespan:
    settings = {"hooks": [telemetry.hook], "retry": QUICK, **settings}
    return AsyncRespan(fake.api_key, base_url=fake.url, **settings)


async def test_a_key_is_one_span_and_counted(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """A create that succeeds at once: a client span by the conventions, its duration, its wait, a key issued."""
    async with connect(fake_respan, telemetry) as respan:
        await respan.temporary_keys.create(name="tenant-42")

    (span,) = telemetry.spans
    assert span.name == "POST /api/temporary-keys/"
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is None
    assert span.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "url.template": ALL,
        "respan.operation": "create",
    }
    assert telemetry.points("http.client.request.duration") == [
        ({"http.request.method": "POST", "http.response.status_code": 201, "url.template": ALL}, 1)
    ]
    assert telemetry.points("respan.client.wait.duration") == [({"respan.operation": "create"}, 1)]
    assert telemetry.points("respan.client.keys.issued") == [({}, 1)]


async def test_every_operation_has_a_name_of_its_own(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """However many keys there are, there are five names: an id is a placeholder, a query is left out."""
    async with connect(fake_respan, telemetry) as respan:
        keys = respan.temporary_keys
        key = await keys.create()
        await keys.list(page_size=7)
        await keys.retrieve(key.id)
        await keys.update(key.id, max_usage=5)
        await keys.delete(key.id)

    assert [span.name for span in telemetry.spans] == [
        f"POST {ALL}",
        f"GET {ALL}",
        f"GET {ONE}",
        f"PATCH {ONE}",
        f"DELETE {ONE}",
    ]
    operations = [(span.attributes or {})["respan.operation"] for span in telemetry.spans]
    assert operations == ["create", "list", "retrieve", "update", "delete"]


def test_a_span_covers_the_time_of_its_attempt() -> None:
    """The event comes when the attempt is over: the span ends then, and began `elapsed` before, to the microsecond."""
    telemetry = Telemetry()
    at = datetime(2026, 11, 5, 12, 0, 30, 123457, tzinfo=UTC)

    telemetry.hook(
        AttemptEvent(
            at=at,
            operation="create",
            method="POST",
            number=1,
            waited=0.0,
            elapsed=2.5,
            status=201,
            effect=None,
            error=None,
            request_id=None,
        )
    )

    (span,) = telemetry.spans
    assert span.end_time == 1_793_880_030_123_457_000
    assert span.start_time == span.end_time - 2_500_000_000


async def test_a_retry_is_a_second_span_and_an_event_on_the_callers(
    fake_respan: FakeRespan, telemetry: Telemetry
) -> None:
    """503, then a key: two spans under the caller's, which is told why there are two."""
    fake_respan.script("unavailable_503")

    async with connect(fake_respan, telemetry) as respan:
        with telemetry.tracer.start_as_current_span("onboard tenant") as outer:
            await respan.temporary_keys.create()

    first, second = telemetry.spans
    assert first.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 503,
        "url.template": ALL,
        "error.type": "InternalServerError",
        "respan.operation": "create",
        "respan.effect": "unknown",
    }
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes is not None
    assert second.attributes["http.request.resend_count"] == 1
    assert second.status.status_code is StatusCode.UNSET
    assert isinstance(outer, ReadableSpan)
    (event,) = outer.events
    assert event.name == "respan.retry"
    assert event.attributes is not None
    assert event.attributes["error.type"] == "InternalServerError"
    assert event.attributes["http.response.status_code"] == 503
    assert telemetry.points("respan.client.retries") == [
        ({"respan.operation": "create", "error.type": "InternalServerError"}, 1)
    ]


async def test_a_refusal_is_a_pause(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """429, and for a probe too: errors on their spans, a pause on the caller's; nothing may have been left."""
    fake_respan.script("refuse:0.05", "refuse:0.05")

    async with connect(fake_respan, telemetry) as respan:
        with telemetry.tracer.start_as_current_span("onboard tenant") as outer:
            await respan.temporary_keys.create()

    refused = telemetry.spans[0].attributes or {}
    assert refused["http.response.status_code"] == 429
    assert refused["error.type"] == "RateLimitError"
    assert refused["respan.effect"] == "none"
    assert isinstance(outer, ReadableSpan)
    pause = outer.events[1]
    assert [event.name for event in outer.events] == ["respan.retry", "respan.pause", "respan.retry"]
    assert pause.attributes == {
        "respan.pause.reason": "refused",
        "respan.pause.duration": pytest.approx(0.05, abs=0.02),
        "respan.pause.lower_only": False,
    }
    assert telemetry.points("respan.client.pauses") == [({"respan.pause.reason": "refused"}, 1)]
    assert "respan.client.suspects" not in telemetry.read()


async def test_a_lost_answer_is_a_suspect_and_the_sweep_revokes_it(
    fake_respan: FakeRespan, telemetry: Telemetry
) -> None:
    """A key whose answer is lost, replaced, then swept: one suspect by its effect, one revoked, one sweep."""
    fake_respan.script("lose_answer_after_create")

    async with connect(fake_respan, telemetry, tag_names=True) as respan:
        key = await respan.temporary_keys.create(name="tenant-42")
        await respan.temporary_keys.sweep(grace=0)

    lost = telemetry.spans[0].attributes or {}
    assert "http.response.status_code" not in lost
    assert lost["error.type"] == "APIConnectionError"
    assert lost["respan.effect"] == "unknown"
    assert telemetry.points("respan.client.suspects") == [({"respan.effect": "unknown"}, 1)]
    assert telemetry.points("respan.client.keys.issued") == [({}, 1)]
    assert telemetry.points("respan.client.keys.revoked") == [({}, 1)]
    assert telemetry.points("respan.client.sweeps") == [({}, 1)]
    assert fake_respan.unheld([key.id]) == []


async def test_a_failure_that_is_final_is_an_error(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """A 404 is raised and not retried: one span with an error, and no key."""
    async with connect(fake_respan, telemetry) as respan:
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.retrieve("nowhere.x")

    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "NotFoundError"
    assert "respan.client.retries" not in telemetry.read()


@pytest.mark.parametrize("deadline", [None, 30.0])
async def test_attempts_belong_to_the_callers_span(
    fake_respan: FakeRespan, telemetry: Telemetry, deadline: float | None
) -> None:
    """Calls that run in a task of their own, and those that do not, side by side: each under its own caller's span."""

    async def onboard(respan: AsyncRespan, name: str) -> tuple[int, int]:
        with telemetry.tracer.start_as_current_span(name) as outer:
            key = await respan.temporary_keys.create(name=name)
            await respan.temporary_keys.retrieve(key.id)
        context = outer.get_span_context()
        return context.trace_id, context.span_id

    async with connect(fake_respan, telemetry, deadline=deadline) as respan:
        callers = await asyncio.gather(*(onboard(respan, f"tenant-{number}") for number in range(3)))

    parents = [(span.parent.trace_id, span.parent.span_id) for span in telemetry.spans if span.parent]
    assert sorted(parents) == sorted([*callers, *callers])


async def test_a_batch_belongs_to_the_span_it_was_entered_under(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """Every attempt of a batch is a child of the span around it."""
    async with connect(fake_respan, telemetry) as respan:
        with telemetry.tracer.start_as_current_span("nightly") as outer:
            await respan.temporary_keys.create_many(CreateKeyRequest(name=f"tenant-{n}") for n in range(5))

    parents = {span.parent.span_id for span in telemetry.spans if span.parent}
    assert len(telemetry.spans) == 5
    assert parents == {outer.get_span_context().span_id}


@pytest.mark.virtual
async def test_a_cancelled_callers_attempt_is_still_recorded(telemetry: Telemetry) -> None:
    """The key that arrives for nobody, and its revoking, are spans in the trace of the caller that went away."""
    async with FakeRespan(latency=2.0) as fake, connect(fake, telemetry) as respan:
        with telemetry.tracer.start_as_current_span("web request") as outer:
            caller = asyncio.create_task(respan.temporary_keys.create())
            await asyncio.sleep(1)
            caller.cancel()
            await asyncio.wait({caller})

    assert [span.name for span in telemetry.spans] == [f"POST {ALL}", f"DELETE {ONE}"]
    assert {span.parent.span_id for span in telemetry.spans if span.parent} == {outer.get_span_context().span_id}
    assert telemetry.points("respan.client.keys.revoked") == [({}, 1)]


@pytest.mark.virtual
async def test_waiting_for_the_pace_is_measured_apart(telemetry: Telemetry) -> None:
    """The second key of a limit of one a minute waits a minute: as waiting, not as the request's duration."""
    async with (
        FakeRespan(limit=SlidingLog(1, per=60)) as fake,
        connect(fake, telemetry, pace=RateLimit(1, per=60)) as respan,
    ):
        await respan.temporary_keys.create()
        await respan.temporary_keys.create()

    found = telemetry.read()
    (wait,) = found["respan.client.wait.duration"].data.data_points
    (duration,) = found["http.client.request.duration"].data.data_points
    assert isinstance(wait, HistogramDataPoint)
    assert isinstance(duration, HistogramDataPoint)
    assert wait.sum == pytest.approx(60, abs=1)
    assert duration.sum < 1
    assert "respan.client.pauses" not in found


async def test_metrics_say_what_they_are(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """Units, descriptions, and buckets that fit seconds instead of the SDK's milliseconds."""
    async with connect(fake_respan, telemetry) as respan:
        await respan.temporary_keys.create()

    found = telemetry.read()
    assert {name: metric.unit for name, metric in found.items()} == {
        "http.client.request.duration": "s",
        "respan.client.wait.duration": "s",
        "respan.client.keys.issued": "{key}",
    }
    assert all(metric.description for metric in found.values())
    (duration,) = found["http.client.request.duration"].data.data_points
    assert isinstance(duration, HistogramDataPoint)
    assert duration.explicit_bounds[:3] == (0.005, 0.01, 0.025)


@pytest.mark.virtual
async def test_the_gauges_tell_the_pace(telemetry: Telemetry) -> None:
    """Three a minute for six requests and a batch: what is used, in the air and waiting, by class, as it changes."""
    async with (
        FakeRespan(limit=SlidingLog(3, per=60), latency=2.0) as fake,
        connect(fake, telemetry, pace=RateLimit(3, per=60)) as respan,
        telemetry.hook.observing(respan, every=1.0),
    ):
        assert telemetry.gauge("respan.client.pace.limit") == 3
        assert telemetry.gauge("respan.client.pace.period") == 60
        assert telemetry.gauge("respan.client.pace.used") == 0
        assert telemetry.gauge("respan.client.pace.waiting") == {"interactive": 0, "batch": 0, "sweep": 0}

        callers = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(6)]
        requests = [CreateKeyRequest() for _ in range(4)]
        batch = asyncio.ensure_future(respan.temporary_keys.create_many(requests))
        await asyncio.sleep(1.5)
        assert telemetry.gauge("respan.client.pace.in_flight") == 3
        assert telemetry.gauge("respan.client.pace.waiting") == {"interactive": 3, "batch": 4, "sweep": 0}

        await asyncio.sleep(3)
        assert telemetry.gauge("respan.client.pace.in_flight") == 0
        assert telemetry.gauge("respan.client.pace.used") == 3
        assert telemetry.gauge("respan.client.pace.paused") == {"refused": 0, "outage": 0}
        await asyncio.gather(*callers)
        await batch
    assert telemetry.gauge("respan.client.pace.waiting") == {"interactive": 0, "batch": 0, "sweep": 0}


@pytest.mark.virtual
async def test_the_gauges_tell_a_pause_and_what_it_taught(telemetry: Telemetry) -> None:
    """No limit is known, so none is told, until refusals are believed: all are held back, and then there is a limit."""
    async with (
        FakeRespan(limit=SlidingLog(60, per=60), latency=0.1) as fake,
        connect(fake, telemetry) as respan,
        telemetry.hook.observing(respan, every=1.0),
    ):
        assert telemetry.gauge("respan.client.pace.limit") is None

        callers = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(150)]
        await asyncio.sleep(10)
        assert telemetry.gauge("respan.client.pace.paused") == {"refused": 1, "outage": 0}

        await asyncio.gather(*callers)
        await asyncio.sleep(1)
        assert telemetry.gauge("respan.client.pace.limit") == 60
        assert telemetry.gauge("respan.client.pace.period") == 60
        assert telemetry.gauge("respan.client.pace.paused") == {"refused": 0, "outage": 0}


@pytest.mark.virtual
async def test_the_gauges_tell_an_outage(telemetry: Telemetry) -> None:
    """Nobody answers: batches are held back, which is counted as a pause and shown for as long as it lasts."""
    async with (
        FakeRespan() as fake,
        connect(fake, telemetry, retry=RetryPolicy()) as respan,
        telemetry.hook.observing(respan, every=1.0),
    ):
        fake.down = True
        requests = [CreateKeyRequest(name=f"tenant-{number}") for number in range(20)]
        batch = asyncio.ensure_future(respan.temporary_keys.create_many(requests))
        await asyncio.sleep(30)
        assert telemetry.gauge("respan.client.pace.paused") == {"refused": 0, "outage": 1}

        fake.down = False
        await batch
        await asyncio.sleep(1)
        assert telemetry.gauge("respan.client.pace.paused") == {"refused": 0, "outage": 0}
    pauses = {attributes["respan.pause.reason"] for attributes, _ in telemetry.points("respan.client.pauses")}
    assert pauses == {"outage"}


async def test_the_gauges_tell_the_states_of_the_ledger(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """Lost, issued, delivered, swept: tickets and attempts where they are; every state is there, at 0 too."""
    delivering, may_deliver = asyncio.Event(), asyncio.Event()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if ticket_id == "ticket-2":
            delivering.set()
            await may_deliver.wait()

    fake_respan.script("refuse:0.01", "ok", "lose_answer_after_create", "ok")
    async with (
        connect(fake_respan, telemetry) as respan,
        Issuer(respan, SQLiteLedger(":memory:"), deliver=deliver) as issuer,
    ):
        async with telemetry.hook.observing(respan, issuer):
            assert telemetry.gauge("respan.ledger.tickets") == {"open": 0, "claimed": 0, "issued": 0, "delivered": 0}
            await issuer.issue(Ticket("ticket-1", CreateKeyRequest()))
            delivery = asyncio.create_task(issuer.issue(Ticket("ticket-2", CreateKeyRequest())))
            await delivering.wait()
        assert telemetry.gauge("respan.ledger.tickets") == {"open": 0, "claimed": 0, "issued": 1, "delivered": 1}
        attempts = {"intent": 0, "void": 0, "recorded": 2, "suspect": 1, "revoked": 0, "expired": 0}
        assert telemetry.gauge("respan.ledger.attempts") == attempts
        assert telemetry.gauge("respan.client.suspects.remembered") == 0

        async with telemetry.hook.observing(respan, issuer):
            may_deliver.set()
            await delivery
            await issuer.sweep(grace=0)
        assert telemetry.gauge("respan.ledger.tickets") == {"open": 0, "claimed": 0, "issued": 0, "delivered": 2}
        assert telemetry.gauge("respan.ledger.attempts") == attempts | {"suspect": 0, "revoked": 1}
    assert telemetry.points("respan.client.keys.revoked") == [({}, 1)]


async def test_a_ledger_that_cannot_be_counted_is_told_and_left_out(
    fake_respan: FakeRespan, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """The issuer is closed: its states are missing, the pace is told all the same, and nobody is disturbed."""
    async with connect(fake_respan, telemetry) as respan:
        issuer = Issuer(respan, SQLiteLedger(":memory:"))
        await issuer.aclose()
        with caplog.at_level(logging.WARNING, logger="respan_async"):
            async with telemetry.hook.observing(respan, issuer):
                await respan.temporary_keys.create()

    assert "respan.ledger.tickets" not in telemetry.read()
    assert telemetry.gauge("respan.client.pace.in_flight") == 0
    assert {record.getMessage() for record in caplog.records} == {
        "the ledger could not be counted: the issuer is closed"
    }


async def test_observing_ends_with_its_body(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """An error comes through as it is, and nothing goes on reading."""
    before = asyncio.all_tasks()

    async def fail(respan: AsyncRespan) -> None:
        async with telemetry.hook.observing(respan, every=0.01):
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    async with connect(fake_respan, telemetry) as respan:
        with pytest.raises(ZeroDivisionError):
            await fail(respan)

        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("every", [0, -1, float("nan")])
async def test_an_interval_is_a_time(fake_respan: FakeRespan, telemetry: Telemetry, every: float) -> None:
    """Seconds, more than none."""
    async with connect(fake_respan, telemetry) as respan:
        with pytest.raises(ConfigurationError, match="every: expected a number of seconds above 0"):
            async with telemetry.hook.observing(respan, every=every):
                pass


async def test_every_metric_is_the_one_in_the_documentation(fake_respan: FakeRespan, telemetry: Telemetry) -> None:
    """All that can happen, happens: what is exported is what the docstring's tables list, in the units they give."""
    documented = dict(re.findall(r"^ *\| `([a-z._]+)`[^|]*\| (\S+) \|", OpenTelemetry.__doc__ or "", re.MULTILINE))
    fake_respan.script("error_500", "lose_answer_after_create", "ok", *["refuse:0.5"] * 2)

    async with (
        connect(fake_respan, telemetry, pace=RateLimit(1000, per=1)) as respan,
        Issuer(respan, SQLiteLedger(":memory:")) as issuer,
        telemetry.hook.observing(respan, issuer),
    ):
        await issuer.issue(Ticket("ticket-1", CreateKeyRequest()))
        await issuer.sweep(grace=0)
        await issuer.issue(Ticket("ticket-2", CreateKeyRequest()))

    found = telemetry.read()
    assert {name: metric.unit for name, metric in found.items()} == documented
    assert len(documented) == 17
    assert all(metric.description for metric in found.values())


async def test_no_secret_name_or_id_is_exported() -> None:
    """Whatever happens, nothing that leaves the process tells the token, a key, its name, its tag or its id."""
    telemetry = Telemetry()
    token = "canary-token-2f9d1c"
    heard: list[Event] = []
    async with (
        FakeRespan(api_keys=(token,)) as fake,
        connect(fake, telemetry, tag_names=True, hooks=[telemetry.hook, heard.append]) as respan,
        Issuer(respan, SQLiteLedger(":memory:")) as issuer,
        telemetry.hook.observing(respan, issuer),
    ):
        fake.script(
            "refuse:0.01",
            "refuse:0.01",
            "error_500",
            "ok",
            "lose_answer_after_create",
            "ok",
            "ok",
            "conflict_409",
            "unauthorized_401",
        )
        keys = respan.temporary_keys
        with telemetry.tracer.start_as_current_span("caller"):
            key = await keys.create(name="canary-name-1")
            await keys.create(name="canary-name-2")
            await keys.update(key.id, name="canary-name-3")
            await keys.retrieve(key.id)
            await keys.list()
            requests = [CreateKeyRequest(name=f"canary-name-{number}") for number in (4, 5)]
            await keys.create_many(requests, max_in_flight=1)
            with pytest.raises(AuthenticationError):
                await keys.create(name="canary-name-6")
            await issuer.issue(Ticket("canary-ticket", CreateKeyRequest(name="canary-name-7")))
            await keys.sweep(grace=0)
            await keys.delete(key.id)
            with pytest.raises(NotFoundError):
                await keys.retrieve("canary-id.missing")
    exported = telemetry.exported()

    tags = [event.suspect.tag for event in heard if isinstance(event, SuspectEvent)]
    ids = [part for record in fake.keys.values() for part in record.id.split(".")]
    canaries = [token, key.api_key.reveal(), "canary", *tags, *ids]
    assert len(tags) == 2
    assert len({type(event) for event in heard}) == 7
    assert [canary for canary in canaries if canary and canary in exported] == []


async def test_without_an_sdk_nothing_happens(fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture) -> None:
    """The API alone records nothing and harms nothing."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[OpenTelemetry()]) as respan:
        await respan.temporary_keys.create()

    assert caplog.records == []


def test_an_event_of_another_kind_is_passed_over(telemetry: Telemetry) -> None:
    """A later version's events do not disturb this hook."""

    @attrs.frozen(kw_only=True)
    class LaterEvent(Event):
        pass

    telemetry.hook(LaterEvent(at=datetime.now(UTC)))

    assert telemetry.spans == []


def run(code: str) -> str:
    """Run code in a fresh interpreter, and return what it printed."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_the_package_the_import_says_what_to_install() -> None:
    """One sentence, with the command, and no chain of foreign errors behind it."""
    said = run(
        """
        import sys
        sys.modules["opentelemetry"] = None
        try:
            import respan_async.otel
        except ImportError as error:
            print(error, error.__cause__, error.__suppress_context__)
        """
    )

    assert said == (
        "respan_async.otel needs OpenTelemetry, which is not installed: pip install 'respan-async[otel]' None True"
    )


def test_the_library_itself_does_not_import_opentelemetry() -> None:
    """Who does not use it does not pay for it."""
    said = run(
        """
        import sys
        import respan_async, respan_async.testing
        print([name for name in sys.modules if "opentelemetry" in name])
        """
    )

    assert said == "[]"
