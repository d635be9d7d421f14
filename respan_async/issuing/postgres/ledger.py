"""Keeps a ledger in a Postgres database, for workers on many machines."""

import time
from collections.abc import Sequence
from typing import Any, Final, cast

from respan_async._http import codec, json_text
from respan_async.errors import Effect, InvalidRequestError, LedgerError, Suspect
from respan_async.events import logger
from respan_async.issuing import _rows
from respan_async.issuing._cipher_key_mark import MARK, outdated
from respan_async.issuing._cipher_rotation import rotate
from respan_async.issuing.cipher import Cipher, checked, key_as_secret
from respan_async.issuing.ledger import Counts, Intent, TicketRecord
from respan_async.issuing.postgres._errors import DuplicateKey, Unwritable
from respan_async.issuing.postgres._statements import SCHEMA
from respan_async.issuing.states import ATTEMPT_TRANSITIONS, AttemptState
from respan_async.issuing.tickets import Ticket
from respan_async.models import CreatedKey
from respan_async.secret import as_secret

LEASE: Final = 30.0
"""Seconds for which a silent owner keeps its claims."""

_LONG: Final = 60.0
"""Seconds that the server may take to count all rows."""

_COUNTING: Final = "\0counting"
"""The key of the counting statements, so that they run one at a time, and leave connections free.

No ticket's id can equal it."""


_TAG: Final = "attempts_tag_key"
"""The name that Postgres gives to the constraint that tags are unique."""


