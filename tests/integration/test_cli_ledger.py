"""`respan-keys` and its ledger: what is remembered from run to run, what `status`, `sweep` and `ledger rotate` do."""

import base64
import contextlib
import io
import json
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from respan_async import AsyncRespan, ConfigurationError
from respan_async.cli import main
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.issuing.sqlite._liveness_lock import LivenessLock
from tests.integration.cli_world import (
    Run,
    Server,
    World,
    files_end_at,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
    world_fixture,  # noqa: F401  a fixture
)

LEDGER = "keys.jsonl.ledger"
ISSUE = ("issue", "t.csv", "--out", "keys.jsonl")
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3)]


def status_of(run: Run) -> dict[str, Any]:
    code, (status,), _ = run("status", "--ledger", LEDGER, "--json")
    assert code == 0
    return status


def test_names_carry_a_tag(server: Server, run: Run) -> None:
    """A name is what the file says and a tag; the ticket is the caller's own."""
    run("issue", tenants(2), "--out", "keys.jsonl")

    for line in held():
        name, mark, tag = line["name"].partition(" ~")
        assert name == f"Tenant {line['ticket'][1:]}"
        assert (mark, len(tag)) == (" ~", 12)


def test_nothing_is_left_in_the_ledger_but_what_is_known(server: Server, run: Run) -> None:
    """The ledger beside --out is its owner's alone, and has no secret once all is delivered."""
    run("issue", tenants(3), "--out", "keys.jsonl")

    assert Path(LEDGER).stat().st_mode & 0o777 == 0o600
    assert status_of(run)["tickets"]["delivered"] == 3
    content = Path(LEDGER).read_bytes()
    assert not any(line["api_key"].encode() in content for line in held())
    assert sorted(path.name for path in Path().iterdir()) == ["keys.jsonl", LEDGER, "t.csv"]


def test_other_fields_for_a_known_ticket(server: Server, run: Run) -> None:
    """A ticket keeps its fields: with others its line fails, and the rest goes on."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    Path("t.csv").write_text("ticket,name\nt0,Tenant 0\nt1,Another\nt2,Tenant 2\nt3,Tenant 3\n")
    code, _, err = run(*ISSUE)

    assert code == 1
    assert "t.csv:3: t1: ticket 't1': asked for before with another name; a new issuance is a new ticket" in err
    assert "1 issued in " in err
    assert "2 already issued, 1 failed, 0 not sent" in err
    assert "1 of the lines that failed will fail again as long as their fields are others than before" in err
    assert "to go on" not in err, "the same command cannot succeed"
    assert len(held()) == 4


def test_a_damaged_ticket_holds_up_no_other(server: Server, run: Run) -> None:
    """It is told by its name and left as it is; the others of that run are written, and new ones issued."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    Path("keys.jsonl").unlink()
    with contextlib.closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE tickets SET state = 'issued', key = '{' WHERE ticket = 't1'")
        secret = "INSERT INTO secrets VALUES (90, CAST('secret-of-t0-0123456789' AS BLOB))"
        connection.execute(secret)
        connection.execute("UPDATE tickets SET state = 'issued', secret_id = 90 WHERE ticket = 't0'")
    tenants(4)
    code, _, err = run(*ISSUE)

    assert code == 1
    assert "ticket 't1': the ledger's record is damaged" in err
    assert [line["ticket"] for line in held()] == ["t0", "t3"]


@pytest.mark.parametrize("cipher_key", [KEYS[0], None], ids=["encrypted", "plain"])
def test_a_damaged_secret_holds_up_no_other(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, cipher_key: str | None
) -> None:
    """One flipped bit is told with its ticket and what to do; the others of that run are written, new ones issued."""
    if cipher_key is not None:
        monkeypatch.setenv("RESPAN_LEDGER_KEY", cipher_key)
    undelivered(server, run, 3)
    with contextlib.closing(sqlite3.connect(LEDGER)) as connection, connection:
        ((number, key_id, secret),) = connection.execute(
            "SELECT secret_id, key_id, secret FROM tickets JOIN secrets ON id = secret_id WHERE ticket = 't1'"
        )
        changed = secret[:30] + bytes([secret[30] ^ 0x80]) + secret[31:]
        connection.execute("UPDATE secrets SET secret = ? WHERE id = ?", (changed, number))
    tenants(4)
    code, _, err = run(*ISSUE)

    assert code == 1
    assert "warning: the secret of ticket 't1' " in err
    assert f"; it is left as it is: revoke its key, {key_id}, and issue another ticket in its place" in err
    assert sorted(line["ticket"] for line in held()) == ["t0", "t2", "t3"]


