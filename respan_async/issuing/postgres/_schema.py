"""A ledger's schema in a Postgres database: made once, of a version, and bound to an account."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

from respan_async.errors import ConfigurationError, LedgerError
from respan_async.issuing import _rows
from respan_async.issuing._rotation import MARK
from respan_async.issuing._sql_loader import load
from respan_async.issuing.postgres._pool import ConnectionPool, PermissionDenied, SchemaMissing

_FIRST_PATIENCE: Final = 2.0
"""Seconds to try to reach the database at first: a wrong address or password looks like a server that restarts."""

_VERSION: Final = 1


class Schema:
    """Where the tables of a ledger are.

    Args:
        name: Its name, an identifier of ASCII characters.

    Attributes:
        where: What it is called in messages.
        statements: Those of the ledger, by name.

    Raises:
        ConfigurationError: The name is none.
    """

    def __init__(self, name: str) -> None:
        if not (isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) < 64):
            raise ConfigurationError(f"schema: expected a name of letters, digits and _, got {name!r:.100}")
        self._name = name
        self.where = f"schema {name!r}"
        self.statements = {
            key: statement.replace("{schema}", f'"{name}"') for key, statement in load("postgres/ledger.sql").items()
        }

    async def make(self, pool: ConnectionPool) -> None:
        """Make it and its tables, where they are missing.

        Raises:
            LedgerError: It is of a newer version, or cannot be made.
        """
        with contextlib.suppress(SchemaMissing):
            await self._meta(pool)
            return
        try:
            if not await pool.ask(self.statements["has_namespace"], {"schema": self._name}):
                await pool.ask(self.statements["namespace"], {})
            await pool.ask(self.statements["schema"], {})
        except PermissionDenied as error:
            raise self._error(f"{error}; whoever makes it needs: GRANT CREATE ON DATABASE ... TO ...") from None

    async def bind(self, pool: ConnectionPool, account: str, *, force: bool) -> dict[str, Any]:
        """Bind the ledger to an account, or see that it is.

        Returns:
            What the ledger says of itself.

        Raises:
            LedgerError: There is no ledger, or it is of a newer version; or another account's, unless forced; or the
                server does not commit durably.
        """
        while True:
            try:
                meta = await self._meta(pool)
            except SchemaMissing:
                raise self._error("there is no ledger; make it once, with PostgresLedger.create_schema()") from None
            if meta["commit"] == "off":
                raise self._error("synchronous_commit is off: what the server has committed, it may lose in a crash")
            known = meta.get("account")
            bound = _rows.bound(known, account, force=force, where=self.where, place="a schema")
            if bound == known:
                return meta
            # Unless another process was faster: so it is looked at again.
            await pool.ask(self.statements["bind"], {"account": bound, "before": known})

    async def mark(self, pool: ConnectionPool) -> str | None:
        """Return the mark that the last rotation has left; None when there was none."""
        return (await self._meta(pool)).get(MARK)

    async def _meta(self, pool: ConnectionPool) -> dict[str, Any]:
        """Return what the ledger says of itself."""
        found = await pool.ask(self.statements["get_meta"], {}, until=time.monotonic() + _FIRST_PATIENCE)
        meta: dict[str, Any] = dict(found)
        if int(meta.get("version", 0)) > _VERSION:
            raise self._error("made by a newer version of respan-async")
        return meta

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Tell which rights are missing, if it is they."""
        try:
            yield
        except PermissionDenied as error:
            usage = f"GRANT USAGE ON SCHEMA {self._name} TO ..."
            tables = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {self._name} TO ..."
            raise self._error(f"{error}; its user needs: {usage}; {tables}") from None

    def _error(self, message: str) -> LedgerError:
        return LedgerError(f"{self.where}: {message}")
