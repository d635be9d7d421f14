"""Loads the SQL statements of a ledger in Postgres, for one schema."""

from typing import Final

from respan_async._arguments import shown
from respan_async.errors import ConfigurationError
from respan_async.issuing._sql_loader import load

SCHEMA: Final = "respan"
"""The default schema of a ledger."""


def checked_name(schema: object) -> str:
    """Return the name of a schema, if it needs no quoting.

    Raises:
        ConfigurationError: The name is invalid.
    """
    if not (isinstance(schema, str) and schema.isascii() and schema.isidentifier() and len(schema) < 64):
        raise ConfigurationError(f"schema: expected a name of letters, digits and _, got {shown(schema)}")
    return schema


def statements(schema: str) -> dict[str, str]:
    """Return the statements, by name."""
    return {key: statement.replace("{schema}", f'"{schema}"') for key, statement in load("postgres/ledger.sql").items()}
