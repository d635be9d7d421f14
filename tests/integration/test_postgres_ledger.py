"""What a ledger in Postgres does beyond the contract: many machines, connections that break, and its schema."""

import asyncio
import contextlib
import gc
import itertools
import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import psycopg
import pytest

from respan_async import AsyncRespan, ConfigurationError, CreatedKey, CreateKeyRequest, Effect, Issued, RetryPolicy
from respan_async.issuing import (
    AESGCMCipher,
    AttemptState,
    Cipher,
    Issuer,
    Ledger,
    LedgerError,
    PostgresLedger,
    SQLiteLedger,
    Ticket,
    TicketState,
)
from respan_async.issuing._sql_loader import STATES
from respan_async.issuing.ledger import Intent
from respan_async.issuing.postgres._inspect import read_snapshot
from respan_async.issuing.postgres._pool import ConnectionPool
from respan_async.secret import Secret
from respan_async.testing import FakeRespan
from tests.paging import in_pages_of_one
from tests.servers.postgres import PASSWORD, PostgresServer
from tests.servers.tcp_proxy import Wire
from tests.waiting import until

ACCOUNT = "https://api.respan.ai abc"
TICKET = Ticket("tenant-1", CreateKeyRequest(name="tenant 1"))
SECRET = "prefix12.0123456789abcdef0123456789abcdef"
_numbers = itertools.count(1)


def intent() -> Intent:
    """Give an intent with a fresh tag."""
    tag = f"tag{next(_numbers):09}"
    return Intent(tag=tag, name=f"tenant 1 ~{tag}", sent={"name": f"tenant 1 ~{tag}"}, sent_at=time.time())


def key(key_id: str = "key-1") -> CreatedKey:
    """Give a key as the server told it."""
    return CreatedKey(id=key_id, api_key=Secret(SECRET), name="tenant 1 ~tag", created_at=datetime.now(UTC))


@contextlib.asynccontextmanager
async def opened(
    dsn: str, cipher: Cipher | None = None, *, lease: float = 30.0, account: str = ACCOUNT
) -> AsyncIterator[PostgresLedger]:
    """Give an open ledger, whose schema is made where it is missing."""
    ledger = PostgresLedger(dsn, cipher, lease=lease)
    await ledger.create_schema()
    await ledger.open(account)
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def states(ledger: Ledger) -> tuple[dict[str, int], dict[str, int]]:
    """Count tickets and attempts by their states, leaving out what there is none of."""
    counts = await ledger.counts()
    tickets = {str(state): number for state, number in counts.tickets.items() if number}
    return tickets, {str(state): number for state, number in counts.attempts.items() if number}


async def waits_for_a_lock(server: PostgresServer) -> None:
    """Wait until a statement waits for a row that another has locked."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: server.execute(waiting))


# ---------------------------------------------------------------------------------------------------------- the schema


async def test_many_that_make_the_schema_at_once_get_along(postgres_dsn: str) -> None:
    """Whoever comes first makes it; a ledger that is in use is left as it is."""
    ledgers = [PostgresLedger(postgres_dsn) for _ in range(12)]
    await asyncio.gather(*(ledger.create_schema() for ledger in ledgers))

    async with opened(postgres_dsn) as ledger:
        await ledger.claim_attempt(TICKET, intent())
        await ledgers[0].create_schema()
        assert await states(ledger) == ({"claimed": 1}, {"intent": 1})


async def test_a_missing_schema_is_told_with_the_call_that_makes_it(postgres_dsn: str) -> None:
    """Nothing is made unless it is asked for."""
    with pytest.raises(LedgerError, match=r"schema 'respan': .* PostgresLedger\.create_schema\(\)"):
        await PostgresLedger(postgres_dsn).open(ACCOUNT)


async def test_a_newer_schema_is_refused(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """By opening, and by making it."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    postgres_server.execute("UPDATE respan.meta SET value = '99' WHERE name = 'version'", postgres_database)

    for call in (ledger.open(ACCOUNT), ledger.create_schema()):
        with pytest.raises(LedgerError, match="newer version of respan-async"):
            await call


