"""A token that comes from a function: replaced while requests are in the air, late, broken, or asked for by many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from respan_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncRespan,
    AuthenticationError,
    ConfigurationError,
    CreatedKey,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    Issued,
    PermissionDeniedError,
    RateLimit,
    RespanError,
    RetryPolicy,
    Secret,
)
from respan_async.events import AttemptEvent, RetryEvent
from respan_async.testing import FakeRespan, SlidingLog
from tests.leftovers import nothing_left
from tests.waiting import now, until

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


class Vault:
    """A secret store: it counts how often it is asked, and may be slow, broken, or hang."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked = 0
        self.slow = 0.0
        self.broken: list[BaseException | None] = []

    async def __call__(self) -> str:
        """Give the token."""
        self.asked += 1
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.broken and (error := self.broken.pop(0)) is not None:
            raise error
        return self.tokens[0]


@asynccontextmanager
async def world(
    source: Any, server: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[FakeRespan, AsyncRespan]]:
    """Run a server, a tenth of a second away, and a client that asks for its token."""
    async with FakeRespan(**{"latency": 0.1, "api_keys": ("token-1",), **(server or {})}) as fake:
        with nothing_left():
            async with AsyncRespan(source, base_url=fake.url, **settings) as respan:
                yield fake, respan
            await asyncio.sleep(0.1)  # until the server has seen that its connections are closed


def tenants(number: int) -> list[CreateKeyRequest]:
    """Give requests with names that count from 0."""
    return [CreateKeyRequest(name=f"tenant-{index}") for index in range(number)]


def rotate(fake: FakeRespan, vault: Vault, *, forbidden: bool = False) -> None:
    """Replace the token; the old one gets 401, or 403."""
    old, new = vault.tokens[0], vault.tokens[0] + "x"
    fake._accepted = frozenset({new})
    fake._forbidden = frozenset({old} if forbidden else ())
    vault.tokens[0] = new


# ----------------------------------------------------------------------- replaced


@pytest.mark.parametrize("forbidden", [False, True])
@pytest.mark.parametrize("attempts", [1, 5])
async def test_a_call_whose_token_was_replaced_in_the_air_is_made_again(attempts: int, forbidden: bool) -> None:
    """Nothing was made; the function has another token; the second request counts as no attempt."""
    vault = Vault("token-1")
    events: list[Any] = []
    settings: dict[str, Any] = {"retry": RetryPolicy(max_attempts=attempts), "hooks": [events.append]}
    async with world(vault, **settings) as (fake, respan):
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.01)
        rotate(fake, vault, forbidden=forbidden)

        assert isinstance(await call, CreatedKey)
        assert (fake.counts.requests, fake.counts.alive, vault.asked) == (2, 1, 2)
        assert respan.suspects == ()
    attempted = [event for event in events if isinstance(event, AttemptEvent)]
    assert [event.status for event in attempted] == [403 if forbidden else 401, 201]
    assert [event.wait for event in events if isinstance(event, RetryEvent)] == [0.0]


@pytest.mark.parametrize("forbidden", [False, True])
@pytest.mark.parametrize("awaited", [False, True])
async def test_a_batch_goes_on_with_the_new_token(awaited: bool, forbidden: bool) -> None:
    """What was in the air with the old one is made again, and every item has its key."""
    vault = Vault("token-1")
    async with world(vault) as (fake, respan):
        batch = respan.temporary_keys.create_many(tenants(300), max_in_flight=16)
        asyncio.get_running_loop().call_later(0.55, lambda: rotate(fake, vault, forbidden=forbidden))
        if awaited:
            outcomes = await batch
        else:
            async with batch:
                outcomes = [outcome async for outcome in batch]

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.alive == 300
        assert 300 < fake.counts.requests <= 316


