"""`respan-keys` on a full disk: of keys, of the ledger, behind standard output."""

import contextlib
import re
import sqlite3
from collections import Counter
from pathlib import Path

from tests.integration.cli_world import (
    Run,
    Server,
    files_end_at,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    standard_output,
    tenants,
)

ISSUE = ("issue", "t.csv", "--out", "keys.jsonl", "--max-in-flight", "8", "--rate", "1000/1s")


def test_a_full_disk(server: Server, run: Run) -> None:
    """Keys that cannot be delivered stay in the ledger, the job stops, and the same command delivers them."""
    tenants(100)
    size = 2_000_000
    Path("keys.jsonl").touch(0o600)
    Path("keys.jsonl").write_text(f'{{"ticket":"filler","id":"{"x" * (size - 5_000)}"}}\n')
    with files_end_at(size):
        code, _, err = run(*ISSUE)

    delivered = held()[1:]
    (kept,) = re.findall(r"(\d+) keys are in keys.jsonl.ledger, and could not be delivered yet", err)
    assert code == 1
    assert 5 < len(delivered) < 30
    assert int(kept) > 0
    assert "respan-keys: keys.jsonl: File too large; no more keys are asked for" in err
    assert "could not be delivered: OSError: File too large" in err
    assert "to go on: respan-keys issue" in err
    assert len(server.ids()) == len(delivered) + int(kept)
    with files_end_at(size):
        code, _, err = run(*ISSUE)
    assert code == 1
    assert err.splitlines()[-1] == "respan-keys: keys.jsonl: File too large"
    assert len(server.ids()) == len(delivered) + int(kept)
    code, _, err = run(*ISSUE)
    assert code == 0
    assert " keys of an earlier run, which were only in keys.jsonl.ledger, were written to keys.jsonl" in err
    assert Counter(line["ticket"] for line in held()[1:]) == {f"t{n}": 1 for n in range(100)}
    assert len(server.ids()) == 100


def test_a_full_disk_under_the_ledger(server: Server, run: Run) -> None:
    """A key that cannot be noted is not asked for: the job stops, says so once, and the same command goes on."""
    tenants(150)
    with files_end_at(100_000):
        code, _, err = run(*ISSUE)

    assert code == 1
    assert err.count("; no more keys are asked for") == 1
    assert "the ledger could not be written" in err
    assert len(held()) < 150
    assert run(*ISSUE)[0] == 0
    assert run("sweep", "--out", "keys.jsonl", "--grace", "0", "--taken-over")[0] == 0
    assert Counter(line["ticket"] for line in held()) == {f"t{n}": 1 for n in range(150)}
    assert server.ids() == {line["id"] for line in held()}


def test_a_full_disk_behind_standard_output(server: Server, run: Run) -> None:
    """Standard output is no safer a place."""
    tenants(4)
    with standard_output("/dev/full"):
        issued = run("issue", "t.csv")
        created = run("create")

    assert issued[0] == created[0] == 1
    assert "standard output: No space left on device" in issued[2]
    assert "could not be written to standard output, and was revoked" in created[2]


def test_a_key_that_can_neither_be_shown_nor_revoked_is_named(server: Server, run: Run) -> None:
    """With the command that revokes it later."""
    server.fake.chance("conflict_409", 1, operation="delete")
    with standard_output("/dev/full"):
        code, _, err = run("create")
    server.fake.chance("conflict_409", 0, operation="delete")

    (record,) = server.fake.alive()
    assert code == 1
    assert f"key {record.id} could not be written to standard output nor revoked (" in err
    assert "it is alive, and nobody's: respan-keys delete -- " in err
    assert run("delete", "--", record.id)[0] == 0
    assert server.ids() == set()


def test_a_key_that_can_be_neither_delivered_nor_revoked_is_named(server: Server, run: Run) -> None:
    """Nothing remembers it, so the way to revoke it is said: the command, with its id."""
    tenants(1)
    server.fake.chance("conflict_409", 1, operation="delete")
    with standard_output("/dev/full"):
        code, _, err = run("issue", "t.csv")

    (alive,) = server.ids()
    assert code == 1
    assert f"t.csv:2: t0: key {alive} could not be put on record nor revoked (" in err
    assert "it is alive, and nobody's: respan-keys delete -- " in err
    assert alive in err.partition("respan-keys delete -- ")[2]


def test_a_ledger_that_fails_half_way_is_told_once_and_what_it_may_have_left_as_well(server: Server, run: Run) -> None:
    """Of a ticket whose answer had been lost before it is said that a key may have been made; of the others nothing."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    with contextlib.closing(sqlite3.connect("keys.jsonl.ledger")) as ledger, ledger:
        ledger.execute(
            "CREATE TRIGGER full BEFORE INSERT ON attempts WHEN (SELECT count(*) FROM attempts) >= 2 "
            "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    server.fake.script("lose_answer_after_create")
    first = run("issue", tenants(9), "--out", "keys.jsonl", "--max-in-flight", "1")
    second = run("issue", "t.csv", "--out", "keys.jsonl", "--max-in-flight", "8")

    for code, _, err in (first, second):
        assert code == 1
        assert err.count("; no more keys are asked for") == 1
    assert "t.csv:3: t1: " in first[2]
    assert "disk is full; a key may have been made that nobody holds" in first[2]
    assert "1 failed, 7 not sent, 0 refused, 1 suspects" in first[2]
    assert "0 failed, 8 not sent, 0 refused, 1 suspects" in second[2]
    assert server.fake.counts.requests == 2
