"""Ways in through text that people see or programs read on: terminals, CSV files, JSON lines; and the files of keys."""

import csv
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import respan_async
from respan_async import CreatedKey, Secret, TemporaryKey
from respan_async._http.retry_after import retry_after
from respan_async.cli.csv_reader import open_csv
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.ticket_source import COLUMNS, KEYS, check
from respan_async.errors import LedgerError
from respan_async.issuing import JSONLinesSink
from respan_async.issuing.jsonlines_sink import line_of
from tests.integration import cli_world
from tests.integration.cli_world import Run, Server

server_fixture = cli_world.server_fixture
run_fixture = cli_world.run_fixture

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\r\n{}\x7f\u202e\u2066\u2028\u2029\x85\u200b\U000e0041é漢🔑"
"""What terminals obey, what runs backwards, what readers take for the end of a line; and letters that may stay."""


# ------------------------------------------------------------------------- terminal


def test_a_name_does_not_drive_the_terminal(server: Server, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever may name a key of the account could otherwise write into the terminal of whoever lists them."""
    del capfd
    code, (made,), _ = run("create", "--name", "innocent")
    assert code == 0
    server.fake.keys[made["id"]].name = EVIL
    for command in (["list"], ["show", made["id"]], ["update", made["id"], "--max-usage", "5"]):
        code, (shown,), err = run(*command)
        assert code == 0
        assert err.replace("\n", "").isprintable()
        assert shown["name"] == EVIL  # as JSON has it, and `run` has read it


def test_a_line_of_a_key_prints_and_is_one_line_to_every_reader() -> None:
    """Also to those that end lines at U+0085 and U+2028; and it says the same."""
    key = TemporaryKey(id=EVIL, name=EVIL, prefix=EVIL, status=EVIL, extra={EVIL: EVIL})
    text = line_of(key, "tenant-1").decode()

    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    assert json.loads(text)["name"] == EVIL
    assert "é漢🔑" in text


def test_an_error_of_the_server_does_not_drive_the_terminal(server: Server, run: Run) -> None:
    """Nor do an id that somebody was told to paste, a file's name, and a fault of one's own."""
    for command in (
        ["show", EVIL.replace("\x00", "")],
        ["delete", EVIL],
        ["issue", "none\x1b[2J\r.csv"],
        ["status", "--ledger", "none\x1b[2J\r.db"],
    ):
        code, out, err = run(*command)
        assert code in (1, 2)
        assert out == []
        assert len(err.splitlines()) == 1
        assert err[:-1].isprintable()


def test_a_name_does_not_become_a_command(server: Server, run: Run) -> None:
    """What is said to be typed next is quoted: `respan-keys delete -- ID`, with an id of the server's making."""
    Path("t.csv").write_text("ticket\nt0\n")
    server.fake.script("not_json", operation="create")
    _, _, err = run("issue", "t.csv", "--out", "keys $(touch owned).jsonl")

    assert "'keys $(touch owned).jsonl" in err
    assert not Path("owned").exists()


# ------------------------------------------------------------------------------ CSV

FORMULAS = ["=cmd|'/c calc'!A1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "=HYPERLINK(1)", '"=1"']


def test_no_csv_is_ever_written() -> None:
    """So there is no formula for a spreadsheet to run: what is written is JSON lines."""
    for path in Path(respan_async.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "csv.writer" not in text
        assert "DictWriter" not in text


def test_a_formula_is_a_text_all_the_way(server: Server, run: Run) -> None:
    """Read from a file, sent, listed and kept as it is: nobody computes it."""
    with Path("t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ticket", "name"], *([f"t{n}", name] for n, name in enumerate(FORMULAS))])
    code, out, _ = run("issue", "t.csv", "--out", "-")

    assert code == 0
    assert len(out) == len(FORMULAS)
    sent = {record.name.rpartition(" ~")[0] for record in server.fake.keys.values()}
    assert sent == {name.strip() for name in FORMULAS}


BOMBS: dict[str, bytes] = {
    "a quote never closed": b'ticket,name\nt1,"' + b"x" * 3_000_000,
    "a quote never closed, in lines": b'ticket,name\nt1,"' + b"x\n" * 1_500_000,
    "a line without an end": b"ticket,name\n" + b"x" * 3_000_000,
    "a header without an end": b"x," * 1_500_000,
    "cells without an end": b"ticket,name\nt1" + b"," * 1_000_000,
    "a cell without an end": b"ticket,name\n" + b"x" * 200_000 + b",a\n",
    "quotes alone": b"ticket,name\n" + b'"' * 1_000_001,
    "NULs": b"ticket,name\n" + b"\0" * 1000,
    "another alphabet": "ticket,name\nt1,a\n".encode("utf-16"),
    "a name as long as a file": b"ticket,name\nt1," + b"=" * 100_000 + b"\n",
    "a number as long as a file": b"ticket,max_usage\nt1," + b"9" * 100_000 + b"\n",
    "a date as long as a file": b"ticket,expiry_date\nt1," + b"2" * 100_000 + b"\n",
    "a lifetime as long as a file": b"ticket,expires_in\nt1," + b"9" * 100_000 + b"d\n",
    "policies as deep as a file": b"ticket,limit_policies\nt1," + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_csv_bomb_is_refused_soon(bomb: str, tmp_path: Path) -> None:
    """In a sentence or two that a terminal can show, before anything is sent."""
    path = tmp_path / "t.csv"
    path.write_bytes(BOMBS[bomb])

    began = time.process_time()
    with open_csv(str(path), known=COLUMNS, keys=KEYS) as sheet, pytest.raises(WrongUse) as caught:
        check(sheet)

    assert time.process_time() - began < 2
    complaints: list[str] = getattr(caught.value, "complaints", [])
    assert 1 <= len(complaints) <= 21
    assert max(map(len, complaints)) < 1000


def test_a_byte_order_mark_does_not_hide_a_column(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfticket,name\nt1,a\n")

    with open_csv(str(path), known=COLUMNS, keys=KEYS) as sheet:
        assert len(check(sheet)) == 1


# ------------------------------------------------------------------------ regex, time


ENDLESS = ["1" * 8_000_000, "0." + "0" * 8_000_000, "Wed, " * 100_000, "(" * 100_000, "1_" * 100_000, " " * 1_000_000]


@pytest.mark.parametrize("value", ENDLESS, ids=lambda value: f"{value[:5]}...")
def test_a_retry_after_without_an_end_takes_no_time(value: str) -> None:
    """As a header, and in a body of 8 MB."""
    now = datetime.now(UTC)
    began = time.process_time()
    retry_after({"Retry-After": value[:8000], "Date": value[:8000]}, b"", now)
    retry_after({}, json.dumps({"retry_after": value}).encode(), now)

    assert time.process_time() - began < 1


# ------------------------------------------------------------------------------ files


def links(folder: Path, target: Path) -> dict[str, Path]:
    """Make every kind of trap, and name it."""
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "symlink").symlink_to(target)
    (folder / "hard link").hardlink_to(target)
    (folder / "link to standard output").symlink_to("/dev/stdout")
    (folder / "directory").mkdir()
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "world-writable").touch()
    (folder / "world-writable").chmod(0o666)
    (folder / "group-readable").touch()
    (folder / "group-readable").chmod(0o640)
    return {path.name: path for path in folder.iterdir()}


def test_an_output_that_is_a_trap_gets_no_key(tmp_path: Path, server: Server, run: Run) -> None:
    """By `--out` and by the sink itself: nothing is written through it, nothing is made, and no key is asked for."""
    target, folder = tmp_path / "target", tmp_path / "traps"
    target.write_text("")
    target.chmod(0o600)
    folder.mkdir()
    Path("t.csv").write_text("ticket\nt0\n")
    for path in (*links(folder, target).values(), Path("/dev/null"), Path("/dev/stdout"), Path("/proc/self/fd/1")):
        with pytest.raises(LedgerError):
            JSONLinesSink(path)
        code, out, err = run("issue", "t.csv", "--out", str(path), "--ledger", str(tmp_path / "keys.db"))
        assert (code, out) == (2, [])
        assert len(err.splitlines()) == 1

    assert target.read_bytes() == b""
    assert not (folder / "nowhere").exists()
    assert not (tmp_path / "keys.db").exists()
    assert server.fake.counts.requests == 0


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_no_umask_opens_a_file_of_keys(umask: int, tmp_path: Path) -> None:
    """Its owner's alone, from birth."""
    before = os.umask(umask)
    try:
        with JSONLinesSink(tmp_path / "keys.jsonl") as sink:
            mode = os.stat(tmp_path / "keys.jsonl").st_mode  # noqa: PTH116  pathlib would block as well
            await sink("t0", CreatedKey(id="a", api_key=Secret("b")))
    finally:
        os.umask(before)

    assert mode & 0o177 == 0


def test_a_linked_folder_is_no_trap(tmp_path: Path, server: Server, run: Run) -> None:
    """As /tmp is on some systems."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    Path("t.csv").write_text("ticket\nt0\n")
    code, _, _ = run("issue", "t.csv", "--out", str(tmp_path / "link" / "keys.jsonl"))

    assert code == 0
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "real").iterdir()} == {0o600}


def test_a_ticket_does_not_end_its_line(server: Server, run: Run) -> None:
    """A ticket with a line of JSON in it is refused, or stays within its own."""
    forged = '{"ticket":"t9","id":"evil","api_key":"evil"}'
    with Path("t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["ticket"], [forged], ['t"},{"x":"'], ["t\\u000a"]])
    code, _, _ = run("issue", "t.csv", "--out", "keys.jsonl")
    held: list[dict[str, Any]] = cli_world.held()
    Path("t.csv").write_text('ticket\n"t\n{}"\n"t\u2028{}"\n')
    refused, _, err = run("issue", "t.csv", "--out", "keys.jsonl")

    assert code == 0
    assert {line["ticket"] for line in held} == {forged, 't"},{"x":"', "t\\u000a"}
    assert refused == 2
    assert "printable" in err
