"""`respan-keys` where several machines share a ledger in Postgres and a limit in Redis."""

import asyncio
import base64
import secrets
import sys
from pathlib import Path

import pytest

from respan_async.cli import main
from respan_async.cli.connection_urls import without_password
from respan_async.issuing import PostgresLedger
from tests.integration.cli_world import (
    Run,
    Server,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
)


@pytest.fixture
def database(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger in Postgres, whose address the environment has, with a key for its secrets."""
    asyncio.run(PostgresLedger(postgres_dsn).create_schema())
    monkeypatch.setenv("RESPAN_LEDGER", postgres_dsn)
    monkeypatch.setenv("RESPAN_LEDGER_KEY", key())
    return postgres_dsn


def key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def test_a_ledger_in_postgres_serves_every_command(
    database: str, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine, with another file of keys, issues what is left; suspects are named and swept."""
    server.fake.script("ok", "lose_answer_after_create")
    code, _, err = run("issue", tenants(4), "--out", "first.jsonl", "--max-in-flight", "1")
    _, (status,), _ = run("status")
    again = run("issue", tenants(6), "--out", "second.jsonl")
    swept = run("sweep", "--grace", "0")
    _, (after,), _ = run("status", "--ledger", database)

    assert code == 0
    assert "1 suspects" in err
    assert "; respan-keys status names them, respan-keys sweep revokes them" in err
    assert status["tickets"]["delivered"] == 4
    assert len(status["suspects"]) == 1
    assert again[0] == 0
    assert sorted(line["ticket"] for line in held("second.jsonl")) == ["t4", "t5"]
    assert (swept[0], "1 revoked" in swept[2]) == (0, True)
    assert after["suspects"] == []
    assert {line["id"] for line in held("first.jsonl") + held("second.jsonl")} == server.ids()
    assert sorted(path.name for path in Path().iterdir()) == ["first.jsonl", "second.jsonl", "t.csv"]


def test_secrets_in_postgres_get_another_key(
    database: str, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ledger rotate` finds the ledger by its address, too; what has no ledger yet has nothing to encrypt."""
    unused = run("ledger", "rotate")
    assert run("issue", tenants(2), "--out", "keys.jsonl")[0] == 0
    code, _, err = run("ledger", "rotate", "--ledger", database)

    assert unused[0] == 2
    assert "nothing was issued with this ledger yet" in unused[2]
    assert (code, err) == (0, "0 secrets are encrypted anew\n")


def test_a_password_is_shown_nowhere(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of an address that leads nowhere, nor in the command that goes on, nor of one that is none."""
    monkeypatch.delenv("RESPAN_LEDGER", raising=False)
    tenants(1)
    where = "postgresql://me:correct-horse@127.0.0.1:9/db"
    runs = [
        run("issue", "t.csv", "--out", "k.jsonl", "--ledger", where.replace("127", "x y")),
        run("issue", "t.csv", "--out", "k.jsonl", f"--ledger={where}?nonsense=1"),
        run("status", "--ledger", "postgresql://me:correct@horse@host/db"),
        run("issue", "t.csv", "--redis", "redis://me:correct-horse@[::1/0"),
        run("issue", "t.csv", "--redis", "http://me:correct-horse@host"),
    ]

    for code, _, err in runs:
        assert code == 2
        assert "horse" not in err
        assert err.startswith(("respan-keys: --ledger: dsn: ", "respan-keys: --redis: "))
    assert server.fake.counts.requests == 0


WORDS = {
    "postgresql://me:horse@host/db": "postgresql://me:***@host/db",
    "--ledger=postgresql://me:battery@horse@host/db": "--ledger=postgresql://me:***@host/db",
    "redis://:horse@host:6379/0": "redis://:***@host:6379/0",
    "http://host:8080/a@b:c": "http://host:8080/a@b:c",
    "tenants@work:2026.csv": "tenants@work:2026.csv",
}
"""What may stand in a command, and what is shown of it."""


@pytest.mark.parametrize("word", WORDS)
def test_the_command_that_goes_on_has_no_password(word: str) -> None:
    """Which was in the arguments, and is not to be in a log as well."""
    assert without_password(word) == WORDS[word]


def test_a_database_without_a_ledger(postgres_dsn: str, server: Server, run: Run) -> None:
    """Is told with the command that makes one; nothing is sent."""
    runs = [run("issue", tenants(1), "--out", "k.jsonl", "--ledger", postgres_dsn)]
    runs.append(run("sweep", "--ledger", postgres_dsn))

    for code, _, err in runs:
        assert code == 2
        assert "there is no ledger; make it once, with: respan-keys ledger schema | psql DATABASE" in err
    code, _, err = run("status", "--ledger", postgres_dsn)
    assert (code, "there is no ledger" in err) == (2, True)
    assert server.fake.counts.requests == 0
    assert not Path("k.jsonl").exists()


def test_without_the_extras(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which is missing."""
    tenants(1)
    for name in ("_session", "_pool"):
        monkeypatch.setitem(sys.modules, f"respan_async.issuing.postgres.{name}", None)
    monkeypatch.setitem(sys.modules, "respan_async.redis", None)
    ledger = run("issue", "t.csv", "--ledger", "postgresql://host/db")
    status = run("status", "--ledger", "postgresql://host/db")
    redis = run("issue", "t.csv", "--redis", "redis://host")

    assert (ledger[0], status[0], redis[0]) == (2, 2, 2)
    assert "pip install 'respan-async[postgres]'" in ledger[2]
    assert "pip install 'respan-async[postgres]'" in status[2]
    assert redis[2].startswith("respan-keys: --redis: ")


def test_a_limit_in_redis_is_shared(redis_url: str, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second command finds what the first has used, by the address in the environment."""
    monkeypatch.setenv("RESPAN_REDIS", redis_url)
    first = run("issue", tenants(3, "a.csv"), "--out", "a.jsonl", "--rate", "4/2s", "--burst")
    second = run("issue", tenants(3, "b.csv"), "--out", "b.jsonl", "--rate", "4/2s", "--burst")

    assert (first[0], second[0]) == (0, 0)
    assert server.fake.max_in_window(1.9) <= 4


def test_what_does_not_go_with_a_shared_limit(server: Server, run: Run) -> None:
    """A limit that is yet to be learned cannot be shared, nor does a sandbox share any."""
    tenants(1)
    unknown = run("issue", "t.csv", "--redis", "redis://host", "--rate", "auto")
    sandbox = run("issue", "t.csv", "--redis", "redis://host", "--sandbox")

    assert (unknown[0], sandbox[0]) == (2, 2)
    assert "--rate: expected a limit such as 60/60s, which all processes share in Redis, got auto" in unknown[2]
    assert "--redis: expected a run that is no --sandbox" in sandbox[2]


def test_a_sandbox_leaves_the_environments_ledger_alone(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its make-believe keys go into a ledger of their own."""
    monkeypatch.setenv("RESPAN_LEDGER", "postgresql://127.0.0.1:9/db")
    monkeypatch.setenv("RESPAN_REDIS", "redis://127.0.0.1:9")

    assert run("issue", tenants(2), "--sandbox", "--out", "k.jsonl")[0] == 0
    assert Path("k.jsonl.ledger").exists()


def test_the_environments_ledger_may_be_a_file(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every command, and an argument goes before it."""
    monkeypatch.setenv("RESPAN_LEDGER", "ours.db")
    issued = run("issue", tenants(2), "--out", "k.jsonl")
    _, (status,), _ = run("status")

    assert issued[0] == 0
    assert status["tickets"]["delivered"] == 2
    assert not Path("k.jsonl.ledger").exists()
    assert main(("status", "--ledger", "none.db")) == 2


def test_an_address_may_be_in_a_file(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker mounts it; both at once leave open what is meant."""
    Path("secret").write_text("ours.db\n")
    monkeypatch.setenv("RESPAN_LEDGER_FILE", "secret")
    issued = run("issue", tenants(1), "--out", "k.jsonl")
    monkeypatch.setenv("RESPAN_LEDGER", "others.db")
    both = run("issue", "t.csv", "--out", "k.jsonl")
    monkeypatch.setenv("RESPAN_REDIS_FILE", "none")
    unread = run("sweep", "--ledger", "ours.db")

    assert issued[0] == 0
    assert Path("ours.db").exists()
    assert (both[0], unread[0]) == (2, 2)
    assert "RESPAN_LEDGER: expected it or RESPAN_LEDGER_FILE to be set, got both" in both[2]
    assert "RESPAN_REDIS_FILE: expected a file that holds a secret, but 'none' cannot be read" in unread[2]
