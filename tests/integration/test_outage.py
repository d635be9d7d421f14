"""An outage in the middle of the work: a minute without the server is a minute's wait, and nothing else."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    CreateKeyRequest,
    Effect,
    InternalServerError,
    Issued,
    RateLimit,
    RetryPolicy,
)
from respan_async.events import AttemptEvent, PauseEvent
from respan_async.testing import FakeRespan, SlidingLog
from tests.waiting import now

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]


class Told:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.events = list[Any]()

    def __call__(self, event: Any) -> None:
        self.events.append((asyncio.get_running_loop().time(), event))

    def attempts(self, since: float, until: float) -> list[AttemptEvent]:
        """Give the attempts that ended between two times."""
        return [event for time, event in self.events if isinstance(event, AttemptEvent) and since <= time < until]

    def pauses(self) -> list[PauseEvent]:
        """Give the pauses."""
        return [event for _, event in self.events if isinstance(event, PauseEvent)]


@asynccontextmanager
async def world(
    server: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[FakeRespan, AsyncRespan, Told]]:
    """Run a server, a tenth of a second away unless said otherwise, and a client with a hook."""
    server, told = {"latency": 0.1, **(server or {})}, Told()
    async with (
        FakeRespan(**server) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[told], **settings) as respan,
    ):
        yield fake, respan, told


def tenants(number: int) -> list[CreateKeyRequest]:
    """Give requests with names that count from 0."""
    return [CreateKeyRequest(name=f"tenant-{index}") for index in range(number)]


async def issue(respan: AsyncRespan, number: int, **settings: Any) -> list[Any]:
    """Run a batch to its end."""
    return await respan.temporary_keys.create_many(tenants(number), **settings)


@pytest.mark.parametrize(
    ("latency", "pace"), [(10.0, "auto"), (0.1, RateLimit(300, per=30))], ids=["unknown limit", "known limit"]
)
@pytest.mark.parametrize("number", [600, 2_000])
async def test_a_minute_of_refused_connections_fails_no_tenant(number: int, latency: float, pace: Any) -> None:
    """The batch waits, a handful of probes goes out, and everybody has a key a little more than a minute later."""
    limit = None if pace == "auto" else SlidingLog(300, per=30)
    async with world({"limit": limit, "latency": latency}, pace=pace) as (fake, respan, told):
        task = asyncio.create_task(issue(respan, number))
        await asyncio.sleep(30)
        fake.down = True
        down_at, in_air, created = now(), respan.pace.in_flight, fake.counts.created
        await asyncio.sleep(30)
        assert respan.pace.outage
        await asyncio.sleep(30)
        fake.down = False
        up_at = now()
        outcomes = await task

        assert 0 < created < number
        assert len({outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)}) == number
        # Those that were in the air when it began, and then one probe at a time.
        assert len(told.attempts(down_at, up_at)) <= in_air + 15
        assert fake.counts.connections <= 2 * 64 + 15
        assert not respan.pace.outage
        assert any(pause.reason == "outage" and pause.lower_only for pause in told.pauses())
        assert len(respan.suspects) <= in_air
        if pace != "auto":
            # What was lost is the minute, and little more than the longest pause of ten seconds.
            assert now() <= number / 10 + 60 + 15


async def test_a_batch_that_begins_during_an_outage_waits_for_its_end() -> None:
    """Nothing works at first; nobody fails."""
    async with world() as (fake, respan, told):
        fake.down = True
        task = asyncio.create_task(issue(respan, 300))
        await asyncio.sleep(60)
        fake.down = False
        outcomes = await task

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert len(told.attempts(0, 60)) <= 20
        assert now() < 80
        assert respan.suspects == ()


async def test_interactive_calls_try_on_their_own_during_an_outage() -> None:
    """Nobody holds a web request back: it fails with what it met, after its own attempts."""
    async with world(retry=RetryPolicy(max_attempts=3)) as (fake, respan, _):
        batch = asyncio.create_task(issue(respan, 300))
        await asyncio.sleep(1)
        fake.down = True
        await asyncio.sleep(30)
        assert respan.pace.outage
        began = now()

        with pytest.raises(APIConnectionError) as caught:
            await respan.temporary_keys.create()

        assert caught.value.attempts == 3
        assert caught.value.effect is Effect.NONE
        assert now() - began < 2
        fake.down = False
        await respan.temporary_keys.create()
        assert all(isinstance(outcome, Issued) for outcome in await batch)


async def test_the_success_of_an_interactive_call_lets_the_batch_go_on() -> None:
    """Whoever finds out first that it is over, finds out for all."""
    async with world() as (fake, respan, _):
        batch = asyncio.create_task(issue(respan, 300))
        await asyncio.sleep(1)
        fake.down = True
        await asyncio.sleep(40)
        fake.down = False

        await respan.temporary_keys.create()

        assert not respan.pace.outage
        await batch


@pytest.mark.parametrize("fault", ["html_502", "unavailable_503", "reset"])
async def test_a_server_that_fails_everything_is_not_stormed(fault: str) -> None:
    """A minute of 502s, as a proxy gives them: few requests, few suspects, and every tenant has a key."""
    async with world() as (fake, respan, told):
        task = asyncio.create_task(issue(respan, 500, max_in_flight=32))
        await asyncio.sleep(2)
        assert 0 < fake.counts.created < 500
        fake.chance(fault, 1)
        began = now()
        await asyncio.sleep(60)
        fake.chance(fault, 0)
        outcomes = await task

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        bad = [attempt for attempt in told.attempts(began, began + 60) if attempt.error is not None]
        assert len(bad) <= 32 + 15
        assert len(respan.suspects) <= 32 + 15
        assert fake.counts.alive - 500 <= len(respan.suspects)


async def test_the_return_is_careful() -> None:
    """After an outage one goes first, and then more with each success; nobody stampedes."""
    async with world({"latency": 1.0}, max_in_flight=64, pace=RateLimit(100_000, per=60)) as (fake, respan, _):
        task = asyncio.create_task(issue(respan, 2000))
        await asyncio.sleep(5.5)
        fake.down = True
        await asyncio.sleep(60)
        fake.down = False
        seen = list[int]()
        while len(seen) < 60 and not task.done():
            await asyncio.sleep(0.5)
            seen.append(respan.pace.in_flight)
        await task

    first = next(index for index, count in enumerate(seen) if count)
    rounds = seen[first : first + 16 : 2]
    assert rounds[0] <= 2
    assert all(later <= 2 * earlier + 2 for earlier, later in itertools.pairwise(rounds))
    assert max(seen) > 40


async def test_one_item_the_server_cannot_take_is_no_outage() -> None:
    """A single call that fails again and again holds nobody back."""
    async with world() as (fake, respan, told):
        fake.script(*["error_500"] * 5)

        with pytest.raises(InternalServerError):
            await respan.temporary_keys.create()

        assert not respan.pace.outage
        assert told.pauses() == []


async def test_refusals_are_no_outage() -> None:
    """A server that refuses is well."""
    async with world({"limit": SlidingLog(10, per=10)}) as (_, respan, told):
        await issue(respan, 60)

        assert not any(pause.reason == "outage" for pause in told.pauses())


async def test_a_long_batch_survives_one_outage_after_the_other() -> None:
    """Three outages of different lengths cost their time, and no tenant."""
    async with world(pace=RateLimit(60, per=60)) as (fake, respan, _):
        task = asyncio.create_task(issue(respan, 600))
        for length in (3, 40, 90):
            await asyncio.sleep(100)
            fake.down = True
            await asyncio.sleep(length)
            fake.down = False
        outcomes = await task

        assert all(isinstance(outcome, Issued) for outcome in outcomes)
        assert fake.max_in_window(60) <= 60
        assert now() <= 600 + 3 + 40 + 90 + 60


async def test_what_is_in_the_air_when_an_outage_begins_may_have_made_keys() -> None:
    """Each of those is a suspect; the connections refused afterwards are none."""
    async with world({"latency": 2.0}, max_in_flight=10, pace=RateLimit(600, per=60)) as (fake, respan, _):
        task = asyncio.create_task(issue(respan, 100))
        await asyncio.sleep(7)
        in_air = respan.pace.in_flight
        fake.down = True
        await asyncio.sleep(30)
        suspects = len(respan.suspects)
        fake.down = False
        outcomes = await task

        assert 0 < suspects <= in_air
        held = [outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)]
        assert len(held) == 100
        assert len(fake.unheld(held)) <= suspects == len(respan.suspects)
