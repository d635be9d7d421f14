"""What hooks are told, in which order, and what becomes of one that fails."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, CreateKeyRequest, DeadlineExceededError, Effect, Issued, RateLimit, RespanError
from respan_async.events import (
    AttemptEvent,
    Event,
    Hook,
    IssuedEvent,
    PauseEvent,
    RetryEvent,
    RevokedEvent,
    SuspectEvent,
    SweepEvent,
)
from respan_async.testing import FakeRespan, SlidingLog

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


class Heard(list[Any]):
    """A hook that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        """Hear."""
        self.append(event)

    @property
    def kinds(self) -> list[type[Event]]:
        """What kinds of events, in their order."""
        return [type(event) for event in self]

    def facts(self, kind: type[Event], *names: str) -> list[tuple[Any, ...]]:
        """Give some facts of the events of one kind."""
        return [tuple(getattr(event, name) for name in names) for event in self if isinstance(event, kind)]


@pytest.fixture
def heard() -> Heard:
    """Listen."""
    return Heard()


# -------------------------------------------------------------- what is told


async def test_print_is_a_hook(fake_respan: FakeRespan, capsys: pytest.CaptureFixture[str]) -> None:
    """Any callable that takes one event."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[print]) as respan:
        await respan.temporary_keys.create(name="tenant-42")

    printed = capsys.readouterr().out.splitlines()
    assert [line.partition("(")[0] for line in printed] == ["AttemptEvent", "IssuedEvent"]
    assert "tenant-42" in printed[1]


async def test_a_success_is_an_attempt_and_an_issue(heard: Heard) -> None:
    """With how long it waited and took, and which key it was."""
    before = datetime.now(UTC)
    async with (
        FakeRespan(latency=2) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[heard], pace=RateLimit(1, per=60)) as respan,
    ):
        await respan.temporary_keys.create()
        made = await respan.temporary_keys.create(name="tenant-42")

    assert heard.kinds == [AttemptEvent, IssuedEvent] * 2
    attempt, issued = heard[2:]
    assert attrs.asdict(attempt) == {
        "at": attempt.at,
        "operation": "create",
        "method": "POST",
        "number": 1,
        "waited": pytest.approx(60, abs=0.01),
        "elapsed": pytest.approx(2, abs=0.01),
        "status": 201,
        "effect": None,
        "error": None,
        "request_id": None,
    }
    assert (issued.id, issued.name, issued.attempts) == (made.id, "tenant-42", 1)
    assert issued.elapsed == pytest.approx(62, abs=0.01)
    assert all(before <= event.at <= datetime.now(UTC) for event in heard)


async def test_every_operation_is_told_by_its_name(fake_respan: FakeRespan, heard: Heard) -> None:
    """And its method."""
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[heard]) as respan:
        made = await respan.temporary_keys.create()
        await respan.temporary_keys.list()
        await respan.temporary_keys.retrieve(made.id)
        await respan.temporary_keys.update(made.id, name="x")
        await respan.temporary_keys.delete(made.id)

    assert heard.facts(AttemptEvent, "operation", "method", "status") == [
        ("create", "POST", 201),
        ("list", "GET", 200),
        ("retrieve", "GET", 200),
        ("update", "PATCH", 200),
        ("delete", "DELETE", 204),
    ]
    assert heard.kinds.count(IssuedEvent) == 1


async def test_a_failure_and_a_retry_in_their_order(fake_respan: FakeRespan, heard: Heard) -> None:
    """The suspect first, as the rest of the world may end at any time; then the attempt, the retry, and the issue."""
    fake_respan.script("lose_answer_after_create", "error_500")
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[heard]) as respan:
        made = await respan.temporary_keys.create(name="tenant-42")
        suspects = respan.suspects

    assert heard.kinds == [*[SuspectEvent, AttemptEvent, RetryEvent] * 2, AttemptEvent, IssuedEvent]
    assert heard.facts(SuspectEvent, "suspect") == [(suspect,) for suspect in suspects]
    assert [(suspect.name, suspect.effect) for suspect in suspects] == [("tenant-42", Effect.UNKNOWN)] * 2
    assert heard.facts(AttemptEvent, "number", "status", "effect", "error") == [
        (1, None, Effect.UNKNOWN, "APIConnectionError"),
        (2, 500, Effect.UNKNOWN, "InternalServerError"),
        (3, 201, None, None),
    ]
    assert heard.facts(RetryEvent, "operation", "reason", "status", "attempts") == [
        ("create", "APIConnectionError", None, 1),
        ("create", "InternalServerError", 500, 2),
    ]
    assert all(0 <= wait <= 1 for (wait,) in heard.facts(RetryEvent, "wait"))
    assert heard.facts(IssuedEvent, "id", "attempts") == [(made.id, 3)]


async def test_a_call_that_fails_is_no_issue(fake_respan: FakeRespan, heard: Heard) -> None:
    """One attempt, with what it means."""
    fake_respan.script("no_api_key")
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[heard]) as respan:
        with pytest.raises(RespanError):
            await respan.temporary_keys.create()

    (key_id,) = fake_respan.keys
    assert heard.kinds[:2] == [SuspectEvent, AttemptEvent]  # then its key may be revoked already, by its id
    assert heard.facts(AttemptEvent, "status", "effect", "error")[0] == (201, Effect.LOST, "InvalidResponseError")
    assert heard[0].suspect.id == key_id


async def test_a_refusal_pauses_and_is_retried(heard: Heard) -> None:
    """A refused attempt is told, that it is tried again, and a pause, as two were refused and none let in."""
    async with (
        FakeRespan(limit=SlidingLog(2, per=60)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[heard]) as respan,
    ):
        for _ in range(2):
            await respan.temporary_keys.create()
        await asyncio.gather(respan.temporary_keys.create(), respan.temporary_keys.create())

    assert heard.kinds[:5] == [*[AttemptEvent, IssuedEvent] * 2, AttemptEvent]
    assert heard.facts(PauseEvent, "reason", "seconds", "lower_only", "limit") == [("refused", 60, False, "60/60s")]
    ((problem,),) = heard.facts(PauseEvent, "problem")
    assert problem.startswith("RateLimitError: POST /api/temporary-keys/: answered 429")
    assert heard.facts(AttemptEvent, "status", "effect", "error")[2] == (429, Effect.NONE, "RateLimitError")
    for wait, status, attempts in heard.facts(RetryEvent, "wait", "status", "attempts"):
        assert 60 <= wait <= 60.5
        assert (status, attempts) == (429, 1)


async def test_an_outage_is_told(heard: Heard) -> None:
    """Batches are held back, and whoever watches can see why."""
    async with FakeRespan() as fake:
        fake.down = True
        async with AsyncRespan(fake.api_key, base_url=fake.url, hooks=[heard]) as respan:
            batch = asyncio.ensure_future(collect(respan, 5))
            await asyncio.sleep(30)
            fake.down = False
            await batch

    pauses = heard.facts(PauseEvent, "reason", "lower_only")
    assert pauses
    assert set(pauses) == {("outage", True)}
    assert heard.kinds.count(IssuedEvent) == 5


async def collect(respan: AsyncRespan, number: int) -> None:
    """Make some keys in a batch."""
    await respan.temporary_keys.create_many([CreateKeyRequest()] * number)


async def test_a_key_whose_caller_left_is_told_as_revoked(heard: Heard) -> None:
    """And not as issued."""
    async with (
        FakeRespan(latency=10) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[heard], deadline=7) as respan,
    ):
        with pytest.raises(DeadlineExceededError):
            await respan.temporary_keys.create()
        await asyncio.sleep(60)
        (key_id,) = fake.keys

    assert heard.facts(AttemptEvent, "operation", "status") == [("create", 201), ("delete", 204)]
    assert heard.facts(RevokedEvent, "id", "reason") == [(key_id, "its caller was gone when it arrived")]
    assert IssuedEvent not in heard.kinds


async def test_a_key_that_a_stopped_batch_yields_is_told_as_issued(heard: Heard) -> None:
    """What was in the air is taken; what nobody takes is revoked, and not told as issued."""
    requests = [CreateKeyRequest(name=f"tenant-{number}") for number in range(9)]
    async with (
        FakeRespan(latency=10) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[heard]) as respan,
        respan.temporary_keys.create_many(requests, max_in_flight=3) as batch,
    ):
        await asyncio.sleep(5)
        batch.stop()
        yielded = [outcome.key.id async for outcome in batch if isinstance(outcome, Issued)]

    assert len(yielded) == 2  # as many as go before anything is known of the limit
    assert sorted(key_id for (key_id,) in heard.facts(IssuedEvent, "id")) == sorted(yielded)
    assert RevokedEvent not in heard.kinds


async def test_a_sweep_is_told(fake_respan: FakeRespan, heard: Heard) -> None:
    """What it revoked, and how much is left."""
    fake_respan.script("lose_answer_after_create", "ok", "reset")
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[heard], tag_names=True) as respan:
        await respan.temporary_keys.create()
        await respan.temporary_keys.create()
        left = next(iter(fake_respan.keys))
        await respan.temporary_keys.sweep(grace=0)

    assert heard.facts(RevokedEvent, "id", "reason") == [(left, "APIConnectionError")]
    assert heard.facts(SweepEvent, "revoked", "left") == [(1, 1)]


async def test_events_are_values(fake_respan: FakeRespan, heard: Heard) -> None:
    """A hook may keep them, and cannot change what the next one hears."""
    other = Heard()
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[heard, other]) as respan:
        await respan.temporary_keys.create()

    assert heard == other
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        heard[0].status = 500


# --------------------------------------------------------- one that fails


async def test_a_hook_that_raises_harms_nothing(
    fake_respan: FakeRespan, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, without its words; calls and other hooks go on."""

    def broken(event: Event) -> None:
        raise ZeroDivisionError("a secret of its own")

    fake_respan.script("error_500")
    hooks: list[Hook] = [broken, heard]
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=hooks, tag_names=True) as respan:
        for _ in range(3):
            await respan.temporary_keys.create()
        assert respan.pace.in_flight == 0
        assert len(respan.suspects) == 1
        await asyncio.sleep(120)

    complaints = [record for record in caplog.records if "raised" in record.message]
    assert [record.levelno for record in complaints] == [logging.ERROR]
    assert "ZeroDivisionError" in complaints[0].message
    assert "broken" in complaints[0].message
    assert "secret" not in caplog.text
    assert heard.kinds.count(IssuedEvent) == 3
    assert SweepEvent in heard.kinds


async def test_each_hook_that_raises_is_logged(fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture) -> None:
    """One does not hide the other."""

    def one(event: Event) -> None:
        raise KeyError

    def other(event: Event) -> None:
        raise IndexError

    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[one, other]) as respan:
        await respan.temporary_keys.create()

    complaints = [record.message for record in caplog.records if "raised" in record.message]
    assert ["KeyError" in complaints[0], "IndexError" in complaints[1], len(complaints)] == [True, True, 2]


async def test_a_hook_may_close_the_client(fake_respan: FakeRespan) -> None:
    """From within an event, on the same loop."""
    closing: list[asyncio.Task[None]] = []

    def close(event: Event) -> None:
        if not closing:
            closing.append(asyncio.ensure_future(respan.aclose()))

    respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[close])
    await respan.temporary_keys.create()
    await closing[0]

    assert "closed" in repr(respan)


async def test_nobody_listening_costs_no_events(fake_respan: FakeRespan) -> None:
    """Without hooks, the same things happen."""
    fake_respan.script("error_500", "refuse:1")
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        made = await respan.temporary_keys.create(expires_in=timedelta(hours=1))

    assert made.id in fake_respan.keys
