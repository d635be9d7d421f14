"""Marks a ledger with the key that encrypts its secrets, so that no process goes on with another one.

The safe order:

1. Every process gets the new key among its old keys, so that it can read what the others write from step 2 on.
2. Every process gets the new key as its key, and the former key among its old keys.
3. One process rotates: it marks the ledger with the new key, and encrypts the kept secrets with it.
4. The former key is removed.

A process that missed step 2 would write secrets that no process can read after step 4. So once the ledger is marked,
that process may not claim tickets. It still records the results of its requests in flight, so the error asks for
another rotation. The mark stops processes that opened the ledger before it was set, and processes without the new key.
A process that begins the next rotation is accepted, because it has the marked key among its old keys.
"""

from collections.abc import Mapping
from typing import Final

from respan_async.errors import LedgerError
from respan_async.issuing.cipher import Cipher

MARK: Final = "cipher"
"""The name under which a ledger keeps the id of the key."""

_NONE: Final = ""
"""The id of the key in a process without a cipher."""


class RotationMark:
    """The mark on a ledger, as one process has read it.

    Attributes:
        seen: The mark when the ledger was opened; None if it had no mark.
    """

    seen: str | None = None

    def accepted(self, cipher: Cipher | None) -> Mapping[str, str | None]:
        """Return the two marks with which a process may claim tickets, as the parameters of statements.

        A process may always claim if its cipher does not tell its keys.
        """
        key = key_id_of(cipher)
        knows = getattr(cipher, "has_key", None)
        before = self.seen if self.seen is not None and knows is not None and knows(self.seen) else key
        return {"cipher": key, "cipher_before": before}

    def refuses(self, mark: str | None, cipher: Cipher | None) -> bool:
        """Whether a process may not claim tickets of a ledger with this mark."""
        accepted = self.accepted(cipher).values()
        return mark is not None and None not in accepted and mark not in accepted


def key_id_of(cipher: Cipher | None) -> str | None:
    """Return the id of the key that a cipher encrypts with; None if the cipher does not tell."""
    return _NONE if cipher is None else getattr(cipher, "key_id", None)


def outdated(where: str, cipher: Cipher | None) -> LedgerError:
    """Return the error for a process that would write secrets that the other processes cannot read."""
    if cipher is None:
        how = "its secrets are encrypted, and there is no cipher here; start again with its key"
    else:
        how = "its secrets were encrypted with another key than the one here; start again with that as the key"
    return LedgerError(f"{where}: {how}, then rotate the ledger once more")
