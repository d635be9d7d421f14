"""When a failed attempt is made again: the policy, and the calls that follow it, in virtual time."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from respan_async import (
    APIConnectionError,
    APIStatusError,
    AsyncRespan,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    Failed,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    RateLimit,
    RateLimitError,
    RespanError,
    RetryPolicy,
    UnprocessableEntityError,
)
from respan_async.events import AttemptEvent, RetryEvent
from respan_async.retry import AttemptCounts
from respan_async.testing import FakeRespan
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


@asynccontextmanager
async def world(server: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server and a client; sockets and time are the loop's own."""
    async with FakeRespan(**(server or {})) as fake, AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan:
        yield fake, respan


# --------------------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", -1),
        ("max_attempts", 2.0),
        ("max_attempts", True),
        ("max_attempts", "5"),
        ("max_attempts", None),
        ("initial", 0),
        ("initial", -0.5),
        ("initial", math.inf),
        ("initial", math.nan),
        ("initial", "1"),
        ("initial", None),
        ("initial", True),
        ("maximum", 0.1),
        ("maximum", -1),
        ("maximum", math.inf),
        ("maximum", math.nan),
        ("maximum", "30"),
        ("maximum", 86_401),
        ("max_retry_after", -1),
        ("max_retry_after", math.inf),
        ("max_retry_after", math.nan),
        ("max_retry_after", None),
        ("max_retry_after", False),
        ("max_refusals", -1),
        ("max_refusals", 1.5),
        ("max_refusals", None),
        ("max_refusals", True),
        ("refusal_statuses", 503),
        ("refusal_statuses", "503"),
        ("refusal_statuses", None),
        ("refusal_statuses", [503.0]),
        ("refusal_statuses", [True]),
        ("refusal_statuses", [[503]]),
        ("refusal_statuses", [503, 399]),
        ("refusal_statuses", [600]),
        ("refusal_statuses", [200]),
        *(("refusal_statuses", [503, status]) for status in (401, 403, 404, 408, 409, 422)),
        ("on_unknown", "retry"),
        ("on_unknown", None),
        ("on_unknown", True),
        ("on_unknown", 1),
    ],
)
async def test_a_wrong_value_is_refused_and_named(name: str, value: Any) -> None:
    """At construction, with the name of the field and what was given."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected .*, got ") as caught:
        RetryPolicy(**{name: value})

    assert repr(value) in str(caught.value)


async def test_the_statuses_of_a_refusal_may_come_in_any_form() -> None:
    """They are kept as a frozen set, so that a policy stays a value; a wrong one is told which are right."""
    for statuses in ([503], (503, 503), {503}, iter([503]), {503: "nginx"}):
        assert RetryPolicy(refusal_statuses=statuses).refusal_statuses == frozenset({503})
    assert RetryPolicy(refusal_statuses=[]) == RetryPolicy()
    assert hash(RetryPolicy(refusal_statuses=[400, 429, 599])) == hash(RetryPolicy(refusal_statuses=[599, 429, 400]))
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(refusal_statuses=[403])
    assert str(caught.value) == (
        "refusal_statuses: expected whole numbers from 400 to 599, but for 401, 403, 404, 408, 409, 422, got [403]"
    )


async def test_a_policy_is_a_value() -> None:
    """Frozen, comparable, by keyword only, and changed by `attrs.evolve`, which checks again."""
    policy = RetryPolicy()

    assert policy == RetryPolicy(max_attempts=5, initial=0.5, maximum=30.0, max_retry_after=120.0, max_refusals=20)
    assert attrs.evolve(policy, max_attempts=1).max_attempts == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.max_attempts = 3  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        RetryPolicy(3)  # type: ignore[call-arg, misc, unused-ignore]  # and this
    with pytest.raises(ConfigurationError, match="maximum"):
        attrs.evolve(policy, initial=31.0)


@pytest.mark.parametrize("value", [None, 3, "never", RetryPolicy])
async def test_the_client_takes_nothing_else_for_a_policy(value: Any) -> None:
    """What is no policy is refused by the client and by a view of it."""
    with pytest.raises(ConfigurationError, match="retry: expected a RetryPolicy"):
        AsyncRespan("test-key", retry=value)
    async with AsyncRespan("test-key") as respan:
        with pytest.raises(ConfigurationError, match="retry: expected a RetryPolicy"):
            respan.with_options(retry=value)


# --------------------------------------------------------------------------------------------------------- how often


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("fault", ["unavailable_503", "error_500", "reset", "timeout_408", "html_502", "truncate"])
async def test_a_call_is_tried_so_often_and_then_fails(fault: str, most: int) -> None:
    """`max_attempts` requests, and the last one's error."""
    async with world(retry=RetryPolicy(max_attempts=most)) as (fake, respan):
        fake.chance(fault, 1)

        with pytest.raises(RespanError) as caught:
            await respan.temporary_keys.create()

        assert fake.counts.by_operation["create"] == caught.value.attempts == most
        assert len(caught.value.suspects) == len(respan.suspects) == most
        assert caught.value.effect is (Effect.LOST if fault == "truncate" else Effect.UNKNOWN)