def test_a_ticket_with_a_damaged_id_holds_up_no_command(server: Server, run: Run) -> None:
    """It is shown with its bytes escaped; everything else is written and issued, as a dry run has said."""
    undelivered(server, run, 3)
    with contextlib.closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE tickets SET ticket = CAST(x'7431ff' AS TEXT) WHERE ticket = 't1'")
    Path("t.csv").write_text("ticket,name\nt0,Tenant 0\nt2,Tenant 2\nt3,Tenant 3\n")

    dry, _, foreseen = run(*ISSUE, "--dry-run")
    code, _, err = run(*ISSUE)

    assert (dry, code) == (0, 0)
    assert "a dry run: 1 would be issued" in foreseen
    assert r"warning: ticket 't1\xff': the ledger's record is damaged; it is left as it is: revoke its key, " in err
    assert sorted(line["ticket"] for line in held()) == ["t0", "t2", "t3"]
    assert [left["ticket"] for left in status_of(run)["undelivered"]] == [r"t1\xff"]


def test_lines_that_are_gone(server: Server, run: Run) -> None:
    """A file of keys that was removed does not make its tickets new: they are not issued again, and that is said."""
    run("issue", tenants(3), "--out", "keys.jsonl")
    Path("keys.jsonl").unlink()
    code, _, err = run(*ISSUE)

    assert code == 0
    assert "3 already issued" in err
    assert "3 of those already issued are not in keys.jsonl: their keys were delivered before" in err
    assert server.fake.counts.created == 3


