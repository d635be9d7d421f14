"""Writes lines for a person to standard error, without characters that a terminal would obey."""

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Callable
from typing import Final, Self

from respan_async._http import redaction

MOST_LINES: Final = 20
"""The most lines of one kind; the rest is only counted."""

_LONGEST: Final = 1000
_BYTES: Final = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""Bytes of file names and arguments that are not UTF-8, as Python hands them over."""


def printable(text: str) -> str:
    """Escape unprintable characters, above all control characters, and cut what is too long for a line."""
    text = redaction.printable(text.translate(_BYTES))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def command_line(*words: str) -> str:
    """Return words quoted for a shell, including unprintable characters."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    letters = (letter if letter.isprintable() else os.fsencode(letter) for letter in word)
    escaped = (
        "".join(f"\\x{byte:02x}" for byte in letter) if isinstance(letter, bytes) else letter for letter in letters
    )
    return "".join(["$'", *(f"\\{letter}" if letter in ("\\", "'") else letter for letter in escaped), "'"])


def say(text: str) -> None:
    """Write one line to standard error; if its reader is gone, the work goes on."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


class ConsoleLogHandler(logging.Handler):
    """Show log records of this process as lines: warnings, and with `verbose` what the client logs.

    Args:
        say: Writes a line; may be replaced at any time.
        verbose: Show INFO of the `respan_async` logger, and every warning instead of the first few.
    """

    def __init__(self, say: Callable[[str], None], *, verbose: bool) -> None:
        super().__init__()
        self.say = say
        self._verbose = verbose
        self._warnings = 0

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        self._client = logging.getLogger("respan_async")
        self._level_before = self._client.level
        if self._verbose:
            self._client.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        self._client.setLevel(self._level_before)
        if (unsaid := self._warnings - MOST_LINES) > 0:
            say(f"... and {unsaid} more warnings; -v shows them")

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, without a traceback unless RESPAN_KEYS_DEBUG is set."""
        if not self._verbose:
            self._warnings += 1
            if self._warnings > MOST_LINES:
                return
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}"
            if os.environ.get("RESPAN_KEYS_DEBUG"):
                sys.excepthook(*record.exc_info)
        self.say(text)
