"""`respan-keys issue --dry-run`: what it tells, and that it leaves everything as it is."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from respan_async.issuing import PostgresLedger
from tests.integration.cli_world import (
    Run,
    Server,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
)

DRY = ("issue", "t.csv", "--out", "keys.jsonl", "--dry-run")


def test_a_first_run_is_told_and_not_begun(server: Server, run: Run) -> None:
    """The first tickets with their fields, how many there are, and how long that takes; no file is made."""
    tenants(90)
    code, out, err = run(*DRY)

    lines = err.splitlines()
    assert (code, out) == (0, [])
    assert lines[0] == 't.csv:2: t0: would be issued, with {"name":"Tenant 0"}'
    assert lines[20:] == [
        "... and 70 more",
        "a dry run: 90 would be issued in about 1:30, 0 already issued, 0 would fail; nothing was sent",
    ]
    assert server.fake.counts.requests == 0
    assert [path.name for path in Path().iterdir()] == ["t.csv"]


def test_what_is_left_of_a_run_is_told(server: Server, run: Run) -> None:
    """What has its key, what is new, and what would fail because its fields are others than before."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    before = Path("keys.jsonl").read_bytes()
    Path("t.csv").write_text("ticket,name\nt0,Tenant 0\nt1,Other\nt2,Tenant 2\nt3,Tenant 3\n")
    code, _, err = run(*DRY, "--rate", "auto")

    assert code == 1
    assert "t.csv:3: t1: ticket 't1': asked for before with another name" in err
    assert 't.csv:5: t3: would be issued, with {"name":"Tenant 3"}' in err
    assert err.endswith("a dry run: 1 would be issued, 2 already issued, 1 would fail; nothing was sent\n")
    assert (server.fake.counts.requests, Path("keys.jsonl").read_bytes()) == (3, before)


def test_a_folder_in_which_no_file_can_be_made_is_told(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run would tell it."""
    tenants(1)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    code, _, err = run(*DRY)

    assert code == 2
    assert "no file can be made in" in err


def test_many_that_would_fail_are_counted(server: Server, run: Run) -> None:
    """The first of them with their reasons."""
    run("issue", tenants(25), "--out", "keys.jsonl")
    Path("t.csv").write_text("ticket,name\n" + "".join(f"t{number},Other\n" for number in range(25)))
    code, _, err = run(*DRY)

    assert code == 1
    assert err.count("asked for before with another name") == 20
    assert "0 would be issued" in err
    assert "25 would fail" in err


def test_keys_of_an_earlier_run_that_no_file_has_are_told(server: Server, run: Run) -> None:
    """They would be written first."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    with contextlib.closing(sqlite3.connect("keys.jsonl.ledger")) as connection, connection:
        connection.execute("UPDATE tickets SET state = 'issued', secret_id = 1 WHERE ticket = 't1'")
        connection.execute("INSERT OR REPLACE INTO secrets VALUES (1, CAST('secret-of-t1-0123456789' AS BLOB))")
    _, _, err = run(*DRY)

    assert "1 keys of an earlier run, which are only in keys.jsonl.ledger, would be written" in err


def test_lines_without_a_ledger_count_as_issued(server: Server, run: Run) -> None:
    """As they do in a run."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    Path("keys.jsonl.ledger").unlink()
    tenants(4)
    _, _, err = run(*DRY)

    assert "a dry run: 1 would be issued in about 0:01, 3 already issued, 0 would fail" in err
    assert not Path("keys.jsonl.ledger").exists()


def test_a_ledger_in_postgres_is_looked_at(
    postgres_dsn: str, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its address in the environment."""
    asyncio.run(PostgresLedger(postgres_dsn).create_schema())
    monkeypatch.setenv("RESPAN_LEDGER", postgres_dsn)
    run("issue", tenants(2), "--out", "keys.jsonl")
    tenants(3)
    code, _, err = run(*DRY)

    assert code == 0
    assert "a dry run: 1 would be issued in about 0:01, 2 already issued, 0 would fail" in err
    assert len(held()) == server.fake.counts.requests == 2


def test_the_sandbox_has_a_dry_run_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an API key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESPAN_API_KEY", raising=False)
    tenants(2)

    first = run(*DRY, "--sandbox")
    run(*DRY[:-1], "--sandbox")
    second = run(*DRY, "--sandbox")

    assert (first[0], second[0]) == (0, 0)
    assert "2 would be issued in about 0:00, 0 already issued" in first[2]
    assert "0 would be issued in about 0:00, 2 already issued" in second[2]


WRONG = {
    "a bad line": (("t.csv", "--out", "k.jsonl"), "ticket\na\na\n", "1 bad line; nothing was sent"),
    "a folder that is not there": (
        ("t.csv", "--out", "none/k.jsonl"),
        "ticket\na\n",
        "none/k.jsonl: there is no folder ",
    ),
    "a ledger in none": (
        ("t.csv", "--out", "k.jsonl", "--ledger", "none/k.db"),
        "ticket\na\n",
        "none/k.db: there is no folder ",
    ),
    "what is no ledger": (("t.csv", "--ledger", "t.csv"), "ticket\na\n", "respan-keys: t.csv: "),
    "what is no place for keys": (("t.csv", "--out", "t.csv"), "ticket\na\n", "respan-keys: t.csv"),
    "a ledger by force": (("t.csv", "--force-ledger"), "ticket\na\n", "--dry-run: expected no --force-ledger"),
}
"""What keeps a run from beginning: its arguments, the file, and what is said."""


@pytest.mark.parametrize("what", WRONG)
def test_what_would_end_a_run_ends_a_dry_one(what: str, server: Server, run: Run) -> None:
    """With the same code, and nothing made."""
    argv, text, said = WRONG[what]
    Path("t.csv").write_text(text)
    code, _, err = run("issue", *argv, "--dry-run")

    assert code == 2
    assert said in err
    assert Path("t.csv").read_text() == text
    assert [path.name for path in Path().iterdir()] == ["t.csv"]
    assert server.fake.counts.requests == 0


def test_a_dry_run_without_an_api_key(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told that the run would have none."""
    monkeypatch.delenv("RESPAN_API_KEY")
    tenants(1)

    assert run(*DRY)[0] == 2
