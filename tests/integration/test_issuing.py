"""Issuing for tickets: once for each, whatever the server, the ledger, the caller and the process do."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from respan_async import (
    APIConnectionError,
    AsyncRespan,
    AuthenticationError,
    ClientStateError,
    ConfigurationError,
    ConflictError,
    CreatedKey,
    CreateKeyRequest,
    DeadlineExceededError,
    Effect,
    Failed,
    InvalidRequestError,
    InvalidResponseError,
    Issued,
    RateLimit,
    RetryPolicy,
    Suspect,
    UnprocessableEntityError,
)
from respan_async._calls.lifecycle import Lifecycle
from respan_async.events import Event, IssuedEvent
from respan_async.issuing import (
    AttemptState,
    Issuer,
    JSONLinesSink,
    Ledger,
    LedgerError,
    SQLiteLedger,
    Ticket,
    TicketConflictError,
    TicketState,
)
from respan_async.issuing._background_writes import BackgroundWrites
from respan_async.secret import Secret
from respan_async.testing import FakeRespan, SlidingLog
from tests.waiting import until

QUICK = RetryPolicy(initial=0.001, maximum=0.01)
Deliver = Callable[[str, CreatedKey], Awaitable[None]]


class TroubledLedger:
    """A ledger that fails at chosen steps, before or after the real one has done them.

    Args:
        ledger: The real one.

    Attributes:
        before: How often each step fails before it is done.
        after: How often each step fails after it was done.
        gates: What a step waits for before it is done.
        called: How often each step was asked for.
    """

    def __init__(self, ledger: "Ledger | TroubledLedger") -> None:
        self._ledger: Any = ledger
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.called: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        return method if name == "lease_held_since" else partial(self._step, name, method)

    async def _step(self, name: str, method: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        self.called[name] += 1
        if name in self.gates:
            await self.gates[name].wait()
        self._fail(self.before, name)
        result = await method(*arguments, **named)
        self._fail(self.after, name)
        return result

    def _fail(self, times: Counter[str], name: str) -> None:
        if times[name]:
            times[name] -= 1
            raise LedgerError(f"{name}: the disk is on fire")


@contextlib.asynccontextmanager
async def issuing(
    fake: FakeRespan,
    ledger: "Ledger | TroubledLedger | Path | None" = None,
    *,
    deliver: Deliver | None = None,
    **settings: Any,
) -> AsyncIterator[Issuer]:
    """Run a client and an issuer: one life of a process."""
    if ledger is None or isinstance(ledger, Path):
        ledger = SQLiteLedger(ledger or ":memory:")
    settings = {"retry": QUICK, **settings}
    async with (
        AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver) as issuer,
    ):
        yield issuer


def ticket(number: int = 1, **fields: Any) -> Ticket:
    """Give a ticket."""
    return Ticket(f"tenant-{number}", CreateKeyRequest(name=f"tenant {number}", **fields))


def creates(fake: FakeRespan) -> int:
    """Count the creates that the server saw."""
    return fake.counts.by_operation.get("create", 0)


def alive(fake: FakeRespan) -> list[str]:
    """Give the ids of the keys that work."""
    return [record.id for record in fake.alive()]


def names(folder: Path) -> list[str]:
    """Give the names of the files in a folder."""
    return [path.name for path in folder.iterdir()]


async def state_of(issuer: Issuer, state: TicketState) -> int:
    """Count the tickets in a state."""
    return (await issuer.counts()).tickets[state]


# ---------------------------------------------------------------------------------------------------- one key a ticket


async def test_a_ticket_gets_a_key_and_then_always_that_one(fake_respan: FakeRespan) -> None:
    """The first call makes the key; the second gives it back, says so, and sends nothing."""
    async with issuing(fake_respan) as issuer:
        first = await issuer.issue(ticket(max_usage=5))
        second = await issuer.issue(ticket(max_usage=5))

    record = fake_respan.keys[first.key.id]
    assert not first.replayed
    assert first.key.api_key.reveal() == record.api_key
    assert second.replayed
    assert second.key == first.key
    assert record.body["max_usage"] == 5
    assert creates(fake_respan) == 1


async def test_the_name_carries_a_tag_of_the_attempt(fake_respan: FakeRespan) -> None:
    """Names are always tagged, whatever the client's setting: a sweep needs it."""
    async with issuing(fake_respan, tag_names=False) as issuer:
        issued = await issuer.issue(ticket(7))

    name = fake_respan.keys[issued.key.id].name
    assert name.startswith("tenant 7 ~")
    assert len(name) == len("tenant 7") + 14


async def test_a_hundred_calls_at_once_for_one_ticket_make_one_key(fake_respan: FakeRespan) -> None:
    """Calls for the same ticket go one after the other, and all but the first are replays."""
    async with issuing(fake_respan) as issuer:
        issued = await asyncio.gather(*(issuer.issue(ticket()) for _ in range(100)))

    assert creates(fake_respan) == 1
    assert len({outcome.key.id for outcome in issued}) == 1
    assert [outcome.replayed for outcome in issued].count(False) == 1


async def test_a_failed_call_does_not_stop_those_that_wait_for_the_same_ticket(fake_respan: FakeRespan) -> None:
    """Each call that waits has its own try, until one succeeds."""
    fake_respan.script("conflict_409", "conflict_409")

    async with issuing(fake_respan) as issuer:
        outcomes = await asyncio.gather(*(issuer.issue(ticket()) for _ in range(10)), return_exceptions=True)

    assert sum(isinstance(outcome, BaseException) for outcome in outcomes) == 2
    assert creates(fake_respan) == 3
    assert len(alive(fake_respan)) == 1


