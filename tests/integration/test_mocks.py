"""A user's own aioresponses mocks, against the client as it is."""

import asyncio

import aiohttp
import pytest
import yarl
from aioresponses import aioresponses

from respan_async import (
    APITimeoutError,
    AsyncRespan,
    Effect,
    InvalidResponseError,
    RateLimitError,
    RetryPolicy,
)

URL = "https://api.respan.ai/api/temporary-keys/"
KEY = {"id": "vcjRcdm8.x", "api_key": "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV", "name": "mocked"}
QUICK = RetryPolicy(initial=0.01)


async def test_an_error_and_then_a_key_gives_the_key(mocked: aioresponses) -> None:
    """503, then 201: the key is returned."""
    mocked.post(URL, status=503)
    mocked.post(URL, status=201, payload=KEY)

    async with AsyncRespan("k", retry=QUICK) as respan:
        key = await respan.temporary_keys.create(name="mocked")

    assert key.api_key.reveal() == KEY["api_key"]


@pytest.mark.parametrize(
    "refusal",
    [
        {"payload": {"detail": "Rate limit exceeded", "retry_after": 0.05}},
        {"headers": {"Retry-After": "0"}},
        {},
    ],
    ids=["body", "header", "nothing"],
)
async def test_a_refusal_even_as_the_very_first_answer_is_waited_out(
    mocked: aioresponses, refusal: dict[str, object]
) -> None:
    """429 in each form, then 201: the key is returned."""
    mocked.post(URL, status=429, **refusal)
    mocked.post(URL, status=201, payload=KEY)

    async with AsyncRespan("k", retry=QUICK) as respan:
        key = await respan.temporary_keys.create()

    assert key.id == "vcjRcdm8.x"


async def test_a_mocked_timeout_is_unknown(mocked: aioresponses) -> None:
    """Under a mock nothing proves that the bytes stayed: a timeout may have made a key."""
    mocked.post(URL, exception=TimeoutError())

    async with AsyncRespan("k", retry=RetryPolicy(on_unknown="raise")) as respan:
        with pytest.raises(APITimeoutError) as caught:
            await respan.temporary_keys.create(name="mocked")
        suspects = respan.suspects

    assert caught.value.effect is Effect.UNKNOWN
    assert caught.value.suspects == suspects
    assert suspects[0].name == "mocked"


async def test_a_connector_error_is_proof_even_under_a_mock(mocked: aioresponses) -> None:
    """What only the connector raises says that nothing left."""
    mocked.post(URL, exception=aiohttp.ConnectionTimeoutError())
    mocked.post(URL, status=201, payload=KEY)

    async with AsyncRespan("k", retry=RetryPolicy(initial=0.01, on_unknown="raise")) as respan:
        await respan.temporary_keys.create()
        suspects = respan.suspects

    assert suspects == ()


async def test_an_answer_without_a_key_raises_at_once(mocked: aioresponses) -> None:
    """A payload of {} is no key, and a changed server must not cost five keys a call."""
    mocked.post(URL, status=201, payload={}, repeat=True)

    async with AsyncRespan("k") as respan:
        with pytest.raises(InvalidResponseError, match="id") as caught:
            await respan.temporary_keys.create()

    assert caught.value.effect is Effect.LOST
    assert caught.value.attempts == 1


async def test_a_longer_wait_than_allowed_raises_at_once(mocked: aioresponses) -> None:
    """A server that asks for an hour is not obeyed in silence."""
    mocked.post(URL, status=429, payload={"retry_after": 3600})

    async with AsyncRespan("k") as respan:
        with pytest.raises(RateLimitError) as caught:
            await respan.temporary_keys.create()

    assert caught.value.retry_after == 3600


async def test_a_hundred_concurrent_creates_stay_under_max_in_flight(mocked: aioresponses) -> None:
    """The default pace holds nothing back but what is beyond max_in_flight."""
    now = most = 0

    async def answer(url: object, **_: object) -> object:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        from aioresponses import CallbackResult

        return CallbackResult(status=201, payload=KEY)

    mocked.post(URL, callback=answer, repeat=True)

    async with AsyncRespan("k", max_in_flight=7) as respan, asyncio.timeout(5):
        keys = await asyncio.gather(*(respan.temporary_keys.create(name=str(n)) for n in range(100)))

    assert len(keys) == 100
    assert most == 7


async def test_the_body_that_a_mock_was_called_with_can_be_read(mocked: aioresponses) -> None:
    """As JSON, as the fake server's requests can be."""
    mocked.post(URL, status=201, payload=KEY)

    async with AsyncRespan("k") as respan:
        await respan.temporary_keys.create(name="mocked", max_usage=3)

    (call,) = mocked.requests["POST", yarl.URL(URL)]
    assert call.kwargs["data"].json == {"name": "mocked", "max_usage": 3}
