"""Ledgers of the schema before this one: migrated in place, once, and not under a process of that time."""

import asyncio
import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from respan_async import CreateKeyRequest
from respan_async.issuing import AttemptState, Ledger, LedgerError, PostgresLedger, SQLiteLedger, Ticket, TicketState
from respan_async.issuing.postgres._admin_script import migration
from respan_async.issuing.sqlite._inspect import read_snapshot
from tests.contract.test_ledger import ACCOUNT, issued, key
from tests.servers.postgres import PASSWORD, PostgresServer

SQLITE_1: Final = """
PRAGMA application_id = 0x52737041;
PRAGMA user_version = 1;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    lease_until REAL NOT NULL
);

CREATE TABLE tickets (
    ticket TEXT PRIMARY KEY,
    fields TEXT NOT NULL,
    state TEXT NOT NULL,
    owner INTEGER,
    epoch INTEGER NOT NULL,
    key_id TEXT,
    key TEXT,
    secret_id INTEGER,
    issued_at REAL
) WITHOUT ROWID;
CREATE INDEX tickets_undelivered ON tickets (ticket) WHERE state = 'issued';

CREATE TABLE secrets (
    id INTEGER PRIMARY KEY,
    secret BLOB NOT NULL
);

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    ticket TEXT NOT NULL,
    owner INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    name TEXT,
    sent TEXT NOT NULL,
    sent_at REAL NOT NULL,
    effect TEXT NOT NULL DEFAULT 'unknown',
    reason TEXT NOT NULL DEFAULT 'no answer was noted',
    key_id TEXT
);
CREATE INDEX attempts_unsettled ON attempts (tag) WHERE state IN ('intent', 'suspect');
"""

POSTGRES_1: Final = """
CREATE SCHEMA respan;
CREATE TABLE respan.meta (
    name text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE respan.owners (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

CREATE TABLE respan.tickets (
    ticket text COLLATE "C" PRIMARY KEY,
    fields text NOT NULL,
    state text NOT NULL,
    owner bigint,
    epoch bigint NOT NULL,
    claimed_at timestamptz NOT NULL,
    key_id text,
    key text,
    secret bytea,
    issued_at timestamptz
);
CREATE INDEX tickets_undelivered ON respan.tickets (ticket) WHERE state = 'issued';
CREATE INDEX tickets_keys ON respan.tickets (key_id) WHERE key_id IS NOT NULL;

CREATE TABLE respan.attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag text COLLATE "C" NOT NULL UNIQUE,
    ticket text COLLATE "C" NOT NULL,
    owner bigint NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL,
    name text,
    sent text NOT NULL,
    sent_at timestamptz NOT NULL,
    noted_at timestamptz NOT NULL,
    effect text NOT NULL DEFAULT 'unknown',
    reason text NOT NULL DEFAULT 'no answer was noted',
    key_id text
);
CREATE INDEX attempts_in_the_air ON respan.attempts (ticket) WHERE state = 'intent';
CREATE INDEX attempts_suspects ON respan.attempts (id) WHERE state = 'suspect';

INSERT INTO respan.meta (name, value) VALUES ('version', '1');
"""

TICKET = Ticket("tenant-1", CreateKeyRequest(name="tenant 1", max_usage=5))
TOKEN = "0123456789abcdef0123456789abcdef"
ROWS: Final = f"""
INSERT INTO meta VALUES ('account', '{ACCOUNT}');
INSERT INTO owners (token, lease_until) VALUES ('{TOKEN}', (julianday('now') - 2440587.5) * 86400.0 + 30);
INSERT INTO tickets (ticket, fields, state, owner, epoch, key_id, key, secret_id, issued_at)
VALUES ('tenant-1', '{TICKET.fields}', 'issued', 1, 1, 'key-1', '{{"id": "key-1"}}', 1, 1780000000.0);
INSERT INTO secrets VALUES (1, CAST('prefix12.0123456789abcdef0123456789abcdef' AS BLOB));
INSERT INTO attempts (tag, ticket, owner, epoch, state, sent, sent_at) VALUES
    ('taaaaaaaaaaa', 'tenant-1', 1, 1, 'recorded', '{{}}', 1780000000.0),
    ('tbbbbbbbbbbb', 'tenant-1', 1, 1, 'void', '{{}}', 1780000000.0),
    ('tccccccccccc', 'tenant-2', 1, 1, 'suspect', '{{}}', 1780000000.0),
    ('tddddddddddd', 'tenant-3', 1, 1, 'intent', '{{}}', 1780000000.0);
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give a ledger of version 1 whose owner was killed with a request in the air."""
    path = tmp_path / "keys.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE_1 + ROWS)
    path.chmod(0o600)
    lock_of(path).touch(0o600)
    return path


