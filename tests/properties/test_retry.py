"""What every retry policy keeps, whatever its settings and whatever goes wrong."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from respan_async import (
    APIConnectionError,
    ConflictError,
    Effect,
    InternalServerError,
    RateLimitError,
    RespanError,
    RetryPolicy,
)
from respan_async.retry import AttemptCounts


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Give a policy whose values fit together."""
    initial = draw(st.floats(0.001, 100))
    return RetryPolicy(
        max_attempts=draw(st.integers(1, 8)),
        initial=initial,
        maximum=draw(st.floats(initial, 1000)),
        max_retry_after=draw(st.floats(0, 86_400)),
        max_refusals=draw(st.integers(0, 8)),
        on_unknown=draw(st.sampled_from(["replace", "raise"])),
    )


def refusal(asked: float | None) -> RateLimitError:
    """Make a refusal that asks for a wait."""
    error = RateLimitError(status=429, retryable=True)
    error.retry_after = asked
    return error


failures = st.sampled_from(
    [
        APIConnectionError(retryable=True),
        APIConnectionError(retryable=True, effect=Effect.UNKNOWN),
        InternalServerError(retryable=True, effect=Effect.UNKNOWN, status=503),
    ]
)
refusals = st.one_of(st.none(), st.floats(0, 200_000)).map(refusal)


@given(policy=policies(), asked=st.floats(0, 86_400), counted=st.integers(0, 10_000), refused=st.integers(0, 10_000))
def test_no_wait_is_shorter_than_the_server_asked(
    policy: RetryPolicy, asked: float, counted: int, refused: int
) -> None:
    """The jitter comes after, and is at most `initial`; how often one has tried does not matter."""
    wait = policy.wait(refusal(asked), AttemptCounts(counted, refused))

    assert min(asked, policy.max_retry_after) <= wait <= asked + policy.initial


@given(policy=policies(), error=failures, counted=st.integers(1, 10**9))
def test_a_back_off_is_bounded_by_the_formula(policy: RetryPolicy, error: RespanError, counted: int) -> None:
    """Full jitter: from 0 to `min(maximum, initial * 2**(n - 1))` before the n-th retry."""
    wait = policy.wait(error, AttemptCounts(counted))

    assert 0 <= wait <= policy.maximum
    if counted < 100:
        assert wait <= policy.initial * 2.0 ** (counted - 1)


def test_the_jitter_is_full() -> None:
    """Waits are spread over the whole of the range: callers who failed together do not come back together."""
    policy = RetryPolicy(initial=1, maximum=8)
    waits = [policy.wait(APIConnectionError(retryable=True), AttemptCounts(4)) for _ in range(1000)]

    assert min(waits) < 0.5
    assert max(waits) > 7.5
    assert 3.5 < sum(waits) / 1000 < 4.5


@given(policy=policies(), events=st.lists(st.one_of(failures, refusals), min_size=60, max_size=60))
def test_a_call_ends_whatever_it_meets(policy: RetryPolicy, events: list[RespanError]) -> None:
    """So many attempts and, while nothing is let in, so many refusals; no wait that was not asked for or allowed."""
    counts, waits = AttemptCounts(), list[float]()
    coming = iter(events)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def attempt() -> RespanError:
        error = next(coming)
        if isinstance(error, RateLimitError):
            counts.refused += 1
            counts.only_refused = True
        else:
            counts.counted += 1
        return error

    async def call() -> RespanError:
        retrying = policy.retrying(counts, creates=True, sleep=sleep, before_sleep=lambda *_: None)
        result: RespanError = await retrying(attempt)
        return result

    last = asyncio.run(call())

    assert counts.counted <= policy.max_attempts
    assert counts.refused <= policy.max_refusals + 1
    assert len(waits) == counts.counted + counts.refused - 1
    asked = [error.retry_after or 0.0 for error in events[: len(waits)] if isinstance(error, RateLimitError)]
    assert all(seconds <= policy.max_retry_after for seconds in asked)
    over = counts.counted == policy.max_attempts or counts.refused == policy.max_refusals + 1
    assert over or not policy.wants(last, creates=True)


@given(policy=policies(), creates=st.booleans())
def test_what_is_not_worth_another_try_is_not_tried_again(policy: RetryPolicy, creates: bool) -> None:
    """A failure that is not retryable never is."""
    assert not policy.wants(ConflictError(status=409), creates=creates)


@given(policy=policies(), error=failures)
def test_only_a_create_minds_what_is_unknown(policy: RetryPolicy, error: RespanError) -> None:
    """The other operations may be repeated without harm."""
    assert policy.wants(error, creates=False)
    assert policy.wants(error, creates=True) == (error.effect is Effect.NONE or policy.on_unknown == "replace")