async def test_a_source_that_fails_when_it_is_asked_for_another_token_is_asked_again_later() -> None:
    """A secret store that is away for a moment does not make a refused token a wrong one."""
    vault = Vault("token-1")
    events: list[Any] = []
    async with world(vault, hooks=[events.append]) as (fake, respan):
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.01)
        rotate(fake, vault)
        vault.broken = [ConnectionRefusedError()]

        assert isinstance(await call, CreatedKey)
        assert (fake.counts.requests, fake.counts.alive, vault.asked) == (2, 1, 3)
    assert [event.status for event in events if isinstance(event, RetryEvent)] == [401]


@pytest.mark.parametrize("source", ["function", "text"])
async def test_a_token_that_stays_the_same_is_refused_for_good(source: str) -> None:
    """The function is asked once more, and not sent again with what it says."""
    vault = Vault("wrong")
    async with world(vault if source == "function" else "wrong") as (fake, respan):
        with pytest.raises(AuthenticationError) as caught:
            await respan.temporary_keys.create()

        assert (caught.value.attempts, fake.counts.requests) == (1, 1)
        assert vault.asked == (2 if source == "function" else 0)


async def test_a_function_that_never_has_a_good_token_is_not_asked_for_ever() -> None:
    """Another one each time, and none of them is good: two requests."""
    numbers = iter(range(100))
    async with world(lambda: f"wrong-{next(numbers)}") as (fake, respan):
        with pytest.raises(AuthenticationError) as caught:
            await respan.temporary_keys.create()

        assert (caught.value.attempts, fake.counts.requests) == (2, 2)


async def test_a_token_may_be_replaced_twice_in_one_call() -> None:
    """With another answer in between, after which the function is asked once more again."""
    vault = Vault("token-1")
    async with world(vault, {"latency": 1.0}) as (fake, respan):
        fake.script("unavailable_503")
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.2)
        rotate(fake, vault)
        await asyncio.sleep(1)
        assert fake.counts.by_status == {401: 1}
        await until(lambda: fake.counts.requests == 3)
        rotate(fake, vault)

        assert isinstance(await call, CreatedKey)
        assert fake.counts.by_status == {401: 2, 503: 1, 201: 1}


async def test_an_answer_that_was_on_its_way_when_the_token_was_refused_is_not_believed() -> None:
    """Another call was asking already, before the token was replaced, and is told the old one."""
    vault = Vault("token-1")
    async with world(vault) as (fake, respan):
        first = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.01)
        fake._accepted = frozenset({"token-2"})
        vault.slow = 0.2
        second = asyncio.create_task(respan.temporary_keys.create())
        vault.broken = []
        await asyncio.sleep(0)
        old = asyncio.get_running_loop().call_later(0.25, vault.tokens.insert, 0, "token-2")

        assert isinstance(await first, CreatedKey)
        assert isinstance(await second, CreatedKey)
        assert old.when() < now()


async def test_a_call_that_was_given_up_is_not_made_again() -> None:
    """Its caller is gone."""
    vault = Vault("token-1")
    async with world(vault) as (fake, respan):
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(0.02)
        rotate(fake, vault)
        call.cancel()
        await asyncio.wait({call})
        await asyncio.sleep(1)

        assert (fake.counts.requests, vault.asked) == (1, 1)


# -------------------------------------------------------------------- it fails


async def test_a_function_that_raises_once_costs_nothing() -> None:
    """As a connection that breaks once does not."""
    vault = Vault("token-1")
    vault.broken = [None, TimeoutError("the vault")]
    async with world(vault, retry=RetryPolicy(max_attempts=2)) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(tenants(50), max_in_flight=4)

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.requests == 50


@pytest.mark.parametrize("error", [OSError("secret"), ValueError(), KeyError("k"), asyncio.CancelledError()], ids=repr)
async def test_a_function_that_goes_on_raising_is_named(error: BaseException) -> None:
    """After as many attempts as a connection would get; by the class of what it raised."""
    vault = Vault("token-1")
    vault.broken = [error] * 10
    async with world(vault, retry=RetryPolicy(max_attempts=3, initial=0.01)) as (fake, respan):
        with pytest.raises(APIConnectionError, match=f"api_key: the callable raised {type(error).__name__}$") as caught:
            await respan.temporary_keys.create()

        assert (caught.value.effect, caught.value.retryable, caught.value.attempts) == (Effect.NONE, True, 0)
        assert (vault.asked, fake.counts.requests, respan.pace.in_flight) == (3, 0, 0)