async def test_a_server_that_may_forget_what_it_committed_is_refused(postgres_dsn: str) -> None:
    """A key is handed out because it is durable."""
    await PostgresLedger(postgres_dsn).create_schema()

    with pytest.raises(LedgerError, match="synchronous_commit is off"):
        await PostgresLedger(f"{postgres_dsn}?options=-csynchronous_commit%3Doff").open(ACCOUNT)


async def test_each_schema_is_a_ledger_of_its_own(postgres_dsn: str) -> None:
    """Two accounts can share a database."""
    one, other = PostgresLedger(postgres_dsn), PostgresLedger(postgres_dsn, schema="Other_1")
    for ledger, account in ((one, ACCOUNT), (other, "https://elsewhere.example abc")):
        await ledger.create_schema()
        await ledger.open(account)

    await one.claim_attempt(TICKET, intent())

    assert await other.find(TICKET.id) is None
    await one.aclose()
    await other.aclose()


async def test_a_user_who_may_not_make_schemas_can_use_one_that_is_there(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """Made by an administrator, with rights on the tables alone; making it again is no error."""
    await PostgresLedger(postgres_dsn).create_schema()
    for statement in (
        "CREATE ROLE worker LOGIN PASSWORD 'w'",
        "GRANT USAGE ON SCHEMA respan TO worker",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA respan TO worker",
    ):
        postgres_server.execute(statement, postgres_database)
    worker = PostgresLedger(postgres_dsn.replace(f"tester:{PASSWORD}", "worker:w"))

    await worker.create_schema()
    await worker.open(ACCOUNT)

    assert await worker.claim_attempt(TICKET, intent()) == 1
    await worker.aclose()
    postgres_server.execute("DROP OWNED BY worker", postgres_database)
    postgres_server.execute("DROP ROLE worker")


async def test_a_user_without_rights_is_told_which_it_needs(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """To make the ledger, and to use it, at each step of the way."""
    postgres_server.execute("CREATE ROLE clerk LOGIN PASSWORD 'c'")
    dsn = postgres_dsn.replace(f"tester:{PASSWORD}", "clerk:c")
    with pytest.raises(LedgerError, match="the user that makes it needs: GRANT CREATE ON DATABASE"):
        await PostgresLedger(dsn).create_schema()
    await PostgresLedger(postgres_dsn).create_schema()

    for grant in (None, "GRANT USAGE ON SCHEMA respan TO clerk", "GRANT SELECT ON respan.meta TO clerk"):
        if grant is not None:
            postgres_server.execute(grant, postgres_database)
        with pytest.raises(LedgerError, match=r"permission denied for .*GRANT USAGE ON SCHEMA respan .*ON ALL TABLES"):
            await PostgresLedger(dsn).open(ACCOUNT)

    postgres_server.execute("DROP OWNED BY clerk", postgres_database)
    postgres_server.execute("DROP ROLE clerk")


async def test_a_server_that_only_reads_is_called_that(postgres_dsn: str) -> None:
    """It may be a replica, and come back as the primary: asking again is right."""
    await PostgresLedger(postgres_dsn).create_schema()

    with pytest.raises(LedgerError, match="server is read-only") as caught:
        await PostgresLedger(f"{postgres_dsn}?options=-cdefault_transaction_read_only%3Don", lease=1).open(ACCOUNT)

    assert caught.value.retryable


# ------------------------------------------------------------------------------------------------------------- settings


def test_importing_does_not_import_psycopg() -> None:
    """It is needed by those who use it."""
    code = "import sys, respan_async.issuing; sys.exit('psycopg' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_psycopg_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """At construction."""
    ours = (f"respan_async.issuing.postgres.{name}" for name in ("_session", "_schema", "_pool"))
    for name in ("psycopg", *ours):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ImportError, match=re.escape("pip install 'respan-async[postgres]'")):
        PostgresLedger("postgresql://localhost/keys")


@pytest.mark.parametrize("dsn", [f"postgres//me:{PASSWORD}@host/db", f"postgresql://me:{PASSWORD}@host/db?nix=1"])
def test_a_wrong_connection_string_is_not_shown(dsn: str) -> None:
    """It has the password in it."""
    with pytest.raises(ConfigurationError, match="dsn: not a connection string") as caught:
        PostgresLedger(dsn)

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("dsn", ["", " ", None, 5, b"postgresql://localhost/keys"], ids=repr)
def test_a_connection_string_is_a_text(dsn: Any) -> None:
    """An empty one would be whatever libpq finds around itself."""
    with pytest.raises(ConfigurationError, match="dsn: not a connection string of Postgres, such as postgresql://"):
        PostgresLedger(dsn)


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgres+psycopg"])
def test_another_librarys_connection_string_is_told_from_a_wrong_one(scheme: str) -> None:
    """With what to leave out, and without the password."""
    driver = scheme.partition("+")[2]
    with pytest.raises(ConfigurationError, match=rf"{re.escape(scheme)}:// .* leave out \+{driver}$") as caught:
        PostgresLedger(f"{scheme}://me:{PASSWORD}@host/db")

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("make", [PostgresLedger, SQLiteLedger])
def test_a_cipher_is_no_key(make: Any) -> None:
    """Nor is the key shown."""
    with pytest.raises(ConfigurationError, match=r"cipher: expected a Cipher, such as AESGCMCipher\(\), got str$"):
        make("postgresql://localhost/keys", "a-key")


@pytest.mark.parametrize("schema", ["", "a b", 'a"b', "x" * 64, "zürich", None, 5])
def test_a_schema_has_a_plain_name(schema: Any) -> None:
    """Whatever else Postgres would take."""
    with pytest.raises(ConfigurationError, match="schema: expected"):
        PostgresLedger("postgresql://localhost/keys", schema=schema)


@pytest.mark.parametrize("lease", [0.0, -1.0, float("inf"), float("nan"), "30", None])
def test_a_lease_is_a_number_of_seconds(lease: Any) -> None:
    """Above zero, and not for ever."""
    with pytest.raises(ConfigurationError, match="lease: expected"):
        PostgresLedger("postgresql://localhost/keys", lease=lease)


async def test_a_server_that_cannot_be_used_is_told_why_without_the_password(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """Soon, with what the server or the network said, and with no exception of psycopg's behind it."""
    wrong = {
        "password authentication failed": postgres_dsn.replace(PASSWORD, "not-it"),
        "does not exist": postgres_server.dsn("nowhere"),
        "refused": postgres_server.dsn(port=1),
    }
    begun = time.monotonic()

    opening = (PostgresLedger(dsn).open(ACCOUNT) for dsn in wrong.values())
    errors = await asyncio.gather(*opening, return_exceptions=True)

    assert time.monotonic() - begun < 5
    for said, error in zip(wrong, errors, strict=True):
        assert isinstance(error, LedgerError)
        assert error.retryable
        assert said in str(error)
        assert "not-it" not in str(error)
        assert PASSWORD not in str(error)
        assert not isinstance(error.__context__, psycopg.Error)


@pytest.mark.parametrize("password", ["e", "postgres", "127"])
async def test_a_message_is_whole_whatever_the_password(postgres_dsn: str, password: str) -> None:
    """libpq shows none; a message with holes would tell a short one."""
    with pytest.raises(LedgerError, match='password authentication failed for user "tester"'):
        await PostgresLedger(postgres_dsn.replace(PASSWORD, password)).open(ACCOUNT)


# -------------------------------------------------------------------------------------------------------------- secrets


async def test_secrets_are_kept_encrypted_and_can_be_rotated(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing in the database shows them, and another key takes the place of the first."""
    old, new = b"a" * 32, b"b" * 32
    async with opened(postgres_dsn, AESGCMCipher(old)) as ledger:
        for number in range(3):
            ticket, attempt = Ticket(f"tenant-{number}"), intent()
            epoch = await ledger.claim_attempt(ticket, attempt)
            assert await ledger.record(ticket.id, epoch, attempt.tag, key(f"key-{number}"))
        await ledger.erase("tenant-1")
    async with opened(postgres_dsn, AESGCMCipher(new, old_keys=(old,))) as ledger:
        rotated = await ledger.rotate()
        again = await ledger.rotate()
    async with opened(postgres_dsn, AESGCMCipher(new)) as ledger:
        found = await ledger.undelivered("", 10)
        everyone = await ledger.with_keys("", 10)

    kept = postgres_server.execute("SELECT tickets::text FROM respan.tickets", postgres_database)
    assert (rotated, again) == (2, 0)
    secrets = [(name, at.api_key.reveal()) for name, at in found if isinstance(at, CreatedKey)]
    assert secrets == [("tenant-0", SECRET), ("tenant-2", SECRET)]
    assert everyone == ["tenant-0", "tenant-1", "tenant-2"]
    assert len(kept) == 3
    assert not any(SECRET in row or SECRET.encode().hex() in row for (row,) in kept)
    assert "no cipher" not in caplog.text


async def test_a_ledger_without_a_cipher_warns_once(postgres_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of what it cannot promise."""
    async with opened(postgres_dsn) as ledger:
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        await ledger.record(TICKET.id, epoch, attempt.tag, key())
        with pytest.raises(LedgerError, match="nothing to rotate"):
            await ledger.rotate()

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be erased" in warnings[0]


@pytest.mark.parametrize(("key_id", "says"), [("a\0b", "NUL"), ("long", "index row")])
async def test_what_the_server_cannot_take_is_told_at_once_without_the_secret(
    postgres_dsn: str, key_id: str, says: str
) -> None:
    """Trying it again, for as long as the lease lasts, would not mend it."""
    if key_id == "long":
        key_id = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    async with opened(postgres_dsn) as ledger:
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        begun = time.monotonic()

        with pytest.raises(LedgerError, match=says) as caught:
            await ledger.record(TICKET.id, epoch, attempt.tag, key(key_id))

        assert not caught.value.retryable
        assert time.monotonic() - begun < 2
    trace: TracebackType | None = caught.tb
    while trace is not None:
        if "respan_async" in trace.tb_frame.f_code.co_filename:
            assert SECRET not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next


# ------------------------------------------------------------------------------------------------- two at the same time


async def test_of_many_that_claim_the_same_tickets_each_ticket_gets_one(postgres_dsn: str) -> None:
    """However they come together; the others are told that another process is at work."""
    async with contextlib.AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(opened(postgres_dsn)) for _ in range(4)]
        tickets = [Ticket(f"tenant-{number}") for number in range(60)]

        claims = [(ticket.id, ledger.claim_attempt(ticket, intent())) for ticket in tickets for ledger in ledgers]
        outcomes = await asyncio.gather(*(claim for _, claim in claims), return_exceptions=True)

        won = [name for (name, _), outcome in zip(claims, outcomes, strict=True) if outcome == 1]
        lost = [str(outcome) for outcome in outcomes if isinstance(outcome, LedgerError)]
        assert won == [ticket.id for ticket in tickets]
        assert len(lost) == 180
        assert all("another process is at work on it" in message for message in lost)
        assert await states(ledgers[0]) == ({"claimed": 60}, {"intent": 60})


async def test_records_and_takeovers_at_once_leave_every_ticket_with_one_story(postgres_dsn: str) -> None:
    """A key is recorded or its attempt is a suspect, never both, and nobody waits for anybody for ever."""
    async with opened(postgres_dsn) as other, opened(postgres_dsn, lease=0.05) as first:
        first._session.lease_keeper.cancel()
        claims = []
        for number in range(60):
            ticket, attempt = Ticket(f"tenant-{number:02}"), intent()
            claims.append((ticket, attempt, await first.claim_attempt(ticket, attempt)))
        await asyncio.sleep(0.1)

        work: list[Awaitable[object]] = []
        for number, (ticket, attempt, epoch) in enumerate(claims):
            work.append(first.record(ticket.id, epoch, attempt.tag, key(f"key-{number}")))
            work.append(other.claim_attempt(ticket, intent()))
            if number % 10 == 5:
                work.append(other._session._reclaim_owners())
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        await other._session._reclaim_owners()

        recorded = sum(outcome is True for outcome in outcomes)
        errors = [str(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
        tickets, attempts = await states(other)
        assert all("has its key already" in error for error in errors), errors
        assert (recorded, 60 - recorded) == (tickets.get("issued", 0), tickets.get("claimed", 0))
        assert (recorded, 60 - recorded) == (attempts.get("recorded", 0), attempts.get("suspect", 0))
        assert attempts.get("intent", 0) == 60 - recorded


async def test_a_record_that_waits_sees_what_it_waited_for(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """An attempt that becomes a suspect while its record waits for the ticket is not recorded."""
    async with opened(postgres_dsn) as ledger, await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        await beside.execute("SELECT 1 FROM respan.tickets FOR UPDATE")

        recording = asyncio.create_task(ledger.record(TICKET.id, epoch, attempt.tag, key()))
        await waits_for_a_lock(postgres_server)
        await beside.execute("UPDATE respan.attempts SET state = %(suspect)s", STATES)
        await beside.commit()

        assert await recording is False
        assert await states(ledger) == ({"claimed": 1}, {"suspect": 1})


async def test_a_record_that_waits_sees_that_its_ticket_was_taken_over(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """The epoch that counts is that of the moment at which it has the ticket."""
    async with opened(postgres_dsn) as ledger, await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        await beside.execute("UPDATE respan.tickets SET epoch = epoch + 1, owner = 0")

        recording = asyncio.create_task(ledger.record(TICKET.id, epoch, attempt.tag, key()))
        await waits_for_a_lock(postgres_server)
        await beside.commit()

        assert await recording is False
        assert await states(ledger) == ({"claimed": 1}, {"intent": 1})


async def test_a_claim_that_waits_does_not_take_a_ticket_from_an_owner_that_came_back(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """Its lease was over when the claim began, and is not any more when the claim has the ticket."""
    async with opened(postgres_dsn, lease=0.2) as first, opened(postgres_dsn) as other:
        first._session.lease_keeper.cancel()
        await first.claim_attempt(TICKET, intent())
        await asyncio.sleep(0.3)
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
            await beside.execute("SELECT 1 FROM respan.tickets FOR UPDATE")

            claiming = asyncio.create_task(other.claim_attempt(TICKET, intent()))
            await waits_for_a_lock(postgres_server)
            await beside.execute("UPDATE respan.owners SET lease_until = now() + interval '1 hour'")
            await beside.execute("UPDATE respan.tickets SET claimed_at = clock_timestamp()")
            await beside.commit()

            with pytest.raises(LedgerError, match="another process is at work on it"):
                await claiming


async def test_a_cancelled_intent_is_followed_by_what_was_asked_after_it(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """It goes on without its caller, and what gives the ticket up waits for its turn."""
    async with opened(postgres_dsn) as ledger, await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
        await ledger.release(TICKET.id, await ledger.claim_attempt(TICKET, intent()))
        await beside.execute("SELECT 1 FROM respan.tickets FOR UPDATE")
        attempt = intent()

        intending = asyncio.create_task(ledger.claim_attempt(TICKET, attempt))
        await waits_for_a_lock(postgres_server)
        intending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await intending
        releasing = asyncio.gather(ledger.mark_void(attempt.tag), ledger.release(TICKET.id, None))
        await asyncio.sleep(0.05)
        await beside.commit()
        await releasing

        assert await states(ledger) == ({"open": 1}, {"intent": 1, "void": 1})


async def test_what_comes_after_a_damaged_id_is_read(postgres_dsn: str) -> None:
    """Page by page, as after a broken disk; a server checks what is written, and not what it reads."""
    async with opened(postgres_dsn) as ledger, await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
        for number in range(3):
            attempt, ticket = intent(), Ticket(f"tenant-{number}")
            assert await ledger.record(
                ticket.id, await ledger.claim_attempt(ticket, attempt), attempt.tag, key(f"key-{number}")
            )
        await beside.execute("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
        await beside.execute(
            "UPDATE respan.tickets SET ticket = '\\x74656e616e742d30ff'::bytea::text WHERE ticket = 'tenant-1'"
        )
        await beside.execute("UPDATE respan.tickets SET issued_at = 'infinity' WHERE ticket = 'tenant-0'")
        await beside.commit()

        left, known = await in_pages_of_one(ledger)
        snapshot = await read_snapshot(postgres_dsn)

        assert [name for name, found in left.items() if isinstance(found, CreatedKey)] == ["tenant-0", "tenant-2"]
        assert [str(found) for found in left.values() if isinstance(found, LedgerError)] == [
            r"ticket 'tenant-0\xff': the ledger's record is damaged"
        ]
        assert len(known) == 3
        assert [each.ticket for each in snapshot.undelivered] == ["tenant-0", r"tenant-0\xff", "tenant-2"]
        assert snapshot.undelivered[0].issued_at is None
        with pytest.raises(LedgerError, match="the ledger could not be used"):
            await ledger.erase([*left][-1] + "\udcff")


async def test_counting_never_has_all_connections(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    """It may take a minute, in which the lease is to be prolonged and tickets are to be issued."""
    async with opened(postgres_dsn) as ledger, await psycopg.AsyncConnection.connect(postgres_dsn) as beside:
        await beside.execute("LOCK TABLE respan.tickets")
        counting = [asyncio.create_task(ledger.counts()) for _ in range(6)]
        await waits_for_a_lock(postgres_server)

        async with asyncio.timeout(1):
            assert await ledger._session._renew()
            assert await ledger.suspects() == []
        await beside.rollback()

        assert all(counts.tickets[TicketState.OPEN] == 0 for counts in await asyncio.gather(*counting))


# ----------------------------------------------------------------------------------------------- connections that break


@contextlib.asynccontextmanager
async def wired(
    server: PostgresServer, database: str, lease: float = 30.0
) -> AsyncIterator[tuple[Wire, PostgresLedger]]:
    """Give an open ledger behind a wire."""
    async with Wire(server.port) as wire, opened(server.dsn(database, wire.port), lease=lease) as ledger:
        yield wire, ledger


async def test_connections_that_were_ended_are_made_again(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """Before every step; nobody who uses the ledger is told."""

    def end_all() -> None:
        postgres_server.disconnect(postgres_database)

    async with opened(postgres_dsn) as ledger:
        await asyncio.gather(*(ledger.find(str(number)) for number in range(20)))
        attempt = intent()
        end_all()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        end_all()
        assert await ledger.record(TICKET.id, epoch, attempt.tag, key())
        end_all()
        await ledger.erase(TICKET.id)
        end_all()

        assert await states(ledger) == ({"delivered": 1}, {"recorded": 1})


async def test_a_server_that_restarts_is_waited_for(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """A key that was made meanwhile is recorded, and the lease goes on."""
    async with opened(postgres_dsn) as ledger:
        attempt, begun = intent(), time.monotonic()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        assert postgres_server.kill_backend(postgres_database)

        recorded = await ledger.record(TICKET.id, epoch, attempt.tag, key())

        assert recorded
        assert ledger.lease_held_since(begun)
        assert await states(ledger) == ({"issued": 1}, {"recorded": 1})


async def test_an_intent_whose_answer_was_lost_is_noted_once(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """It is known by its tag when it is tried again."""
    async with wired(postgres_server, postgres_database) as (wire, ledger):
        wire.lose_answers = 1
        epoch = await ledger.claim_attempt(TICKET, attempt := intent())

        assert wire.lose_answers == 0
        assert await states(ledger) == ({"claimed": 1}, {"intent": 1})
        assert await ledger.record(TICKET.id, epoch, attempt.tag, key())


async def test_a_record_whose_answer_was_lost_is_no_failure(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The key is its ticket's: revoking it would be the end of a good key."""
    async with wired(postgres_server, postgres_database) as (wire, ledger):
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        wire.lose_answers = 1

        assert await ledger.record(TICKET.id, epoch, attempt.tag, key()) is True

        assert wire.lose_answers == 0
        assert await states(ledger) == ({"issued": 1}, {"recorded": 1})


async def test_a_tag_that_was_used_before_is_refused(postgres_dsn: str) -> None:
    """Only an intent of this call's own is taken for one whose answer was lost; the claim is not touched either."""
    async with opened(postgres_dsn) as ledger:
        await ledger.claim_attempt(TICKET, attempt := intent())

        with pytest.raises(LedgerError, match="tag was used before"):
            await ledger.claim_attempt(Ticket("tenant-2"), attempt)

        assert await states(ledger) == ({"claimed": 1}, {"intent": 1})


async def test_a_connection_that_was_given_up_half_made_is_closed_at_once() -> None:
    """Not when the garbage collector comes by, however long its error is kept."""
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connections = ConnectionPool(f"postgresql://tester@127.0.0.1:{port}/x", attempt=60, patience=60)
        gc.disable()
        try:
            asking = asyncio.create_task(connections.ask("SELECT 1", {}))
            await asked.wait()
            await connections.aclose()
            [error] = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(error, LedgerError)
            async with asyncio.timeout(5):
                await gone.wait()
        finally:
            gc.enable()


async def test_a_dead_wire_does_not_hold_anybody_for_long(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Every operation ends with an error that may be retried, the lease ends by itself, and so does closing."""
    async with wired(postgres_server, postgres_database, lease=1.0) as (wire, ledger):
        begun = time.monotonic()
        wire.cut()
        calls = [ledger.find("x"), ledger.claim_attempt(TICKET, intent()), ledger.mark_void("tag"), ledger.recent(60.0)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begun < 5
        assert all(isinstance(outcome, LedgerError) and outcome.retryable for outcome in outcomes), outcomes
        assert not ledger.lease_held_since(begun)

        closing = time.monotonic()
        await ledger.aclose()
        assert time.monotonic() - closing < 5
        wire.heal()


async def test_an_issuer_is_closed_in_time_though_its_ledger_is_cut_off(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """What waits for the server is told, and the lease that ends makes suspects of what was in the air."""
    dsn = postgres_server.dsn(postgres_database)
    await PostgresLedger(dsn).create_schema()
    async with (
        FakeRespan(latency=0.2) as fake,
        Wire(postgres_server.port) as wire,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
    ):
        issuer = Issuer(respan, PostgresLedger(postgres_server.dsn(postgres_database, wire.port)))
        issuing = [asyncio.create_task(issuer.issue(Ticket(f"tenant-{number}"))) for number in range(8)]
        await until(lambda: fake.counts.by_operation.get("create") == 8)
        wire.cut()
        begun = time.monotonic()

        await issuer.aclose(grace=0.5)

        assert time.monotonic() - begun < 4
        outcomes = await asyncio.gather(*issuing, return_exceptions=True)
        assert all(isinstance(outcome, LedgerError) and outcome.retryable for outcome in outcomes), outcomes


async def test_a_record_that_may_still_arrive_never_counts_once_it_was_read_that_it_did_not(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Whoever reads that a key is not recorded revokes it; so what is still on the wire must not record it."""
    async with wired(postgres_server, postgres_database, lease=1.0) as (wire, ledger):
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        wire.cut()
        with pytest.raises(LedgerError):
            await ledger.record(TICKET.id, epoch, attempt.tag, key())
        held_back = wire.replace()

        record = await ledger.find(TICKET.id)
        held_back.set()
        await asyncio.sleep(0.2)
        again = await ledger.find(TICKET.id)

        assert record is not None
        assert again is not None
        assert (record.key, again.key) == (None, None)
        assert (await states(ledger))[1] == {"suspect": 1}


async def test_a_record_that_arrived_though_nobody_heard_of_it_is_found(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The wire heals only after the ledger has given up: the key is its ticket's."""
    async with wired(postgres_server, postgres_database, lease=1.0) as (wire, ledger):
        attempt = intent()
        epoch = await ledger.claim_attempt(TICKET, attempt)
        wire.cut()
        with pytest.raises(LedgerError):
            await ledger.record(TICKET.id, epoch, attempt.tag, key())
        wire.heal()
        await asyncio.sleep(0.2)

        record = await ledger.find(TICKET.id)

        assert record is not None
        assert record.key is not None
        assert record.key.api_key.reveal() == SECRET


# ---------------------------------------------------------------------------------------------------- a replica cut off


@pytest.mark.parametrize("answered_first", [False, True])
async def test_a_replica_that_was_cut_off_beyond_its_lease_spoils_nothing(
    postgres_server: PostgresServer, postgres_database: str, answered_first: bool
) -> None:
    """Another takes its ticket over; the late answer is revoked, not recorded, and its caller gets the other key."""
    quick = RetryPolicy(initial=0.01, maximum=0.05)
    async with (
        FakeRespan(latency=0.1) as fake,
        Wire(int(fake.url.rpartition(":")[2])) as to_respan,
        Wire(postgres_server.port) as to_postgres,
        opened(postgres_server.dsn(postgres_database), account="here abc") as watcher,
        AsyncRespan("test-key", base_url=f"http://127.0.0.1:{to_respan.port}", retry=quick) as cut_off,
        AsyncRespan("test-key", base_url=fake.url, retry=quick) as well,
    ):
        dsn = postgres_server.dsn(postgres_database, to_postgres.port)
        await PostgresLedger(dsn).create_schema()
        async with (
            Issuer(cut_off, PostgresLedger(dsn, lease=1.0), account="here", force=True) as late,
            Issuer(well, PostgresLedger(postgres_server.dsn(postgres_database)), account="here") as other,
        ):
            issuing = asyncio.create_task(late.issue(TICKET))
            await until(lambda: fake.counts.by_operation.get("create"))
            to_postgres.cut()
            to_respan.cut()

            taken_over = await issued_by(other)
            to_respan.heal()
            if answered_first:
                await asyncio.sleep(0.2)
            to_postgres.heal()
            replayed = await issuing
            await until(lambda: len(fake.alive()) == 1)

            assert fake.counts.by_operation["create"] == 2
            assert taken_over.key.id == replayed.key.id == fake.alive()[0].id
            assert (taken_over.replayed, replayed.replayed) == (False, True)
            assert len(fake.keys) == 2
            record = await watcher.find(TICKET.id)
            assert record is not None
            assert record.state is TicketState.ISSUED
            assert record.key == taken_over.key
            assert (await states(watcher))[1].get(AttemptState.RECORDED) == 1


async def issued_by(issuer: Issuer) -> Issued[Ticket]:
    """Ask for the ticket until nobody else is at work on it."""
    while True:
        with contextlib.suppress(LedgerError):
            return await issuer.issue(TICKET)
        await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------------------------------------ many rows


@pytest.mark.long
async def test_a_million_tickets_are_opened_in_no_time(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """What opening, issuing and sweeping ask for is found by an index."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    postgres_server.execute(
        """
        INSERT INTO respan.tickets (ticket, fields, state, owner, epoch, claimed_at, key_id, key, issued_at)
        SELECT 'tenant-' || n, '{}', 'delivered', 1, 1, now(), 'key-' || n, '{"id": "x"}', now()
        FROM generate_series(1, 1000000) AS n;
        INSERT INTO respan.attempts (tag, ticket, owner, epoch, state, sent, sent_at, noted_at)
        SELECT 'tag-' || n, 'tenant-' || n, 1, 1, 'recorded', '{}', now() - interval '1 day', now() - interval '1 day'
        FROM generate_series(1, 1000000) AS n;
        """,
        postgres_database,
    )
    begun = time.monotonic()

    await ledger.open(ACCOUNT)
    assert await ledger.recent(60.0) == []
    assert await ledger.suspects() == []
    assert await ledger.undelivered("", 100) == []
    assert await ledger.owns_key("key-500000")
    attempt = intent()
    epoch = await ledger.claim_attempt(Ticket("tenant-new"), attempt)
    await ledger.mark_suspect(attempt.tag, Effect.LOST, "lost", None)
    await ledger.release("tenant-new", epoch)
    taken = time.monotonic() - begun

    await ledger.aclose()
    assert taken < 0.5
