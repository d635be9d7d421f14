"""Keeps a ledger in an SQLite file, for processes on one machine."""

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from respan_async._arguments import shown
from respan_async._http import codec, json_text
from respan_async.errors import ConfigurationError, Effect, LedgerError, Suspect
from respan_async.issuing import _posix, _rows
from respan_async.issuing._cipher_key_mark import MARK, outdated
from respan_async.issuing._cipher_rotation import rotate
from respan_async.issuing._sql_loader import STATES, load
from respan_async.issuing.cipher import Cipher, checked, key_as_secret
from respan_async.issuing.ledger import Counts, Intent, TicketRecord
from respan_async.issuing.sqlite._session import Session
from respan_async.issuing.states import ATTEMPT_TRANSITIONS, AttemptState
from respan_async.issuing.tickets import Ticket
from respan_async.models import CreatedKey

LEASE: Final = 30.0
"""Seconds for which a silent owner keeps its claims. An owner whose process has died loses them at once."""

_SQL: Final = load("sqlite/ledger.sql")


class SQLiteLedger:
    """Keep tickets, attempts and keys in one file, for any number of processes on one machine.

    Writes go through one thread, which commits many at once (WAL, `synchronous=FULL`). Only the file's owner can read
    it (0600), and erased secrets are overwritten in the file and in its log.

    Args:
        path: The file, created if it is missing; `":memory:"`, for tests, keeps nothing on disk, and is lost with this
            process.
        cipher: Encrypts the secrets that are kept until they are delivered; None to keep them in plain text.
        lease: Seconds after which the claims of a process that is stopped, not dead, may be taken over.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    def __init__(self, path: str | os.PathLike[str], cipher: Cipher | None = None, *, lease: float = LEASE) -> None:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(place, str) or not place or "\0" in place:
            raise ConfigurationError(f"path: expected that of a file, as text or a Path, got {shown(path)}")
        if place != ":memory:" and (lack := _posix.lack_of("a ledger in a file")) is not None:
            raise ConfigurationError(f"path: {lack}; use a PostgresLedger, or ':memory:' for tests")
        self._cipher = checked(cipher := cast("Cipher | None", key_as_secret(cipher)))
        self._session = Session(Path(path), lease)

    # -------------------------------------------------------------- lifecycle

    async def open(self, account: str, *, force: bool = False) -> None:
        """Open the file for an account, and take over what dead owners left; see `Ledger`."""
        await self._session.open(account, force=force)

    async def aclose(self) -> None:
        """Finish the writes, and close the file; see `Ledger`."""
        await self._session.aclose()

    def lease_held_since(self, since: float) -> bool:
        """Whether this owner's claims have held all the time since then; see `Ledger`."""
        return self._session.owner.lease_keeper.lease_held_since(since)

    # ---------------------------------------------------------------- tickets

    async def find(self, ticket_id: str) -> TicketRecord | None:
        """Return the record of a ticket; see `Ledger`."""
        # Read in the writing thread, because its cache is warm; another connection would read anew after each commit.
        wanted = {**STATES, "ticket": ticket_id, "awake": time.monotonic()}
        row = await self._session.write(lambda connection: connection.execute(_SQL["find"], wanted).fetchone())
        return None if row is None else _rows.record_of(row, ticket_id, self._cipher)

    async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
        """Claim a ticket and note an intent, in one step; see `Ledger`."""
        ticket_id, fields, owner = ticket.id, ticket.fields, self._session.owner.id
        claim: dict[str, Any] = {
            **STATES,
            "ticket": ticket_id,
            "fields": fields,
            "owner": owner,
            **self._session.mark.accepted(self._cipher),
        }
        claim["awake"] = time.monotonic()
        attempt = claim | {"tag": intent.tag, "name": intent.name, "sent_at": intent.sent_at}
        attempt["sent"] = json_text.encode(intent.sent).decode()

        def work(connection: sqlite3.Connection) -> int:
            claimed = connection.execute(_SQL["claim"], claim).fetchone()
            if claimed is None and self._session.mark.refuses(self._session.meta(connection, MARK), self._cipher):
                raise outdated(str(self._session.path), self._cipher)
            if claimed is None:
                raise _rows.not_claimed(connection.execute(_SQL["find"], claim).fetchone(), ticket_id, fields)
            (epoch,) = claimed
            if epoch > 1:
                connection.execute(_SQL["mark_others_suspect"], claim)
            connection.execute(_SQL["claim_attempt"], {**attempt, "epoch": epoch})
            return int(epoch)

        return await self._session.write(work)

    async def release(self, ticket_id: str, epoch: int | None) -> None:
        """Release a claim, because the call has ended without a key; see `Ledger`."""
        await self._session.execute("release", ticket=ticket_id, owner=self._session.owner.id, epoch=epoch)

    async def record(self, ticket_id: str, epoch: int, tag: str, key: CreatedKey) -> bool:
        """Record a ticket's key, if the claim still holds; see `Ledger`."""
        text = codec.encode_key(key)
        secret = _rows.secret_bytes(key.api_key, ticket_id, self._cipher)
        values = {**STATES, "ticket": ticket_id, "owner": self._session.owner.id, "epoch": epoch, "tag": tag}
        values |= {"key_id": key.id, "key": text, "secret": secret}

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(_SQL["record"], values).rowcount != 1:
                return False
            connection.execute(_SQL["record_secret"], values)
            connection.execute(_SQL["record_attempt"], values)
            return True

        return await self._session.write(work)

    async def erase(self, ticket_id: str) -> None:
        """Erase a secret that was delivered; see `Ledger`."""

        def work(connection: sqlite3.Connection) -> None:
            for statement in ("erase_secret", "erase"):
                connection.execute(_SQL[statement], {**STATES, "ticket": _rows.raw(ticket_id)})
            self._session.note_erased()

        await self._session.write(work)

    async def undelivered(
        self, after: str, limit: int, *, left_for: float = 0.0
    ) -> Sequence[tuple[str, CreatedKey | LedgerError]]:
        """Return tickets whose secret is still kept; see `Ledger`."""
        found = await self._session.select(
            "undelivered", after=_rows.raw(after), limit=limit, left_for=left_for, awake=time.monotonic()
        )
        return [_rows.kept(row, self._cipher) for row in found]

    async def with_keys(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of tickets that have their key, in order, from the one after `after`."""
        return [ticket for (ticket,) in await self._session.select("with_keys", after=_rows.raw(after), limit=limit)]

    async def rotate(self) -> int:
        """Encrypt the kept secrets with the cipher's current key, including those in plain text.

        The cipher needs the keys that encrypt the secrets now, as its `old_keys`. Other processes may issue meanwhile,
        if all of them already encrypt with the new key and have the former keys as old keys. A process that does not
        cannot claim tickets after the rotation.

        A damaged secret is left out, and the log names its ticket.

        Returns:
            The number of re-encrypted secrets.

        Raises:
            LedgerError: There is no cipher, or it lacks the key of a secret; nothing was changed then.
        """
        return await rotate(self._cipher, self._kept_secrets, self._mark_rotated, self._replace_secrets)

    async def _kept_secrets(self, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
        return await self._session.select("secrets", after=_rows.raw(after), limit=limit)

    async def _mark_rotated(self, key_id: str) -> None:
        await self._session.execute("set_meta", name=MARK, value=key_id)

    async def _replace_secrets(self, secrets: Sequence[tuple[str, bytes, bytes]]) -> int:
        def work(connection: sqlite3.Connection) -> int:
            self._session.note_erased()
            rows = [{"ticket": _rows.raw(ticket), "old": old, "secret": new} for ticket, old, new in secrets]
            return sum(connection.execute(_SQL["replace_secret"], row).rowcount for row in rows)

        return await self._session.write(work) if secrets else 0

    # --------------------------------------------------------------- attempts

    async def mark_void(self, tag: str) -> None:
        """Note that an attempt is proven to have left nothing; see `Ledger`."""
        await self._transition("mark_void", tag)

    async def forget_attempt(self, tag: str) -> None:
        """Forget an attempt that was refused for now, or never sent; see `Ledger`."""
        await self._session.execute("forget_attempt", tag=tag)

    async def mark_suspect(self, tag: str, effect: Effect, reason: str, key_id: str | None) -> None:
        """Note that an attempt may have left a key; see `Ledger`."""
        await self._transition("mark_suspect", tag, effect=effect.value, reason=reason, key_id=key_id)

    async def suspects(self) -> Sequence[Suspect]:
        """Return all suspects; see `Ledger`."""
        return _rows.suspects_of(await self._session.select("suspects"))

    async def close_suspect(self, tag: str, state: AttemptState) -> bool:
        """Note that a suspect's key was revoked, or has expired; see `Ledger`."""
        return bool(await self._session.execute("close_suspect", tag=tag, to=str(state)))

    async def acquire_sweep_turn(self, seconds: float) -> bool:
        """Take this owner's turn to sweep, unless another has it; see `Ledger`."""
        turn = {"owner": self._session.owner.id, "seconds": seconds, "awake": time.monotonic()}
        return bool(await self._session.execute("acquire_sweep_turn", **turn))

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id belongs to a ticket; see `Ledger`."""
        return bool(await self._session.select("owns_key", key_id=key_id))

    async def recent(self, seconds: float) -> Sequence[float]:
        """Return the ages of the attempts of the last `seconds`; see `Ledger`."""
        return [age for (age,) in await self._session.select("recent", seconds=seconds)]

    async def counts(self) -> Counts:
        """Count tickets and attempts by their states; see `Ledger`."""
        return _rows.counts_of(
            await self._session.select("count_tickets"), await self._session.select("count_attempts")
        )

    # ---------------------------------------------------------------- inside

    async def _transition(self, move: str, tag: str, **values: Any) -> None:
        await self._session.execute(move, tag=tag, to=str(ATTEMPT_TRANSITIONS[move].to), **values)