async def test_a_deadline_that_passes_while_a_token_is_waited_for_says_so() -> None:
    """And what went wrong before, where no answer has come."""
    vault = Vault("token-1")
    vault.slow = 1e6
    async with world(vault, deadline=1.0) as (_, respan):
        with pytest.raises(
            DeadlineExceededError, match="no token from the api_key function within the deadline of 1 s"
        ):
            await respan.temporary_keys.create()

    vault = Vault("token-1")
    vault.broken = [ConnectionRefusedError()] * 10
    async with world(vault, deadline=1.0, retry=RetryPolicy(initial=5.0)) as (_, respan):
        with pytest.raises(DeadlineExceededError, match=r"the last attempt failed: .*raised ConnectionRefusedError"):
            await respan.temporary_keys.create()


async def test_a_source_that_fails_after_a_401_leaves_the_401_to_be_seen() -> None:
    """That the server refused the token is half of the story."""
    asked = 0

    async def source() -> str:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise ConnectionRefusedError
        return "revoked"

    async with world(source, retry=RetryPolicy(max_attempts=1)) as (_, respan):
        with pytest.raises(APIConnectionError, match="the callable raised") as caught:
            await respan.temporary_keys.create()

    assert caught.value.status == 401
    assert caught.value.body


@pytest.mark.parametrize("slow", [0.0, 2.0])
async def test_a_vault_that_is_away_for_a_minute_fails_no_item(slow: float) -> None:
    """The batch waits, as it does for connections that are refused."""
    vault = Vault("token-1")
    vault.slow = slow

    async def source() -> str:
        token = await vault()
        if 1.0 < now() < 61.0:
            raise ConnectionRefusedError
        return token

    async with world(source, pace=RateLimit(100, per=10)) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(tenants(300), max_in_flight=16)

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.requests == 300
        assert now() < 130
        assert vault.asked < 400


@pytest.mark.parametrize("how", ["raises at once", "raises late", "hangs"])
async def test_a_vault_that_is_away_for_half_an_hour_fails_no_item(how: str) -> None:
    """However it is away: who waits for a token has no slot, and so is no probe that failed."""

    async def source() -> str:
        if 30 < now() < 1830:
            await asyncio.sleep({"raises at once": 0.0, "raises late": 1.0, "hangs": 1e6}[how])
            raise ConnectionRefusedError
        return "token-1"

    async with world(source, pace=RateLimit(60, per=60)) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(tenants(200))

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.requests == 200


@pytest.mark.parametrize(("limit", "life"), [(RateLimit(5, per=60), 300), (RateLimit(100, per=3600), 900)])
async def test_a_vault_that_renews_its_tokens_slowly_fails_no_item(limit: RateLimit, life: int) -> None:
    """While one is fetched, all who wait get the same; the last of them must not send it when it has long expired."""
    born = -1e9
    number = 0

    async with FakeRespan(latency=0.1, api_keys=("none",), limit=SlidingLog(limit.limit, per=limit.per)) as fake:

        async def source() -> str:
            nonlocal born, number
            if now() - born > 0.9 * life:
                await asyncio.sleep(8)
            if now() - born > 0.9 * life:
                born, number = now(), number + 1
                fake._accepted = frozenset(f"token-{known}" for known in (number - 1, number))
            return f"token-{number}"

        async with AsyncRespan(source, base_url=fake.url, pace=limit) as respan:
            outcomes = await respan.temporary_keys.create_many(tenants(100))

    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    assert number >= 3


