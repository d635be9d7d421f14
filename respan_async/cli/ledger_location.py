"""Locates a command's ledger: in memory, in a file, or in a Postgres database."""

import argparse
import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from respan_async.cli.connection_urls import connection_url, without_password
from respan_async.cli.exit_codes import WrongUse
from respan_async.errors import ConfigurationError, LedgerError
from respan_async.issuing import AESGCMCipher, Issuer, PostgresLedger, SQLiteLedger
from respan_async.issuing.ledger import Snapshot
from respan_async.issuing.sqlite._inspect import read_snapshot
from respan_async.secret import Secret

ENVIRONMENT: Final = "RESPAN_LEDGER"
IN_MEMORY: Final = ":memory:"

CommandLedger: TypeAlias = SQLiteLedger | PostgresLedger

_DATABASE: Final = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)


@attrs.frozen
class LedgerLocation:
    """The location of a ledger.

    Attributes:
        name: Its name in messages: a file's path, or a database without its user and password.
        words: The words that name it in another command; empty if the environment does.
        dsn: The connection string of the database; None for a file, or memory.
    """

    name: str
    words: tuple[str, ...] = ()
    dsn: Secret | None = None

    @property
    def in_memory(self) -> bool:
        """Whether the ledger is forgotten with this process."""
        return self.name == IN_MEMORY

    def ledger(self, cipher: AESGCMCipher | None) -> CommandLedger:
        """Return the ledger, not open yet.

        Raises:
            WrongUse: The location is invalid, or the extra `postgres` is not installed.
        """
        if self.dsn is None:
            return SQLiteLedger(self.name, cipher)
        try:
            return PostgresLedger(cast("str", self.dsn), cipher)
        except (ConfigurationError, ImportError) as error:
            raise WrongUse(f"--ledger: {error}") from None

    def snapshot(self) -> Snapshot:
        """Read the contents of the ledger, without disturbing processes that work with it.

        Raises:
            LedgerError: The ledger cannot be read.
            WrongUse: The location is invalid, or the extra `postgres` is not installed.
        """
        if self.dsn is None:
            return read_snapshot(self.name)
        self.ledger(None)
        from respan_async.issuing.postgres import _inspect  # psycopg is an extra

        reading = _inspect.read_snapshot(self.dsn)
        # On a separate event loop, because this one may be in the middle of a run.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, reading).result()

    async def open_issuer(self, issuer: Issuer) -> None:
        """Open an issuer whose ledger is at this location.

        Raises:
            WrongUse: The ledger cannot be used.
        """
        try:
            await issuer.__aenter__()
        except LedgerError as error:
            raise self.wrong(error) from None

    def wrong(self, error: LedgerError) -> WrongUse:
        """Return the error to report for a ledger that cannot be used."""
        text = str(error).replace("or force it", "or use --force-ledger")
        text = text.replace("with PostgresLedger.create_schema()", "with: respan-keys ledger schema | psql DATABASE")
        return WrongUse(text if self.name in text else f"{self.name}: {text}")


def location_of(arguments: argparse.Namespace) -> LedgerLocation:
    """Return the location of the ledger: as given, or from the environment, or beside the file of keys.

    Raises:
        WrongUse: It is the file of keys itself.
    """
    given: str | None = arguments.ledger
    in_sandbox = getattr(arguments, "sandbox", False)  # a sandbox does not use the environment's ledger
    text = (given or "") if in_sandbox else connection_url(given, ENVIRONMENT)
    if _DATABASE.match(text):
        words = () if given is None else ("--ledger", without_password(text))
        return LedgerLocation(_database_name(text), words, Secret(text))
    if not text:
        path = IN_MEMORY if arguments.out == "-" else f"{arguments.out}.ledger"
        return LedgerLocation(path, ("--ledger", path))
    if arguments.out != "-" and Path(text).absolute().resolve() == Path(arguments.out).absolute().resolve():
        raise WrongUse(f"{text}: expected a ledger and a file of keys, got one file for both")
    return LedgerLocation(text, ("--ledger", text))


def existing_location_of(arguments: argparse.Namespace) -> LedgerLocation:
    """Return the location of an existing ledger.

    Raises:
        WrongUse: The ledger does not exist, as far as can be known without asking a server.
    """
    location = location_of(arguments)
    if location.in_memory and arguments.ledger is None:
        raise WrongUse(
            f"expected --ledger FILE, or --out FILE as of the run, beside which its ledger is, or {ENVIRONMENT} "
            "in the environment"
        )
    if location.dsn is None and not Path(location.name).is_file():
        raise WrongUse(f"{location.name}: there is no such ledger")
    return location


def _database_name(dsn: str) -> str:
    try:
        parts = urlsplit(dsn)
        place = f"{parts.hostname or ''}{parts.path}"
    except ValueError:
        place = ""
    return f"postgresql://{'' if '@' in place else place}"
