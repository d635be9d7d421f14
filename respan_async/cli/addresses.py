"""Addresses of servers, which may hold a password: as arguments, or out of the environment."""

import re
from typing import Final

from respan_async.cli.exit_codes import WrongUse
from respan_async.errors import ConfigurationError
from respan_async.secret import secret_of_environment

_PASSWORD: Final = re.compile(r"(\w+://[^:/@\s]*):(?![0-9]+/)\S*@")


def address_of(given: str | None, variable: str) -> str:
    """Return an address: as it was given, or as a variable of the environment, or the file that it names, has it.

    Args:
        given: The argument; None or empty where it was left out.
        variable: The variable's name; with `_FILE` after it, that of one that names a file.

    Returns:
        The address; empty where there is none.

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
    """Return a word of a command line without the password of a URL in it."""
    return _PASSWORD.sub(r"\1:***@", word)