def lock_of(path: Path) -> Path:
    """Give where the owner's lock is."""
    return path.with_name(f"{path.name}-owner-{TOKEN}")


@contextlib.contextmanager
def alive(path: Path) -> Iterator[None]:
    """Let the owner's process live: it has its lock."""
    with lock_of(path).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version_of(path: Path) -> int:
    """Tell which version a file is of."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def check(ledger: Ledger) -> None:
    """See that nothing of an old ledger is lost, that what was in doubt is taken over now, and that all goes on."""
    record = await ledger.find("tenant-1")
    assert record is not None
    assert record.key is not None
    assert record.key.api_key == key().api_key
    assert await ledger.owns_key("key-1")
    suspects = await ledger.suspects()
    assert [suspect.tag for suspect in suspects] == ["tccccccccccc", "tddddddddddd"]
    for suspect in suspects:
        assert suspect.taken_over_at is not None
        assert abs(datetime.now(UTC) - suspect.taken_over_at) < timedelta(minutes=1)
    counts = await ledger.counts()
    assert (counts.attempts[AttemptState.VOID], counts.attempts[AttemptState.INTENT]) == (0, 0)
    assert counts.tickets[TicketState.ISSUED] == 1
    await issued(ledger, Ticket("tenant-9"), "key-9")
    await ledger.erase("tenant-1")


async def test_a_file_is_migrated_in_place_and_once(old: Path) -> None:
    """By whoever opens it first; those who open it later find it as it is."""
    for _ in range(2):
        ledger = SQLiteLedger(old)
        await ledger.open(ACCOUNT)
        if await ledger.find("tenant-9") is None:
            await check(ledger)
        await ledger.aclose()

    assert version_of(old) == 2
    assert sorted(path.name for path in old.parent.iterdir()) == ["keys.db"]


async def test_many_that_open_an_old_file_at_the_same_time_get_along(old: Path) -> None:
    """One of them migrates it."""
    ledgers = [SQLiteLedger(old) for _ in range(4)]

    await asyncio.gather(*(ledger.open(ACCOUNT) for ledger in ledgers))

    await check(ledgers[0])
    for ledger in ledgers:
        await ledger.aclose()


async def test_a_file_is_not_migrated_under_a_process_of_an_older_version(old: Path) -> None:
    """It is refused with a sentence, and left as it is; once that process has ended, it is migrated."""
    ledger = SQLiteLedger(old)
    with alive(old):
        with pytest.raises(LedgerError, match="older version of this library has this ledger open; end it first"):
            await ledger.open(ACCOUNT)
        assert version_of(old) == 1

    await ledger.open(ACCOUNT)
    await check(ledger)
    await ledger.aclose()


async def test_a_file_that_has_lost_what_was_written_last_is_not_migrated(old: Path) -> None:
    """Or the log could not be put back."""
    lock_of(old).write_bytes(b"%020d" % 5)

    with pytest.raises(LedgerError, match="what was written last is gone"):
        await SQLiteLedger(old).open(ACCOUNT)

    assert version_of(old) == 1


def test_looking_at_an_old_file_migrates_nothing(old: Path) -> None:
    """What is in it is told all the same."""
    snapshot = read_snapshot(old)

    assert [suspect.tag for suspect in snapshot.suspects] == ["tccccccccccc"]
    assert snapshot.counts.attempts[AttemptState.VOID] == 1
    assert version_of(old) == 1


async def test_a_process_of_an_older_version_does_not_become_an_owner(old: Path) -> None:
    """One that had looked at the version before the migration is refused after it by the database itself."""
    ledger = SQLiteLedger(old)
    await ledger.open(ACCOUNT)
    await ledger.aclose()

    with (
        contextlib.closing(sqlite3.connect(old)) as connection,
        pytest.raises(sqlite3.IntegrityError, match=r"owners\.version"),
    ):
        connection.execute("INSERT INTO owners (token, lease_until) VALUES ('token', 1.0)")


async def test_an_old_file_has_the_same_schema_then_as_a_new_one(old: Path, tmp_path: Path) -> None:
    """Tables, their columns, and indexes."""
    shapes = []
    for path in (old, tmp_path / "new.db"):
        ledger = SQLiteLedger(path)
        await ledger.open(ACCOUNT)
        await ledger.aclose()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            columns = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in tables}
            indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'").fetchall()
            shapes.append(({name: sorted(row[1:4] for row in rows) for name, rows in columns.items()}, sorted(indexes)))

    assert shapes[0] == shapes[1]


async def test_a_key_is_found_by_its_id_without_reading_every_ticket(tmp_path: Path) -> None:
    """By an index, as by the sweep for each key it finds."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open(ACCOUNT)
    await ledger.aclose()

    with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT 1 FROM tickets WHERE key_id = ?", ("key-1",)).fetchall()

    assert "tickets_keys" in plan[0][-1]


