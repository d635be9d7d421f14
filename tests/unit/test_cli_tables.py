"""Tables for a person, with and without rich."""

import io
import re
import sys

import pytest

from respan_async.cli.tables import Table, show

TABLE = Table("suspects", ("tag", "reason"), [(f"tag-{number}", "lost\x1b[2J") for number in range(23)])


class Terminal(io.StringIO):
    """Standard output that is one."""

    def isatty(self) -> bool:
        return True


def test_rich_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With lines around the cells; the first twenty rows, and how many more there are; nothing a terminal obeys."""
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())

    show([TABLE])

    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())  # colours
    assert "━━━" in shown
    assert "tag-19" in shown
    assert "tag-20" not in shown
    assert "... and 3 more" in shown
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J" in shown


def test_without_rich_a_table_is_plain(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """On a terminal too, with the same in it."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setitem(sys.modules, "rich.console", None)

    show([TABLE])

    lines = capfd.readouterr().out.splitlines()
    assert lines[:3] == ["suspects", "  tag     reason", "  tag-0   lost\\x1b[2J"]
    assert lines[21:] == ["  tag-19  lost\\x1b[2J", "  ... and 3 more"]
