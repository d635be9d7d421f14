"""Converts between the ledger's rows and the values of this library."""

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from respan_async._calls.suspect_store import expires_at
from respan_async._http import codec, json_text
from respan_async.errors import Effect, LedgerError, Suspect, TicketConflictError
from respan_async.events import logger
from respan_async.issuing.cipher import Cipher
from respan_async.issuing.ledger import Counts, DamagedRecord, Snapshot, TicketRecord, Undelivered, UnreadableSecret
from respan_async.issuing.states import AttemptState, TicketState
from respan_async.models import UNSET, CreatedKey, TemporaryKey
from respan_async.secret import Secret, SecretBytes

_LAST_YEAR: Final = 9000
"""The last valid year. A later time is damage, because days are added to it, and the sum must still be a date."""

_FIRST_LETTER: Final = 0x20
_LAST_LETTER: Final = 0x7E
_MOST: Final = 0.85
_FEW: Final = 16
"""The limits by which a damaged text is told from encrypted bytes: the part of its bytes that print, and its length."""


def secret_bytes(secret: Secret, ticket_id: str, cipher: Cipher | None) -> SecretBytes:
    """Return the bytes in which a secret is stored."""
    return SecretBytes(secret.reveal().encode() if cipher is None else cipher.encrypt(secret, ticket_id))


def text(value: bytes) -> str:
    """Return a column's text, even if the record is damaged, which is reported when its ticket is read."""
    return value.decode(errors="surrogateescape")


def raw(value: str) -> bytes:
    """Return the bytes of a column's text, even if the text is damaged."""
    return value.encode(errors="surrogateescape")


def cursor(after: str) -> dict[str, Any]:
    """Return an id as parameters for a store that takes only UTF-8: its valid beginning, and all bytes if damaged.

    The id of a damaged row is not valid UTF-8, but the rows after it must be read nevertheless.
    """
    data = raw(after)
    try:
        return {"after": data.decode(), "damaged": None}
    except UnicodeDecodeError as error:
        return {"after": data[: error.start].decode(), "damaged": data}


def shown(value: Any) -> str:
    """Return a column's text in a form that can be shown and written, with invalid UTF-8 escaped."""
    return raw(value).decode(errors="backslashreplace") if isinstance(value, str) else "(no text)"


def _whole(value: Any) -> str:
    """Return a column's text, if it is a valid text.

    Raises:
        TypeError: The value is not a text.
        ValueError: The text has bytes that are not UTF-8.
    """
    if not isinstance(value, str):
        raise TypeError(type(value))
    value.encode()
    return value


def _instant(seconds: Any) -> datetime:
    """Return a time from a record.

    Raises:
        ValueError: The time is so late that days cannot be added to it.
    """
    found = datetime.fromtimestamp(seconds, UTC)
    if found.year > _LAST_YEAR:
        raise ValueError(found)
    return found


def mask_bytes(row: Iterable[Any]) -> tuple[Any, ...]:
    """Return a row with its bytes, which are secrets, masked."""
    return tuple(SecretBytes(value) if isinstance(value, bytes) else value for value in row)


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """Raise `DamagedRecord` if a row cannot be read as this library writes it."""
    try:
        yield
    except LedgerError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        # Raise from None and without the column's text, because a repair may have put a secret in the wrong place.
        raise DamagedRecord(f"{what}: the ledger's record is damaged") from None


def opened(secret: bytes | None, ticket_id: str, cipher: Cipher | None) -> Secret:
    """Return a stored secret, or the placeholder of an erased one."""
    with _readable(f"ticket '{shown(ticket_id):.100}'"):
        _whole(ticket_id)
        if secret is None:
            return Secret.erased()
        text = secret.decode(errors="replace")
        is_text = text.isprintable() and "\ufffd" not in text
        if not is_text and _was_text(secret):
            raise DamagedRecord(f"the secret of ticket {ticket_id!r:.100} is damaged")
        if cipher is not None:
            # The ledger may have had no cipher when a plain text was written; a rotation encrypts the text.
            told = getattr(cipher, "is_encrypted", None)
            return (
                Secret(text) if is_text and told is not None and not told(secret) else cipher.decrypt(secret, ticket_id)
            )
        if not is_text:
            raise LedgerError(f"the secret of ticket {ticket_id!r:.100} is encrypted; this ledger was given no cipher")
        return Secret(text)


