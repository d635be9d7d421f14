"""Reads a CSV file as lines of named cells, each with its place in the file.

Text is UTF-8, with or without a byte order mark; cells are separated by commas, or by another character, and may be
quoted. Lines of empty cells do not count, nor does white space around a cell, nor the case of a column's name.
"""

import contextlib
import csv
import io
import re
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, cast

import attrs

from respan_async.cli.closed_streams import check_input
from respan_async.cli.exit_codes import WrongUse

_LATE_QUOTE: Final = re.compile(r'\s+"')
"""A quote after white space: to CSV it is an ordinary letter, and would become part of a name."""

_LONGEST_LINE: Final = 1024 * 1024

_OTHERS: Final = {";": "';'", "\t": "tab", "|": "'|'", ",": ","}
"""Other delimiters, and how a shell writes them."""

Complain = Callable[[int, str], None]
"""Called with the number of a line and what is wrong with it."""


@attrs.frozen
class Row:
    """One line of the file.

    Attributes:
        line: The number of its first line, from 1.
        columns: All columns of the file.
        cells: The cells that are not empty, by column.
    """

    line: int
    columns: list[str]
    cells: dict[str, str]


class CSVFile:
    """A CSV file with a header line, which can be read any number of times.

    Args:
        file: Its bytes, seekable.
        name: Its name in complaints.
        known: The allowed columns.
        keys: The columns of which it must have at least one.
        delimiter: The character between cells.
    """

    def __init__(
        self, file: BinaryIO, name: str, *, known: Collection[str], keys: Sequence[str], delimiter: str = ","
    ) -> None:
        self.name = name
        self._delimiter = delimiter
        self._file = file
        self._known = known
        self._keys = keys

    def rows(self, complain: Complain) -> Iterator[Row]:
        """Read the lines that have as many cells as the header; complain about the others."""
        lines = _Lines(self._file)
        reader = csv.reader(lines, strict=True, delimiter=self._delimiter)
        columns: list[str] = []
        began = 1
        try:
            for cells in reader:
                line, began = began, reader.line_num + 1
                if lines.flaw is not None:
                    complain(*lines.flaw)
                    lines.flaw = None
                    if not columns:
                        return
                elif not "".join(cells).strip():
                    continue
                elif (late := next(filter(_LATE_QUOTE.match, cells), None)) is not None:
                    complain(line, f"expected no white space before a quoted cell, got {late!r:.100}")
                    if not columns:
                        return
                elif not columns:
                    columns = [cell.strip().lower() for cell in cells]
                    problem = self._problem(columns)
                    if problem is not None:
                        complain(line, problem)
                        return
                elif len(cells) != len(columns):
                    complain(line, f"expected {len(columns)} cells, as the header has, got {len(cells)}")
                else:
                    filled = zip(columns, map(str.strip, cells), strict=True)
                    yield Row(line, columns, {column: text for column, text in filled if text})
            if not columns:
                complain(1, f"expected a header line, such as {','.join(self._keys)}, got none")
        except csv.Error as error:
            complain(began, f"{_explained(str(error))}; what follows was not read")
        finally:
            lines.close()

    def _problem(self, cells: Sequence[str]) -> str | None:
        """Describe what is wrong with the header."""
        seen: set[str] = set()
        for number, column in enumerate(cells, 1):
            if not column:
                return f"expected a name for column {number} in the header line"
            if column not in self._known:
                other = next(
                    (name for mark, name in _OTHERS.items() if mark in column and mark != self._delimiter), None
                )
                separated = (
                    f"; cells are separated by {self._delimiter!r}, or give --delimiter {other}" if other else ""
                )
                return (
                    f"unknown column {column!r:.100} in the header line; known are {', '.join(self._known)}{separated}"
                )
            if column in seen:
                return f"column {column!r} is there twice in the header line"
            seen.add(column)
        if seen.isdisjoint(self._keys):
            return f"expected a column {' or '.join(self._keys)} in the header line"
        return None


class _Lines:
    """The lines of a file as text; a line that is not text is noted, and does not end the reading.

    Attributes:
        flaw: The first line since this was last None that was not text, and why.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        # Bytes that are not UTF-8 become lone surrogates, which `encode` finds below, on their own line.
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._number = 0
        self.flaw: tuple[int, str] | None = None

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self._number += 1
        if len(line) > _LONGEST_LINE:
            raise csv.Error(f"expected lines of at most {_LONGEST_LINE} characters")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00
            self.flaw = self.flaw or (self._number, f"expected UTF-8, got the byte 0x{byte:02x}")
        if "\0" in line:
            self.flaw = self.flaw or (self._number, "expected text, got a NUL byte; is this UTF-8?")
        return line

    def close(self) -> None:
        """Detach from the file without closing it."""
        self._text.detach()


def _explained(error: str) -> str:
    """Explain a message of the csv module."""
    if error == "unexpected end of data":
        return "a quoted cell in this line has no end"
    if error.startswith("field larger"):
        return "a cell is too long; perhaps a quoted cell has no end"
    return error


def can_be_read_again(path: str) -> bool:
    """Whether the path leads another process to the same lines; a pipe or a shell's `/dev/fd/63` does not."""
    if path == "-" or path.startswith(("/dev/fd/", "/dev/std", "/proc/")):
        return False
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


@contextlib.contextmanager
def open_csv(path: str, *, known: Collection[str], keys: Sequence[str], delimiter: str = ",") -> Iterator[CSVFile]:
    """Open a CSV file; `-` is standard input. An input that cannot be read twice is first copied to a temporary file.

    Args:
        path: The path as given.
        known: The allowed columns.
        keys: The columns of which it must have at least one.
        delimiter: The character between cells.

    Raises:
        WrongUse: The file cannot be read.
    """
    if path == "-":
        check_input()
    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
            file = cast("BinaryIO", source)
            if path == "-" or not stat.S_ISREG(Path(path).stat().st_mode):
                spool = stack.enter_context(TemporaryFile())
                shutil.copyfileobj(source, spool)
                file = cast("BinaryIO", spool)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
            raise WrongUse(f"{path}: {reason}") from None
        yield CSVFile(file, "<stdin>" if path == "-" else path, known=known, keys=keys, delimiter=delimiter)
