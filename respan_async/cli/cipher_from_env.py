"""Makes the cipher of a ledger from the keys in two environment variables."""

import re
from typing import Final

from respan_async.cli.exit_codes import WrongUse
from respan_async.errors import ConfigurationError
from respan_async.issuing import AESGCMCipher
from respan_async.issuing.cipher import ENVIRONMENT
from respan_async.secret import Secret, secret_of_environment

KEY: Final = ENVIRONMENT
OLD_KEYS: Final = "RESPAN_LEDGER_OLD_KEYS"


def cipher_from_env() -> AESGCMCipher | None:
    """Return the cipher for the secrets that a ledger keeps; None if the environment has no key.

    Raises:
        WrongUse: A key is invalid, or the extra `crypto` is not installed.
    """
    try:
        key, former = secret_of_environment(KEY), secret_of_environment(OLD_KEYS)
    except ConfigurationError as error:
        raise WrongUse(str(error)) from None
    old = [] if former is None else [Secret(text) for text in re.split(r"[,\s]+", former.reveal()) if text]
    if key is None:
        if old:
            raise WrongUse(f"{KEY}: expected the key to encrypt with beside {OLD_KEYS}, got none")
        return None
    try:
        AESGCMCipher(key)
    except ConfigurationError:
        raise WrongUse(f"{KEY}: expected 32 bytes as base64, as `openssl rand -base64 32` makes them") from None
    except ImportError as error:
        raise WrongUse(f"{KEY}: {error}") from None
    try:
        return AESGCMCipher(key, old_keys=tuple(old))
    except ConfigurationError:
        raise WrongUse(f"{OLD_KEYS}: expected keys of 32 bytes as base64, separated by commas") from None
