"""What is said when a run ends."""

import os
import subprocess
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from respan_async import Suspect
from respan_async.cli.ledger_location import LedgerLocation
from respan_async.cli.summary import Summary
from respan_async.errors import Effect


def test_a_ledger_that_is_gone_leaves_what_the_run_knows_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who removed the file is told of the suspects all the same: the first twenty by name, and how many more."""
    suspects = [
        Suspect(
            name=f"t{number} ~abc",
            tag=" ~abc",
            id="id-0" if not number else None,
            effect=Effect.UNKNOWN,
            sent_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
            sent={},
            reason="no answer",
        )
        for number in range(22)
    ]
    Summary(
        arguments=Namespace(argv=(), file="t.csv", out="keys.jsonl", sandbox=False, base_url=None),
        ledger=LedgerLocation(path := str(tmp_path / "gone.ledger"), ("--ledger", path)),
        suspects=suspects,
        issued=3,
        already=0,
        absent=0,
        failed=0,
        kept=0,
        left=0,
        refused=0,
        elapsed=2.0,
        rate=1.5,
        fatal=None,
    ).say()

    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0] == "suspect: name 't0 ~abc', sent at 2026-01-31T12:00:00+00:00: no answer; respan-keys delete -- id-0"
    )
    assert lines[1] == "suspect: name 't1 ~abc', sent at 2026-01-31T12:00:00+00:00: no answer"
    assert lines[20:] == [
        "... and 2 more suspects",
        "3 issued in 2.0 s (1.5/s), 0 already issued, 0 failed, 0 not sent, 0 refused, 22 suspects",
    ]


def summary(folder: Path, *, file: str = "t.csv", argv: tuple[str, ...] = (), counts: Mapping[str, int]) -> Summary:
    """Give what is said of a run with this input, of which so much is left."""
    settings = {"issued": 0, "already": 0, "absent": 0, "failed": 0, "kept": 0, "left": 0, "refused": 0, **counts}
    return Summary(
        arguments=Namespace(argv=("issue", file, *argv), file=file, out="keys.jsonl", sandbox=False, base_url=None),
        ledger=LedgerLocation(path := str(folder / "gone.ledger"), ("--ledger", path)),
        suspects=(),
        elapsed=2.0,
        rate=1.5,
        fatal=None,
        **settings,
    )


@pytest.mark.parametrize("file", ["/dev/fd/63", "-", "/proc/self/fd/5", "gone.csv"])
def test_an_input_that_cannot_be_read_again_is_not_offered(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `<(query)` the shell makes a file that is gone with this process."""
    summary(tmp_path, file=file, argv=("--out", "keys.jsonl"), counts={"left": 1}).say()

    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "to go on: give the same input to respan-keys issue - --out keys.jsonl"


def test_a_command_can_be_pasted_whatever_the_file_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a name with control characters, quotes, or bytes that are no UTF-8; and nothing of it reaches a terminal."""
    monkeypatch.chdir(tmp_path)
    name = "it's\x1b[2J a\\ k\udce9.csv"
    Path(name).touch()

    summary(tmp_path, file=name, argv=("--out", "two words.jsonl"), counts={"left": 1}).say()

    last = capsys.readouterr().err.splitlines()[-1]
    assert last.isprintable()
    command = last.removeprefix("to go on: respan-keys ")
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert words.split(b"\0")[:-1] == [os.fsencode(word) for word in ("issue", name, "--out", "two words.jsonl")]


@pytest.mark.parametrize(
    ("counts", "says", "goes_on"),
    [
        ({"left": 2, "conflicting": 2}, "2 of the lines that failed will fail again as long as their fields", False),
        ({"left": 3, "conflicting": 2}, "2 of the lines that failed will fail again as long as their fields", True),
        ({"left": 1, "foreign": 1}, "1 of the lines that failed will fail again as long as keys.jsonl has", False),
        ({"left": 1, "failed": 1}, "", True),
    ],
)
def test_a_command_that_can_never_succeed_is_not_offered(
    counts: dict[str, int],
    says: str,
    goes_on: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines that fail again however often it is run are told apart from those that may not."""
    monkeypatch.chdir(tmp_path)
    Path("t.csv").touch()

    summary(tmp_path, counts=counts).say()

    err = capsys.readouterr().err
    assert says in err
    assert ("to go on: respan-keys issue t.csv" in err) is goes_on