@pytest.mark.parametrize(
    ("limit", "items", "slow"),
    [
        pytest.param(RateLimit(60, per=60), 200, 0.3, id="60 a minute"),
        pytest.param(RateLimit(60, per=60), 200, 1.5, id="60 a minute, slower"),
        pytest.param(RateLimit(5, per=60), 30, 0.3, id="5 a minute"),
        pytest.param(RateLimit(100, per=3600), 130, 0.3, id="100 an hour"),
    ],
)
async def test_a_vault_that_is_slow_costs_no_slots(limit: RateLimit, items: int, slow: float) -> None:
    """A slot that is given back is another's; and what was fetched without one is good for the next, however late."""
    vault = Vault("token-1")
    vault.slow = slow
    async with world(vault, {"limit": SlidingLog(limit.limit, per=limit.per)}, pace=limit) as (fake, respan):
        async with asyncio.timeout(1.05 * items * limit.interval + 5):
            outcomes = await respan.temporary_keys.create_many(tenants(items))

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.requests == items


async def test_a_function_that_hangs_is_given_up_after_the_timeout_and_holds_no_slot() -> None:
    """Each attempt waits for as long as an attempt may take; what it needs is free for others meanwhile."""
    vault = Vault("token-1")
    vault.slow = 1e6
    settings: dict[str, Any] = {
        "timeout": 5.0,
        "retry": RetryPolicy(max_attempts=2, initial=0.01),
        "pace": RateLimit(10, per=60),
    }
    async with world(vault, max_in_flight=1, **settings) as (fake, respan):
        calls = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(5)]
        await asyncio.sleep(2)
        assert (respan.pace.in_flight, respan.pace.used) == (0, 0)
        errors = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(error) for error in errors} == {APITimeoutError}
        assert {str(error) for error in errors} == {"api_key: the callable gave no token within 5 s"}
        assert {isinstance(error, RespanError) and error.retryable for error in errors} == {True}
        assert now() < 12
        assert fake.counts.requests == 0


async def test_who_comes_after_a_question_that_hung_asks_anew() -> None:
    """One connection to the vault was lost; the next one works."""
    vault = Vault("token-1")
    vault.slow = 1e6
    async with world(vault, timeout=5.0, retry=RetryPolicy(initial=0.01)) as (fake, respan):
        first = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1)
        vault.slow = 0
        assert isinstance(await first, CreatedKey)
        assert now() < 6
        assert vault.asked == 2
        assert fake.counts.requests == 1


async def test_a_deadline_holds_for_the_function_too() -> None:
    """It ends the waiting."""
    vault = Vault("token-1")
    vault.slow = 1e6
    async with world(vault, deadline=3.0) as (fake, respan):
        with pytest.raises(TimeoutError):
            await respan.temporary_keys.create()

        assert now() == pytest.approx(3, abs=0.01)
        assert (respan.pace.in_flight, fake.counts.requests) == (0, 0)


async def test_a_slow_function_makes_a_batch_slow_and_nothing_else() -> None:
    """It is asked for many at a time, and no slot is lost over it."""
    vault = Vault("token-1")
    vault.slow = 3.0
    async with world(vault, pace=RateLimit(20, per=10)) as (fake, respan):
        outcomes = await respan.temporary_keys.create_many(tenants(60), max_in_flight=16)

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.counts.requests == 60
        assert fake.max_in_window(10) <= 20
        assert vault.asked < 30


# ------------------------------------------------------------------ who asks


@pytest.mark.parametrize("kind", ["task", "future"])
async def test_what_a_source_keeps_for_others_is_not_cancelled(kind: str) -> None:
    """Its own single flight: the first caller goes, and the next gets the token all the same."""
    loop = asyncio.get_running_loop()
    kept: asyncio.Future[str]

    async def fetch() -> str:
        await asyncio.sleep(2)
        return "token-1"

    if kind == "task":
        kept = asyncio.ensure_future(fetch())
    else:
        kept = loop.create_future()
        loop.call_later(2, kept.set_result, "token-1")

    async with world(lambda: kept) as (fake, respan):
        first = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1)
        first.cancel()
        await respan.temporary_keys.create()

        assert fake.counts.created == 1


