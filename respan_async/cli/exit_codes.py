"""How the command ends: the exit codes, and what is said of an error."""

from typing import Final

from respan_async.errors import (
    AuthenticationError,
    ConfigurationError,
    Effect,
    InvalidRequestError,
    PermissionDeniedError,
    RespanError,
)

OK: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
KEY_REFUSED: Final = 3
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""What the shell says of a program that wrote to a pipe nobody reads."""

_MEANING: Final = {
    Effect.UNKNOWN: "; a key may have been made that nobody holds",
    Effect.LOST: "; a key was made, and its secret is lost",
}


class WrongUse(Exception):
    """The command cannot be carried out as it was given; the message is one sentence for a person."""


def exit_code(error: BaseException) -> int:
    """Return the code that an error ends the command with."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return KEY_REFUSED
    if isinstance(error, WrongUse | ConfigurationError | InvalidRequestError):
        return WRONG_USE
    return FAILED


def sentence(error: BaseException) -> str:
    """Say an error in one sentence."""
    if isinstance(error, RespanError):
        return f"{error}{_MEANING.get(error.effect, '')}"
    if isinstance(error, WrongUse):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error or type(error).__name__}"
    return f"unexpected {type(error).__name__}: {error}; RESPAN_KEYS_DEBUG=1 in the environment shows where"
