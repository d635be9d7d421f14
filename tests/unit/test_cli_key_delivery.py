"""Where the command line writes keys."""

from pathlib import Path

import pytest

from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.key_delivery import open_delivery


@pytest.mark.parametrize(("before", "written", "left"), [(None, "", None), (None, "a key\n", "a key\n"), ("", "", "")])
def test_a_run_that_is_refused_removes_what_it_made_and_nobody_needs(
    before: str | None, written: str, left: str | None, tmp_path: Path
) -> None:
    """A new file, as long as it is empty: one that was there, or has a line, stays."""
    path = tmp_path / "keys.jsonl"
    if before is not None:
        path.touch(0o600)

    def refuse() -> None:
        with open_delivery(str(path), sandbox=False):
            path.write_text(written)
            raise WrongUse("no ledger")

    with pytest.raises(WrongUse, match="no ledger"):
        refuse()

    assert (path.read_text() if path.exists() else None) == left
