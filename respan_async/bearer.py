"""The token that every request bears."""

from collections.abc import Awaitable, Callable

from respan_async.errors import ConfigurationError
from respan_async.secret import Secret

TokenSource = Callable[[], Awaitable[Secret | str]]
"""Asked for the token before each request."""


def veiled(token: object) -> object:
    """Return a text as a `Secret`, so that no traceback with locals shows it from here on; anything else as it is."""
    return Secret(token) if isinstance(token, str) and token else token


def usable_token(token: object) -> Secret:
    """Return a bearer token as a `Secret`.

    Raises:
        ConfigurationError: It is none that an Authorization header can carry.
    """
    token = veiled(token)
    if not isinstance(token, Secret):
        got = "an empty string" if token == "" else type(token).__name__
        raise ConfigurationError(f"api_key: expected a non-empty string or Secret, got {got}")
    if not _fits_a_header(token):
        raise ConfigurationError("api_key: expected printable ASCII without spaces; check for a stray line break")
    return token


def _fits_a_header(token: Secret) -> bool:
    text = token.reveal()
    return text.isascii() and text.isprintable() and " " not in text
