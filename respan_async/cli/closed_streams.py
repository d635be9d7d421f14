"""Handles closed standard streams (file descriptors 0 to 2), as daemons and cron jobs have them."""

import os
import sys
from typing import Final

from respan_async.cli.exit_codes import WrongUse

_INSTEAD: Final = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)
"""How the null device is opened in place of each stream: writing to a closed output must fail, not seem to succeed."""


def keep_places() -> None:
    """Open the null device for each closed stream, so that no later file gets its number and the text written to it."""
    for number, flags in enumerate(_INSTEAD):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  open until exit


def check_output() -> None:
    """Refuse a command that writes to standard output.

    Raises:
        WrongUse: Standard output is closed.
    """
    if sys.stdout is None:
        raise WrongUse("standard output: is closed; expected a place for what is to be written there, such as a file")


def check_input() -> None:
    """Refuse a command that reads standard input.

    Raises:
        WrongUse: Standard input is closed.
    """
    if sys.stdin is None:
        raise WrongUse("standard input: is closed; expected the lines of a CSV file there, or the name of one")
