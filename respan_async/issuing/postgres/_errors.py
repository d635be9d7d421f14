"""Maps psycopg's exceptions to the ledger's errors.

psycopg is an extra, so this module imports it only when there is an exception to map.
"""

from typing import TYPE_CHECKING, Final

from respan_async.errors import LedgerError

if TYPE_CHECKING:
    import psycopg

_PASSING: Final = ("53", "55", "57014")
"""Prefixes of SQLSTATEs that pass: a full disk, too little memory, a lock or a statement that took too long."""

_TOO_LARGE: Final = "54"
"""The SQLSTATE class of requests that are too large for the server: psycopg calls them operational, but they recur."""


class ConnectionLost(LedgerError):
    """The connection broke, or could not be made; it is unknown whether the statement was executed."""


class SchemaMissing(LedgerError):
    """The table or the schema does not exist."""


class PermissionDenied(LedgerError):
    """The database user lacks a right."""


class DuplicateKey(LedgerError):
    """A row with this key exists already.

    Attributes:
        constraint: The name of the violated constraint.
    """

    constraint: str | None = None


class Unwritable(LedgerError):
    """The database's encoding lacks a character of a text."""


def ledger_error(error: "psycopg.Error", given_up: str | None) -> LedgerError:
    """Return the ledger's error for an exception of psycopg.

    Args:
        error: The exception.
        given_up: Why this process broke the connection; None if it did not.
    """
    from psycopg import InterfaceError, OperationalError, errors

    told = message_of(error)
    match error:
        case _ if given_up is not None:
            return ConnectionLost(given_up, retryable=True)
        case _ if (error.sqlstate or "").startswith(_TOO_LARGE):
            return LedgerError(f"the ledger could not be used: {told}")
        case _ if (error.sqlstate or "").startswith(_PASSING):
            return ConnectionLost(f"the ledger could not be used: {told}", retryable=True)
        case errors.ReadOnlySqlTransaction():
            return ConnectionLost(f"the ledger's server is read-only now, as a replica is: {told}", retryable=True)
        case OperationalError() | InterfaceError():
            # A connection that broke, a server that restarts, a deadlock.
            return ConnectionLost(f"the connection to the ledger broke: {told}", retryable=True)
        case errors.InsufficientPrivilege():
            return PermissionDenied(f"the ledger could not be used: {told}")
        case errors.UndefinedTable() | errors.InvalidSchemaName():
            return SchemaMissing(f"the ledger could not be used: {told}")
        case errors.UniqueViolation():
            double = DuplicateKey(f"the ledger could not be used: {told}{_numbering(error.diag)}")
            double.constraint = error.diag.constraint_name
            return double
        case errors.UntranslatableCharacter():
            return Unwritable(f"the ledger could not be used: {told}")
        case _:
            return LedgerError(f"the ledger could not be used: {told}")


def message_of(error: "psycopg.Error") -> str:
    """Return the first line of a message, in which libpq shows no password; later lines may show parameters."""
    return (error.diag.message_primary or str(error)).strip().partition("\n")[0] or type(error).__name__


def _numbering(diag: "psycopg.errors.Diagnostic") -> str:
    """Say what to do if the id of a new row is already taken."""
    table = f"{diag.schema_name}.{diag.table_name}"
    if diag.constraint_name not in ("attempts_pkey", "owners_pkey"):
        return ""
    setting = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"  # noqa: S608  shown, not run
    return f"; its numbers begin anew, as after a restore without sequences: {setting}"
