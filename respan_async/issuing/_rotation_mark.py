"""Rotating the key that a ledger's secrets are encrypted with, while others issue.

The order that is safe:

1. Every process gets the new key among its old keys, so that it reads what others write from step 2 on.
2. Every process gets the new key as its key, and the former one among its old keys.
3. One of them rotates, which marks the ledger with the new key and encrypts what is kept.
4. The former key is taken away.

A process that was left out of step 2 would go on to write what nobody can read after step 4. So it claims no ticket
once the ledger is marked: what it has in the air is recorded all the same, and is why it asks for another rotation. The
mark binds those that saw it come, and those that lack its key. Who begins the next rotation has it among the old keys.
"""

from collections.abc import Mapping
from typing import Final

from respan_async.errors import LedgerError
from respan_async.issuing.cipher import Cipher

MARK: Final = "cipher"
"""The name under which a ledger keeps the id of the key."""

_NONE: Final = ""
"""What a process without a cipher has in the place of a key's id."""


class RotationMark:
    """The mark on a ledger, as one process has seen it.

    Attributes:
        seen: What it was when the ledger was opened; None when there was none.
    """

    seen: str | None = None

    def accepted(self, cipher: Cipher | None) -> Mapping[str, str | None]:
        """Return the two marks with which a process may claim tickets, as the parameters of statements.

        A cipher that does not tell its keys may always: nothing is known of it.
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
    """Return the id of the key that a cipher encrypts with; None of one that does not tell."""
    return _NONE if cipher is None else getattr(cipher, "key_id", None)


def outdated(where: str, cipher: Cipher | None) -> LedgerError:
    """Return the error of a process that would write what others cannot read."""
    if cipher is None:
        how = "its secrets are encrypted, and there is no cipher here; start again with its key"
    else:
        how = "its secrets were encrypted with another key than the one here; start again with that as the key"
    return LedgerError(f"{where}: {how}, then rotate the ledger once more")