@pytest.mark.parametrize("fault", ["unavailable_503", "error_500", "reset", "lose_answer_after_create", "truncate"])
async def test_a_failure_that_passes_is_not_noticed(fault: str) -> None:
    """The call goes on until it has a key, hands out exactly that one, and remembers the others."""
    async with world() as (fake, respan):
        fake.script(*[fault] * 4)

        key = await respan.temporary_keys.create(name="a")

        assert fake.counts.requests == 5
        assert key.id in fake.keys
        assert len(respan.suspects) == 4
        assert len(fake.unheld([key.id])) in (0, 4)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("conflict_409", ConflictError),
        ("unprocessable_422", UnprocessableEntityError),
        ("redirect", APIStatusError),
        ("not_json", InvalidResponseError),
        ("no_api_key", InvalidResponseError),
        ("empty_2xx", InvalidResponseError),
        ("garbage", InvalidResponseError),
    ],
)
async def test_what_trying_again_cannot_mend_is_not_tried_again(fault: str, kind: type[RespanError]) -> None:
    """One request, one error: a changed server must not cost five keys a call."""
    async with world() as (fake, respan):
        fake.chance(fault, 1)

        with pytest.raises(kind) as caught:
            await respan.temporary_keys.create()

        assert fake.counts.requests == caught.value.attempts == 1
        assert not caught.value.retryable


async def test_no_client_error_is_ever_tried_again() -> None:
    """400 and 404, from the server's own checks."""
    async with world() as (fake, respan):
        with pytest.raises(BadRequestError):
            await respan.temporary_keys.create(name="")
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.retrieve("nobody")

        assert fake.counts.requests == 2


async def test_refusals_do_not_use_up_attempts() -> None:
    """Ten refusals, four failures, and the fifth attempt succeeds."""
    async with world() as (fake, respan):
        fake.script(*["refuse:1", "refuse:1", "unavailable_503"] * 4, "refuse:1", "refuse:1")

        await respan.temporary_keys.create()

        assert fake.counts.requests == 15


@pytest.mark.parametrize("most", [0, 1, 7])
@pytest.mark.parametrize("fault", ["refuse:1", "refuse_bare", "too_early_425"])
async def test_an_endless_refusal_ends(fault: str, most: int) -> None:
    """After `max_refusals` the next one is the error."""
    async with world(retry=RetryPolicy(max_refusals=most)) as (fake, respan):
        fake.chance(fault, 1)

        with pytest.raises(APIStatusError) as caught:
            await respan.temporary_keys.create()

        assert caught.value.status in (429, 425)
        assert fake.counts.requests == caught.value.attempts == most + 1
        assert caught.value.effect is Effect.NONE
        assert respan.suspects == ()


async def test_an_unknown_effect_can_be_left_to_the_caller() -> None:
    """With `on_unknown="raise"` a create that may have made a key is not repeated; what made none is."""
    async with world(retry=RetryPolicy(on_unknown="raise")) as (fake, respan):
        fake.script("refuse:1", "lose_answer_after_create")

        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create(name="a")

        assert fake.counts.requests == caught.value.attempts == 2
        assert caught.value.effect is Effect.UNKNOWN
        assert [suspect.name for suspect in caught.value.suspects] == ["a"]


async def test_an_unknown_effect_of_another_operation_is_repeated_all_the_same() -> None:
    """Reading, changing and revoking may be repeated without harm."""
    async with world(retry=RetryPolicy(on_unknown="raise")) as (fake, respan):
        key = await respan.temporary_keys.create()
        for operation in ("retrieve", "update", "list", "delete"):
            fake.script("unavailable_503", operation=operation)

        await respan.temporary_keys.retrieve(key.id)
        await respan.temporary_keys.update(key.id, name="b")
        await respan.temporary_keys.list()
        await respan.temporary_keys.delete(key.id)

        assert fake.counts.requests == 9


