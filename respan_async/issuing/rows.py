"""Between the ledger's rows and the values of this library."""

from datetime import UTC, datetime
from typing import Any

import attrs

from respan_async import codec
from respan_async.effect import Effect, Suspect
from respan_async.errors import LedgerError, TicketConflictError
from respan_async.issuing.cipher import Cipher
from respan_async.models import UNSET, CreatedKey, TemporaryKey
from respan_async.secret import Secret


def sealed(secret: Secret, ticket_id: str, cipher: Cipher | None) -> bytes:
    """Return the bytes under which a secret is kept."""
    return secret.reveal().encode() if cipher is None else cipher.encrypt(secret, ticket_id)


def opened(secret: bytes | None, ticket_id: str, cipher: Cipher | None) -> Secret:
    """Return a secret that was kept, or its empty place."""
    if secret is None:
        return Secret.erased()
    if cipher is not None:
        return cipher.decrypt(secret, ticket_id)
    text = secret.decode(errors="replace")
    if not text.isprintable() or "\ufffd" in text:
        raise LedgerError(f"the secret of ticket {ticket_id!r:.100} is encrypted; this ledger was given no cipher")
    return Secret(text)


def key_of(text: str, secret: Secret) -> CreatedKey:
    """Return a key from its JSON and its secret."""
    public = codec.decode(text.encode(), TemporaryKey)
    return CreatedKey(api_key=secret, **attrs.asdict(public, recurse=False))


def is_partial(account: str) -> bool:
    """Whether an account does not tell its API key."""
    return account.endswith(" ?")


def same_account(known: str, account: str) -> bool:
    """Whether two accounts are the same, as far as both know their API key; `?` stands for one that is not known."""
    host, key = known.split(" ")
    other_host, other_key = account.split(" ")
    return host == other_host and (key == other_key or "?" in (key, other_key))


def suspect_of(row: tuple[Any, ...]) -> Suspect:
    """Return a suspect."""
    tag, _, name, sent, sent_at, effect, reason, key_id = row
    return Suspect(
        name=name,
        tag=tag,
        id=key_id,
        effect=Effect(effect),
        sent_at=datetime.fromtimestamp(sent_at, UTC),
        sent=codec.parse(sent.encode()),
        reason=reason,
    )


def conflict(ticket_id: str, known: str, fields: str) -> TicketConflictError:
    """Return the error of a ticket that is known with other fields, naming those that differ."""
    before, now = codec.parse(known.encode()), codec.parse(fields.encode())
    differing = sorted(name for name in {*before, *now} if before.get(name, UNSET) != now.get(name, UNSET))
    return TicketConflictError(
        f"ticket {ticket_id!r:.100}: issued before with another {', '.join(differing)}; a new issuance is a new ticket"
    )