async def test_another_process_gives_the_key_back(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The ledger's file outlives its process: the key, every field of it, and its secret."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        first = await issuer.issue(ticket(spending_limit=2.5, expires_in=timedelta(days=1)))
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        second = await issuer.issue(ticket(spending_limit=2.5, expires_in=timedelta(days=1)))

    assert second.replayed
    assert second.key == first.key
    assert second.key.api_key.reveal() == fake_respan.keys[first.key.id].api_key
    assert creates(fake_respan) == 1


async def test_other_fields_under_the_same_ticket_are_a_conflict(fake_respan: FakeRespan) -> None:
    """The error names the fields that differ, and nothing is sent."""
    async with issuing(fake_respan) as issuer:
        await issuer.issue(ticket(max_usage=5, is_test=True))
        with pytest.raises(TicketConflictError, match=r"another expires_in, max_usage;") as caught:
            await issuer.issue(ticket(max_usage=6, is_test=True, expires_in=timedelta(hours=1)))

    assert caught.value.effect is Effect.NONE
    assert not caught.value.retryable
    assert creates(fake_respan) == 1


async def test_a_ticket_whose_fields_the_server_refused_is_issued_with_corrected_ones(fake_respan: FakeRespan) -> None:
    """Nothing was made of it, so nothing is contradicted."""
    fake_respan.script("unprocessable_422")
    async with issuing(fake_respan) as issuer:
        with pytest.raises(UnprocessableEntityError):
            await issuer.issue(ticket(max_usage=5))
        corrected = await issuer.issue(ticket(max_usage=6))
        with pytest.raises(TicketConflictError):
            await issuer.issue(ticket(max_usage=5))

    assert corrected.key.max_usage == 6
    assert creates(fake_respan) == 2


async def test_a_relative_expiry_is_compared_as_given(fake_respan: FakeRespan) -> None:
    """The same lifetime asked for later is the same request, though it would end at another time; None is not unset."""
    async with issuing(fake_respan) as issuer:
        first = await issuer.issue(ticket(expires_in=timedelta(hours=1)))
        await asyncio.sleep(0.01)
        second = await issuer.issue(ticket(expires_in=timedelta(minutes=60)))
        with pytest.raises(TicketConflictError, match="rate_limit"):
            await issuer.issue(ticket(expires_in=timedelta(hours=1), rate_limit=None))

    assert second.replayed
    assert second.key.expiry_date == first.key.expiry_date


async def test_an_expired_key_is_replayed_and_says_so(fake_respan: FakeRespan) -> None:
    """A ticket is one issuance: its key is not made anew because it has died."""
    async with issuing(fake_respan) as issuer:
        first = await issuer.issue(ticket(expires_in=timedelta(seconds=0.1)))
        assert not first.key.expired
        await until(lambda: first.key.expired)
        second = await issuer.issue(ticket(expires_in=timedelta(seconds=0.1)))

    assert second.replayed
    assert second.key.expired
    assert creates(fake_respan) == 1


async def test_many_tickets_are_issued_and_replays_are_counted_apart(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """A batch over tickets of which some have their keys gives all keys, and tells in its progress which were there."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        await issuer.issue_many([ticket(number) for number in range(10)])
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        async with issuer.issue_many((ticket(number) for number in range(50)), max_in_flight=8) as batch:
            outcomes = [outcome async for outcome in batch]
        progress = batch.progress

    assert progress.done == 50
    assert progress.replayed == 10
    assert progress.failed == 0
    assert {o.item.id for o in outcomes if isinstance(o, Issued) and o.replayed} == {f"tenant-{n}" for n in range(10)}
    assert len(alive(fake_respan)) == creates(fake_respan) == 50
    assert {o.key.id for o in outcomes if isinstance(o, Issued)} == set(alive(fake_respan))


async def test_keys_made_earlier_do_not_prove_that_the_api_key_is_good(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """A run that is resumed with a forbidden key ends after several 403, whatever was replayed before them."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        await issuer.issue_many([ticket(number) for number in range(10)])
    before = creates(fake_respan)
    fake_respan.chance("forbidden_403", 1.0, operation="create")

    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        outcomes = await issuer.issue_many([ticket(number) for number in range(50)], max_in_flight=1)

    assert [isinstance(outcome, Issued) for outcome in outcomes] == [True] * 10 + [False] * 40
    assert creates(fake_respan) == before + 5


async def test_a_ticket_that_is_twice_in_a_batch_gets_one_key(fake_respan: FakeRespan) -> None:
    """Also when both are worked on at the same time."""
    async with issuing(fake_respan) as issuer:
        outcomes = await issuer.issue_many([ticket(number % 5) for number in range(20)])

    assert creates(fake_respan) == 5
    assert all(isinstance(outcome, Issued) for outcome in outcomes)


async def test_one_wrong_item_of_a_batch_fails_alone(fake_respan: FakeRespan) -> None:
    """No ticket, a name too long for a tag, other fields: each is its own failure."""
    long = Ticket("long", CreateKeyRequest(name="x" * 37))
    items: list[Any] = [ticket(1), CreateKeyRequest(name="no ticket"), long, ticket(1, max_usage=3), ticket(2)]

    async with issuing(fake_respan) as issuer:
        outcomes = await issuer.issue_many(items, max_in_flight=1)

    errors = [outcome.error if isinstance(outcome, Failed) else None for outcome in outcomes]
    assert [type(error) for error in errors] == [
        type(None),
        InvalidRequestError,
        InvalidRequestError,
        TicketConflictError,
        type(None),
    ]
    assert creates(fake_respan) == 2


async def test_a_key_that_is_not_accepted_ends_the_batch_and_leaves_no_suspect(fake_respan: FakeRespan) -> None:
    """What was sent by then is proven to have left nothing, and the tickets are free."""
    fake_respan.script("unauthorized_401")

    async with issuing(fake_respan) as issuer:
        with pytest.raises(AuthenticationError):
            await issuer.issue_many([ticket(number) for number in range(20)], max_in_flight=1)
        counts = await issuer.counts()

    assert creates(fake_respan) == 1
    assert counts.attempts[AttemptState.VOID] == 1
    assert counts.attempts[AttemptState.SUSPECT] == counts.attempts[AttemptState.INTENT] == 0
    assert counts.tickets[TicketState.CLAIMED] == 0


async def test_a_refused_request_leaves_its_ticket_free(fake_respan: FakeRespan) -> None:
    """A 4xx proves that no key was made: the attempt is void, the ticket open, and the next call may succeed."""
    fake_respan.script("conflict_409")

    async with issuing(fake_respan) as issuer:
        with pytest.raises(Exception, match="Conflict"):
            await issuer.issue(ticket())
        after_failure = await issuer.counts()
        issued = await issuer.issue(ticket())

    assert after_failure.tickets[TicketState.OPEN] == 1
    assert after_failure.attempts[AttemptState.VOID] == 1
    assert not issued.replayed
    assert alive(fake_respan) == [issued.key.id]


async def test_a_hundred_refusals_leave_no_row_behind(fake_respan: FakeRespan) -> None:
    """A ledger grows with the keys it has, and not with how often the limit said no."""
    fake_respan.script(*["refuse:0.001"] * 100, "unprocessable_422")
    patient = RetryPolicy(initial=0.001, maximum=0.001, max_refusals=200)

    async with issuing(fake_respan, retry=patient) as issuer:
        with pytest.raises(UnprocessableEntityError):
            await issuer.issue(ticket())
        await issuer.issue(ticket())
        counts = await issuer.counts()

    left = {state: count for state, count in counts.attempts.items() if count}
    assert left == {AttemptState.RECORDED: 1, AttemptState.VOID: 1}


async def test_leaving_a_batch_early_revokes_nothing(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """Every key that was made is recorded, and is its ticket's when it is asked for again."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        async with issuer.issue_many([ticket(number) for number in range(100)], max_in_flight=8) as batch:
            async for _ in batch:
                break
        made = alive(fake_respan)
        again = await issuer.issue_many([ticket(number) for number in range(100)])

    assert fake_respan.counts.revoked == 0
    assert made
    assert set(made) <= {outcome.key.id for outcome in again if isinstance(outcome, Issued) and outcome.replayed}
    assert len(alive(fake_respan)) == 100


async def test_a_cancelled_caller_loses_nothing() -> None:
    """A key that arrives after its caller has gone is recorded, not revoked: the ticket is asked for again."""
    async with FakeRespan(latency=0.2) as fake, issuing(fake) as issuer:
        call = asyncio.create_task(issuer.issue(ticket()))
        await until(lambda: fake.counts.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        issued = await issuer.issue(ticket())

        assert issued.replayed
        assert creates(fake) == 1
        assert alive(fake) == [issued.key.id]


# ------------------------------------------------------------------------------------------------------- delivering


async def test_a_secret_is_delivered_and_then_erased(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The caller still gets it with the first call; a replay has the key without its secret."""
    delivered: list[tuple[str, str]] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append((ticket_id, key.api_key.reveal()))

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        first = await issuer.issue(ticket())
        second = await issuer.issue(ticket())
        assert await state_of(issuer, TicketState.DELIVERED) == 1

    assert delivered == [("tenant-1", fake_respan.keys[first.key.id].api_key)]
    assert first.key.api_key.reveal() == delivered[0][1]
    assert second.replayed
    assert second.key.id == first.key.id
    assert second.key.api_key.is_erased
    with pytest.raises(ValueError, match="no longer kept"):
        second.key.api_key.reveal()


async def test_a_key_is_durable_before_it_is_delivered(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """When the user's function is called, another process would find the key in the ledger's file."""
    seen: list[bool] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        other = SQLiteLedger(tmp_path / "keys.db")
        await other.open(account, force=True)
        record = await other.find(ticket_id)
        await other.aclose()
        seen.append(record is not None and record.key == key)

    account = "another process"
    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        await issuer.issue(ticket())

    assert seen == [True]


async def test_what_could_not_be_delivered_is_tried_again(
    fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller is not kept waiting, and gets its key; the secret is kept until it is delivered, and not logged."""
    tries: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(ticket_id)
        if len(tries) == 1:
            raise OSError(f"no room for {key.api_key.reveal()}")

    with caplog.at_level(logging.DEBUG, "respan_async"):
        async with issuing(fake_respan, deliver=deliver) as issuer:
            issued = await issuer.issue(ticket())
            assert tries == ["tenant-1"]
            assert await state_of(issuer, TicketState.ISSUED) == 1
            await until(lambda: len(tries) == 2)
            await asyncio.sleep(0.05)
            assert await state_of(issuer, TicketState.DELIVERED) == 1

    assert "'tenant-1' could not be delivered: OSError" in caplog.text
    assert issued.key.api_key.reveal() not in caplog.text


async def test_what_one_run_could_not_deliver_the_next_one_does(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """Also more than one page of it, and also what was kept because that run had nowhere to deliver."""

    async def fail(ticket_id: str, key: CreatedKey) -> None:
        raise OSError

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=fail) as issuer:
        await issuer.issue_many([ticket(number) for number in range(100)])
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        await issuer.issue_many([ticket(number) for number in range(100, 130)])
    delivered: dict[str, str] = {}

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered[ticket_id] = key.api_key.reveal()

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        await until(lambda: len(delivered) == 130)
        await asyncio.sleep(0.05)
        counts = await issuer.counts()

    assert counts.tickets[TicketState.DELIVERED] == 130
    assert set(delivered.values()) == {record.api_key for record in fake_respan.keys.values()}
    assert creates(fake_respan) == 130


async def test_a_ticket_is_never_being_delivered_twice_at_the_same_time(
    fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """What the last run left is delivered beside what this run makes, and the two keep apart."""

    async def fail(ticket_id: str, key: CreatedKey) -> None:
        raise OSError

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=fail) as issuer:
        await issuer.issue_many([ticket(number) for number in range(100, 150)])
    at_work: Counter[str] = Counter()
    most: Counter[str] = Counter()
    done: set[str] = set()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        at_work[ticket_id] += 1
        most[ticket_id] = max(most[ticket_id], at_work[ticket_id])
        await asyncio.sleep(0.005 if ticket_id < "tenant-150" else 0.7)
        at_work[ticket_id] -= 1
        done.add(ticket_id)

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        await issuer.issue_many([ticket(number) for number in range(100, 250)])
        await until(lambda: len(done) == 150)

    assert max(most.values()) == 1


async def test_what_a_call_has_delivered_meanwhile_is_not_delivered_once_more(
    fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """What was left is read a page at a time; a ticket on it may be asked for before its turn comes."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        await issuer.issue_many([ticket(1), ticket(2)])
    tries: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(ticket_id)
        if tries == ["tenant-1"]:
            raise OSError

    async with (
        AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan,
        Issuer(
            respan, SQLiteLedger(tmp_path / "keys.db"), deliver=deliver, max_deliveries=1, max_undelivered=1
        ) as issuer,
    ):
        await until(lambda: tries)
        issued = await issuer.issue(ticket(2))
        await until(lambda: len(tries) == 3)
        await until(lambda: not issuer._delivery or not issuer._delivery._catching_up)
        await asyncio.sleep(0.05)
        assert await state_of(issuer, TicketState.DELIVERED) == 2

    assert issued.delivered
    assert tries == ["tenant-1", "tenant-2", "tenant-1"]


async def test_a_secret_that_could_not_be_erased_is_delivered_again_by_the_next_run(
    fake_respan: FakeRespan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller has its key, which is durable; the log tells that the secret is still in the ledger."""
    tries: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(ticket_id)

    ledger = TroubledLedger(SQLiteLedger(tmp_path / "keys.db"))
    ledger.before["erase"] = 1
    async with issuing(fake_respan, ledger, deliver=deliver) as issuer:
        issued = await issuer.issue(ticket())
        assert await state_of(issuer, TicketState.ISSUED) == 1
    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        await until(lambda: len(tries) == 2)
        await asyncio.sleep(0.05)
        assert await state_of(issuer, TicketState.DELIVERED) == 1

    assert "'tenant-1' is still in the ledger" in caplog.text
    assert alive(fake_respan) == [issued.key.id]


async def test_a_dead_key_is_not_delivered(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The local clock may be fast, by an hour perhaps; or set wrong, so that its secret is erased a week later."""
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        now = datetime.now(UTC)
        for number, hours in enumerate((0.5, 1.5, 170), start=1):
            await issuer.issue(ticket(number, expiry_date=now - timedelta(hours=hours)))
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    async with issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as issuer:
        await asyncio.sleep(0.1)
        assert await state_of(issuer, TicketState.DELIVERED) == 2
        assert await state_of(issuer, TicketState.ISSUED) == 1

    assert delivered == ["tenant-1"]


async def test_a_ticket_that_is_issued_again_is_delivered_by_whoever_is_asked(
    fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """Who recorded its key may have died before it delivered it."""
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(key.api_key.reveal())

    async with (
        issuing(fake_respan, tmp_path / "keys.db") as one,
        issuing(fake_respan, tmp_path / "keys.db", deliver=deliver) as other,
    ):
        first = await one.issue(ticket())
        again = await other.issue(ticket())
        once_more = await other.issue(ticket())

    assert (again.replayed, once_more.replayed) == (True, True)
    assert delivered == [first.key.api_key.reveal()]
    assert once_more.key.api_key.is_erased


# ------------------------------------------------------------------------------------------------ suspects and sweeps


@pytest.mark.parametrize("fault", ["lose_answer_after_create", "disconnect_after_create", "html_502_after", "truncate"])
async def test_the_key_of_a_lost_answer_is_revoked(fake_respan: FakeRespan, fault: str) -> None:
    """The ticket gets another key at once; the one nobody holds is found by its tag, and only that one is revoked."""
    fake_respan.script(fault)

    async with issuing(fake_respan) as issuer:
        issued = await issuer.issue(ticket())
        assert len(alive(fake_respan)) == 2
        report = await issuer.sweep(grace=0)
        counts = await issuer.counts()

    assert len(report.revoked) == 1
    assert report.left == ()
    assert alive(fake_respan) == [issued.key.id]
    assert counts.attempts[AttemptState.REVOKED] == counts.attempts[AttemptState.RECORDED] == 1


async def test_every_attempt_has_a_tag_of_its_own(fake_respan: FakeRespan) -> None:
    """Or a sweep could not tell the key that was handed out from one that was lost."""
    fake_respan.script(*["lose_answer_after_create"] * 3)

    async with issuing(fake_respan) as issuer:
        issued = await issuer.issue(ticket())
        await issuer.sweep(grace=0)

    assert len({record.name for record in fake_respan.keys.values()}) == 4
    assert alive(fake_respan) == [issued.key.id]


async def test_a_late_key_is_revoked_by_a_later_sweep_of_another_process(
    fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """The server makes the key after everybody gave up; a sweep that found nothing has proven nothing."""
    fake_respan.script("late_create:0.5")

    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        issued = await issuer.issue(ticket())
        too_early = await issuer.sweep(grace=0)
    await fake_respan.settle()
    assert len(alive(fake_respan)) == 2
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        report = await issuer.sweep(grace=0)

    assert too_early.revoked == ()
    assert len(too_early.left) == 1
    assert len(report.revoked) == 1
    assert alive(fake_respan) == [issued.key.id]


async def test_the_grace_covers_a_late_key(fake_respan: FakeRespan) -> None:
    """A sweep waits before it looks, so that a key made a little late is there when it does."""
    fake_respan.script("late_create:0.2")

    async with issuing(fake_respan) as issuer:
        issued = await issuer.issue(ticket())
        report = await issuer.sweep(grace=0.4)

    assert len(report.revoked) == 1
    assert alive(fake_respan) == [issued.key.id]


async def test_a_suspect_ends_with_its_expiry(fake_respan: FakeRespan) -> None:
    """A key that would have died long ago need not be looked for."""
    ledger = SQLiteLedger(":memory:")
    fake_respan.script("reset")
    past = datetime.now(UTC) - timedelta(hours=2)

    async with issuing(fake_respan, ledger) as issuer:
        await issuer.issue(ticket(expiry_date=past))
        report = await issuer.sweep(grace=0)
        counts = await issuer.counts()

    assert [suspect.tag for suspect in report.expired] != [None]
    assert report.left == ()
    assert counts.attempts[AttemptState.EXPIRED] == 1


async def test_a_failed_call_leaves_its_suspects_in_the_ledger(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The error names them, the next process knows them, and a sweep ends them."""
    fake_respan.script("lose_answer_after_create")
    only_once = RetryPolicy(on_unknown="raise")

    async with issuing(fake_respan, tmp_path / "keys.db", retry=only_once) as issuer:
        with pytest.raises(APIConnectionError) as caught:
            await issuer.issue(ticket())
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        (suspect,) = await issuer._suspects.pending()
        issued = await issuer.issue(ticket())
        await issuer.sweep(grace=0)

    assert caught.value.effect is Effect.UNKNOWN
    assert [suspect.tag for suspect in caught.value.suspects] == [suspect.tag]
    assert suspect.effect is Effect.UNKNOWN
    assert suspect.sent["name"] == suspect.name == next(iter(fake_respan.keys.values())).name
    assert alive(fake_respan) == [issued.key.id]


async def test_a_key_whose_id_the_server_told_is_revoked_by_it(fake_respan: FakeRespan) -> None:
    """An answer without a secret still names its key: no list, no grace, no proof by tag is needed."""
    fake_respan.script("no_api_key")

    async with issuing(fake_respan) as issuer:
        with pytest.raises(InvalidResponseError):
            await issuer.issue(ticket())
        (suspect,) = await issuer._suspects.pending()
        report = await issuer.sweep(grace=60)

    assert suspect.effect is Effect.LOST
    assert list(report.revoked) == [suspect.id]
    assert alive(fake_respan) == []


async def test_a_key_that_was_recorded_is_never_revoked(fake_respan: FakeRespan) -> None:
    """Not even if somebody comes late with a doubt about its attempt."""
    ledger = SQLiteLedger(":memory:")

    async with issuing(fake_respan, ledger) as issuer:
        issued = await issuer.issue(ticket())
        tag = (issued.key.name or "").rpartition("~")[2]
        await ledger.mark_suspect(tag, Effect.UNKNOWN, "somebody was late", issued.key.id)
        await ledger.mark_void(tag)
        report = await issuer.sweep(grace=0)

    assert report.left == ()
    assert report.revoked == ()
    assert alive(fake_respan) == [issued.key.id]


async def test_suspects_of_the_last_run_are_swept_by_themselves(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """A new run looks for what an earlier one left, without being asked to."""
    fake_respan.script("no_api_key")
    async with issuing(fake_respan, tmp_path / "keys.db") as issuer:
        with pytest.raises(InvalidResponseError):
            await issuer.issue(ticket())
        await asyncio.sleep(0)

    fake_respan.script("ok", operation="delete")
    async with issuing(fake_respan, tmp_path / "keys.db"):
        await until(lambda: not alive(fake_respan))

    assert fake_respan.counts.revoked == 1


async def test_a_suspect_is_swept_however_long_it_took_to_note_it(fake_respan: FakeRespan) -> None:
    """The sweep is told when the suspect is in the ledger, not before."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.gates["mark_suspect"] = asyncio.Event()
    fake_respan.script("no_api_key")

    async with issuing(fake_respan, ledger) as issuer:
        with pytest.raises(InvalidResponseError):
            await issuer.issue(ticket())
        await asyncio.sleep(0.05)
        ledger.gates["mark_suspect"].set()
        await until(lambda: not alive(fake_respan))


async def test_a_suspect_that_was_noted_while_they_were_read_is_swept(fake_respan: FakeRespan) -> None:
    """The answer to an older question does not end the sweeping."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))

    class Slow(TroubledLedger):
        async def suspects(self) -> Any:
            found = await self._ledger.suspects()
            await self.gates["answer"].wait()
            return found

    slow = Slow(ledger)
    slow.gates["answer"] = asyncio.Event()
    fake_respan.script("no_api_key")
    async with issuing(fake_respan, slow) as issuer:
        with pytest.raises(InvalidResponseError):
            await issuer.issue(ticket())
        await until(lambda: ledger.called["mark_suspect"])
        await asyncio.sleep(0.05)
        slow.gates["answer"].set()
        await until(lambda: not alive(fake_respan))


async def test_a_key_with_an_id_that_no_ledger_could_keep_is_revoked_by_its_tag() -> None:
    """It counts as a whole answer without a usable key."""

    class Odd(FakeRespan):
        async def _reply(self, request: Any, connection: Any) -> Any:
            answer = await super()._reply(request, connection)
            if request.method != "POST":
                return answer
            return attrs.evolve(cast("Any", answer), payload={**cast("Any", answer).payload, "id": "x" * 4000})

    async with Odd() as fake, issuing(fake) as issuer:
        with pytest.raises(InvalidResponseError, match="printable characters as id") as caught:
            await issuer.issue(ticket())
        (suspect,) = await issuer._suspects.pending()
        report = await issuer.sweep(grace=0)

    assert caught.value.effect is Effect.LOST
    assert suspect.id is None
    assert len(report.revoked) == 1
    assert alive(fake) == []


# --------------------------------------------------------------------------------------------- what others have left


class Still:
    """A ledger without a store, of which every method answers at once, so that it can be used in virtual time.

    Attributes:
        left: Its suspects.
        kept: What is not delivered.
        may_sweep: Whether it is this owner's turn.
        outrun: Another is always faster to settle a suspect.
        done: What it was asked for.
    """

    def __init__(self) -> None:
        self.left: list[Suspect] = []
        self.kept: list[tuple[str, CreatedKey | LedgerError]] = []
        self.may_sweep = True
        self.outrun = False
        self.done: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: Any, **__: Any) -> list[Any]:
            return []

        return nothing

    async def suspects(self) -> list[Suspect]:
        return self.left

    async def acquire_sweep_turn(self, seconds: float) -> bool:
        return self.may_sweep

    async def close_suspect(self, tag: str, state: AttemptState) -> bool:
        self.done.append((tag, str(state)))
        self.left = [suspect for suspect in self.left if suspect.tag != tag]
        return not self.outrun

    async def undelivered(
        self, after: str, limit: int, *, left_for: float = 0.0
    ) -> list[tuple[str, CreatedKey | LedgerError]]:
        assert left_for == 600.0
        return [] if after else self.kept

    async def erase(self, ticket_id: str) -> None:
        self.done.append((ticket_id, "erased"))
        self.kept = [(name, key) for name, key in self.kept if name != ticket_id]


def dead_suspect(tag: str = "tag") -> Suspect:
    """Give a suspect that has died by itself long ago."""
    sent = {"expiry_date": "2020-01-01T00:00:00Z"}
    return Suspect(name=None, tag=tag, effect=Effect.LOST, sent_at=datetime.now(UTC), sent=sent, reason="")


virtual = pytest.mark.virtual


async def test_a_ticket_of_a_batch_for_which_a_request_waits_goes_before_the_batch() -> None:
    """It need not wait for the others' turn: the batch's own call goes on as an interactive one."""
    async with (
        FakeRespan(limit=SlidingLog(10, per=0.5)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=RateLimit(10, per=0.5)) as respan,
        Issuer(respan, SQLiteLedger(":memory:"), auto_sweep=False) as issuer,
    ):
        tickets = [ticket(number) for number in range(40)]
        batch = asyncio.ensure_future(issuer.issue_many(tickets, max_in_flight=40))
        await until(lambda: fake.counts.created >= 2)

        issued = await issuer.issue(tickets[-1])

        assert fake.counts.created <= 15
        outcomes = await batch
        assert [outcome.key for outcome in outcomes if isinstance(outcome, Issued)][-1] == issued.key
        assert fake.counts.created == 40


@virtual
async def test_what_others_have_left_since_is_swept_and_delivered() -> None:
    """By those that live on, within half a minute: nobody tells them."""
    ledger = Still()
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    async with (
        AsyncRespan("key", base_url="http://127.0.0.1:1") as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver),
    ):
        await asyncio.sleep(100)
        assert ledger.done == []
        ledger.left = [dead_suspect()]
        ledger.kept = [("tenant-1", CreatedKey(id="key-1", api_key=Secret("secret")))]
        await asyncio.sleep(31)

    assert sorted(ledger.done) == [("tag", "expired"), ("tenant-1", "erased")]
    assert delivered == ["tenant-1"]


@contextlib.asynccontextmanager
async def delivering(deliver: Deliver, *left: CreatedKey, **settings: Any) -> AsyncIterator[Still]:
    """Run an issuer on a ledger in which these keys were left."""
    ledger = Still()
    ledger.kept = [(f"tenant-{number}", key) for number, key in enumerate(left, 1)]
    async with (
        AsyncRespan("key", base_url="http://127.0.0.1:1") as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver, **settings),
    ):
        yield ledger


@virtual
async def test_a_delivery_that_takes_long_is_waited_for_and_not_begun_again() -> None:
    """Whoever lives on looks again and again at what was left, and leaves alone what is under way."""
    tries: list[float] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(200)

    async with delivering(deliver, CreatedKey(id="key-1", api_key=Secret("secret")), deliver_timeout=300) as ledger:
        await asyncio.sleep(190)
        assert ledger.done == []
        await asyncio.sleep(20)
        assert ledger.done == [("tenant-1", "erased")]

    assert len(tries) == 1


@virtual
async def test_a_delivery_that_hangs_does_not_keep_the_issuer_open() -> None:
    """Its secret is left in the ledger, for the next run."""

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await asyncio.sleep(1e6)

    async with delivering(deliver, CreatedKey(id="key-1", api_key=Secret("secret"))) as ledger:
        await asyncio.sleep(10)
        leaving = asyncio.get_running_loop().time()

    assert asyncio.get_running_loop().time() - leaving < 20
    assert ledger.done == []


@virtual
async def test_why_a_delivery_failed_is_told_in_the_systems_words_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A full disk is told as one; what else an error says may be the secret."""
    key = CreatedKey(id="key-1", api_key=Secret("secret"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret")
    errors: Iterator[Any] = iter([full, OSError(errno.EIO, "secret"), OSError([1], "secret"), OSError(-1, "secret")])

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if (error := next(errors, None)) is not None:
            raise error

    async with delivering(deliver, key) as ledger:
        await asyncio.sleep(60)

    assert ledger.done == [("tenant-1", "erased")]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if "delivered" in record.msg] == [
        "OSError: No space left on device",
        "OSError",
        "OSError",
        "OSError",
    ]


@virtual
async def test_a_delivery_that_is_cancelled_from_within_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Something that it awaits was cancelled, and not the issuer: it is tried again."""
    tries = itertools.count()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if next(tries) == 0:
            raise asyncio.CancelledError

    async with delivering(deliver, CreatedKey(id="key-1", api_key=Secret("secret"))) as ledger:
        await asyncio.sleep(5)

    assert ledger.done == [("tenant-1", "erased")]
    assert "'tenant-1' could not be delivered: CancelledError" in caplog.text


@virtual
async def test_a_key_that_dies_before_it_could_be_delivered_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Its secret is of no use to anybody, and is erased: a week later, as this machine's clock may be wrong."""
    tries: list[str] = []
    left = CreatedKey(id="key-1", api_key=Secret("secret"))

    def let_it_be_dead_for(days: int) -> None:
        object.__setattr__(left, "expiry_date", datetime.now(UTC) - timedelta(days=days))

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(ticket_id)
        if len(tries) == 3:
            let_it_be_dead_for(1)
        raise OSError

    async with delivering(deliver, left) as ledger:
        await asyncio.sleep(1000)
        done_after_a_day = list(ledger.done)
        let_it_be_dead_for(8)
        await asyncio.sleep(1000)

    assert tries == ["tenant-1"] * 3
    assert done_after_a_day == []
    assert ledger.done == [("tenant-1", "erased")]
    assert "'tenant-1' was not delivered before its key expired" in caplog.text


@virtual
async def test_a_secret_that_cannot_be_read_stands_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and left for whoever has its cipher's key."""
    ledger = Still()
    unread = ("tenant-0", LedgerError("the secret of ticket 'tenant-0' was encrypted with another key"))
    ledger.kept = [unread, ("tenant-1", CreatedKey(id="key-1", api_key=Secret("secret")))]
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    async with (
        AsyncRespan("key", base_url="http://127.0.0.1:1") as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver),
    ):
        await asyncio.sleep(1000)

    assert delivered == ["tenant-1"]
    assert ledger.done == [("tenant-1", "erased")]
    assert [record.message for record in caplog.records if "another key" in record.message] == [
        "the secret of ticket 'tenant-0' was encrypted with another key; it is left as it is"
    ]


@virtual
@pytest.mark.parametrize(("auto_sweep", "may_sweep"), [(False, True), (True, False), (True, True)])
async def test_it_sweeps_by_itself_if_it_is_its_turn_and_it_was_told_to(auto_sweep: bool, may_sweep: bool) -> None:
    """Of many issuers on one ledger one reads the list, not all of them."""
    ledger = Still()
    ledger.may_sweep = may_sweep
    ledger.left = [dead_suspect()]

    async with (
        AsyncRespan("key", base_url="http://127.0.0.1:1") as respan,
        Issuer(respan, cast("Ledger", ledger), auto_sweep=auto_sweep) as issuer,
    ):
        await asyncio.sleep(3600)
        by_itself = list(ledger.done)
        await issuer.sweep()

    assert by_itself == [("tag", "expired")] * (auto_sweep and may_sweep)
    assert ledger.done == [("tag", "expired")]


async def test_what_another_sweep_was_faster_with_is_in_its_report(fake_respan: FakeRespan) -> None:
    """Not in that of both."""
    ledger = Still()
    sent = {"expiry_date": (datetime.now(UTC) - timedelta(hours=2)).isoformat()}
    ledger.left = [dead_suspect(), attrs.evolve(dead_suspect("other"), id="key-1", sent=sent)]
    ledger.outrun = True

    async with (
        AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan,
        Issuer(respan, cast("Ledger", ledger), auto_sweep=False) as issuer,
    ):
        report = await issuer.sweep(grace=0)

    assert sorted(tag for tag, _ in ledger.done) == ["other", "tag"]
    assert fake_respan.counts.by_operation["retrieve"] == 1
    assert (report.expired, report.revoked, report.left) == ((), (), ())


# ------------------------------------------------------------------------------------------------ a ledger that fails


@pytest.mark.parametrize("step", ["release", "mark_void"])
async def test_what_could_not_be_noted_is_noted_later(fake_respan: FakeRespan, tmp_path: Path, step: str) -> None:
    """A ticket does not stay with an owner that lives and is not at work on it."""
    ledger = TroubledLedger(SQLiteLedger(tmp_path / "keys.db"))
    ledger.before[step] = 2
    fake_respan.script("conflict_409")

    async with issuing(fake_respan, ledger) as one, issuing(fake_respan, tmp_path / "keys.db") as other:
        with pytest.raises(ConflictError):
            await one.issue(ticket())
        await one._background_writes.written()
        for _ in range(2):
            await one._background_writes.repeat()
        counts = await other.counts()
        issued = await other.issue(ticket())

    assert counts.tickets[TicketState.OPEN] == counts.attempts[AttemptState.VOID] == 1
    assert alive(fake_respan) == [issued.key.id]


async def test_a_claim_is_not_given_up_late_under_another_call(tmp_path: Path) -> None:
    """The one that asks again for the ticket has the claim of the one before; it is given up after that."""
    ledger = TroubledLedger(SQLiteLedger(tmp_path / "keys.db"))
    ledger.before["release"] = 1
    async with (
        FakeRespan(latency=0.2) as fake,
        issuing(fake, ledger) as one,
        issuing(fake, tmp_path / "keys.db") as other,
    ):
        fake.script("conflict_409", "conflict_409")
        with pytest.raises(ConflictError):
            await one.issue(ticket())
        again = asyncio.create_task(one.issue(ticket()))
        await until(lambda: creates(fake) == 2)
        await one._background_writes.repeat()
        with pytest.raises(LedgerError, match="another process is at work on it"):
            await other.issue(ticket())
        with pytest.raises(ConflictError):
            await again
        await one._background_writes.written()
        await one._background_writes.repeat()

        assert await state_of(one, TicketState.OPEN) == 1


async def test_a_ticket_whose_key_could_not_be_recorded_is_free(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """For any other process, at once."""
    ledger = TroubledLedger(SQLiteLedger(tmp_path / "keys.db"))
    ledger.before["record"] = 1

    async with issuing(fake_respan, ledger) as one, issuing(fake_respan, tmp_path / "keys.db") as other:
        with pytest.raises(LedgerError, match="its key is being revoked"):
            await one.issue(ticket())
        await one._background_writes.written()
        issued = await other.issue(ticket())
        await until(lambda: alive(fake_respan) == [issued.key.id])


async def test_a_key_whose_ticket_was_taken_over_is_revoked(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The other process is still at work on it; trying again later gives that one's key."""

    class TakenOver(TroubledLedger):
        async def record(self, *arguments: Any) -> Any:
            with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as connection, connection:
                connection.execute("UPDATE tickets SET epoch = epoch + 1")
            return await self._ledger.record(*arguments)

    async with issuing(fake_respan, TakenOver(SQLiteLedger(tmp_path / "keys.db"))) as issuer:
        with pytest.raises(LedgerError, match="another process has taken it over") as caught:
            await issuer.issue(ticket())
        await until(lambda: fake_respan.counts.revoked)

    assert caught.value.retryable
    assert (creates(fake_respan), alive(fake_respan)) == (1, [])


async def test_nothing_is_sent_when_the_intent_cannot_be_noted(fake_respan: FakeRespan) -> None:
    """Rule 1. The error says that nothing was made; the next call goes well."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.before["claim_attempt"] = 1

    async with issuing(fake_respan, ledger) as issuer:
        with pytest.raises(LedgerError, match="on fire") as caught:
            await issuer.issue(ticket())
        assert creates(fake_respan) == 0
        issued = await issuer.issue(ticket())

    assert caught.value.effect is Effect.NONE
    assert alive(fake_respan) == [issued.key.id]


async def test_an_intent_of_which_nobody_knows_whether_it_was_noted_is_not_sent(fake_respan: FakeRespan) -> None:
    """Rule 4 for intents: nothing leaves, the ticket can be asked for again, and no suspect is left behind."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.after["claim_attempt"] = 1

    async with issuing(fake_respan, ledger) as issuer:
        with pytest.raises(LedgerError, match="on fire"):
            await issuer.issue(ticket())
        assert creates(fake_respan) == 0
        between = await issuer.counts()
        issued = await issuer.issue(ticket())
        counts = await issuer.counts()

    assert alive(fake_respan) == [issued.key.id]
    assert between.tickets[TicketState.CLAIMED] == 0
    assert counts.attempts[AttemptState.INTENT] == counts.attempts[AttemptState.SUSPECT] == 0


async def test_a_key_is_kept_when_its_commit_failed_after_all_was_written(fake_respan: FakeRespan) -> None:
    """Rule 4: the row is read, and is ours; the caller gets its key as if nothing had happened."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.after["record"] = 1

    async with issuing(fake_respan, ledger) as issuer:
        issued = await issuer.issue(ticket())
        again = await issuer.issue(ticket())
        await issuer.sweep(grace=0)

    assert again.key.id == issued.key.id
    assert alive(fake_respan) == [issued.key.id]


async def test_a_key_that_could_not_be_recorded_is_revoked(fake_respan: FakeRespan) -> None:
    """Rule 4: the row is read, and is not ours; nobody gets the key, and it does not live on."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.before["record"] = 1

    async with issuing(fake_respan, ledger) as issuer:
        with pytest.raises(LedgerError, match="its key is being revoked") as caught:
            await issuer.issue(ticket())
        await until(lambda: not alive(fake_respan))
        issued = await issuer.issue(ticket())
        report = await issuer.sweep(grace=0)

    assert (caught.value.effect, caught.value.retryable) == (Effect.LOST, True)
    assert report.left == ()
    assert alive(fake_respan) == [issued.key.id]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_key_is_a_suspect_while_nobody_can_tell_whether_it_was_recorded(
    fake_respan: FakeRespan, when: str
) -> None:
    """Rule 4: neither handed out nor revoked. Once the ledger can be read again, it is its ticket's, or swept."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    getattr(ledger, when)["record"] = 1
    found = itertools.count(1)

    class Unreadable(TroubledLedger):
        async def find(self, ticket_id: str) -> Any:
            if next(found) == 2:
                raise LedgerError("the disk is away")
            return await self._ledger.find(ticket_id)

    async with issuing(fake_respan, Unreadable(ledger)) as issuer:
        with pytest.raises(LedgerError, match="neither handed out nor revoked") as caught:
            await issuer.issue(ticket())
        (made,) = fake_respan.keys
        issued = await issuer.issue(ticket())
        await issuer.sweep(grace=0)

    assert caught.value.effect is not Effect.NONE
    assert caught.value.retryable
    assert issued.replayed == (when == "after")
    assert (issued.key.id == made) == (when == "after")
    assert alive(fake_respan) == [issued.key.id]


async def test_a_deadline_that_passes_while_the_key_is_being_recorded_says_that_something_was_made(
    fake_respan: FakeRespan,
) -> None:
    """The key goes on to its ticket, and the error does not claim that nothing happened."""
    ledger = TroubledLedger(SQLiteLedger(":memory:"))
    ledger.gates["record"] = asyncio.Event()

    async with issuing(fake_respan, ledger) as issuer:
        with pytest.raises(DeadlineExceededError) as caught:
            await issuer.issue(ticket(), deadline=0.5)
        ledger.gates["record"].set()
        await until(lambda: alive(fake_respan))
        issued = await issuer.issue(ticket())

    assert caught.value.effect is not Effect.NONE
    assert issued.replayed
    assert alive(fake_respan) == [issued.key.id]


async def test_one_call_may_have_a_deadline_of_its_own() -> None:
    """A web request's holds for it alone; its key arrives later, and is its ticket's."""
    async with FakeRespan(latency=0.8) as fake, issuing(fake) as issuer:
        with pytest.raises(DeadlineExceededError):
            await issuer.issue(ticket(), deadline=0.5)
        with pytest.raises(ConfigurationError, match="deadline: expected seconds above 0"):
            await issuer.issue(ticket(), deadline=-1)

        again = await issuer.issue(ticket())

        assert again.replayed
        assert alive(fake) == [again.key.id]


async def test_a_deadline_holds_in_a_batch_as_well(fake_respan: FakeRespan) -> None:
    """An answer that does not come in time fails its ticket, and its attempt is a suspect."""
    fake_respan.script("stall")

    async with issuing(fake_respan, deadline=0.5, timeout=1.0) as issuer:
        async with asyncio.timeout(5):
            outcomes = await issuer.issue_many([ticket(1), ticket(2)], max_in_flight=1)

    assert isinstance(outcomes[0], Failed)
    assert isinstance(outcomes[0].error, DeadlineExceededError)
    assert isinstance(outcomes[1], Issued)


# ------------------------------------------------------------------------------------------------- pace, lease, closing


async def test_a_restart_does_not_run_into_the_limit_that_was_just_used_up(tmp_path: Path) -> None:
    """The new run knows what the last one sent, to the second: the server refuses nothing, and each run is prompt."""
    async with FakeRespan(limit=SlidingLog(20, per=1), retry_after_digits=2, latency=(0.0, 0.6)) as fake:
        for run in range(2):
            async with issuing(fake, tmp_path / "keys.db", pace=RateLimit(20, per=1)) as issuer:
                await issuer.issue_many([ticket(number) for number in range(run * 15, run * 15 + 15)])

        assert fake.counts.refused == 0
        assert len(fake.alive()) == 30


async def test_a_process_that_slept_through_its_lease_sends_only_what_it_noted_afterwards(
    fake_respan: FakeRespan,
) -> None:
    """An intent that was noted before the lease ended is not sent; the call tries again under a new lease."""
    asleep = itertools.count()

    class Sleepy(TroubledLedger):
        async def claim_attempt(self, *arguments: Any) -> Any:
            epoch = await self._ledger.claim_attempt(*arguments)
            if next(asleep) == 0:
                time.sleep(0.5)  # noqa: ASYNC251  as if the process had been stopped
            return epoch

    async with issuing(fake_respan, Sleepy(SQLiteLedger(":memory:", lease=0.2))) as issuer:
        issued = await issuer.issue(ticket())
        await asyncio.sleep(0)
        counts = await issuer.counts()

    assert creates(fake_respan) == 1
    assert alive(fake_respan) == [issued.key.id]
    # Every intent but the last is forgotten; on a busy machine another lease may end as well.
    assert next(asleep) >= 2
    assert sum(counts.attempts.values()) == counts.attempts[AttemptState.RECORDED] == 1


async def test_another_process_at_work_on_a_ticket_is_told(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """The call fails at once, sends nothing, and says that trying again later may help; then it is a replay."""
    async with FakeRespan(latency=0.4) as fake:
        async with issuing(fake, tmp_path / "keys.db") as one, issuing(fake, tmp_path / "keys.db") as other:
            first = asyncio.create_task(one.issue(ticket()))
            await until(lambda: fake.counts.requests)
            with pytest.raises(LedgerError, match="another process is at work on it") as caught:
                await other.issue(ticket())
            issued = await first
            again = await other.issue(ticket())

        assert caught.value.retryable
        assert caught.value.effect is Effect.NONE
        assert again.replayed
        assert again.key == issued.key
        assert creates(fake) == 1


async def test_closing_the_client_finishes_and_records_what_is_in_the_air(tmp_path: Path) -> None:
    """The answers that come within the grace are recorded and delivered; the ledger knows every key."""
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await asyncio.sleep(0.05)
        delivered.append(ticket_id)

    async with FakeRespan(latency=0.3) as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url, retry=QUICK, max_in_flight=10)
        issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"), deliver=deliver)
        calls = [asyncio.create_task(issuer.issue(ticket(number))) for number in range(20)]
        await until(lambda: fake.counts.requests == 10)
        await respan.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        issued = [outcome for outcome in outcomes if isinstance(outcome, Issued)]
        assert {outcome.key.id for outcome in issued} == set(alive(fake))
        assert len(issued) == len(delivered) == 10
        assert all(isinstance(o, Issued | ClientStateError) for o in outcomes)
        with pytest.raises(ClientStateError):
            await issuer.issue(ticket())
        async with issuing(fake, tmp_path / "keys.db") as again:
            counts = await again.counts()
        assert counts.tickets[TicketState.DELIVERED] == 10
        assert counts.attempts[AttemptState.SUSPECT] == 0


async def test_what_the_grace_cuts_off_is_a_suspect_of_the_next_run(tmp_path: Path) -> None:
    """Requests that were in the air when the time was up may have made keys: they are swept."""
    async with FakeRespan(latency=0.3) as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url, retry=QUICK)
        issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
        calls = [asyncio.create_task(issuer.issue(ticket(number))) for number in range(2)]
        await until(lambda: fake.counts.requests == 2)
        await respan.aclose(grace=0.1)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0.3)

        assert not any(isinstance(outcome, Issued) for outcome in outcomes)
        assert len(alive(fake)) == 2
        async with issuing(fake, tmp_path / "keys.db") as again:
            assert (await again.counts()).attempts[AttemptState.SUSPECT] == 2
            await again.sweep(grace=0)
        assert alive(fake) == []


@pytest.mark.parametrize("first", ["client", "issuer"])
async def test_closing_twice_and_in_either_order_is_harmless(
    fake_respan: FakeRespan, tmp_path: Path, first: str
) -> None:
    """Closing the client closes the issuer with it; whoever is closed again does nothing."""
    respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url)
    issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
    await issuer.issue(ticket())

    for closing in (respan, issuer, respan, issuer) if first == "client" else (issuer, respan, issuer, respan):
        await closing.aclose()

    assert names(tmp_path) == ["keys.db"], "a lock or a log is left"
    with pytest.raises(ClientStateError, match="closed"):
        await issuer.issue(ticket())


@pytest.mark.parametrize("what", ["client", "issuer"])
async def test_closing_from_within_deliver_is_no_deadlock(fake_respan: FakeRespan, tmp_path: Path, what: str) -> None:
    """A function that delivers and then shuts the service down gets through, in the call and in the background."""
    closing: dict[str, Callable[[], Awaitable[None]]] = {}

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await closing[what]()
        await closing[what]()  # once more, as a second signal handler does

    for _ in range(2):  # first in the call, then in the background, by the next run
        respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url)
        issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"), deliver=deliver)
        closing = {"client": partial(respan.aclose, grace=1.0), "issuer": partial(issuer.aclose, grace=1.0)}
        async with asyncio.timeout(8):
            with contextlib.suppress(ClientStateError):
                await issuer.issue(ticket())
            await respan.aclose()

    assert creates(fake_respan) == 1
    assert len(alive(fake_respan)) == 1


async def test_closing_while_the_ledger_is_being_opened_closes_it(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """Or nobody would."""
    ledger = TroubledLedger(SQLiteLedger(tmp_path / "keys.db"))
    ledger.gates["open"] = asyncio.Event()
    async with AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, cast("Ledger", ledger))
        call = asyncio.create_task(issuer.issue(ticket()))
        await until(lambda: ledger.called["open"])
        closing = asyncio.create_task(issuer.aclose())
        await asyncio.sleep(0)
        ledger.gates["open"].set()
        await closing
        with pytest.raises(ClientStateError):
            await call

    assert ledger.called["aclose"] == 1
    assert names(tmp_path) == ["keys.db"], "a lock or a log is left"
    assert creates(fake_respan) == 0


async def slow_read(ledger: SQLiteLedger) -> tuple[asyncio.Task[None], threading.Event]:
    """Begin to read beside the ledger's writer; the reading goes on when it is told to."""
    begun, go_on = threading.Event(), threading.Event()

    def work(_: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(10)

    reading = asyncio.create_task(ledger._session.read(work))
    await until(begun.is_set)
    return reading, go_on


async def test_closing_a_ledger_waits_for_what_is_read_beside_it(tmp_path: Path) -> None:
    """Also when nobody awaits that any more: its thread has the file open."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open("account")
    reading, go_on = await slow_read(ledger)
    reading.cancel()
    await asyncio.wait({reading})
    closing = asyncio.create_task(ledger.aclose())
    await asyncio.wait({closing}, timeout=0.1)
    assert not closing.done()
    go_on.set()
    await closing

    assert names(tmp_path) == ["keys.db"], "a lock or a log is left"


async def test_closing_a_ledger_does_not_wait_for_ever_for_what_is_read_beside_it(tmp_path: Path) -> None:
    """A disk may hang: its log stays then, and is read when the ledger is opened again."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open("host key")
    reading, go_on = await slow_read(ledger)

    async with asyncio.timeout(8):
        await ledger.aclose()

    assert not reading.done()
    go_on.set()
    await asyncio.wait({reading})
    await ledger.open("host key")
    await ledger.aclose()


async def test_a_ledger_reads_and_is_closed_while_the_threads_of_the_loop_are_all_taken(
    fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """By a `deliver` whose client blocks, say, and a place for secrets that hangs; the file of keys is written too."""
    go_on = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    hanging = asyncio.create_task(asyncio.to_thread(go_on.wait))
    try:
        async with asyncio.timeout(8):
            with JSONLinesSink(tmp_path / "keys.jsonl") as sink:
                async with issuing(fake_respan, tmp_path / "keys.db", deliver=sink) as issuer:
                    issued = await issuer.issue(ticket())
                    counts = await issuer.counts()
    finally:
        go_on.set()
        await hanging

    assert issued.delivered
    assert counts.tickets[TicketState.DELIVERED] == 1


async def test_a_process_that_was_stopped_while_it_read_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """The log cannot be emptied of erased secrets meanwhile; that is done once the reader is gone."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open("account")
    with contextlib.closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as stopped:
        stopped.execute("BEGIN")
        stopped.execute("SELECT count(*) FROM tickets").fetchall()
        began = time.monotonic()
        for number in range(5):
            await ledger.erase(f"tenant-{number}")
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5
        assert (tmp_path / "keys.db-wal").stat().st_size > 0
        stopped.execute("ROLLBACK")
    await ledger.erase("tenant-6")
    await until(lambda: (tmp_path / "keys.db-wal").stat().st_size == 0)
    await ledger.aclose()


async def test_a_ledger_is_closed_though_somebody_has_cancelled_all_that_goes_on(tmp_path: Path) -> None:
    """As a program does that ends every task of its loop."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open("account")
    reading, go_on = await slow_read(ledger)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait({reading})
    go_on.set()
    await ledger.aclose()

    assert reading.cancelled()
    with pytest.raises(LedgerError, match="not open"):
        await ledger.find("ticket")


async def test_who_waits_for_a_ticket_when_the_issuer_is_closed_is_told() -> None:
    """The call that is in the air is finished; the one that waits for the same ticket sends nothing."""
    async with FakeRespan(latency=0.2) as fake:
        async with issuing(fake) as issuer:
            calls = [asyncio.create_task(issuer.issue(ticket())) for _ in range(2)]
            await until(lambda: fake.counts.requests)
        first, second = await asyncio.gather(*calls, return_exceptions=True)

        assert isinstance(first, Issued)
        assert isinstance(second, ClientStateError)
        assert creates(fake) == 1


async def test_who_no_longer_waits_for_a_ticket_is_passed_over() -> None:
    """Of three calls for one ticket the second is cancelled: the third gets the first one's key."""
    async with FakeRespan(latency=0.2) as fake, issuing(fake) as issuer:
        calls = [asyncio.create_task(issuer.issue(ticket())) for _ in range(3)]
        await until(lambda: fake.counts.requests)
        calls[1].cancel()
        first, second, third = await asyncio.gather(*calls, return_exceptions=True)

        assert isinstance(first, Issued)
        assert isinstance(second, asyncio.CancelledError)
        assert isinstance(third, Issued)
        assert (third.replayed, third.key) == (True, first.key)
        assert creates(fake) == 1


async def test_a_batch_with_a_deadline_that_is_stopped_at_once_sends_nothing(fake_respan: FakeRespan) -> None:
    """Its tickets stay free: what was given up before it began is an outcome."""
    async with issuing(fake_respan, deadline=30.0) as issuer:
        async with issuer.issue_many([ticket(number) for number in range(20)], max_in_flight=3) as batch:
            await asyncio.sleep(0)
            batch.stop()
            outcomes = [outcome async for outcome in batch]
        counts = await issuer.counts()

    assert {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)} == {ClientStateError}
    assert len(outcomes) == 3
    assert creates(fake_respan) == 0
    assert not any(counts.tickets.values())


async def test_closing_from_a_hook_is_no_deadlock(fake_respan: FakeRespan) -> None:
    """A hook that hears of a key may have the client closed; the key is recorded and handed out."""
    closings: list[asyncio.Task[None]] = []

    def hook(event: Event) -> None:
        if isinstance(event, IssuedEvent):
            closings.append(asyncio.ensure_future(respan.aclose()))

    respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, hooks=[hook])
    async with asyncio.timeout(8):
        issued = await Issuer(respan, SQLiteLedger(":memory:")).issue(ticket())
        await asyncio.gather(*closings)

    assert alive(fake_respan) == [issued.key.id]


async def test_closing_the_issuer_first_finishes_what_is_in_the_air(tmp_path: Path) -> None:
    """In `async with AsyncRespan() as respan, Issuer(respan, ...) as issuer` the issuer is closed first."""
    async with FakeRespan(latency=0.3) as fake:
        async with issuing(fake, tmp_path / "keys.db") as issuer:
            calls = [asyncio.create_task(issuer.issue(ticket(number))) for number in range(5)]
            await until(lambda: fake.counts.requests == 5)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert {o.key.id for o in outcomes if isinstance(o, Issued)} == set(alive(fake))
        assert len(alive(fake)) == 5


async def test_an_issuer_of_a_closed_client_does_not_open_its_ledger(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """Nobody would close it again."""
    respan = AsyncRespan(fake_respan.api_key, base_url=fake_respan.url)
    issuer = Issuer(respan, SQLiteLedger(tmp_path / "keys.db"))
    await respan.aclose()

    with pytest.raises(ClientStateError, match="closed"):
        await issuer.issue(ticket())
    with pytest.raises(ClientStateError, match="closed"):
        await issuer.counts()
    assert names(tmp_path) == []


async def test_two_issuers_do_not_share_a_ledger(fake_respan: FakeRespan) -> None:
    """The second one is told, and does not close it under the first."""
    ledger = SQLiteLedger(":memory:")

    async with (
        issuing(fake_respan, ledger) as one,
        AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan,
    ):
        other = Issuer(respan, ledger)
        with pytest.raises(ClientStateError, match="open already"):
            await other.issue(ticket())
        await other.aclose()
        await one.issue(ticket())


async def test_a_ledger_of_another_account_is_refused(fake_respan: FakeRespan, tmp_path: Path) -> None:
    """Another API key or another base URL would send this ledger's tickets to the wrong place; `force` allows it."""
    path = tmp_path / "keys.db"
    async with issuing(fake_respan, path) as issuer:
        issued = await issuer.issue(ticket())

    async with AsyncRespan("another-key", base_url=fake_respan.url) as respan:
        issuer = Issuer(respan, SQLiteLedger(path))
        for _ in range(2):
            with pytest.raises(LedgerError, match="another account or base URL"):
                await issuer.issue(ticket())
        async with Issuer(respan, SQLiteLedger(path), force=True) as forced:
            assert (await forced.issue(ticket())).key == issued.key


async def test_a_ledger_of_a_named_account_outlives_its_api_key(tmp_path: Path) -> None:
    """The old key and a new one open it, one after the other and at the same time; nobody has to force anything."""
    path = tmp_path / "keys.db"
    async with (
        FakeRespan(api_keys=("old", "new")) as fake,
        AsyncRespan("old", base_url=fake.url) as before,
        AsyncRespan("new", base_url=fake.url) as after,
    ):
        async with Issuer(before, SQLiteLedger(path), force=True) as unnamed:
            first = await unnamed.issue(ticket())
        with pytest.raises(LedgerError, match="another account or base URL"):
            await Issuer(before, SQLiteLedger(path), account="acme").issue(ticket())
        async with Issuer(before, SQLiteLedger(path), account="acme", force=True) as named:
            assert (await named.issue(ticket())).replayed
        async with (
            Issuer(after, SQLiteLedger(path), account="acme") as rotated,
            Issuer(before, SQLiteLedger(path), account="acme") as still_there,
        ):
            assert (await rotated.issue(ticket())).key == first.key
            assert (await still_there.issue(ticket(2))).key.id in fake.keys
            assert (await rotated.issue(ticket(2))).replayed


async def test_a_write_that_is_given_up_while_it_is_repeated_is_written_in_the_end(tmp_path: Path) -> None:
    """The last try, at closing, has what was being tried when the client was closed."""
    written: list[str] = []
    lifecycle = Lifecycle()
    writes = BackgroundWrites(lifecycle)
    hangs = True

    async def write() -> None:
        if not written and hangs:
            written.append("tried")
            raise LedgerError("locked")
        if hangs:
            await asyncio.sleep(1000)
        written.append("done")

    writes.add(write)
    await writes.written()
    repeating = asyncio.ensure_future(writes.repeat())
    await asyncio.sleep(0.01)
    repeating.cancel()
    await asyncio.gather(repeating, return_exceptions=True)
    hangs = False

    await writes.repeat()

    assert written == ["tried", "done"]


async def test_a_ledger_that_is_cancelled_from_within_fails_one_item(fake_respan: FakeRespan) -> None:
    """As one of the user's own may be, whose connection pool cancels a query. The caller was not cancelled."""

    class Cancelled(SQLiteLedger):
        async def claim_attempt(self, ticket: Ticket, intent: Any) -> int:
            if ticket.id == "tenant-2":
                raise asyncio.CancelledError
            return await super().claim_attempt(ticket, intent)

    async with (
        AsyncRespan(fake_respan.api_key, base_url=fake_respan.url) as respan,
        Issuer(respan, Cancelled(":memory:")) as issuer,
    ):
        outcomes = await issuer.issue_many([ticket(number) for number in (1, 2, 3)])

    assert [type(outcome) for outcome in outcomes] == [Issued, Failed, Issued]
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].error.effect is Effect.NONE
    assert fake_respan.counts.created == 2