async def test_the_worst_of_all_attempts_is_what_the_error_says() -> None:
    """A call whose last attempt was harmless may still have left a key before."""
    async with world(retry=RetryPolicy(max_refusals=2)) as (fake, respan):
        fake.script("truncate", "lose_answer_after_create", *["refuse:1"] * 3)

        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

        assert caught.value.effect is Effect.LOST
        assert [suspect.effect for suspect in caught.value.suspects] == [Effect.LOST, Effect.UNKNOWN]


# ---------------------------------------------------------------------------------------------------------- how long


async def test_a_refused_call_waits_at_least_as_long_as_it_was_told() -> None:
    """And at most `initial` longer."""
    async with world() as (fake, respan):
        fake.script("refuse:17", "refuse:3.5")
        began = now()

        await respan.temporary_keys.create()

        assert 20.5 <= now() - began <= 21.6


@pytest.mark.parametrize("asked", [120.0, 119.5])
async def test_as_much_as_the_policy_allows_is_waited_for(asked: float) -> None:
    """`max_retry_after` itself is not too long."""
    async with world() as (fake, respan):
        fake.script(f"refuse:{asked}")
        began = now()

        await respan.temporary_keys.create()

        assert now() - began >= asked


async def test_more_than_the_policy_allows_is_an_error_at_once() -> None:
    """The caller is told how long it would be."""
    async with world() as (fake, respan):
        fake.script("refuse:121")

        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

        assert now() == 0
        assert caught.value.retry_after == 121
        assert caught.value.retryable


async def test_back_offs_grow_with_each_failure() -> None:
    """Each is within the formula, and hooks are told how long it will be."""
    told = list[Any]()
    policy = RetryPolicy(max_attempts=8, initial=1, maximum=20)
    async with world(retry=policy, hooks=[told.append]) as (fake, respan):
        fake.script(*["error_500"] * 7)

        await respan.temporary_keys.create()

    retries = [event for event in told if isinstance(event, RetryEvent)]
    assert [event.attempts for event in retries] == list(range(1, 8))
    assert all(0 <= event.wait <= min(20, 2.0**n) for n, event in enumerate(retries))
    assert {(event.operation, event.reason, event.status) for event in retries} == {
        ("create", "InternalServerError", 500)
    }
    assert now() == pytest.approx(sum(event.wait for event in retries), abs=0.1)
    assert [event.number for event in told if isinstance(event, AttemptEvent)] == list(range(1, 9))


async def test_a_deadline_includes_back_offs() -> None:
    """A back-off that would end too late is not begun; the error says what the attempts may have left."""
    async with world(retry=RetryPolicy(initial=20, maximum=20, max_attempts=100)) as (fake, respan):
        fake.chance("reset", 1)

        with pytest.raises(DeadlineExceededError) as caught:
            await respan.with_options(deadline=60.0).temporary_keys.create()

        assert now() <= 60
        assert caught.value.retry_at is not None
        assert caught.value.effect is Effect.UNKNOWN
        assert len(caught.value.suspects) == caught.value.attempts == fake.counts.requests >= 3


async def test_a_deadline_includes_the_wait_for_the_pace() -> None:
    """A refusal that asks for more than there is left fails at once."""
    async with world() as (fake, respan):
        fake.script("refuse:90")

        with pytest.raises(DeadlineExceededError) as caught:
            await respan.with_options(deadline=60.0).temporary_keys.create()

        assert now() < 1
        assert caught.value.effect is Effect.NONE
        assert fake.counts.requests == 1


async def test_a_deadline_includes_each_attempt() -> None:
    """Attempts that take long leave less time for further ones; an answer that is on its way is not waited for."""
    async with world({"latency": 8.0}, retry=RetryPolicy(initial=0.01)) as (fake, respan):
        fake.chance("unavailable_503", 1)

        with pytest.raises(DeadlineExceededError) as caught:
            await respan.with_options(deadline=20.0).temporary_keys.create()

        assert now() == pytest.approx(20, abs=0.1)
        assert fake.counts.requests == caught.value.attempts == 3
        assert caught.value.effect is Effect.UNKNOWN
        await asyncio.sleep(100)
        assert fake.counts.requests == 3


