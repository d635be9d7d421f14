"""Reads the URL of Redis or Postgres from an argument, a variable or a file, and masks its password."""

import re
from typing import Final

from respan_async.cli.exit_codes import WrongUse
from respan_async.errors import ConfigurationError
from respan_async.secret import secret_of_environment

_PASSWORD: Final = re.compile(r"(\w+://[^:/@\s]*):(?![0-9]+/)\S*@")


def connection_url(given: str | None, variable: str) -> str:
    """Return a URL: the argument, or else the variable, or else the content of the file that `<variable>_FILE` names.

    Args:
        given: The argument; None or empty if it was left out.
        variable: The name of the environment variable.

    Returns:
        The URL; empty if none was given.

    Raises:
        WrongUse: Both variables are set, or the file cannot be read.
    """
    if given:
        return given
    try:
        found = secret_of_environment(variable)
    except ConfigurationError as error:
        raise WrongUse(str(error)) from None
    return "" if found is None else found.reveal().strip()


def without_password(word: str) -> str:
    """Return a word of a command line, with the password of a URL in it masked."""
    return _PASSWORD.sub(r"\1:***@", word)