def _was_text(secret: bytes) -> bool:
    """Whether bytes are a text with a few changed bytes; of encrypted bytes, less than half would be printable."""
    return len(secret) > _FEW and sum(_FIRST_LETTER <= byte <= _LAST_LETTER for byte in secret) >= _MOST * len(secret)


def kept(row: tuple[Any, ...], cipher: Cipher | None) -> tuple[str, CreatedKey | UnreadableSecret]:
    """Return a ticket, and its key or the reason why its secret cannot be read."""
    ticket, key, secret = row
    public: CreatedKey | None = None
    try:
        with _readable(f"ticket '{shown(ticket):.100}'"):
            public = key_of(key, Secret.erased())
            return ticket, key_of(key, opened(secret, ticket, cipher))
    except LedgerError as error:
        return ticket, UnreadableSecret(str(error), public, is_damaged=isinstance(error, DamagedRecord))


def renewed(secrets: Iterable[tuple[str, bytes]], cipher: Cipher) -> list[tuple[str, bytes, bytes]]:
    """Re-encrypt the secrets that an old key has encrypted, or no key; return ticket, old bytes and new bytes."""
    old = [(ticket, secret) for ticket, secret in secrets if not cipher.is_current(secret)]
    return [(ticket, secret, cipher.encrypt(opened(secret, ticket, cipher), ticket)) for ticket, secret in old]


def relabelled(secrets: Iterable[tuple[str, bytes]], cipher: Cipher) -> list[tuple[str, bytes, bytes]]:
    """Return the damaged secrets that name a former key: ticket, old bytes, and bytes that name the current key.

    Otherwise they would look like secrets whose key is missing, once the former key is gone.
    """
    relabel = getattr(cipher, "relabel", None)
    if relabel is None:
        return []
    # Leave out rows with a damaged id, because their secrets are intact, and the user may restore the id.
    new = [
        (ticket, secret, relabel(secret))
        for ticket, secret in secrets
        if shown(ticket) == ticket and isinstance(secret, bytes)
    ]
    return [row for row in new if row[1] != row[2]]


def damage_in(secrets: Iterable[tuple[str, bytes]], cipher: Cipher) -> list[tuple[str, DamagedRecord]]:
    """Return the tickets whose secrets are damaged, with the errors that say so.

    Raises:
        LedgerError: The cipher lacks the key of one of these secrets.
    """
    found: list[tuple[str, DamagedRecord]] = []
    for ticket, secret in secrets:
        try:
            opened(secret, ticket, cipher)
        except DamagedRecord as problem:
            found.append((ticket, problem))
    return found


def undelivered_of(rows: Iterable[tuple[Any, ...]]) -> tuple[Undelivered, ...]:
    """Return the tickets whose secrets are kept; show as much of a damaged row as can be read."""
    found: list[Undelivered] = []
    for ticket, key_id, seconds in rows:
        issued_at = None
        with contextlib.suppress(DamagedRecord), _readable("a ticket"):
            issued_at = _instant(seconds)
        found.append(Undelivered(shown(ticket), shown(key_id), issued_at))
    return tuple(found)


def record_of(row: tuple[Any, ...], ticket_id: str, cipher: Cipher | None) -> TicketRecord:
    """Return the record of a ticket."""
    with _readable(f"ticket {ticket_id!r:.100}"):
        fields, state, key, secret = row
        found = None if key is None else key_of(key, opened(secret, ticket_id, cipher))
        return TicketRecord(fields=fields, state=TicketState(state), key=found)


def counts_of(tickets: Iterable[tuple[str, int]], attempts: Iterable[tuple[str, int]]) -> Counts:
    """Return the number of tickets and attempts in each state."""
    of_tickets, of_attempts = dict(tickets), dict(attempts)
    return Counts(
        tickets={state: of_tickets.get(str(state), 0) for state in TicketState},
        attempts={state: of_attempts.get(str(state), 0) for state in AttemptState},
    )


