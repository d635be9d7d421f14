"""The exit codes of the command, and its messages for errors."""

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
"""The exit status that a shell reports for a program killed by SIGPIPE."""

_MEANING: Final = {
    Effect.UNKNOWN: "; a key may have been made that nobody holds",
    Effect.LOST: "; a key was made, and its secret is lost",
}


class WrongUse(Exception):
    """The command cannot be carried out as given; the message is one sentence for a person."""


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return KEY_REFUSED
    if isinstance(error, WrongUse | ConfigurationError | InvalidRequestError):
        return WRONG_USE
    return FAILED


def sentence(error: BaseException) -> str:
    """Describe an error in one sentence."""
    if isinstance(error, RespanError):
        return f"{error}{_MEANING.get(error.effect, '')}"
    if isinstance(error, WrongUse):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error or type(error).__name__}"
    return f"unexpected {type(error).__name__}: {error}; RESPAN_KEYS_DEBUG=1 in the environment shows where"