def test_the_ledger_of_another_account(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger belongs to its account, unless it is forced."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    monkeypatch.setenv("RESPAN_API_KEY", "another")
    for argv in (ISSUE, ("sweep", "--ledger", LEDGER)):
        code, _, err = run(*argv)
        assert code == 2
        assert err == (
            f"respan-keys: {LEDGER}: the ledger of another account or base URL. If it was opened by an account's name "
            "(account=, --account), give that again; else give this account a file of its own, or use --force-ledger\n"
        )
    assert run(*ISSUE, "--force-ledger")[0] == 0


def test_the_ledger_of_a_named_account(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to a word, so the API key may be rotated; that word is one word."""
    named = ("--account", "acme")
    assert run("issue", tenants(1), "--out", "keys.jsonl", *named)[0] == 0
    monkeypatch.setenv("RESPAN_API_KEY", "another")

    assert run(*ISSUE, *named)[0] == 0
    assert run("sweep", "--ledger", LEDGER, *named)[0] == 0
    code, _, err = run(*ISSUE, "--account", "two words")
    assert code == 2
    assert "account: expected one word, got 'two words'" in err


def test_what_is_no_ledger(server: Server, run: Run) -> None:
    """A ledger that cannot be one ends with 2 and one sentence, before anything is sent."""
    tenants(1)
    Path("notes.txt").write_text("hello, I am no ledger\n" * 100)
    Path("notes.txt").chmod(0o600)
    Path("open.db").touch(0o644)
    Path("open.db").write_text("x")
    for argv in (
        [*ISSUE, "--ledger", "notes.txt"],
        [*ISSUE, "--ledger", "open.db"],
        [*ISSUE, "--ledger", "none/keys.db"],
        [*ISSUE, "--ledger", "."],
        [*ISSUE, "--ledger", "keys.jsonl"],
        ["status", "--ledger", "notes.txt"],
        ["status", "--ledger", "none.db"],
        ["status", "--out", "-"],
        ["sweep", "--ledger", "none.db"],
        ["ledger", "rotate", "--ledger", "none.db"],
    ):
        code, _, err = run(*argv)
        assert (code, len(err.splitlines())) == (2, 1), (argv, err)
        assert err.startswith("respan-keys: ")
        assert not Path("keys.jsonl").exists(), "a file of keys was made for nothing"
    Path("keys.jsonl").touch(0o600)
    assert run(*ISSUE, "--ledger", ".")[0] == 2
    assert Path("keys.jsonl").exists(), "a file that was there already was removed"
    assert Path("notes.txt").read_text() == "hello, I am no ledger\n" * 100
    assert not Path("none.db").exists()
    assert server.fake.counts.requests == 0


def test_a_ledger_of_a_newer_version(server: Server, run: Run) -> None:
    """A ledger that this version cannot read is left alone, by every command."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    with closing(sqlite3.connect(LEDGER)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for argv in (ISSUE, ("status", "--ledger", LEDGER), ("sweep", "--ledger", LEDGER)):
        code, _, err = run(*argv)
        assert code == 2
        assert "written by a newer version of this library" in err


def test_standard_output_with_a_ledger(server: Server, run: Run) -> None:
    """With a ledger of its own, a run to standard output is remembered as well."""
    code, out, _ = run("issue", tenants(3), "--ledger", LEDGER)
    assert (code, len(out)) == (0, 3)

    code, out, err = run("issue", "t.csv", "--ledger", LEDGER)

    assert (code, out) == (0, [])
    assert "3 already issued" in err
    assert server.fake.counts.created == 3


def test_standard_output_without_a_ledger(server: Server, run: Run) -> None:
    """Without one, nothing is remembered; a suspect is named, as nobody else could."""
    server.fake.script("lose_answer_after_create")
    code, out, err = run("issue", tenants(1))

    assert (code, len(out)) == (0, 1)
    assert "suspect: name 'Tenant 0 ~" in err
    assert "1 suspects" in err
    assert sorted(path.name for path in Path().iterdir()) == ["t.csv"]
    assert len(run("issue", "t.csv")[1]) == 1


def test_sandbox_and_account_do_not_mix(server: Server, run: Run) -> None:
    """A make-believe run has a ledger like any other, which goes with no account; the server's address is no matter."""
    assert run("issue", tenants(3), "--sandbox", "--out", "trial.jsonl", "--ledger", LEDGER)[0] == 0
    assert run("issue", "t.csv", "--sandbox", "--out", "trial.jsonl", "--ledger", LEDGER)[0] == 0
    code, _, err = run("issue", "t.csv", "--out", "keys.jsonl", "--ledger", LEDGER)

    assert code == 2
    assert "the ledger of another account" in err
    assert server.fake.counts.requests == 0


def test_a_ledger_that_was_never_used_has_nothing_to_rotate(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first run was killed before it had bound its ledger: it is bound to nothing, and stays so."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("DELETE FROM meta WHERE name = 'account'")
    monkeypatch.setenv("RESPAN_LEDGER_KEY", base64.b64encode(b"k" * 32).decode())

    code, _, err = run("ledger", "rotate", "--ledger", LEDGER)

    assert code == 2
    assert "nothing was issued with this ledger yet" in err
    monkeypatch.delenv("RESPAN_LEDGER_KEY")
    assert run(*ISSUE)[0] == 0


def test_status_by_a_link_shows_what_was_written_last(server: Server, run: Run) -> None:
    """The log lies beside the file, not beside the link to it."""
    run("issue", tenants(2), "--out", "keys.jsonl")
    Path("link").symlink_to(LEDGER)

    code, (status,), err = run("status", "--ledger", "link", "--json")

    assert (code, err) == (0, "")
    assert status["attempts"]["recorded"] == 2


def test_a_sandbox_takes_no_ledger_by_force(server: Server, run: Run) -> None:
    """It lets go of suspects, which in another account's ledger are real."""
    server.fake.script("html_502")
    run("issue", tenants(1), "--out", "keys.jsonl")

    code, _, err = run(*ISSUE, "--sandbox", "--force-ledger")

    assert code == 2
    assert "--force-ledger: expected a run that is no --sandbox" in err
    assert status_of(run)["attempts"]["suspect"] == 1


async def test_an_account_of_its_own_is_one_word(respan: AsyncRespan) -> None:
    """What a ledger is bound to in place of the base URL is refused at once when it could not be compared."""
    account: Any
    for account in ("two words", "", " ", 5):
        with pytest.raises(ConfigurationError, match="expected one word"):
            Issuer(respan, SQLiteLedger(":memory:"), account=account)


def test_suspects_of_the_sandbox_die_with_it(server: Server, run: Run) -> None:
    """What a killed run left on a make-believe server is gone with that server."""
    run("issue", tenants(1), "--sandbox", "--out", "keys.jsonl")
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE attempts SET state = 'suspect'")
    run(*ISSUE, "--sandbox")

    assert status_of(run)["attempts"]["suspect"] == 0


def test_sweep(server: Server, run: Run) -> None:
    """`sweep` revokes what lost answers left, and nothing else; `status` names it before, and nothing after."""
    server.fake.script("lose_answer_after_create", "ok", "lose_answer_after_create", "no_api_key")
    assert run("issue", tenants(4), "--out", "keys.jsonl", "--max-in-flight", "1")[0] == 1
    orphans = {record.id for record in server.fake.unheld(line["id"] for line in held())}
    status = status_of(run)
    assert len(orphans) == 3
    assert len(status["suspects"]) == status["attempts"]["suspect"] == 3

    code, out, err = run("sweep", "--ledger", LEDGER, "--grace", "0.1")

    assert (code, out) == (0, [])
    assert "3 suspects; the list is read 0.1 s after the last of them was sent" in err
    assert all(f"key {orphan} is revoked: " in err for orphan in orphans)
    assert err.endswith("3 revoked, 0 expired by themselves, 0 suspects left\n")
    assert server.ids() == {line["id"] for line in held()}
    assert status_of(run)["suspects"] == []


def test_sweep_leaves_what_it_cannot_prove(server: Server, run: Run) -> None:
    """An attempt whose key is not to be found stays a suspect, and is named; and when that ends is said."""
    server.fake.script("html_502")
    Path("t.csv").write_text("ticket,name,expiry_date\nt0,Tenant 0,2100-01-31T12:00:00Z\n")
    run("issue", "t.csv", "--out", "keys.jsonl")
    code, _, err = run("sweep", "--ledger", LEDGER, "--grace", "0")
    server.fake.script("html_502")
    run("issue", tenants(1, "u.csv"), "--out", "others.jsonl", "--ledger", "others.ledger")
    endless = run("sweep", "--ledger", "others.ledger", "--grace", "0")[2]

    assert code == 0
    assert "suspect: name 'Tenant 0 ~" in err
    summary, end = err.splitlines()[-2:]
    assert summary == "0 revoked, 0 expired by themselves, 1 suspects left"
    assert end.endswith("an hour after its expiry: the last of these at 2100-01-31T13:00:00+00:00, by the next sweep")
    assert endless.endswith("; 1 without an expiry stays until the key is found, if there is one\n")


def test_a_suspect_of_which_nothing_more_was_noted_says_no_more(server: Server, run: Run) -> None:
    """Its process may have been killed, or its disk full after the answer had come: the ledger does not know."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        connection.execute("UPDATE attempts SET state = 'suspect'")

    assert [suspect["reason"] for suspect in status_of(run)["suspects"]] == ["no answer was noted"]


def test_sweep_with_a_key_that_is_refused(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that may not list ends with 3."""
    server.fake.script("html_502")
    run("issue", tenants(1), "--out", "keys.jsonl")
    monkeypatch.setenv("RESPAN_API_KEY", "forbidden")

    assert run("sweep", "--ledger", LEDGER, "--grace", "0", "--force-ledger")[0] == 3


def undelivered(server: Server, run: Run, count: int) -> None:
    """Leave secrets in the ledger."""
    tenants(count)
    Path("keys.jsonl").touch(0o600)
    Path("keys.jsonl").write_text(f'{{"ticket":"filler","id":"{"x" * 3_999_900}"}}\n')
    with files_end_at(4_000_000):
        code, _, err = run(*ISSUE)
    assert code == 1, err
    Path("keys.jsonl").write_bytes(b"")


def test_status(server: Server, run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` counts tickets and attempts by state, and lists suspects and what is not delivered, without secrets."""
    server.fake.script("lose_answer_after_create")
    run("issue", tenants(1, "first.csv"), "--out", "first.jsonl", "--ledger", LEDGER)
    undelivered(server, run, 4)
    before = Path(LEDGER).read_bytes()
    with monkeypatch.context() as changed:
        changed.setattr(sys.stdout, "isatty", lambda: True)
        changed.setitem(sys.modules, "rich.console", None)
        code = main(("status", "--out", "keys.jsonl"))
    out, err = capfd.readouterr()

    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["tickets", "issued", "3"] in rows
    assert ["tickets", "delivered", "1"] in rows
    assert ["attempts", "suspect", "1"] in rows
    assert "suspects: keys that may be alive and held by nobody" in out
    assert "APIConnectionError" in out
    assert "not delivered: secrets that are still in the ledger" in out
    assert [row[0] for row in rows if len(row) == 3 and row[0].startswith("t") and row[0][1:].isdigit()] == [
        "t1",
        "t2",
        "t3",
    ]
    assert not any(record.api_key in out for record in server.fake.keys.values())
    assert Path(LEDGER).read_bytes() == before
    status = status_of(run)
    assert [left["ticket"] for left in status["undelivered"]] == ["t1", "t2", "t3"]
    assert run(*ISSUE)[0] == 0
    assert len(held()) == 3


def test_status_on_a_terminal(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, rich draws the tables."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)

    assert run("status", "--ledger", LEDGER) == (0, [], "")
    assert "┏━━━" in terminal.getvalue()
    assert "delivered" in terminal.getvalue()


def test_secrets_are_encrypted(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With RESPAN_LEDGER_KEY a kept secret is of no use to who reads the file, and is delivered all the same."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    undelivered(server, run, 2)
    content = b"".join(path.read_bytes() for path in Path().glob(f"{LEDGER}*"))
    assert not any(record.api_key.encode() in content for record in server.fake.keys.values())
    for key in ("", KEYS[1]):
        monkeypatch.setenv("RESPAN_LEDGER_KEY", key)
        code, _, err = run(*ISSUE)
        assert code == 2
        assert err.endswith("; expected its key in RESPAN_LEDGER_KEY or RESPAN_LEDGER_OLD_KEYS\n")
        assert held() == []
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])

    assert run(*ISSUE)[0] == 0
    assert {line["api_key"] for line in held()} == {record.api_key for record in server.fake.alive()}


def test_rotate(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ledger rotate` encrypts what is kept with the new key, after which the old one is not needed, nor an API key."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    undelivered(server, run, 3)
    api_key = os.environ["RESPAN_API_KEY"]
    monkeypatch.delenv("RESPAN_API_KEY")
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[2])
    rotate = ("ledger", "rotate", "--ledger", LEDGER)
    code, _, err = run(*rotate)
    assert code == 2
    assert "was encrypted with another key" in err
    monkeypatch.setenv("RESPAN_LEDGER_OLD_KEYS", f"{KEYS[1]}, {KEYS[0]}")

    assert run(*rotate) == (0, [], "3 secrets are encrypted anew\n")
    assert run(*rotate) == (0, [], "0 secrets are encrypted anew\n")
    monkeypatch.delenv("RESPAN_LEDGER_OLD_KEYS")
    monkeypatch.setenv("RESPAN_API_KEY", api_key)
    assert run(*ISSUE)[0] == 0
    assert {line["api_key"] for line in held()} == {record.api_key for record in server.fake.alive()}


@pytest.mark.parametrize(
    ("key", "old", "complaint"),
    [
        ("short", "", "RESPAN_LEDGER_KEY: expected 32 bytes as base64"),
        (KEYS[0], "x,y", "RESPAN_LEDGER_OLD_KEYS: expected keys of 32 bytes as base64"),
        ("", KEYS[0], "RESPAN_LEDGER_KEY: expected the key to encrypt with"),
    ],
)
def test_keys_that_are_none(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, key: str, old: str, complaint: str
) -> None:
    """A key in the environment that is none ends with 2, and is not shown."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", key)
    monkeypatch.setenv("RESPAN_LEDGER_OLD_KEYS", old)
    tenants(1)
    for argv in (ISSUE, ("ledger", "rotate", "--ledger", LEDGER)):
        Path(LEDGER).touch(0o600)
        code, _, err = run(*argv)
        assert code == 2
        assert complaint in err
        assert "short" not in err
    assert server.fake.counts.requests == 0


def test_without_the_extra_crypto(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without what encrypts with it ends with 2, and the command to install it."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    code, _, err = run("issue", tenants(1), "--out", "keys.jsonl")

    assert code == 2
    assert "pip install 'respan-async[crypto]'" in err


def test_status_of_a_running_issue(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` and `ledger rotate` do their work while a run goes on, which is not disturbed."""
    world.tenants(1000)
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    process = world.start(*ISSUE, "--rate", "40/1s")
    world.until_held(10)  # of which the last may not be noted as delivered yet
    code, (counts,), _ = run("status", "--out", "keys.jsonl", "--json")
    rotated = run("ledger", "rotate", "--out", "keys.jsonl")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=15)

    assert (code, rotated[0], process.returncode) == (0, 0, 130), err
    assert 5 <= counts["tickets"]["delivered"] < 1000
    assert counts["attempts"]["suspect"] == 0
    assert " 0 failed, " in err
    assert "0 suspects" in err
    assert world.server.fake.counts.alive == len(world.held())


def test_a_ledger_whose_log_was_removed_is_not_shown_as_if_it_were_whole(server: Server, run: Run) -> None:
    """After kill -9, and without the log, its file is an older state: `status` refuses it as `issue` does."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    killed = LivenessLock(Path(LEDGER))
    killed.acquire()
    killed.note(1000)
    older = run("status", "--out", "keys.jsonl")
    Path(LEDGER).write_bytes(b"")
    empty = run("status", "--out", "keys.jsonl", "--json")
    issued = run("issue", "t.csv", "--out", "keys.jsonl")
    killed.release()

    for code, out, err in (older, empty, issued):
        assert (code, out) == (2, [])
        assert err.startswith(f"respan-keys: {LEDGER}: what was written last is gone: its log, {LEDGER}-wal, ")


@pytest.mark.parametrize("world", [{"stall": 0.3}], indirect=True)
def test_what_a_second_interrupt_leaves_is_remembered(world: World, run: Run) -> None:
    """What was in the air when the process ended at once is known to `status`, from the first moment."""
    world.tenants(40)
    process = world.start(*ISSUE, "--rate", "1000/1s", "--max-in-flight", "8")
    world.until_held(3)
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    while "interrupted" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)

    _, (status,), _ = run("status", "--out", "keys.jsonl", "--json")
    assert process.returncode == 130
    assert f"{LEDGER} remembers them" in err
    assert status["attempts"]["intent"] + status["attempts"]["suspect"] > 0


def test_a_sweep_with_nothing_to_do(server: Server, run: Run) -> None:
    """It says so, and does not ask the server."""
    run("issue", tenants(2), "--out", "keys.jsonl")

    assert run("sweep", "--ledger", LEDGER) == (0, [], "0 revoked, 0 expired by themselves, 0 suspects left\n")
    assert server.fake.counts.requests == 2


def test_a_rotation_wants_a_key(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one there is nothing to encrypt with."""
    monkeypatch.delenv("RESPAN_LEDGER_KEY", raising=False)
    run("issue", tenants(1), "--out", "keys.jsonl")

    code, _, err = run("ledger", "rotate", "--ledger", LEDGER)

    assert (code, err) == (2, "respan-keys: RESPAN_LEDGER_KEY: expected the key to encrypt with, got none\n")


def test_a_line_with_another_key_for_a_kept_ticket(server: Server, run: Run) -> None:
    """Somebody has put a line of their own into the file: it stays, the ledger keeps its key, and both are told."""
    undelivered(server, run, 3)
    Path("keys.jsonl").write_text('{"ticket":"t1","id":"theirs"}\n')
    code, _, err = run(*ISSUE)

    assert code == 1
    assert "t.csv:3: t1: keys.jsonl: has another key for ticket 't1', not " in err
    assert "1 failed, 0 not sent" in err
    assert sorted((line["ticket"], line["id"] == "theirs") for line in held()) == [
        ("t0", False),
        ("t1", True),
        ("t2", False),
    ]
    assert [left["ticket"] for left in status_of(run)["undelivered"]] == ["t1"]


def test_encryption_can_be_turned_on(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept in plain text is encrypted by `ledger rotate`, and delivered by the next run."""
    monkeypatch.delenv("RESPAN_LEDGER_KEY", raising=False)
    undelivered(server, run, 3)
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])

    assert run("ledger", "rotate", "--ledger", LEDGER) == (0, [], "3 secrets are encrypted anew\n")
    content = b"".join(path.read_bytes() for path in Path().glob(f"{LEDGER}*"))
    assert not any(record.api_key.encode() in content for record in server.fake.keys.values())
    assert run(*ISSUE)[0] == 0
    assert {line["api_key"] for line in held()} == {record.api_key for record in server.fake.alive()}


def test_a_run_that_missed_a_rotation_ends(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the former key it would write what nobody can read once that is gone; one sentence says what to do."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    run("issue", tenants(1), "--out", "keys.jsonl")
    monkeypatch.setenv("RESPAN_LEDGER_OLD_KEYS", KEYS[0])
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[1])
    assert run("ledger", "rotate", "--ledger", LEDGER)[0] == 0
    monkeypatch.delenv("RESPAN_LEDGER_OLD_KEYS")
    monkeypatch.setenv("RESPAN_LEDGER_KEY", KEYS[0])
    tenants(5)

    code, _, err = run(*ISSUE)

    assert code == 1
    assert f"{LEDGER}: its secrets were encrypted with another key than the one here; start again with that" in err
    assert server.fake.counts.created == 1
    assert run("sweep", "--ledger", LEDGER, "--grace", "0")[0] == 0


@pytest.mark.parametrize("around", ["{}\n", " {}\r\n"])
def test_a_key_may_end_with_a_line_break(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    """As a file has it that the environment was set from."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", around.format(KEYS[0]))
    monkeypatch.setenv("RESPAN_LEDGER_OLD_KEYS", around.format(KEYS[1]))

    assert run("issue", tenants(1), "--out", "keys.jsonl")[0] == 0


def test_the_schema_for_an_administrator(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The SQL is printed without a database, an API key or psycopg; a name that is none is refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESPAN_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)

    assert main(("ledger", "schema", "--schema", "respan_eu")) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert 'CREATE TABLE "respan_eu".tickets (' in out
    assert out.index("BEGIN;") < out.index("CREATE SCHEMA") < out.index("COMMIT;") < out.index("-- GRANT USAGE")

    assert main(("ledger", "schema", "--schema", 'a"b')) == 2
    assert capfd.readouterr().err.startswith("respan-keys: schema: expected a name of letters, digits and _, got")


@pytest.mark.parametrize("name", [b"k\xe9.jsonl", b"k\x1b[2J.jsonl", b"a[/b]k.jsonl"])
def test_status_of_a_ledger_with_any_name(world: World, name: bytes) -> None:
    """With bytes that are no UTF-8, with square brackets, or with what a terminal would obey; also as JSON."""
    world.tenants(1)
    out = os.fsdecode(name.replace(b"/", b""))

    assert world.run("issue", "t.csv", "--sandbox", "--out", out)[0] == 0
    piped, described = world.run("status", "--out", out), world.run("status", "--out", out, "--json")

    shown = name.replace(b"/", b"").decode(errors="backslashreplace").replace("\x1b", "\\x1b")
    assert piped == described
    assert described[0] == 0
    assert json.loads(described[1])["ledger"] == f"{shown}.ledger"