# ------------------------------------------------------------------------------------------------------- in Postgres


OLD_IN_POSTGRES: Final = f"""
{POSTGRES_1}
INSERT INTO respan.meta VALUES ('account', '{ACCOUNT}');
INSERT INTO respan.owners (lease_until) VALUES (now() - interval '1 hour');
INSERT INTO respan.tickets (ticket, fields, state, owner, epoch, claimed_at, key_id, key, secret, issued_at)
VALUES ('tenant-1', '{TICKET.fields}', 'issued', 1, 1, now(), 'key-1', '{{"id": "key-1"}}',
    'prefix12.0123456789abcdef0123456789abcdef', now());
INSERT INTO respan.attempts (tag, ticket, owner, epoch, state, sent, sent_at, noted_at) VALUES
    ('taaaaaaaaaaa', 'tenant-1', 1, 1, 'recorded', '{{}}', now(), now()),
    ('tbbbbbbbbbbb', 'tenant-1', 1, 1, 'void', '{{}}', now(), now()),
    ('tccccccccccc', 'tenant-2', 1, 1, 'suspect', '{{}}', now(), now()),
    ('tddddddddddd', 'tenant-3', 1, 1, 'intent', '{{}}', now(), now());
"""


@pytest.fixture
def old_dsn(postgres_server: PostgresServer, postgres_database: str, postgres_dsn: str) -> str:
    """Give a database in which version 1 has left a ledger."""
    postgres_server.execute(OLD_IN_POSTGRES, postgres_database)
    return postgres_dsn


async def test_only_create_schema_migrates_a_ledger_in_postgres(old_dsn: str) -> None:
    """A worker says who does; many who do it at the same time do it once."""
    ledger = PostgresLedger(old_dsn)
    with pytest.raises(LedgerError, match=r"older version of respan-async; migrate it once, with .*create_schema"):
        await ledger.open(ACCOUNT)

    await asyncio.gather(*(PostgresLedger(old_dsn).create_schema() for _ in range(3)))
    await ledger.open(ACCOUNT)
    await PostgresLedger(old_dsn).create_schema()

    await check(ledger)
    await ledger.aclose()


async def test_a_ledger_in_postgres_is_not_migrated_under_workers_of_an_older_version(
    old_dsn: str, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """It is refused with a sentence, and left as it is; and none of them becomes an owner afterwards."""
    postgres_server.execute("UPDATE respan.owners SET lease_until = now() + interval '1 hour'", postgres_database)
    with pytest.raises(LedgerError, match="workers of an older version are at work; end them"):
        await PostgresLedger(old_dsn).create_schema()
    postgres_server.execute("UPDATE respan.owners SET lease_until = now()", postgres_database)
    await PostgresLedger(old_dsn).create_schema()

    with pytest.raises(Exception, match='column "version"'):
        postgres_server.execute("INSERT INTO respan.owners (lease_until) VALUES (now())", postgres_database)


async def test_a_worker_that_may_not_migrate_says_who_may(
    old_dsn: str, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The rights of a worker are not enough, and none that could be granted would be; the script is, for the owner."""
    postgres_server.execute("CREATE ROLE migrating_worker LOGIN PASSWORD 'c'")
    try:
        for right in ("USAGE ON SCHEMA respan", "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA respan"):
            postgres_server.execute(f"GRANT {right} TO migrating_worker", postgres_database)
        worker = PostgresLedger(old_dsn.replace(f"tester:{PASSWORD}", "migrating_worker:c"))
        with pytest.raises(LedgerError, match=r"by whom they belong to: .*ledger schema --migrate") as caught:
            await worker.create_schema()
        assert "GRANT" not in str(caught.value)

        postgres_server.execute(migration(), postgres_database)
        await worker.open(ACCOUNT)
        await check(worker)
        await worker.aclose()
    finally:
        postgres_server.execute("DROP OWNED BY migrating_worker", postgres_database)
        postgres_server.execute("DROP ROLE migrating_worker")


async def test_an_old_ledger_in_postgres_has_the_same_schema_then_as_a_new_one(
    old_dsn: str, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Tables, their columns, and indexes."""
    await PostgresLedger(old_dsn).create_schema()
    await PostgresLedger(old_dsn, schema="fresh").create_schema()

    shapes = [
        postgres_server.execute(
            f"""
            SELECT string_agg(line, E'\n' ORDER BY line) FROM (
                SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable AS line
                FROM information_schema.columns WHERE table_schema = '{schema}'
                UNION ALL SELECT replace(indexdef, '{schema}.', '') FROM pg_indexes WHERE schemaname = '{schema}'
            ) AS lines
            """,
            postgres_database,
        )
        for schema in ("respan", "fresh")
    ]

    assert shapes[0]
    assert shapes[0] == shapes[1]