class PostgresLedger:
    """Keep tickets, attempts and keys in a Postgres database, for any number of processes (extra `postgres`).

    Make the schema once, with `await PostgresLedger(dsn).create_schema()`. Every operation is one statement in a
    separate transaction, which is as durable as the server's commits: after a failover to a replica that lags, the last
    keys are missing. If a connection breaks, the operation is tried again on another one, for a third of the lease, but
    at least 1 and at most 10 seconds. The recording of a new key is tried again for as long as the lease lasts.

    Without a cipher the secrets are stored in plain text, and cannot be reliably erased, because the server has copies
    in its log, in rows that were not vacuumed yet, on its replicas and in its backups. So give the ledger a cipher.

    Args:
        dsn: The database: `postgresql://user:password@host/database`, or as `key=value` pairs.
        cipher: Encrypts the secrets that are kept until they are delivered; None to keep them in plain text.
        lease: Seconds, by the server's clock, after which the claims of a silent process (dead, stopped or cut off) may
            be taken over.
        schema: The schema in the database; each ledger has its own.

    Raises:
        ConfigurationError: `dsn` is not a connection string, or a setting is invalid.
        ImportError: The extra is not installed.
    """

    def __init__(self, dsn: str, cipher: Cipher | None = None, *, lease: float = LEASE, schema: str = SCHEMA) -> None:
        try:
            from respan_async.issuing.postgres._session import Session
        except ModuleNotFoundError:
            raise ImportError(
                "PostgresLedger needs the extra 'postgres': pip install 'respan-async[postgres]'"
            ) from None
        dsn, cipher = cast("str", as_secret(dsn)), cast("Cipher | None", key_as_secret(cipher))
        self._session = Session(dsn, lease, schema)
        self._cipher = checked(cipher)
        self._unsure: dict[str, str] = {}  # tickets whose key may have been recorded, with the attempt's tag

    # -------------------------------------------------------------- lifecycle

    async def create_schema(self) -> None:
        """Create the schema and its tables, if they are missing. Once is enough; concurrent calls do no harm.

        Raises:
            LedgerError: The database cannot be reached, or the user lacks the rights, or the schema exists in a newer
                version.
        """
        await self._session.make_schema()

    async def open(self, account: str, *, force: bool = False) -> None:
        """Open the ledger for an account, and take over what lapsed owners left; see `Ledger`.

        Raises:
            LedgerError: The schema is missing, or a reason that `Ledger` names.
        """
        await self._session.open(account, force=force)
        if self._cipher is None:
            logger.warning(
                "PostgresLedger has no cipher: secrets are kept as they are, and the server's log, replicas and "
                "backups have copies that cannot be erased"
            )

    async def aclose(self) -> None:
        """Finish the writes, and close the connections; see `Ledger`."""
        await self._session.aclose()

    def lease_held_since(self, since: float) -> bool:
        """Whether this owner's claims have held all the time since then; see `Ledger`."""
        return self._session.lease_keeper.lease_held_since(since)

    # ---------------------------------------------------------------- tickets

    async def find(self, ticket_id: str) -> TicketRecord | None:
        """Return the record of a ticket; see `Ledger`."""
        statement = "find"
        if (tag := self._unsure.get(ticket_id)) is not None:
            # A statement may have recorded the ticket's key, or may still do so. No key is recorded for a suspect, so
            # once the attempt is a suspect, the record is final (rule 4).
            await self._transition("mark_suspect", tag)
            self._unsure.pop(ticket_id, None)
            statement = "find_for_certain"
        try:
            found = await self._session.ask(statement, ticket=ticket_id)
        except Unwritable as error:
            raise _unwritable(ticket_id, error) from None
        return _rows.record_of(found[0], ticket_id, self._cipher) if found else None

    async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
        """Claim a ticket and note an intent, in one step; see `Ledger`."""
        about = ticket.id, intent.tag
        values: dict[str, Any] = {
            "ticket": ticket.id,
            "fields": ticket.fields,
            "owner": self._session.owner,
            "tag": intent.tag,
        }
        values |= {"name": intent.name, "sent": json_text.encode(intent.sent).decode(), "sent_at": intent.sent_at}
        # The sender's clock may be wrong, but not the elapsed time.
        values["ago"] = time.time() - intent.sent_at
        values |= self._session.mark.accepted(self._cipher)
        try:
            noted = await self._session.ask("claim_attempt", about=about, **values)
        except Unwritable as error:
            raise _unwritable(ticket.id, error) from None
        except DuplicateKey as error:
            if error.constraint != _TAG:
                raise
            # This call may have noted the intent before its connection broke.
            noted = await self._session.ask("find_claim", about=about, **values)
            if not noted:
                message = f"ticket {ticket.id!r:.100}: the attempt's tag was used before"
                raise LedgerError(message, retryable=True) from None  # the next attempt has another tag
        if not noted:
            if self._session.mark.refuses(dict(await self._session.ask("get_meta")).get(MARK), self._cipher):
                raise outdated(self._session.where, self._cipher)
            found = await self._session.ask("find", ticket=ticket.id)
            raise _rows.not_claimed(found[0], ticket.id, ticket.fields)
        return int(noted[0][0])

    async def release(self, ticket_id: str, epoch: int | None) -> None:
        """Release a claim, because the call has ended without a key; see `Ledger`."""
        await self._session.ask("release", about=(ticket_id,), ticket=ticket_id, owner=self._session.owner, epoch=epoch)

    async def record(self, ticket_id: str, epoch: int, tag: str, key: CreatedKey) -> bool:
        """Record a ticket's key, if the claim still holds; see `Ledger`."""
        values: dict[str, Any] = {"ticket": ticket_id, "owner": self._session.owner, "epoch": epoch, "tag": tag}
        values |= {"key_id": key.id, "key": _in_ascii(codec.encode_key(key))}
        values["secret"] = _rows.secret_bytes(key.api_key, ticket_id, self._cipher)
        # Try for as long as no other owner can claim the ticket, because a new key must not be lost.
        until = time.monotonic() + max(self._session.lease_keeper.seconds_left, self._session.patience)
        try:
            if await self._session.ask("record", about=(ticket_id, tag), until=until, **values):
                return True
            # An earlier try may have recorded the key, though its answer was lost with the connection.
            return bool(await self._session.ask("is_recorded", about=(ticket_id, tag), until=until, **values))
        except LedgerError:
            self._unsure[ticket_id] = tag
            raise

    async def erase(self, ticket_id: str) -> None:
        """Erase a secret that was delivered; see `Ledger`."""
        await self._session.ask("erase", about=(ticket_id,), ticket=ticket_id)

    async def undelivered(
        self, after: str, limit: int, *, left_for: float = 0.0
    ) -> Sequence[tuple[str, CreatedKey | LedgerError]]:
        """Return tickets whose secret is still kept; see `Ledger`."""
        found = await self._session.ask("undelivered", **_rows.cursor(after), limit=limit, left_for=left_for)
        return [_rows.kept(row, self._cipher) for row in found]

    async def with_keys(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of tickets that have their key, in order, from the one after `after`."""
        return [ticket for (ticket,) in await self._session.ask("with_keys", **_rows.cursor(after), limit=limit)]

    async def rotate(self) -> int:
        """Encrypt the kept secrets with the cipher's current key; see `SQLiteLedger.rotate`."""
        return await rotate(self._cipher, self._kept_secrets, self._mark_rotated, self._replace_secrets)

    async def _kept_secrets(self, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
        return await self._session.ask("secrets", **_rows.cursor(after), limit=limit)

    async def _mark_rotated(self, key_id: str) -> None:
        await self._session.ask("mark_rotated", key_id=key_id)

    async def _replace_secrets(self, secrets: Sequence[tuple[str, bytes, bytes]]) -> int:
        if not secrets:
            return 0
        tickets, old, new = map(list, zip(*secrets, strict=True))
        return len(await self._session.ask("replace_secrets", tickets=tickets, old=old, new=new))

    # --------------------------------------------------------------- attempts

    async def mark_void(self, tag: str) -> None:
        """Note that an attempt is proven to have left nothing; see `Ledger`."""
        await self._transition("mark_void", tag)

    async def forget_attempt(self, tag: str) -> None:
        """Forget an attempt that was refused for now, or never sent; see `Ledger`."""
        await self._transition("forget", tag, "forget_attempt")

    async def mark_suspect(self, tag: str, effect: Effect, reason: str, key_id: str | None) -> None:
        """Note that an attempt may have left a key; see `Ledger`."""
        learned = {"effect": effect.value, "reason": reason, "key_id": key_id}
        await self._transition("mark_suspect", tag, "mark_suspect", **learned)

    async def suspects(self) -> Sequence[Suspect]:
        """Return all suspects; see `Ledger`."""
        return _rows.suspects_of(await self._session.ask("suspects", now=time.time()))

    async def close_suspect(self, tag: str, state: AttemptState) -> bool:
        """Note that a suspect's key was revoked, or has expired; see `Ledger`."""
        return bool(await self._transition("revoke" if state is AttemptState.REVOKED else "expire", tag))

    async def acquire_sweep_turn(self, seconds: float) -> bool:
        """Take this owner's turn to sweep, unless another has it; see `Ledger`."""
        return bool(await self._session.ask("acquire_sweep_turn", owner=self._session.owner, seconds=seconds))

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id belongs to a ticket; see `Ledger`."""
        return bool(await self._session.ask("owns_key", key_id=key_id))

    async def recent(self, seconds: float) -> Sequence[float]:
        """Return the ages of the attempts of the last `seconds`, by the server's clock; see `Ledger`."""
        return [age for (age,) in await self._session.ask("recent", seconds=seconds)]

    async def counts(self) -> Counts:
        """Count tickets and attempts by their states; see `Ledger`."""
        tickets = await self._session.ask("count_tickets", about=(_COUNTING,), attempt=_LONG)
        return _rows.counts_of(tickets, await self._session.ask("count_attempts", about=(_COUNTING,), attempt=_LONG))

    # ---------------------------------------------------------------- inside

    async def _transition(self, move: str, tag: str, statement: str = "transition", **values: Any) -> list[Any]:
        """Move an attempt according to the table of states; return a row if it moved."""
        come_from, to = map(str, ATTEMPT_TRANSITIONS[move].come_from), str(ATTEMPT_TRANSITIONS[move].to)
        return await self._session.ask(statement, about=(tag,), tag=tag, come_from=list(come_from), to=to, **values)


def _unwritable(ticket_id: str, error: Unwritable) -> InvalidRequestError:
    """Return the error for a ticket that this database's encoding cannot store."""
    return InvalidRequestError(f"ticket {ticket_id!r:.100}: {error}; a database with ENCODING 'UTF8' has them all")


def _in_ascii(text: str) -> str:
    """Return JSON in ASCII, because a new key must be recorded even if the database's encoding lacks a character."""
    if text.isascii():
        return text
    units = (letter.encode("utf-16-be").hex() for letter in text)
    return "".join(
        letter if letter.isascii() else "".join(f"\\u{code[at : at + 4]}" for at in range(0, len(code), 4))
        for letter, code in zip(text, units, strict=True)
    )
