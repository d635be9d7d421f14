"""Texts and bytes that hide themselves, and the bearer token as such a text."""

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn, SupportsIndex, final

from respan_async._arguments import plain_value
from respan_async.errors import ConfigurationError

_LONGEST: Final = 65_536
"""The most bytes of a file that are read as a secret, because `/dev/zero` has no end."""


@final
class Secret:
    """Hold a secret text, such as an API key, so that only `reveal()` shows it.

    `repr`, `str`, `format`, logging, `attrs.asdict` and tracebacks with locals show at most the public
    prefix, as in `Secret('vcjRcdm8.***')`. Comparison takes constant time; pickling, copying to JSON and
    `+` are refused. Not an attrs class, so that no attrs function can walk into it.

    Args:
        text: The secret itself, a non-empty string.

    Raises:
        TypeError: `text` is not a string.
        ValueError: `text` is empty.
    """

    __slots__ = ("_text",)
    _text: str | None

    def __init__(self, text: str) -> None:
        # Both messages name only the type, because the value may be the secret in another wrapping.
        if not isinstance(text, str):
            raise TypeError(f"a Secret holds a string, not {type(text).__name__}")
        if not text:
            raise ValueError("a Secret holds a non-empty string")
        self._text = plain_value(text)

    @classmethod
    def erased(cls) -> "Secret":
        """Return the placeholder of a secret that is no longer kept."""
        secret = object.__new__(cls)
        secret._text = None
        return secret

    @property
    def is_erased(self) -> bool:
        """Whether the secret is no longer kept."""
        return self._text is None

    def reveal(self) -> str:
        """Return the secret text itself.

        Raises:
            ValueError: It was delivered, and is no longer kept.
        """
        if self._text is None:
            raise ValueError("the secret was delivered, and is no longer kept")
        return self._text

    def __repr__(self) -> str:
        if self._text is None:
            return "Secret(erased)"
        # Respan's keys are an 8-character public prefix, a dot, and 32 secret characters. A text of another form has no
        # part known to be public.
        prefix, dot, rest = self._text.partition(".")
        public = f"{prefix}.***" if dot and len(prefix) == 8 and len(rest) >= 20 and prefix.isalnum() else "***"
        return f"Secret('{public}')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        if self._text is None or other._text is None:
            return self is other
        return hmac.compare_digest(
            self._text.encode(errors="surrogatepass"), other._text.encode(errors="surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied; store secret.reveal() where secrets belong")


class SecretBytes(bytes):
    """Secret bytes, which do not show themselves, e.g. in a traceback with locals."""

    def __repr__(self) -> str:
        return "SecretBytes(***)"

    __str__ = __repr__

    def __getitem__(self, place: Any) -> Any:
        # Some tools cut values before they show them.
        part = super().__getitem__(place)
        return SecretBytes(part) if isinstance(part, bytes) else part


TokenSource = Callable[[], Awaitable[Secret | str] | Secret | str]
"""Called for the token before each request."""


def as_secret(token: object) -> object:
    """Return a text as a `Secret`, so that no traceback with locals shows it; return anything else unchanged."""
    return Secret(token) if isinstance(token, str) and token else token


def secret_of_environment(name: str) -> Secret | None:
    """Return the secret in an environment variable, or in the file that `{name}_FILE` names; None if neither is set.

    Such a file is a mount, as of Docker's or Kubernetes' secrets, so its permissions are not checked. It is read once.
    White space around its text is not part of the secret.

    Args:
        name: The name of the variable.

    Raises:
        ConfigurationError: Both are set, or the file holds no text.
    """
    text, path = as_secret(os.environ.get(name)), os.environ.get(f"{name}_FILE")
    if not path:
        return text if isinstance(text, Secret) else None
    if isinstance(text, Secret):
        raise ConfigurationError(f"{name}: expected it or {name}_FILE to be set, got both")
    found = _secret_in(path)
    if isinstance(found, Secret):
        return found
    raise ConfigurationError(f"{name}_FILE: expected a file that holds a secret, but {path!r:.200} {found}")


def _secret_in(path: str) -> Secret | str:
    """Return the secret in a file, or what is wrong with the file."""
    try:
        with Path(path).open("rb") as file:
            data = SecretBytes(file.read(_LONGEST + 1))
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if len(data) > _LONGEST:
        return f"has more than {_LONGEST} bytes"
    try:
        text = as_secret(data.decode("utf-8-sig").strip())  # Windows' editors write a byte order mark
    except UnicodeDecodeError:
        return "holds bytes that are no UTF-8"
    return text if isinstance(text, Secret) else "is empty"


def usable_token(token: object) -> Secret:
    """Return a bearer token as a `Secret`.

    Raises:
        ConfigurationError: It cannot be carried by an Authorization header.
    """
    token = as_secret(token)
    if not isinstance(token, Secret):
        got = "an empty string" if isinstance(token, str) else type(token).__name__
        raise ConfigurationError(f"api_key: expected a non-empty string or Secret, got {got}")
    if token.is_erased:
        raise ConfigurationError("api_key: expected a Secret that still holds its text, got an erased one")
    if not _fits_a_header(token):
        raise ConfigurationError("api_key: expected printable ASCII without spaces; check for a stray line break")
    return token


def _fits_a_header(token: Secret) -> bool:
    text = token.reveal()
    return text.isascii() and text.isprintable() and " " not in text
