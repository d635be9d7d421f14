"""The standard streams, any of which may be closed, as daemons and cron jobs have them."""

import os
import sys
from typing import Final

from respan_async.cli.exit_codes import WrongUse

_INSTEAD: Final = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)
"""How the null device is opened in the place of a stream: what is written to a closed output must not seem to be."""


def keep_places() -> None:
    """Let no file that is opened from here on take the number, and with it the text, of a stream that is closed."""
    for number, flags in enumerate(_INSTEAD):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  to the end


def check_output() -> None:
    """Refuse to begin what is to be shown on standard output.

    Raises:
        WrongUse: It is closed.
    """
    if sys.stdout is None:
        raise WrongUse("standard output: is closed; expected a place for what is to be written there, such as a file")


def check_input() -> None:
    """Refuse to read standard input.

    Raises:
        WrongUse: It is closed.
    """
    if sys.stdin is None:
        raise WrongUse("standard input: is closed; expected the lines of a CSV file there, or the name of one")
