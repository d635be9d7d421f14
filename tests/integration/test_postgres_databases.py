"""A ledger in databases as people have them: others' tables, other encodings, missing rights, and wrong addresses."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from respan_async import AsyncRespan, ConfigurationError, CreatedKey, CreateKeyRequest, Failed, InvalidRequestError
from respan_async.issuing import Issuer, LedgerError, PostgresLedger, Ticket
from respan_async.issuing.ledger import Intent
from respan_async.issuing.postgres._admin_script import script
from respan_async.issuing.postgres._pool import ConnectionPool
from respan_async.issuing.postgres._statements import statements
from respan_async.secret import Secret
from respan_async.testing import FakeRespan
from tests.servers.postgres import PASSWORD, PostgresServer

ACCOUNT = "https://api.respan.ai abc"
_numbers = itertools.count(1)


def intent(name: str | None = None) -> Intent:
    """Give an intent with a fresh tag."""
    now = datetime.now(UTC).timestamp()
    return Intent(tag=f"tag{next(_numbers):09}", name=name, sent={"name": name}, sent_at=now)


async def issued(ledger: PostgresLedger, ticket: Ticket, key: CreatedKey) -> None:
    """Bring a ticket to its key."""
    attempt = intent(ticket.request.name or None)
    epoch = await ledger.claim_attempt(ticket, attempt)
    assert await ledger.record(ticket.id, epoch, attempt.tag, key)


# ------------------------------------------------------------------------------------------------------ others' tables

OTHERS = {
    "meta": "CREATE TABLE respan.meta (key text, val text)",
    "meta with the same columns": "CREATE TABLE respan.meta AS SELECT 'version'::text AS name, 'abc'::text AS value",
    "meta with the same version": "CREATE TABLE respan.meta AS SELECT 'version'::text AS name, '1'::text AS value",
    "tickets of a help desk": "CREATE TABLE respan.tickets (id bigint PRIMARY KEY, subject text)",
    "a view": "CREATE VIEW respan.attempts AS SELECT 1 AS id",
}


@pytest.mark.parametrize("other", OTHERS)
async def test_a_schema_with_tables_of_another_program_is_left_alone(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, other: str
) -> None:
    """Nothing is made in it, and nothing is written into what is there."""
    table = re.findall(r"respan\.(\w+)", OTHERS[other])[0]
    postgres_server.execute("CREATE SCHEMA respan", postgres_database)
    postgres_server.execute(OTHERS[other], postgres_database)
    before = postgres_server.execute(f"SELECT * FROM respan.{table}", postgres_database)
    says = rf"schema 'respan': has tables of another program \({table}\); give the ledger a schema of its own"

    ledger = PostgresLedger(postgres_dsn)
    for call in (ledger.create_schema, lambda: ledger.open(ACCOUNT)):
        with pytest.raises(LedgerError, match=says):
            await call()

    tables = postgres_server.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'respan'::regnamespace", postgres_database
    )
    assert {table} == {name for (name,) in tables if not name.endswith("pkey")}
    assert postgres_server.execute(f"SELECT * FROM respan.{table}", postgres_database) == before


async def test_a_ledger_whose_version_is_no_number_is_not_taken_for_one(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """Somebody has written into its table."""
    await PostgresLedger(postgres_dsn).create_schema()
    postgres_server.execute("UPDATE respan.meta SET value = '1.2'", postgres_database)

    with pytest.raises(LedgerError, match="schema 'respan': has tables of another program"):
        await PostgresLedger(postgres_dsn).open(ACCOUNT)


async def test_tables_beside_the_ledgers_own_do_not_matter(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """In the schema `public`, say; nor do columns that a later version has added."""
    postgres_server.execute("CREATE TABLE public.customers (id bigint)", postgres_database)
    ledger = PostgresLedger(postgres_dsn, schema="public")

    await ledger.create_schema()
    postgres_server.execute("ALTER TABLE public.tickets ADD COLUMN more text", postgres_database)
    await ledger.open(ACCOUNT)

    assert await ledger.claim_attempt(Ticket("t"), intent()) == 1
    await ledger.aclose()


async def test_a_schema_that_is_dropped_under_a_running_program_is_told(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """Nothing is sent without a ledger."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    await ledger.open(ACCOUNT)
    postgres_server.execute("DROP SCHEMA respan CASCADE", postgres_database)

    with pytest.raises(LedgerError, match=r'the ledger could not be used: relation "respan\.\w+" does not exist'):
        await ledger.claim_attempt(Ticket("t"), intent())

    await ledger.aclose()