async def test_each_attempt_stands_in_line_anew() -> None:
    """A repeated attempt is charged like the first."""
    async with world(pace=RateLimit(2, per=60), retry=RetryPolicy(initial=0.01)) as (fake, respan):
        fake.script("unavailable_503", "unavailable_503")

        await respan.temporary_keys.create()

        assert now() == pytest.approx(60, abs=1)
        assert fake.max_in_window(60) == 2


async def test_cancellation_is_never_tried_again() -> None:
    """Cancelled during a back-off, a call is over."""
    async with world(retry=RetryPolicy(initial=50, maximum=50)) as (fake, respan):
        fake.chance("error_500", 1)
        task = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        seen = fake.counts.requests
        await asyncio.sleep(1000)

        assert task.cancelled()
        assert fake.counts.requests == seen


async def test_a_view_has_a_policy_of_its_own() -> None:
    """The client's holds for everything else."""
    async with world() as (fake, respan):
        fake.script("error_500", "error_500")
        patient, once = respan, respan.with_options(retry=RetryPolicy(max_attempts=1))

        with pytest.raises(InternalServerError):
            await once.temporary_keys.create()
        await patient.temporary_keys.create()

        assert fake.counts.requests == 3


async def test_an_item_of_a_batch_follows_the_policy_too() -> None:
    """An item that fails for good has its error, its attempts and its suspects."""
    async with world(retry=RetryPolicy(max_attempts=3)) as (fake, respan):
        fake.script(*["error_500"] * 3)

        outcomes = await respan.temporary_keys.create_many([CreateKeyRequest()] * 3, max_in_flight=1)

        first = outcomes[0]
        assert isinstance(first, Failed)
        assert first.error.attempts == len(first.error.suspects) == 3
        assert fake.counts.created == 2


# ------------------------------------------------------------------------------------------------------- the arithmetic


async def test_the_bounds_themselves_are_allowed() -> None:
    """A day is the longest of all; the shortest pause may be as long as the longest."""
    day = 86_400

    assert RetryPolicy(max_attempts=1, max_refusals=0, initial=day, maximum=day, max_retry_after=day).maximum == day
    assert RetryPolicy(max_retry_after=0).max_retry_after == 0


async def test_what_does_not_count_as_an_attempt_counts_together() -> None:
    """Connections that an outage kept from being made, and refusals while nothing of the client is let in."""
    policy = RetryPolicy(max_attempts=2, max_refusals=2)

    assert not policy.exhausted(AttemptCounts(counted=1, refused=1, only_refused=True, held_back=1))
    assert policy.exhausted(AttemptCounts(counted=1, refused=1, only_refused=True, held_back=2))
    assert not policy.exhausted(AttemptCounts(counted=1, refused=9, only_refused=False, held_back=2))
    assert policy.exhausted(AttemptCounts(counted=2))


async def test_a_quota_is_exhausted_by_refusals_alone() -> None:
    """An outage, or others who are let in, say nothing of it."""
    policy = RetryPolicy(max_refusals=2)

    assert policy.quota_exhausted(AttemptCounts(refused=3, only_refused=True))
    assert not policy.quota_exhausted(AttemptCounts(refused=1, only_refused=True, held_back=2))
    assert not policy.quota_exhausted(AttemptCounts(refused=3, only_refused=False))


async def test_a_back_off_grows_with_refusals_too() -> None:
    """Where a refusal does not say how long, it is one more reason to wait longer."""
    policy = RetryPolicy(initial=1, maximum=1000)

    waits = [policy.wait(RateLimitError(status=429), AttemptCounts(counted=2, refused=2)) for _ in range(300)]

    assert 4 < max(waits) <= 8
    assert min(waits) < 1


async def test_each_wait_is_made_from_the_failure_before_it() -> None:
    """A refusal that says how long, then one that does not, then none: so it is by itself, whatever the pace adds."""
    slept, told = list[float](), list[tuple[str, float]]()
    asks = RateLimitError(status=429, retryable=True)
    asks.retry_after = 60.0
    results: list[Any] = [asks, RateLimitError(status=429, retryable=True), "a key"]
    counts = AttemptCounts()

    async def attempt() -> Any:
        counts.refused += 1
        return results.pop(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    retrying = RetryPolicy(initial=1).retrying(
        counts, creates=True, sleep=sleep, before_sleep=lambda error, wait: told.append((type(error).__name__, wait))
    )

    assert await retrying(attempt) == "a key"
    assert 60 <= slept[0] <= 61
    assert 0 <= slept[1] <= 2
    assert told == [("RateLimitError", slept[0]), ("RateLimitError", slept[1])]
