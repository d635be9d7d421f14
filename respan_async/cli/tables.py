"""Prints tables to standard output: with rich on a terminal, plain anywhere else."""

import argparse
import sys
from collections.abc import Sequence

import attrs

from respan_async.cli.console import MOST_LINES, printable
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.issuing._append_only_file import write_all


@attrs.frozen
class Table:
    """A table of texts.

    Attributes:
        title: The title.
        columns: The names of the columns.
        rows: The rows.
        most: The most rows to show; the rest is counted. None for all.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    most: int | None = MOST_LINES

    @property
    def shown(self) -> Sequence[tuple[str, ...]]:
        """The rows that are shown."""
        return self.rows[: self.most]


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether to print a table: on a terminal without `--json`; otherwise the command prints JSON lines."""
    return not arguments.json and sys.stdout.isatty()


def show(tables: Sequence[Table]) -> None:
    """Write tables to standard output."""
    if sys.stdout.isatty() and _show_by_rich(tables):
        return
    lines: list[str] = []
    for table in tables:
        shown = [tuple(map(printable, row)) for row in table.shown]
        widths = [max(map(len, column)) for column in zip(table.columns, *shown, strict=True)]
        lines += [printable(table.title)]
        for row in (table.columns, *shown):
            cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells).rstrip()}")
        lines += [*_rest(table), ""]
    write_all(STANDARD_OUTPUT, "\n".join(lines).encode())


def _rest(table: Table) -> list[str]:
    more = len(table.rows) - len(table.shown)
    return [f"  ... and {more} more"] if more > 0 else []


def _show_by_rich(tables: Sequence[Table]) -> bool:
    """Write tables with rich; return whether rich is installed."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return False
    console = Console()
    for table in tables:
        # As `Text`, because rich would read square brackets in a file's name as markup.
        drawn = RichTable(title=Text(printable(table.title)), title_justify="left", title_style="bold")
        for column in table.columns:
            drawn.add_column(column, overflow="fold")
        for row in table.shown:
            drawn.add_row(*(Text(printable(cell)) for cell in row))
        console.print(drawn)
        for line in _rest(table):
            console.print(line)
    return True
