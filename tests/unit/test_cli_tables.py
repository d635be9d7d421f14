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


NAMES = {
    "k[eu].jsonl": "k[eu].jsonl",
    "a[/b]/k.jsonl": "a[/b]/k.jsonl",
    "k\x1b[2J\x07.jsonl": "k\\x1b[2J\\x07.jsonl",
    "k\udce9.jsonl": "k\\xe9.jsonl",
}
"""Names of files, and what is shown of them."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_title_may_be_any_file_name(
    name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With what rich takes for its markup, what a terminal would obey, or bytes that are no UTF-8."""
    drawn = Terminal()
    if terminal:
        monkeypatch.setattr(sys, "stdout", drawn)

    show([Table(name, ("what",), [("a row that is wider than every title",)])])

    shown = re.sub(r"\x1b\[[0-9;]*m", "", drawn.getvalue()) if terminal else capfd.readouterr().out
    assert shown.splitlines()[0].rstrip() == NAMES[name]
