"""Registers an owner of a ledger's file, with its lock and its lease, and takes over what dead owners have left."""

import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from respan_async.issuing._heartbeat import LeaseKeeper
from respan_async.issuing._sql_loader import STATES, load
from respan_async.issuing.sqlite._liveness_lock import LivenessLock

T = TypeVar("T")

_SQL: Final = load("sqlite/ledger.sql")


class Write(Protocol):
    """Runs an operation in the writing thread."""

    def __call__(self, work: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Return the operation's result, once its changes are durable."""
        ...


class Owner:
    """An owner of a ledger, which claims tickets for as long as its process lives and its lease lasts.

    Args:
        path: The ledger's file; None for a ledger that no other process can see.
        lease: Seconds that the lease lasts.
        write: Writes to the ledger.

    Attributes:
        id: The owner's number in the ledger; 0 while it has none.
        lock: The lock that the system releases when the owner's process dies.
        lease_keeper: Prolongs the owner's lease.

    Raises:
        ConfigurationError: `lease` is not above 0 and finite.
    """

    def __init__(self, path: Path | None, lease: float, write: Write) -> None:
        self.id = 0
        self.lock = LivenessLock(path)
        self.lease_keeper = LeaseKeeper(lease, self._prolong, self._enter, partial(write, self._reclaim_owners))
        self._lease = lease
        self._write = write

    async def _prolong(self) -> bool:
        return bool(self.id) and await self._write(self._renew)

    async def _enter(self) -> None:
        self.lock.acquire()
        self.id = await self._write(self._register)

    # ------------------------------------------------------- in the writing thread

    def leave(self, connection: sqlite3.Connection) -> None:
        """Remove this owner; its attempts without an answer become suspects."""
        self._retire(connection, self.id)

    def _register(self, connection: sqlite3.Connection) -> int:
        (number,) = connection.execute(_SQL["register_owner"], {"token": self.lock.token, **self._until()}).fetchone()
        return int(number)

    def _renew(self, connection: sqlite3.Connection) -> bool:
        return connection.execute(_SQL["renew"], {"owner": self.id, **self._until()}).fetchone() is not None

    def _until(self) -> dict[str, Any]:
        return {"lease": self._lease, "awake": time.monotonic()}

    def _reclaim_owners(self, connection: sqlite3.Connection) -> None:
        """Take over what dead owners, and owners with lapsed leases, have left."""
        others = connection.execute(_SQL["owners"], {"owner": self.id, "awake": time.monotonic()})
        for owner, token, leased in others.fetchall():
            if not leased or self.lock.is_dead(token):
                self._retire(connection, owner)
                self.lock.forget(token)
        connection.execute(_SQL["mark_ownerless_suspect"], STATES)

    def _retire(self, connection: sqlite3.Connection, owner: int) -> None:
        # Its tickets stay claimed by the removed owner; any owner may claim them when they are asked for.
        for statement in ("mark_all_of_suspect", "retire"):
            connection.execute(_SQL[statement], {**STATES, "owner": owner})
