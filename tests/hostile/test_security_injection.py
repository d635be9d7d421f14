"""Ways in through text that somewhere is a program: SQL, Lua, pickles."""

import ast
from pathlib import Path

import pytest

import respan_async
from respan_async import AsyncRespan, ConfigurationError, RetryPolicy
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan

ONCE = RetryPolicy(max_attempts=1)
PATH = "/api/temporary-keys/"

INJECTIONS = [
    "'; DROP TABLE tickets; --",
    '"; DROP TABLE tickets; --',
    "' OR '1'='1",
    "$1",
    ":ticket",
    "%s %(x)s {schema}",
    "?1",
    "a'||'b",
]
INJECTIONS += ["\\'; DROP TABLE tickets; --", "/* */", "x" * 500, "\uff45́", "%", "_", "[a-z]*"]


async def test_a_ticket_that_is_sql_is_a_ticket(tmp_path: Path) -> None:
    """In ids and names: each is one ticket, with its own key, and no table is gone."""
    tickets = [Ticket(evil, respan_async.CreateKeyRequest(name=evil[:30])) for evil in INJECTIONS]
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, SQLiteLedger(tmp_path / "keys.db")) as issuer,
    ):
        made = [await issuer.issue(ticket) for ticket in tickets]
        again = [await issuer.issue(ticket) for ticket in tickets]
        counts = await issuer.counts()

    assert [one.key.id for one in made] == [one.key.id for one in again]
    assert len({one.key.id for one in made}) == len(INJECTIONS)
    assert sum(counts.tickets.values()) == len(INJECTIONS)
    assert {record.name.rpartition(" ~")[0] for record in fake.keys.values()} == {evil[:30] for evil in INJECTIONS}


@pytest.mark.parametrize(
    "schema", ['a"b', "a; DROP SCHEMA public", "a-b", "1a", "a.b", "a b", "", "ä", "a" * 64, "a\x00", "a\n", "{a}"]
)
def test_a_schema_name_that_is_sql_is_refused(schema: str) -> None:
    """It stands in the statements themselves."""
    from respan_async.issuing import PostgresLedger

    with pytest.raises(ConfigurationError, match="schema: expected"):
        PostgresLedger("postgresql://localhost/db", schema=schema)


@pytest.mark.hostile
def test_nothing_is_unpickled_evaluated_or_run() -> None:
    """What comes from a server, a file or a database is JSON, CSV or a row, and nothing that could be code."""
    forbidden = {
        "pickle",
        "marshal",
        "shelve",
        "yaml",
        "subprocess",
        "dill",
        "jsonpickle",
        "ctypes",
        "xmlrpc",
        "telnetlib",
    }
    calls = {"eval", "exec", "compile", "__import__", "system", "popen", "execfile", "input", "loads", "unsafe_load"}
    used: set[str] = set()
    for path in Path(respan_async.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                used |= {name.partition(".")[0] for name in names} & forbidden
            elif isinstance(node, ast.Call):
                named = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                whose = getattr(getattr(node.func, "value", None), "id", "")
                used |= {f"{whose}.{named}"} if named in calls else set()

    assert used <= {
        "orjson.loads",
        "json.loads",
        "lenient_json.loads",
        "re.compile",
        ".eval",
        "_redis.eval",
    }  # the last are what Redis calls its scripts


async def test_a_redis_key_that_is_a_command_is_a_key(redis_url: str) -> None:
    """Line breaks and Lua: the protocol counts bytes, and the script takes the key as a key."""
    from redis.asyncio import Redis

    from respan_async.redis import RedisWindow

    evil = "pace\r\nFLUSHALL\r\n']); redis.call('FLUSHALL'); --{x}"
    client = Redis.from_url(redis_url)
    await client.set("innocent", "1")
    async with FakeRespan() as fake:
        window = RedisWindow(redis_url, respan_async.RateLimit(5, per=60), key=evil)
        async with AsyncRespan(fake.api_key, base_url=fake.url, pace=window) as respan:
            await respan.temporary_keys.create(name="'; return redis.call('FLUSHALL')")
    keys = set(await client.keys("*"))
    await client.aclose()

    assert keys == {b"innocent", evil.encode()}
