"""Encrypts the secrets that a ledger keeps."""

import base64
import binascii
import hashlib
import secrets
from typing import Any, Final, Protocol

from respan_async.errors import ConfigurationError, LedgerError
from respan_async.issuing.ledger import DamagedRecord
from respan_async.secret import Secret, SecretBytes, as_secret, secret_of_environment

ENVIRONMENT: Final = "RESPAN_LEDGER_KEY"

_VERSION: Final = b"\x01"
_ID: Final = 4
_NONCE: Final = 12
_LEAST: Final = 1 + _ID + _NONCE + 16
"""Bytes of an empty secret: the version, the key's id, the nonce, the tag."""
_KEY: Final = 32
_HOW: Final = f"make one with: openssl rand -base64 {_KEY}"


class Cipher(Protocol):
    """Encrypts and decrypts secrets.

    The ledger uses further members of `AESGCMCipher` if a cipher has them: `is_encrypted`, to recognise secrets that
    were kept in plain text before; `key_id` and `has_key`, to detect a process that missed a rotation of the key;
    `relabel`, for damaged secrets when a key is rotated.
    """

    def encrypt(self, secret: Secret, ticket: str) -> bytes:
        """Encrypt a ticket's secret, so that it cannot be used for another ticket."""
        ...

    def decrypt(self, sealed: bytes, ticket: str) -> Secret:
        """Decrypt a ticket's secret.

        Raises:
            DamagedRecord: The cipher has the key, but the bytes were changed, or are another ticket's.
            LedgerError: The cipher lacks the key.
        """
        ...

    def is_current(self, sealed: bytes) -> bool:
        """Whether the secret was encrypted with the current key."""
        ...


def checked(cipher: Cipher | None) -> Cipher | None:
    """Return a valid cipher.

    Raises:
        ConfigurationError: The value is not a cipher, but e.g. a key.
    """
    if cipher is None or callable(getattr(cipher, "decrypt", None)):
        return cipher
    # Name only the type, because the value may be a key, which is masked by now.
    kind = {Secret: str, SecretBytes: bytes}.get(type(cipher), type(cipher))
    raise ConfigurationError(f"cipher: expected a Cipher, such as AESGCMCipher(), got {kind.__name__}")


class AESGCMCipher:
    """Encrypt with AES-256-GCM, with the ticket as associated data and the id of the key in front (extra `crypto`).

    Args:
        key: The key to encrypt with: 32 bytes, or their base64 text. Default: `RESPAN_LEDGER_KEY`, or the file that
            `RESPAN_LEDGER_KEY_FILE` names.
        old_keys: Keys with which older secrets may still be encrypted, until they are rotated.

    Attributes:
        key_id: An id of the key to encrypt with, which reveals nothing about it.

    Raises:
        ConfigurationError: A key is missing or is not 32 bytes.
        ImportError: The extra is not installed.
    """

    def __init__(
        self, key: bytes | str | Secret | None = None, *, old_keys: tuple[bytes | str | Secret, ...] = ()
    ) -> None:
        if key is None:
            key = secret_of_environment(ENVIRONMENT)
        key, old_keys = key_as_secret(key), tuple(map(key_as_secret, old_keys))
        if key is None:
            raise ConfigurationError(
                f"key: expected one as an argument or in {ENVIRONMENT}, or its file in {ENVIRONMENT}_FILE, got none; "
                f"{_HOW}"
            )
        self._current, current = _cipher_of(key)
        self._ciphers = dict([*(_cipher_of(old) for old in old_keys), (self._current, current)])
        self.key_id = self._current.hex()

    def encrypt(self, secret: Secret, ticket: str) -> bytes:
        """Encrypt a ticket's secret, so that it cannot be used for another ticket."""
        nonce = secrets.token_bytes(_NONCE)
        head = _VERSION + self._current
        # 96 random bits, which are unlikely to repeat within the 2**32 messages that one key may be used for.
        sealed: bytes = self._ciphers[self._current].encrypt(nonce, secret.reveal().encode(), head + ticket.encode())
        return head + nonce + sealed

    def decrypt(self, sealed: bytes, ticket: str) -> Secret:
        """Decrypt a ticket's secret.

        Raises:
            DamagedRecord: The bytes were changed, or are another ticket's.
            LedgerError: The cipher lacks the key.
        """
        if len(sealed) < _LEAST:
            raise DamagedRecord(f"the secret of ticket {ticket!r:.100} was cut off")
        named = self._ciphers.get(sealed[1 : 1 + _ID])
        is_intact = sealed[:1] == _VERSION
        # If the head was changed, try all keys: the key that decrypts the rest was the right one.
        ciphers = self._ciphers if named is None or not is_intact else {sealed[1 : 1 + _ID]: named}
        for key_id, cipher in ciphers.items():
            secret = _opened(cipher, sealed[1 + _ID :], _VERSION + key_id + ticket.encode())
            if secret is not None:
                return secret
        if named is None and is_intact:
            raise LedgerError(f"the secret of ticket {ticket!r:.100} was encrypted with another key")
        raise DamagedRecord(f"the secret of ticket {ticket!r:.100} was changed, or is another ticket's")

    def relabel(self, sealed: bytes) -> bytes:
        """Put the current key's id in front of bytes that no key decrypts, so that no former key is needed for them."""
        return _VERSION + self._current + sealed[1 + _ID :] if sealed[:1] == _VERSION else sealed

    def is_encrypted(self, kept: bytes) -> bool:
        """Whether the bytes are encrypted, with any key; a plain text never begins with the version byte."""
        return kept[: len(_VERSION)] == _VERSION

    def has_key(self, key_id: str) -> bool:
        """Whether the cipher has the key with this id, as its current or an old key."""
        return key_id in {each.hex() for each in self._ciphers}

    def is_current(self, sealed: bytes) -> bool:
        """Whether the secret was encrypted with the current key."""
        return sealed[: 1 + _ID] == _VERSION + self._current


def _opened(cipher: Any, sealed: bytes, associated: bytes) -> Secret | None:
    from cryptography.exceptions import InvalidTag

    try:
        return Secret(cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], associated).decode())
    except (InvalidTag, ValueError):
        return None


def _cipher_of(key: bytes | str | Secret) -> tuple[bytes, Any]:
    """Return a key's id and its cipher."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ImportError("AESGCMCipher needs the extra 'crypto': pip install 'respan-async[crypto]'") from None
    raw = _raw(key)
    if raw is None:
        raise ConfigurationError(f"key: expected {_KEY} bytes, or their base64 text; {_HOW}")
    return hashlib.sha256(b"respan-async ledger key id" + raw).digest()[:_ID], AESGCM(raw)


def key_as_secret(key: Any) -> Any:
    """Return a key wrapped as a secret, so that no traceback with locals shows it."""
    return SecretBytes(key) if isinstance(key, bytes) else as_secret(key)


def _raw(key: bytes | str | Secret) -> bytes | None:
    text = key.reveal() if isinstance(key, Secret) else key
    if isinstance(text, str):
        try:
            text = base64.b64decode(text.strip(), validate=True)  # the last line of a file ends with a line break
        except (binascii.Error, ValueError):
            return None
    return text if isinstance(text, bytes) and len(text) == _KEY else None