def key_of(text: str, secret: Secret) -> CreatedKey:
    """Return a key from its JSON and its secret."""
    public = codec.decode(text.encode(), TemporaryKey)
    return CreatedKey(api_key=secret, **attrs.asdict(public, recurse=False))


def is_partial(account: str) -> bool:
    """Whether an account does not name its API key."""
    return account.endswith(" ?")


def same_account(known: str, account: str) -> bool:
    """Whether two accounts are the same, as far as both name their API key; `?` stands for an unknown one."""
    with _readable("the account it is bound to"):
        host, key = known.split(" ")
    other_host, other_key = account.split(" ")
    return host == other_host and (key == other_key or "?" in (key, other_key))


def bound(known: str | None, account: str, *, force: bool, where: str, place: str) -> str:
    """Return the account to which a ledger is bound from now on.

    Raises:
        LedgerError: The ledger belongs to another account, and `force` is False.
    """
    # `known` is empty if the ledger was created but never opened.
    if known and not force and not same_account(known, account):
        raise LedgerError(
            f"{where}: the ledger of another account or base URL. If it was opened by an account's name (account=, "
            f"--account), give that again; else give this account {place} of its own, or force it"
        )
    return account if not known or force or not is_partial(account) else known


def snapshot_of(
    account: str,
    tickets: Iterable[tuple[str, int]],
    attempts: Iterable[tuple[str, int]],
    suspects: Iterable[tuple[Any, ...]],
    waiting: Iterable[tuple[Any, ...]],
) -> Snapshot:
    """Return the contents of a ledger from the rows of four statements; the oldest suspect comes first."""
    return Snapshot(
        account=account,
        counts=counts_of(tickets, attempts),
        suspects=tuple(sorted(suspects_of(suspects), key=lambda suspect: suspect.sent_at)),
        undelivered=undelivered_of(waiting),
    )


def suspects_of(rows: Iterable[tuple[Any, ...]]) -> list[Suspect]:
    """Return suspects; a damaged record is logged, and does not hold up the others."""
    found: list[Suspect] = []
    for row in rows:
        try:
            found.append(_suspect_of(row))
        except LedgerError as error:
            logger.warning("a suspect is left out, and not swept: %s", error)
    return found


def _suspect_of(row: tuple[Any, ...]) -> Suspect:
    tag, _, name, sent, sent_at, effect, reason, key_id, taken_over_at = row
    with _readable(f"attempt '{shown(tag):.100}'"):
        suspect = Suspect(
            name=None if name is None else shown(name),
            tag=_whole(tag),
            id=None if key_id is None else _whole(key_id),
            effect=Effect(effect),
            sent_at=_instant(sent_at),
            sent=dict(json_text.parse(sent.encode()).items()),  # raises AttributeError if it is not an object
            reason=shown(reason),
            taken_over_at=None if taken_over_at is None else _instant(taken_over_at),
        )
        if (ends := expires_at(suspect)) is not None and ends.tzinfo is None:
            raise ValueError(ends)
        return suspect


def conflict(ticket_id: str, known: str, fields: str) -> TicketConflictError:
    """Return the error for a ticket that is known with other fields, naming the fields that differ."""
    with _readable(f"ticket {ticket_id!r:.100}"):
        before, now = json_text.parse(known.encode()), json_text.parse(fields.encode())
        differing = sorted(name for name in {*before, *now} if before.get(name, UNSET) != now.get(name, UNSET))
    return TicketConflictError(
        f"ticket {ticket_id!r:.100}: asked for before with another {', '.join(differing)}; "
        "a new issuance is a new ticket"
    )


def not_claimed(row: tuple[Any, ...], ticket_id: str, fields: str) -> LedgerError:
    """Return the error for a ticket that could not be claimed, with the reason."""
    known, state, *_ = row
    if known != fields:
        return conflict(ticket_id, known, fields)
    if state == TicketState.CLAIMED:
        return LedgerError(f"ticket {ticket_id!r:.100}: another process is at work on it", retryable=True)
    return LedgerError(f"ticket {ticket_id!r:.100}: it has its key already", retryable=True)
