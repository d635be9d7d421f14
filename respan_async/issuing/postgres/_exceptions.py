"""What psycopg's exceptions are here."""

from respan_async.errors import LedgerError


class ConnectionLost(LedgerError):
    """The connection broke, or none could be made: whether the statement was done is not known."""


class SchemaMissing(LedgerError):
    """There is no such table or schema."""


class PermissionDenied(LedgerError):
    """The user has not the right to do it."""


class DuplicateKey(LedgerError):
    """A row with this key is there already.

    Attributes:
        constraint: The name of what must be unique.
    """

    constraint: str | None = None


class Unwritable(LedgerError):
    """The database's encoding has not every character of a text."""
