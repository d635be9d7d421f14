"""The public API as a type checker sees it: checked by mypy and pyright, and never executed."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

import aiohttp
import redis.asyncio

from respan_async import (
    DOCUMENTED_LIMIT,
    UNSET,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncRespan,
    AuthenticationError,
    BadRequestError,
    Batch,
    ClientStateError,
    ConfigurationError,
    ConflictError,
    CreatedKey,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    Failed,
    InternalServerError,
    InvalidRequestError,
    InvalidResponseError,
    Issued,
    KeyPage,
    LimitPolicy,
    Listing,
    NotFoundError,
    Pace,
    PermissionDeniedError,
    Progress,
    RateLimit,
    RateLimitError,
    RespanError,
    RetryPolicy,
    Secret,
    Suspect,
    SweepReport,
    TemporaryKey,
    TemporaryKeys,
    UnprocessableEntityError,
    UpdateKeyRequest,
)
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
from respan_async.issuing import AESGCMCipher, Issuer, PostgresLedger, Ticket
from respan_async.otel import OpenTelemetry
from respan_async.redis import RedisWindow
from respan_async.testing import (
    FAULTS,
    Bucket,
    Counts,
    FakeRespan,
    Fault,
    FixedWindow,
    KeyRecord,
    Limit,
    SlidingLog,
)

# ------------------------------------------------------------------ the client


def settings(session: aiohttp.ClientSession) -> None:
    """Every setting, in every form it may have."""

    async def text() -> str:
        return "key"

    async def secret() -> Secret:
        return Secret("key")

    AsyncRespan()
    AsyncRespan("key")
    AsyncRespan(Secret("key"))
    AsyncRespan(text)
    AsyncRespan(secret)
    AsyncRespan(lambda: "key")
    AsyncRespan(lambda: Secret("key"))
    AsyncRespan(
        "key",
        base_url="https://api.respan.ai",
        timeout=30,
        deadline=60.0,
        retry=RetryPolicy(),
        pace=DOCUMENTED_LIMIT,
        max_in_flight=64,
        tag_names=True,
        session=session,
        proxy=None,
        ssl=None,
        hooks=[print, on_event],
        allow_http=False,
    )
    AsyncRespan("key", timeout=aiohttp.ClientTimeout(total=30), deadline=None, pace="auto", hooks=(on_event,))
    AsyncRespan("key", proxy="http://proxy.example:3128", ssl=Path("ca.pem"))
    AsyncRespan("key", proxy=Secret("http://proxy.example:3128"), ssl=ssl.create_default_context())
    RetryPolicy(
        max_attempts=5,
        initial=0.5,
        maximum=30,
        max_retry_after=120,
        max_refusals=20,
        on_unknown="replace",
    )
    assert_type(DOCUMENTED_LIMIT, RateLimit)
    assert_type(RateLimit(60, per=60).limit, int)
    assert_type(RateLimit(60, per=60).per, float)


async def client() -> None:
    """What a client has and does."""
    async with AsyncRespan() as respan:
        assert_type(respan, AsyncRespan)
        assert_type(respan.temporary_keys, TemporaryKeys)
        assert_type(respan.suspects, tuple[Suspect, ...])
        assert_type(respan.pace, Pace)
        view = respan.with_options(
            timeout=5,
            deadline=None,
            retry=RetryPolicy(on_unknown="raise"),
            priority="batch",
            extra_headers={"X-Team": "blue"},
        )
        assert_type(view, AsyncRespan)
        await view.aclose()
    await respan.aclose(grace=5)


def pace(pace: Pace) -> None:
    """What `respan.pace` shows."""
    assert_type(pace.limit, RateLimit | None)
    assert_type(pace.learned, bool)
    assert_type(pace.used, int)
    assert_type(pace.in_flight, int)
    assert_type(pace.waiting, Mapping[str, int])
    assert_type(pace.refused, int)
    assert_type(pace.paused_until, datetime | None)
    assert_type(pace.outage, bool)


# -------------------------------------------------------------- the operations


async def operations(keys: TemporaryKeys, moment: datetime) -> None:
    """Every operation, with every argument."""
    policy = LimitPolicy(
        max_value=1.5,
        period="day",
        metric="cost",
        warning_threshold=0.8,
        name="n",
        notification_method_id="m",
    )
    request = CreateKeyRequest(
        name="tenant-42",
        expires_in=timedelta(hours=1),
        max_usage=1000,
        rate_limit=None,
        spending_limit=5,
        is_test=False,
        limit_policies=[policy],
    )
    assert_type(await keys.create(), CreatedKey)
    assert_type(await keys.create(request), CreatedKey)
    created = await keys.create(
        name="tenant-42",
        expiry_date=moment,
        expires_in=UNSET,
        max_usage=1000,
        rate_limit=100,
        spending_limit=None,
        is_test=True,
        limit_policies=[policy, {"max_value": 1, "period": "hour"}],
    )
    await keys.create(expiry_date="2030-01-31T12:00:00Z", limit_policies=(policy,))
    key(created)

    changes = UpdateKeyRequest(name="x", expiry_date=moment, max_usage=-1, rate_limit=None, spending_limit=None)
    assert_type(await keys.retrieve(created.id), TemporaryKey)
    assert_type(await keys.update(created.id, changes), TemporaryKey)
    assert_type(await keys.update(created.id, name="x", rate_limit=None), TemporaryKey)
    await keys.update(created.id, expiry_date="2030-01-31T12:00:00Z", max_usage=5, spending_limit=1.5)
    await keys.delete(created.id)
    await keys.delete(created.id, missing_ok=True)

    listing = keys.list(page=1, page_size=50)
    assert_type(listing, Listing)
    page = await listing
    assert_type(page, KeyPage)
    assert_type(page.results, tuple[TemporaryKey, ...])
    assert_type(page.count, int)
    assert_type(page.next_page, int | None)
    assert_type(page.request_id, str | None)
    assert_type(await keys.list().all(), list[TemporaryKey])
    async for listed in keys.list():
        assert_type(listed, TemporaryKey)

    report = await keys.sweep(grace=60)
    assert_type(report, SweepReport)
    assert_type(report.revoked, tuple[str, ...])
    assert_type(report.expired, tuple[Suspect, ...])
    assert_type(report.left, tuple[Suspect, ...])


def key(created: CreatedKey) -> None:
    """What a key is known by."""
    assert_type(created.api_key, Secret)
    assert_type(created.api_key.reveal(), str)
    assert_type(created.id, str)
    assert_type(created.name, str | None)
    assert_type(created.prefix, str | None)
    assert_type(created.status, str | None)
    assert_type(created.created_at, datetime | None)
    assert_type(created.expiry_date, datetime | None)
    assert_type(created.last_used, datetime | None)
    assert_type(created.revoked, bool | None)
    assert_type(created.is_test, bool | None)
    assert_type(created.is_temporary, bool | None)
    assert_type(created.key_usage, int | None)
    assert_type(created.max_usage, int | None)
    assert_type(created.rate_limit, float | None)
    assert_type(created.spending_limit, float | None)
    assert_type(created.spending_in_period, float | None)
    assert_type(created.expired, bool)
    assert_type(created.extra, Mapping[str, Any])
    assert_type(created.request_id, str | None)
    plain: TemporaryKey = created
    assert_type(plain.id, str)


# ------------------------------------------------------------------- batches


async def batches(keys: TemporaryKeys, tenants: list[str]) -> None:
    """Streamed, or awaited; out of any iterable."""

    def requests() -> Iterator[CreateKeyRequest]:
        for tenant in tenants:
            yield CreateKeyRequest(name=tenant)

    async def arriving() -> AsyncIterator[CreateKeyRequest]:
        for tenant in tenants:
            yield CreateKeyRequest(name=tenant)

    outcomes = await keys.create_many(requests(), max_in_flight=32, ordered=True)
    assert_type(outcomes, list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]])
    await keys.create_many([CreateKeyRequest()])

    async with keys.create_many(arriving()) as batch:
        assert_type(batch, Batch[CreateKeyRequest])
        async for outcome in batch:
            match outcome:
                case Issued(item=request, key=made, index=index, replayed=replayed):
                    assert_type(request, CreateKeyRequest)
                    assert_type(made, CreatedKey)
                    assert_type(index, int)
                    assert_type(replayed, bool)
                case Failed(item=request, error=error):
                    assert_type(request, CreateKeyRequest)
                    assert_type(error, RespanError)
        progress(batch.progress)
        batch.stop()


def progress(progress: Progress) -> None:
    """How far a batch has come."""
    assert_type(progress.done, int)
    assert_type(progress.failed, int)
    assert_type(progress.replayed, int)
    assert_type(progress.in_flight, int)
    assert_type(progress.refused, int)
    assert_type(progress.total, int | None)
    assert_type(progress.elapsed, float)
    assert_type(progress.rate, float)
    assert_type(progress.eta, float | None)


# -------------------------------------------------------------------- errors


async def errors(keys: TemporaryKeys) -> str | None:
    """Every class, each with what it knows."""
    try:
        await keys.create()
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError) as error:
        assert_type(error.retry_after, float | None)
    except (ConflictError, UnprocessableEntityError, InternalServerError) as error:
        status: APIStatusError = error
        return status.body
    except DeadlineExceededError as error:
        assert_type(error.retry_at, datetime | None)
        late: TimeoutError = error
        raise late from None
    except APITimeoutError as error:
        dropped: APIConnectionError = error
        raise dropped from None
    except (ConfigurationError, InvalidRequestError) as error:
        wrong: ValueError = error
        raise wrong from None
    except (ClientStateError, InvalidResponseError):
        return None
    except RespanError as error:
        assert_type(error.effect, Effect)
        assert_type(error.suspects, tuple[Suspect, ...])
        assert_type(error.status, int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.body, str | None)
        assert_type(error.attempts, int)
        assert_type(error.retryable, bool)
        return effect(error.effect)
    return None


def effect(effect: Effect) -> Literal["harmless", "perhaps", "yes"]:
    """There are three, and a match over them is complete."""
    match effect:
        case Effect.NONE:
            return "harmless"
        case Effect.UNKNOWN:
            return "perhaps"
        case Effect.LOST:
            return "yes"


def suspect(suspect: Suspect) -> None:
    """What is known of an attempt that may have left a key."""
    assert_type(suspect.name, str | None)
    assert_type(suspect.tag, str | None)
    assert_type(suspect.id, str | None)
    assert_type(suspect.effect, Effect)
    assert_type(suspect.sent_at, datetime)
    assert_type(suspect.sent, Mapping[str, Any])
    assert_type(suspect.reason, str)


# -------------------------------------------------------------------- events


def on_event(event: Event) -> None:
    """A hook that takes events apart."""
    assert_type(event.at, datetime)
    match event:
        case AttemptEvent():
            assert_type(event.operation, str)
            assert_type(event.status, int | None)
            assert_type(event.effect, Effect | None)
            assert_type(event.error, str | None)
        case RetryEvent():
            assert_type(event.wait, float)
        case PauseEvent():
            assert_type(event.seconds, float)
        case IssuedEvent():
            assert_type(event.id, str)
        case SuspectEvent():
            assert_type(event.suspect, Suspect)
        case RevokedEvent():
            assert_type(event.reason, str)
        case SweepEvent():
            assert_type(event.left, int)
        case _:
            pass


def only_issued(event: IssuedEvent) -> object:
    """A hook may be narrower, and return what it likes."""
    return event.attempts


HOOKS: list[Hook] = [print, on_event, only_issued, lambda event: event]


# -------------------------------------------------------------- many machines


async def fleet(connection: redis.asyncio.Redis, deliver: Callable[[str, CreatedKey], Awaitable[None]]) -> None:
    """One pace and one ledger for many processes, and what operators see of them."""
    RedisWindow("rediss://host/0", DOCUMENTED_LIMIT)
    window = RedisWindow(connection, RateLimit(60, per=60), key="account", fallback_share=0, timeout=0.5)
    ledger = PostgresLedger("postgresql://host/db", AESGCMCipher(b"k" * 32), lease=10.0, schema="respan_eu")
    assert_type(await ledger.create_schema(), None)
    assert_type(await ledger.rotate(), int)
    telemetry = OpenTelemetry()
    async with (
        AsyncRespan(pace=window, hooks=[telemetry]) as respan,
        Issuer(respan.with_options(priority="batch"), ledger, deliver=deliver) as issuer,
        telemetry.observing(respan, issuer, every=5.0),
    ):
        ticket = Ticket("tenant-1", CreateKeyRequest(name="tenant 1"))
        assert_type(await issuer.issue(ticket, deadline=5.0), Issued[Ticket])
        assert_type(await issuer.issue(ticket), Issued[Ticket])
        assert_type(respan.pace.limit, RateLimit | None)


# ------------------------------------------------------------------- testing


async def fakes(limit: Limit) -> None:
    """The fake server, as tests of other programs use it."""
    async with FakeRespan(limit=limit, latency=(0.1, 0.2), shape="b", list_shape="array", seed=5) as fake:
        assert_type(fake, FakeRespan)
        assert_type(fake.url, str)
        assert_type(fake.api_key, str)
        fake.script("refuse:2", "late_create:5", operation="create")
        fake.chance("reset", 0.1)
        fake.down = True
        fake.limit = SlidingLog(60, per=60)
        fake.limit = FixedWindow(60, per=60)
        fake.limit = Bucket(60, per=60, burst=5)
        assert_type(fake.counts, Counts)
        assert_type(fake.counts.alive, int)
        assert_type(fake.keys, dict[str, KeyRecord])
        assert_type(fake.alive(), list[KeyRecord])
        assert_type(fake.unheld(["id"]), list[KeyRecord])
        assert_type(fake.max_in_window(60), int)
        assert_type(fake.now(), datetime)
        await fake.settle()
    assert_type(FAULTS, Mapping[str, Fault])
