"""What people expect of any command line: hints, tables where somebody looks, lines where a program reads."""

import io
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from respan_async.cli import main
from tests.integration.cli_world import (
    Run,
    Server,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
)


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output as a wide terminal, for rich; what is written past rich is not in it."""
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "200")
    return shown


WRONG = {
    ("issue", "t.csv", "--max-inflight", "5"): (
        "issue",
        "unrecognized arguments: --max-inflight 5; did you mean --max-in-flight?",
    ),
    ("issue", "t.csv", "--otu=k.jsonl"): ("issue", "unrecognized arguments: --otu=k.jsonl; did you mean --out?"),
    ("list", "--pagesize", "5"): ("list", "unrecognized arguments: --pagesize 5; did you mean --page-size?"),
    ("ledger", "rotate", "--legder", "x"): (
        "ledger rotate",
        "unrecognized arguments: --legder x; did you mean --ledger?",
    ),
    ("show", "key-1", "key-2"): ("show", "unrecognized arguments: key-2\n"),
    ("sandbox", "--xyz"): ("sandbox", "unrecognized arguments: --xyz\n"),
}
"""Arguments: the command whose usage is shown, and what is said."""


@pytest.mark.parametrize("argv", WRONG)
def test_an_unknown_option_is_told_by_its_command(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With that command's usage, and the option that was meant, where one is near."""
    command, said = WRONG[argv]

    with pytest.raises(SystemExit) as caught:
        main(argv)

    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith(f"usage: respan-keys {command} [-h]")
    assert f"respan-keys {command}: error: {said}" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("isue", "t.csv"), "respan-keys: error: unknown command 'isue'; there are issue, create, "),
        (
            ("ledger", "rotat"),
            "respan-keys ledger: error: unknown command 'rotat'; there are rotate, schema; did you mean",
        ),
        (("zzz",), "ledger, sandbox\n"),
    ],
)
def test_an_unknown_command_is_told_with_the_nearest(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the commands there are."""
    with pytest.raises(SystemExit) as caught:
        main(argv)

    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert said in err
    assert ("did you mean" in err) == (argv != ("zzz",))


def test_a_list_is_a_table_for_a_person(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all keys, with what they are told apart by, and without a secret."""
    terminal = a_terminal(monkeypatch)
    for number in range(25):
        run("create", "--name", f"tenant-{number}", "--expires-in", "1h", "--max-usage", "7", "--json")
    code, out, _ = run("list")

    assert (code, out) == (0, [])
    assert all(
        re.search(rf"│ tenant-{number} +│ 20\d\d-.*│ 0 of 7 +│ alive +│", terminal.getvalue()) for number in range(25)
    )
    assert all(record.id in terminal.getvalue() for record in server.fake.alive())
    assert not any(record.api_key in terminal.getvalue() for record in server.fake.alive())


def test_a_key_is_a_table_for_a_person(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`create`, `show` and `update` say all that is known of it; only `create` has its secret."""
    terminal = a_terminal(monkeypatch)
    run("create", "--name", "demo")
    (record,) = server.fake.alive()
    created = terminal.getvalue()
    run("show", record.id)
    shown = terminal.getvalue().removeprefix(created)
    run("update", record.id, "--name", "other")

    assert re.search(rf"│ api_key +│ {re.escape(record.api_key)} +│", created)
    assert re.search(r"│ name +│ demo +│", shown)
    assert record.api_key not in shown
    assert re.search(r"│ name +│ other +│", terminal.getvalue().removeprefix(created + shown))


@pytest.mark.parametrize(
    "command", [("create",), ("list",), ("show", "ID"), ("update", "ID", "--name", "x"), ("status",)]
)
def test_with_json_a_terminal_gets_lines_too(
    command: tuple[str, ...], server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anywhere else, alike for every command that prints."""
    run("issue", tenants(1), "--out", "keys.jsonl")
    argv = [held()[0]["id"] if word == "ID" else word for word in command]
    argv += ["--out", "keys.jsonl"] if command == ("status",) else []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    code, lines, _ = run(*argv, "--json")

    assert code == 0
    assert all(lines)
    assert len(lines) >= 1


def test_a_lifetime_may_have_several_parts(server: Server, run: Run) -> None:
    """As people write it."""
    assert run("create", "--expires-in", "1h30m")[0] == 0

    (record,) = server.fake.alive()
    assert record.expiry_date is not None
    assert timedelta(minutes=89) < record.expiry_date - datetime.now(UTC) <= timedelta(minutes=91)


@pytest.mark.parametrize("text", ["30m1h", "1h1h", "1h30", "h", "1.5.5h", "0h0m", "1h" * 100])
def test_a_lifetime_that_is_none(text: str, server: Server, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Is refused in a sentence; nothing is sent."""
    with pytest.raises(SystemExit):
        main(("create", "--expires-in", text))

    assert "expected a time such as 90s, 30m, 1h30m or 7d, got" in capfd.readouterr().err
    assert server.fake.counts.requests == 0


def test_a_key_lives_on_from_now(server: Server, run: Run) -> None:
    """`update --expires-in`; not beside a date, which would leave open what was meant."""
    _, (key,), _ = run("create", "--expires-in", "1h")
    code, (updated,), _ = run("update", key["id"], "--expires-in", "2d")
    both = run("update", key["id"], "--expires-in", "2d", "--expiry-date", "2099-01-01T00:00:00Z")

    assert code == 0
    assert timedelta(hours=47) < datetime.fromisoformat(updated["expiry_date"]) - datetime.now(UTC) <= timedelta(days=2)
    assert both[0] == 2
    assert "expected expires_in or expiry_date, got both" in both[2]
    assert server.fake.counts.by_operation == {"create": 1, "update": 1}


@pytest.mark.parametrize(
    ("delimiter", "text"),
    [(";", "Ticket;NAME\na;A,B\n"), ("tab", "ticket\tName\na\tA,B\n"), ("|", "TICKET|name\na|A,B\n")],
)
def test_spreadsheets_of_other_countries(delimiter: str, text: str, server: Server, run: Run) -> None:
    """Cells may be separated by something else, and columns be in capitals."""
    Path("t.csv").write_text(text)
    without = run("issue", "t.csv", "--out", "keys.jsonl")
    code, _, _ = run("issue", "t.csv", "--out", "keys.jsonl", "--delimiter", delimiter)

    assert without[0] == 2
    assert f"or give --delimiter {delimiter if delimiter == 'tab' else repr(delimiter)}" in without[2]
    assert code == 0
    assert [(line["ticket"], line["name"].partition(" ~")[0]) for line in held()] == [("a", "A,B")]


@pytest.mark.parametrize("text", ["", ";;", "a", '"', "\n", "7"])
def test_a_delimiter_that_is_none(text: str, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Is refused in a sentence."""
    with pytest.raises(SystemExit):
        main(("issue", "t.csv", "--delimiter", text))

    assert "expected one character such as ; or the word tab, got" in capfd.readouterr().err
