"""What is said when a run ends."""

from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from respan_async import Suspect
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
        ledger=str(tmp_path / "gone.ledger"),
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
