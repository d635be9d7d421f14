"""A ledger in one SQLite file."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from respan_async._arguments import shown
from respan_async._calls.owning_loop import OwningLoop
from respan_async._http import codec, json_text
from respan_async.errors import ClientStateError, ConfigurationError, Effect, LedgerError, Suspect
from respan_async.issuing import _posix, _rows
from respan_async.issuing._heartbeat import LeaseKeeper
from respan_async.issuing._private_file import make_private
from respan_async.issuing._rotation_mark import MARK, RotationMark, key_id_of, outdated
from respan_async.issuing._sql_loader import STATES, load
from respan_async.issuing.cipher import Cipher, checked, key_as_secret
from respan_async.issuing.ledger import Counts, Intent, TicketRecord
from respan_async.issuing.sqlite._connection import (
    BUSY_TIMEOUT,
    check_log,
    check_size,
    check_whole,
    open_connection,
    read_beside,
)
from respan_async.issuing.sqlite._file_identity import FileIdentity, check_not_inherited, has_log
from respan_async.issuing.sqlite._liveness_lock import LivenessLock
from respan_async.issuing.sqlite._writer import Writer
from respan_async.issuing.states import ATTEMPT_TRANSITIONS, AttemptState
from respan_async.issuing.tickets import Ticket
from respan_async.models import CreatedKey

LEASE: Final = 30.0
"""Seconds an owner that is not heard of keeps its claims. One whose process has died loses them at once."""

_MOMENT: Final = 100
"""Milliseconds for which others are waited for when the log is emptied; there is another turn after the next commit."""

T = TypeVar("T")

_SQL: Final = load("sqlite/ledger.sql")


class SQLiteLedger:
    """Keep tickets, attempts and keys in one file, for any number of processes on one machine.

    Writes go through one thread, which commits for many at once (WAL, `synchronous=FULL`). The file is its owner's
    alone (0600), and erased secrets are overwritten in it and in its log.

    Args:
        path: The file, made when it is missing; `":memory:"`, for tests, keeps nothing on disk: what is in it is gone
            with this process.
        cipher: Encrypts the secrets that are kept until they are delivered; None to keep them as they are.
        lease: Seconds after which the claims of a process that is stopped, not dead, may be taken over.

    Raises:
        ConfigurationError: A setting is not that.
    """

    def __init__(self, path: str | os.PathLike[str], cipher: Cipher | None = None, *, lease: float = LEASE) -> None:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(place, str) or not place or "\0" in place:
            raise ConfigurationError(f"path: expected that of a file, as text or a Path, got {shown(path)}")
        self._memory = place == ":memory:"
        if not self._memory and (lack := _posix.lack_of("a ledger in a file")) is not None:
            raise ConfigurationError(f"path: {lack}; use a PostgresLedger, or ':memory:' for tests")
        self._path = Path(path)
        self._cipher = checked(cipher := cast("Cipher | None", key_as_secret(cipher)))
        self._lease = lease
        self._writer: Writer | None = None
        self._owner = 0
        self._lock = LivenessLock(None if self._memory else self._path)
        self._lease_keeper = LeaseKeeper(lease, self._prolong, self._enter, partial(self._write, self._reclaim_owners))
        self._mark = RotationMark()
        self._place = self._path
        self._files = FileIdentity(self._path)
        self._reading: set[asyncio.Future[Any]] = set()
        self._erased = False
        self._open = False
        self._is_whole = False  # open, and checked
        self._is_resting = False  # on no event loop, since the one that it was opened on is closed
        self._home = OwningLoop("ledger", "opened")

    # -------------------------------------------------------------- lifecycle

    async def open(self, account: str, *, force: bool = False) -> None:
        """Open the file for an account, and take over what dead owners left; see `Ledger`."""
        if self._home.is_gone:
            self._come()
        if self._open and self._is_resting:
            await self._go_on(account, force=force)
            return
        if self._open:
            raise ClientStateError("the ledger is open already; each issuer has a ledger of its own, and closes it")
        self._open = True
        self._home.bind()
        try:
            if not self._memory:
                self._stay()
                self._lock = LivenessLock(self._place)
                make_private(self._path)
                check_size(self._path)
                check_not_inherited(self._path)
                if has_log(self._path) and not self._lock.is_anybody_alive():
                    await asyncio.to_thread(check_log, self._path)
            self._files = FileIdentity(self._path)
            noted = self._lock.most_noted()  # before the ledger is read: it has seen no fewer since
            writer = Writer(
                partial(open_connection, self._path, self._files),
                self._truncate,
                asyncio.get_running_loop(),
                self._seal,
            )
            self._writer = writer  # before it is started: a cancellation here ends its thread
            await writer.start()
            await writer.do(lambda connection: check_whole(self._path, connection, noted))
            await writer.do(lambda connection: self._check_account(connection, account, force))
            await self._lease_keeper.start()
            self._is_whole = True
        except GeneratorExit:
            raise  # of an event loop that is closed: on the next one it goes on from here
        except BaseException:
            await self.aclose()
            raise

    def _stay(self) -> None:
        """Be where the ledger was opened first, though the program may have changed its working directory since."""
        if self._path is self._place:
            self._place = self._path.absolute()
        elif self._path.absolute() != self._place:
            self._path = self._place

    async def aclose(self) -> None:
        """Finish what is to be written, and close the file; see `Ledger`."""
        if self._home.is_gone:
            self._come()
        self._home.check()
        self._lease_keeper.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.hasten()
        # Whatever cuts this short: the thread is told to end, and the lock says that this owner is gone.
        try:
            try:
                if self._reading:  # the last to close takes the log away; of two at the same time neither does
                    await asyncio.wait(self._reading)
                if writer is not None and self._owner:
                    with contextlib.suppress(LedgerError):
                        await writer.do(self._leave)
            finally:
                if writer is not None:
                    await writer.stop()
        finally:
            self._lock.release()
            self._files.closed()
            self._open = self._is_whole = self._is_resting = False
            self._home.unbind()

    def _come(self) -> None:
        """Belong to the running event loop; the one before is closed. The thread that writes is as good on any."""
        self._home.unbind()
        self._home.bind()
        self._lease_keeper.leave_loop()
        self._reading.clear()
        if self._writer is not None and self._is_whole:
            self._writer.move(asyncio.get_running_loop())
            self._is_resting = True
            return
        # The loop was closed before the file was open, or while it was being closed.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
        self._lock.release()
        self._open = self._is_whole = False
        self._owner = 0

    async def _go_on(self, account: str, *, force: bool) -> None:
        try:
            await self._write(lambda connection: self._check_account(connection, account, force))
            await self._lease_keeper.resume()
        except GeneratorExit:
            raise  # of an event loop that is closed: on the next one it goes on from here
        except BaseException:
            await self.aclose()
            raise
        self._is_resting = False

    def lease_held_since(self, since: float) -> bool:
        """Whether this owner's claims have held all the time since then; see `Ledger`."""
        return self._lease_keeper.lease_held_since(since)

    async def _prolong(self) -> bool:
        return bool(self._owner) and await self._write(self._renew)

    async def _enter(self) -> None:
        self._lock.acquire()
        self._owner = await self._write(self._register_owner)

    # ---------------------------------------------------------------- tickets

    async def find(self, ticket_id: str) -> TicketRecord | None:
        """Return what is known of a ticket; see `Ledger`."""
        # By the writer: its cache is warm, where a connection beside it would read anew after every commit.
        row = await self._write(lambda connection: connection.execute(_SQL["find"], {"ticket": ticket_id}).fetchone())
        return None if row is None else _rows.record_of(row, ticket_id, self._cipher)

    async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
        """Claim a ticket and note an intent, in one step; see `Ledger`."""
        ticket_id, fields, owner = ticket.id, ticket.fields, self._owner
        claim: dict[str, Any] = {
            **STATES,
            "ticket": ticket_id,
            "fields": fields,
            "owner": owner,
            **self._mark.accepted(self._cipher),
        }
        claim["awake"] = time.monotonic()
        attempt = claim | {"tag": intent.tag, "name": intent.name, "sent_at": intent.sent_at}
        attempt["sent"] = json_text.encode(intent.sent).decode()

        def work(connection: sqlite3.Connection) -> int:
            claimed = connection.execute(_SQL["claim"], claim).fetchone()
            if claimed is None and self._mark.refuses(self._meta(connection, MARK), self._cipher):
                raise outdated(str(self._path), self._cipher)
            if claimed is None:
                raise _rows.not_claimed(connection.execute(_SQL["find"], claim).fetchone(), ticket_id, fields)
            (epoch,) = claimed
            if epoch > 1:
                connection.execute(_SQL["mark_others_suspect"], claim)
            connection.execute(_SQL["claim_attempt"], {**attempt, "epoch": epoch})
            return int(epoch)

        return await self._write(work)

    async def release(self, ticket_id: str, epoch: int | None) -> None:
        """Give up a claim: the call has ended without a key; see `Ledger`."""
        await self._execute("release", ticket=ticket_id, owner=self._owner, epoch=epoch)

    async def record(self, ticket_id: str, epoch: int, tag: str, key: CreatedKey) -> bool:
        """Record a ticket's key, if the claim still holds; see `Ledger`."""
        text = codec.encode_key(key)
        secret = _rows.secret_bytes(key.api_key, ticket_id, self._cipher)
        values = {**STATES, "ticket": ticket_id, "owner": self._owner, "epoch": epoch, "tag": tag}
        values |= {"key_id": key.id, "key": text, "secret": secret}

        def work(connection: sqlite3.Connection) -> bool:
            if connection.execute(_SQL["record"], values).rowcount != 1:
                return False
            connection.execute(_SQL["record_secret"], values)
            connection.execute(_SQL["record_attempt"], values)
            return True

        return await self._write(work)

    async def erase(self, ticket_id: str) -> None:
        """Erase a secret that was delivered; see `Ledger`."""

        def work(connection: sqlite3.Connection) -> None:
            for statement in ("erase_secret", "erase"):
                connection.execute(_SQL[statement], {**STATES, "ticket": ticket_id})
            self._erased = True

        await self._write(work)

    async def undelivered(
        self, after: str, limit: int, *, left_for: float = 0.0
    ) -> Sequence[tuple[str, CreatedKey | LedgerError]]:
        """Return tickets whose secret is still kept; see `Ledger`."""
        found = await self._select("undelivered", after=after, limit=limit, left_for=left_for, awake=time.monotonic())
        return [_rows.kept(row, self._cipher) for row in found]

    async def with_keys(self, after: str, limit: int) -> Sequence[str]:
        """Return the ids of tickets that have their key, in order, from the one after `after`."""
        return [ticket for (ticket,) in await self._select("with_keys", after=after, limit=limit)]

    async def rotate(self) -> int:
        """Encrypt the secrets that are kept with the cipher's current key, those in plain text too.

        The cipher needs the keys they are encrypted with now, as its `old_keys`. Safe while other processes issue, once
        all of them encrypt with that key and have the others as old ones: one that does not claims no ticket any more.

        Returns:
            How many were encrypted anew.

        Raises:
            LedgerError: There is no cipher, or it has not the key of a secret; then all is left as it was.
        """
        cipher = self._cipher
        if cipher is None:
            raise LedgerError("a ledger without a cipher has nothing to rotate")
        after = ""
        while found := await self._select("secrets", after=after, limit=100):
            _rows.check_readable(found, cipher)  # all of them, or the mark would lock out who has the right key
            after = found[-1][0]
        if (key_id := key_id_of(cipher)) is not None:
            await self._execute("set_meta", name=MARK, value=key_id)  # first: what comes after is of this key
        after, rotated = "", 0
        while found := await self._select("secrets", after=after, limit=100):
            rotated += await self._write(partial(self._replace, _rows.renewed(found, cipher)))
            after = found[-1][0]
        return rotated

    # --------------------------------------------------------------- attempts

    async def mark_void(self, tag: str) -> None:
        """Note that an attempt is proven to have left nothing; see `Ledger`."""
        await self._transition("mark_void", tag)

    async def forget_attempt(self, tag: str) -> None:
        """Forget an attempt that was refused for now, or never sent; see `Ledger`."""
        await self._execute("forget_attempt", tag=tag)

    async def mark_suspect(self, tag: str, effect: Effect, reason: str, key_id: str | None) -> None:
        """Note that an attempt may have left a key; see `Ledger`."""
        await self._transition("mark_suspect", tag, effect=effect.value, reason=reason, key_id=key_id)

    async def suspects(self) -> Sequence[Suspect]:
        """Return all suspects; see `Ledger`."""
        return _rows.suspects_of(await self._select("suspects"))

    async def close_suspect(self, tag: str, state: AttemptState) -> bool:
        """Note that a suspect's key was revoked, or has died by itself; see `Ledger`."""
        return bool(await self._execute("close_suspect", tag=tag, to=str(state)))

    async def acquire_sweep_turn(self, seconds: float) -> bool:
        """Take this owner's turn to sweep, unless another has it; see `Ledger`."""
        turn = {"owner": self._owner, "seconds": seconds, "awake": time.monotonic()}
        return bool(await self._execute("acquire_sweep_turn", **turn))

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id is a ticket's; see `Ledger`."""
        return bool(await self._select("owns_key", key_id=key_id))

    async def recent(self, seconds: float) -> Sequence[float]:
        """Return the ages of the attempts of the last `seconds`; see `Ledger`."""
        return [age for (age,) in await self._select("recent", seconds=seconds)]

    async def counts(self) -> Counts:
        """Count tickets and attempts by their states; see `Ledger`."""
        return _rows.counts_of(await self._select("count_tickets"), await self._select("count_attempts"))

    # ---------------------------------------------------------------- inside

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._home.check()
        if self._writer is None:
            raise LedgerError("the ledger is not open")
        return await self._writer.do(work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read beside the writer, what may take long."""
        self._home.check()
        if self._memory or self._writer is None:
            return await self._write(work)
        reading = asyncio.ensure_future(asyncio.to_thread(read_beside, self._place, self._files, work))
        self._reading.add(reading)
        reading.add_done_callback(self._read_over)
        return await asyncio.shield(reading)

    def _read_over(self, reading: asyncio.Future[Any]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # looked at, for a caller that was cancelled

    async def _select(self, statement: str, **values: Any) -> list[Any]:
        return await self._read(lambda connection: connection.execute(_SQL[statement], {**STATES, **values}).fetchall())

    async def _execute(self, statement: str, **values: Any) -> int:
        """Run a statement that writes; return how many rows it has changed."""
        return await self._write(lambda connection: connection.execute(_SQL[statement], {**STATES, **values}).rowcount)

    async def _transition(self, move: str, tag: str, **values: Any) -> None:
        await self._execute(move, tag=tag, to=str(ATTEMPT_TRANSITIONS[move].to), **values)

    # ------------------------------------------------------------- in the thread

    def _truncate(self, connection: sqlite3.Connection) -> None:
        """Empty the log after secrets were erased, so that they are not left in it."""
        if self._erased and not self._memory:
            # Not with the patience of a write: a process that was stopped while it read would cost everybody that.
            connection.execute(f"PRAGMA busy_timeout = {_MOMENT}")
            try:
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._erased = bool(busy)
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")

    def _seal(self, connection: sqlite3.Connection) -> Callable[[], None]:
        self._files.check("written")
        (commits,) = connection.execute(_SQL["count_commit"]).fetchone()
        return partial(self._lock.note, commits)

    def _check_account(self, connection: sqlite3.Connection, account: str, force: bool) -> None:
        known = self._meta(connection, "account")
        bound = _rows.bound(known, account, force=force, where=str(self._path), place="a file")
        if bound != known:
            connection.execute(_SQL["set_meta"], {"name": "account", "value": bound})
        self._mark.seen = self._meta(connection, MARK)

    @staticmethod
    def _meta(connection: sqlite3.Connection, name: str) -> str | None:
        found = connection.execute(_SQL["get_meta"], {"name": name}).fetchone()
        return None if found is None else found[0]

    def _replace(self, secrets_: Sequence[tuple[str, bytes, bytes]], connection: sqlite3.Connection) -> int:
        """Put secrets in the place of those that are still there."""
        self._erased = True
        return sum(
            connection.execute(_SQL["replace_secret"], {"ticket": ticket, "old": old, "secret": new}).rowcount
            for ticket, old, new in secrets_
        )

    def _register_owner(self, connection: sqlite3.Connection) -> int:
        lease = {"lease": self._lease, "awake": time.monotonic()}
        (owner,) = connection.execute(_SQL["register_owner"], {"token": self._lock.token, **lease}).fetchone()
        return int(owner)

    def _renew(self, connection: sqlite3.Connection) -> bool:
        lease = {"lease": self._lease, "awake": time.monotonic()}
        renewed = connection.execute(_SQL["renew"], {"owner": self._owner, **lease}).fetchone()
        return renewed is not None

    def _reclaim_owners(self, connection: sqlite3.Connection) -> None:
        """Take over what owners left that are dead, or whose lease is over."""
        others = connection.execute(_SQL["owners"], {"owner": self._owner, "awake": time.monotonic()})
        for owner, token, leased in others.fetchall():
            if not leased or self._lock.is_dead(token):
                self._retire(connection, owner)
                self._lock.forget(token)
        connection.execute(_SQL["mark_ownerless_suspect"], STATES)

    def _leave(self, connection: sqlite3.Connection) -> None:
        self._retire(connection, self._owner)

    def _retire(self, connection: sqlite3.Connection, owner: int) -> None:
        # Its tickets stay claimed by no owner: they are free to be claimed when they are asked for.
        for statement in ("mark_all_of_suspect", "retire"):
            connection.execute(_SQL[statement], {**STATES, "owner": owner})
