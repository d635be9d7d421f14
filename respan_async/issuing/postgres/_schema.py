"""Creates, migrates and checks a ledger's schema in a Postgres database, and binds it to an account."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from respan_async.errors import LedgerError
from respan_async.issuing import _rows
from respan_async.issuing.postgres._errors import PermissionDenied, SchemaMissing
from respan_async.issuing.postgres._pool import ConnectionPool
from respan_async.issuing.postgres._statements import checked_name, statements

_FIRST_PATIENCE: Final = 2.0
"""Seconds to try to reach the database at first, because a wrong address or password looks like a restarting server."""

_LONG: Final = 600.0
"""Seconds that the server may take to migrate all rows."""

_VERSION: Final = 2

_COLUMNS: Final = {
    "meta": {"name", "value"},
    "owners": {"id", "lease_until"},
    "tickets": {"ticket", "fields", "state", "owner", "epoch", "claimed_at", "key_id", "key", "secret", "issued_at"},
    "attempts": {"id", "tag", "ticket", "owner", "epoch", "state", "name", "sent", "sent_at", "noted_at", "reason"},
}
"""The columns of a ledger's tables, by which they are told from another program's."""


class Schema:
    """The schema of a ledger.

    Args:
        name: The name, an identifier of ASCII characters.

    Attributes:
        where: Its name in messages.
        statements: The ledger's statements, by name.

    Raises:
        ConfigurationError: The name is invalid.
    """

    def __init__(self, name: str) -> None:
        self._name = checked_name(name)
        self.where = f"schema {name!r}"
        self.statements = statements(name)

    async def make(self, pool: ConnectionPool) -> None:
        """Create the schema and its tables if they are missing; migrate tables of an older version.

        Raises:
            LedgerError: It is of a newer version, or another program's, or cannot be created; or workers of an older
                version are running.
        """
        with contextlib.suppress(SchemaMissing):
            async with self.explaining(pool):
                if int((await self.meta(pool))["version"]) == _VERSION:
                    return
            try:
                await pool.ask(self.statements["migrate_1"], {}, attempt=_LONG)
            except PermissionDenied as error:
                raise self._error(
                    f"{error}; the tables are migrated by whom they belong to: by create_schema(), or by "
                    "`respan-keys ledger schema --migrate | psql DATABASE`"
                ) from None
            return
        async with self.explaining(pool, "rights_to_make", "the user that makes it needs"):
            if not await self._ask(pool, "has_namespace"):
                await pool.ask(self.statements["namespace"], {})
            await pool.ask(self.statements["schema"], {})

    async def bind(self, pool: ConnectionPool, account: str, *, force: bool) -> dict[str, Any]:
        """Bind the ledger to an account, or check that it is bound to it.

        Returns:
            The ledger's metadata.

        Raises:
            LedgerError: There is no ledger, or it is of a newer version; or it belongs to another account, unless
                forced; or the server does not commit durably.
        """
        while True:
            try:
                meta = await self.meta(pool)
            except SchemaMissing:
                raise self._error("there is no ledger; make it once, with PostgresLedger.create_schema()") from None
            if int(meta["version"]) < _VERSION:
                raise self._error(
                    "made by an older version of respan-async; migrate it once, with PostgresLedger.create_schema() "
                    "or `respan-keys ledger schema --migrate`, by the owner of its tables"
                )
            if meta["commit"] == "off":
                raise self._error("synchronous_commit is off: what the server has committed, it may lose in a crash")
            known = meta.get("account")
            bound = _rows.bound(known, account, force=force, where=self.where, place="a schema")
            if bound == known:
                return meta
            # Another process may have been faster, so the metadata is read again.
            await pool.ask(self.statements["bind"], {"account": bound, "before": known})

    async def meta(self, pool: ConnectionPool) -> dict[str, Any]:
        """Return the ledger's metadata.

        Raises:
            LedgerError: There is no ledger, or it is of a newer version, or the tables belong to another program.
        """
        columns: dict[str, set[str]] = {}
        for table, column in await self._ask(pool, "find_columns"):
            columns.setdefault(table, set()).add(column)
        if not columns:
            raise SchemaMissing(f"{self.where}: there is no ledger")
        if any(wanted - columns.get(table, set()) for table, wanted in _COLUMNS.items()):
            raise self._foreign(columns)
        meta: dict[str, Any] = dict(await self._ask(pool, "get_meta"))
        version = meta.get("version", "")
        if not version.isdecimal():
            raise self._foreign(columns)
        if int(version) > _VERSION:
            raise self._error("made by a newer version of respan-async")
        return meta

    async def _ask(self, pool: ConnectionPool, statement: str) -> list[Any]:
        values = {"schema": self._name}
        return await pool.ask(self.statements[statement], values, until=time.monotonic() + _FIRST_PATIENCE)

    @contextlib.asynccontextmanager
    async def explaining(
        self, pool: ConnectionPool, rights: str = "rights_to_use", who: str = "its user needs"
    ) -> AsyncIterator[None]:
        """Add the missing rights to a `PermissionDenied`.

        Args:
            pool: The pool in which they are missing.
            rights: The statement that lists the required rights.
            who: The role that needs them, in the message.
        """
        try:
            yield
        except PermissionDenied as error:
            wanted = [grant for (grant,) in await self._ask(pool, rights)]
            raise self._error("; ".join([str(error), *([f"{who}: {'; '.join(wanted)}"] if wanted else [])])) from None

    def _foreign(self, tables: Iterable[str]) -> LedgerError:
        there = ", ".join(sorted(tables))
        return self._error(f"has tables of another program ({there}); give the ledger a schema of its own")

    def _error(self, message: str) -> LedgerError:
        return LedgerError(f"{self.where}: {message}")