async def test_many_calls_at_once_ask_once() -> None:
    """And the answer is used for them alone."""
    vault = Vault("token-1")
    vault.slow = 0.1
    async with world(vault) as (fake, respan):
        await asyncio.gather(*(respan.temporary_keys.create() for _ in range(64)))
        assert vault.asked == 1

        await respan.temporary_keys.create()
        assert vault.asked == 2
        assert fake.counts.alive == 65


@pytest.mark.parametrize("who", [0, 1])
async def test_a_caller_that_is_cancelled_takes_no_other_with_it(who: int) -> None:
    """Be it the one for which the function was asked."""
    vault = Vault("token-1")
    vault.slow = 1.0
    async with world(vault) as (fake, respan):
        calls = [asyncio.create_task(respan.temporary_keys.create()) for _ in range(2)]
        await asyncio.sleep(0.5)
        calls.pop(who).cancel()

        assert isinstance(await calls[0], CreatedKey)
        assert (vault.asked, fake.counts.requests) == (1, 1)


async def test_a_function_that_nobody_waits_for_is_not_left_running() -> None:
    """Its task ends with the last caller."""
    vault = Vault("token-1")
    vault.slow = 1e6
    async with world(vault) as (_, respan):
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.sleep(0.01)

        assert respan._service.context.lifecycle.tasks._tasks == set()


# ----------------------------------------------------------------- what it is


@pytest.mark.parametrize("token", ["token-1", Secret("token-1")], ids=["text", "Secret"])
async def test_a_plain_function_will_do(token: object) -> None:
    """As one that reads a file."""
    async with world(lambda: token) as (fake, respan):
        assert isinstance(await respan.temporary_keys.create(), CreatedKey)
        assert fake.counts.by_status == {201: 1}


@pytest.mark.parametrize("wrong", [None, "", 5, "with space", "line\n", b"token-1", frozenset()], ids=repr)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_no_token_is_a_wrong_setting(wrong: Any, is_async: bool) -> None:
    """No other attempt would mend it: it ends a batch, and is told once."""

    async def later() -> Any:
        return wrong

    asked: list[bool] = []

    def source() -> Any:
        asked.append(True)
        return later() if is_async else wrong

    async with world(source) as (fake, respan):
        with pytest.raises(ConfigurationError, match="api_key: expected"):
            await respan.temporary_keys.create()
        assert len(asked) == 1
        with pytest.raises(ConfigurationError, match="api_key: expected"):
            await respan.temporary_keys.create_many(tenants(1000))

        assert len(asked) < 10
        assert (fake.counts.requests, respan.pace.in_flight) == (0, 0)


async def test_a_wrong_setting_that_the_function_raises_is_its_own_failure() -> None:
    """A ConfigurationError out of another library that stands on this one, say."""
    vault = Vault("token-1")
    vault.broken = [ConfigurationError("no vault")]
    async with world(vault) as (fake, respan):
        assert isinstance(await respan.temporary_keys.create(), CreatedKey)
        assert fake.counts.requests == 1


async def test_a_forbidden_key_of_a_fixed_token_is_told_at_once() -> None:
    """There is nobody to ask."""
    async with world("token-1") as (fake, respan):
        fake._accepted, fake._forbidden = frozenset(), frozenset({"token-1"})
        with pytest.raises(PermissionDeniedError):
            await respan.temporary_keys.create()

        assert fake.counts.requests == 1


async def test_a_source_that_heeds_no_cancellation_does_not_hold_up_the_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is left behind, and the log says so."""
    over = asyncio.Event()

    async def deaf() -> str:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue
        return "token-1"

    async with FakeRespan() as fake:
        respan = AsyncRespan(deaf, base_url=fake.url, timeout=1000)
        call = asyncio.create_task(respan.temporary_keys.create())
        await asyncio.sleep(1)
        began = now()
        await respan.aclose(grace=0.5)

        assert now() - began <= 4
        over.set()
        with pytest.raises(RespanError):
            await call
        await asyncio.sleep(1)
    assert "do not heed their cancellation" in caplog.text