# ----------------------------------------------------------------------------------------------------------- encodings


@pytest.fixture
def in_encoding(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the connection string of a database in an encoding."""
    name = f"encoded_{next(_numbers)}"
    how = f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    postgres_server.execute(f"CREATE DATABASE {name} {how}")
    yield postgres_server.dsn(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("in_encoding", ["SQL_ASCII", "LATIN1", "UTF8"], indirect=True)
async def test_a_database_of_any_encoding_can_be_used(in_encoding: str) -> None:
    """What it has letters for, comes back as it was; and a key that was made is recorded whatever is in it."""
    ticket = Ticket("zürich", CreateKeyRequest(name="Zürich"))
    key = CreatedKey(id="k", api_key=Secret("prefix12.abc"), name="Zürich ~tag", extra={"motto": "日本 \U0001f5fb é"})
    ledger = PostgresLedger(in_encoding)
    await ledger.create_schema()
    await ledger.open(ACCOUNT)

    await issued(ledger, ticket, key)
    record = await ledger.find(ticket.id)
    await ledger.aclose()

    assert record is not None
    assert record.fields == ticket.fields
    assert record.key == key


@pytest.mark.parametrize("in_encoding", ["LATIN1"], indirect=True)
async def test_a_ticket_that_the_database_cannot_hold_is_that_tickets_failure(
    in_encoding: str, respan: AsyncRespan, fake_respan: FakeRespan
) -> None:
    """By its id or by a field; the others of the batch get their keys, and nothing is sent for it."""
    tickets = [Ticket("t1"), Ticket("日本"), Ticket("t2", CreateKeyRequest(name="日本")), Ticket("t3")]
    await PostgresLedger(in_encoding).create_schema()

    async with Issuer(respan, PostgresLedger(in_encoding)) as issuer:
        outcomes = await issuer.issue_many(tickets, ordered=True)

    errors = {outcome.item.id: outcome.error for outcome in outcomes if isinstance(outcome, Failed)}
    assert list(errors) == ["日本", "t2"]
    for ticket_id, error in errors.items():
        assert isinstance(error, InvalidRequestError)
        assert str(error).startswith(f"ticket {ticket_id!r}: ")
        assert 'no equivalent in encoding "LATIN1"; a database with ENCODING' in str(error)
    assert fake_respan.counts.created == 2


# -------------------------------------------------------------------------------------------------------------- rights


@pytest.fixture
def clerk(postgres_server: PostgresServer, postgres_database: str) -> Iterator[str]:
    """Give a user without rights, whose name needs quotes."""
    name = f"The Clerk {next(_numbers)}"
    postgres_server.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'c'")
    yield name
    postgres_server.execute(f'DROP OWNED BY "{name}"', postgres_database)
    postgres_server.execute(f'DROP ROLE "{name}"')


async def grants_of(ledger: PostgresLedger, *, making: bool) -> list[str]:
    """Give what a refusal says is needed."""
    with pytest.raises(LedgerError, match="permission denied") as caught:
        await (ledger.create_schema() if making else ledger.open(ACCOUNT))
    return re.findall(r"GRANT [^;]+", str(caught.value))


@pytest.mark.parametrize("there", [False, True])
async def test_what_is_granted_as_the_refusal_says_is_enough_to_make_a_ledger(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, clerk: str, there: bool
) -> None:
    """Where the schema is there, a right on the database would not help; the statements can be pasted."""
    dsn = postgres_dsn.replace(f"tester:{PASSWORD}", f"{clerk.replace(' ', '%20')}:c")
    ledger = PostgresLedger(dsn, schema="Keys")
    if there:
        postgres_server.execute('CREATE SCHEMA "Keys"', postgres_database)

    grants = await grants_of(ledger, making=True)
    for grant in grants:
        postgres_server.execute(grant, postgres_database)
    await ledger.create_schema()
    await ledger.open(ACCOUNT)
    await ledger.aclose()

    if there:
        assert grants == [f'GRANT {right} ON SCHEMA "Keys" TO "{clerk}"' for right in ("USAGE", "CREATE")]
    else:
        assert grants == [f'GRANT CREATE ON DATABASE {postgres_database} TO "{clerk}"']


@pytest.mark.parametrize("making", [False, True])
async def test_what_is_granted_as_the_refusal_says_is_enough_to_use_a_ledger(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, clerk: str, making: bool
) -> None:
    """By opening it, or by making it again."""
    await PostgresLedger(postgres_dsn, schema="Keys").create_schema()
    ledger = PostgresLedger(postgres_dsn.replace(f"tester:{PASSWORD}", f"{clerk.replace(' ', '%20')}:c"), schema="Keys")

    grants = await grants_of(ledger, making=making)
    for grant in grants:
        postgres_server.execute(grant, postgres_database)

    await ledger.create_schema()
    await ledger.open(ACCOUNT)
    assert await ledger.claim_attempt(Ticket("t"), intent()) == 1
    await ledger.aclose()


# ------------------------------------------------------------------------------------------------------ made by a DBA


async def test_the_script_makes_what_create_schema_makes(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str
) -> None:
    """Run as a whole by whoever may, and then used with the rights that it names."""
    by_hand = script("by_hand")
    postgres_server.execute(by_hand, postgres_database)
    await PostgresLedger(postgres_dsn, schema="by_itself").create_schema()
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, collation_name
        FROM information_schema.columns WHERE table_schema = '{}' ORDER BY table_name, ordinal_position
    """
    indexes = (
        "SELECT tablename, replace(indexdef, '{0}.', '') FROM pg_indexes WHERE schemaname = '{0}' ORDER BY indexname"
    )

    for query in (columns, indexes):
        made = [postgres_server.execute(query.format(name), postgres_database) for name in ("by_hand", "by_itself")]
        assert made[0] == made[1]
        assert made[0]
    ledger = PostgresLedger(postgres_dsn, schema="by_hand")
    await ledger.open(ACCOUNT)
    await ledger.aclose()
    assert '-- GRANT USAGE ON SCHEMA "by_hand" TO ...;' in by_hand


@pytest.mark.parametrize("name", ["is_recorded", "find_for_certain"])
async def test_what_a_key_is_revoked_by_is_not_asked_of_a_standby(postgres_dsn: str, name: str) -> None:
    """It may lag behind, and know nothing of a key that was recorded. What is not read-only goes to the primary."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    values = {"ticket": "t", "key_id": "k", "tag": "x", "recorded": "recorded"}

    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.set_read_only(True)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute(statements("respan")[name].encode(), values)


async def test_the_script_changes_nothing_where_a_table_is_there(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """It is one transaction."""
    postgres_server.execute("CREATE TABLE meta (name text, value text)", postgres_database)

    with pytest.raises(psycopg.errors.DuplicateTable):
        postgres_server.execute(script("public"), postgres_database)

    assert postgres_server.execute("SELECT * FROM meta", postgres_database) == []


# ---------------------------------------------------------------------------------------------- numbers, and being late


@pytest.mark.parametrize("table", ["owners", "attempts"])
async def test_a_number_that_is_there_already_is_not_told_as_a_tag(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, table: str
) -> None:
    """After a restore without the sequences; what is to be done can be pasted."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    await ledger.open(ACCOUNT)
    await ledger.claim_attempt(Ticket("t1"), intent())
    postgres_server.execute(f"ALTER TABLE respan.{table} ALTER COLUMN id RESTART", postgres_database)

    claiming = ledger.claim_attempt(Ticket("t2"), intent())
    call = PostgresLedger(postgres_dsn).open(ACCOUNT) if table == "owners" else claiming
    with pytest.raises(LedgerError, match="duplicate key value") as caught:
        await call
    claiming.close()

    assert "tag" not in str(caught.value)
    mend = re.search(r"SELECT setval.*", str(caught.value))
    assert mend is not None
    postgres_server.execute(mend[0], postgres_database)
    assert await ledger.claim_attempt(Ticket("t2"), intent()) == 1
    await ledger.aclose()


async def test_a_server_that_is_slow_is_told_as_that(postgres_dsn: str) -> None:
    """This side has broken the connection: nobody is to look for the fault in the server's log."""
    pool = ConnectionPool(postgres_dsn, attempt=0.3, patience=0.1)

    with pytest.raises(LedgerError, match=r"^the ledger's server gave no answer within 0\.3 s$") as caught:
        await pool.ask("SELECT pg_sleep(5)", {})

    await pool.aclose()
    assert caught.value.retryable


async def test_a_ledger_that_is_closed_before_an_answer_is_told_as_that(postgres_dsn: str) -> None:
    """And not as a connection that the server has closed."""
    pool = ConnectionPool(postgres_dsn, attempt=5, patience=5)
    await pool.ask("SELECT 1", {})
    asking = asyncio.create_task(pool.ask("SELECT pg_sleep(5)", {}))
    await asyncio.sleep(0.2)
    await pool.aclose()

    with pytest.raises(LedgerError, match=r"^the ledger was closed before its server answered$"):
        await asking


# --------------------------------------------------------------------------------------------------- connection strings

WRONG = {
    f"postgresql://me:{PASSWORD}@1@host/db": "%40 for @",
    f"postgresql://me:{PASSWORD}/1@host/db": "%2F for /",
    f"postgresql://me:12/{PASSWORD}@host/db": "%2F for /",
    f"postgresql://me:{PASSWORD}/{PASSWORD}?{PASSWORD}=1@host/db": "%2F for /",
    f"postgresql://me:{PASSWORD}%@host/db": "%25 for %",
    f"postgresql://me:{PASSWORD} 1@host/db": "%20 for a space",
    f"postgresql://me:{PASSWORD}@host/db?sslmod=require": "; unknown parameter 'sslmod'$",
    f"postgresql://me:{PASSWORD}@host:abc/db": "; expected a number as the port",
    "host=host nix=1": "; unknown parameter 'nix'$",
    "host=host port=abc": "; expected a number as the port$",
    "host=host password=two correct=1": "either a parameter is unknown, or a value with a space in it",
    "host=host password=two correct": "a value with a space in it is not written as password='two words'$",
}


@pytest.mark.parametrize("dsn", WRONG)
def test_what_is_wrong_with_a_connection_string_is_said_without_the_password(dsn: str) -> None:
    """Nor is a part of it shown, which libpq takes for a host, a port or a parameter."""
    with pytest.raises(ConfigurationError, match=WRONG[dsn]) as caught:
        PostgresLedger(dsn)

    assert str(caught.value).startswith("dsn: not a connection string of Postgres, such as postgresql://")
    assert not any(part in str(caught.value) for part in (PASSWORD, "correct"))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:a%40b%2Fc@host/db?sslmode=require&application_name=a@b",
        "postgresql://me:a?b#c[d@host:5432,other:5433/db",
        "postgresql:///db?host=/var/run/postgresql&user=me@realm",
        "host=host port=5432 user=me@realm password='a@b / c'",
        "postgresql://[::1]:5432/db",
    ],
)
def test_what_is_a_connection_string_is_taken(dsn: str) -> None:
    """With special characters where they belong."""
    settings: Any = ConnectionPool(dsn, attempt=1, patience=1)._settings

    assert settings["client_encoding"] == "utf8"


@pytest.mark.parametrize(("code", "retryable"), [("53100", True), ("55P03", True), ("54000", False)])
async def test_what_passes_by_itself_may_be_tried_again(
    postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str, code: str, *, retryable: bool
) -> None:
    """A full disk and a lock do; what is too large does not become smaller."""
    ledger = PostgresLedger(postgres_dsn)
    await ledger.create_schema()
    await ledger.open(ACCOUNT)
    postgres_server.execute(
        "CREATE FUNCTION respan.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END $$",
        postgres_database,
    )
    postgres_server.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON respan.attempts EXECUTE FUNCTION respan.refuse()", postgres_database
    )

    with pytest.raises(LedgerError, match="the ledger could not be used: not now") as caught:
        await ledger.claim_attempt(Ticket("t1"), intent())

    assert caught.value.retryable is retryable
    await ledger.aclose()
