"""The statements of a ledger in a schema of its own, and the script by which an administrator makes that."""

from typing import Final

from respan_async._arguments import shown
from respan_async.errors import ConfigurationError
from respan_async.issuing._sql_loader import load

SCHEMA: Final = "respan"
"""The schema that a ledger is in, unless another is given."""

_SCRIPT: Final = """\
-- A ledger of respan-async, made once by who may: respan-keys ledger schema | psql DATABASE
BEGIN;

{namespace};

{tables};

COMMIT;

-- Every worker's user needs:
-- {grants};
"""


_MIGRATION: Final = """\
-- Brings a ledger of an older respan-async up to date, run by the owner of its tables while no worker is at work:
-- respan-keys ledger schema --migrate | psql DATABASE
BEGIN;

{migrate};

COMMIT;
"""


def checked_name(schema: object) -> str:
    """Return the name of a schema, if it is one that needs no thought.

    Raises:
        ConfigurationError: It is not.
    """
    if not (isinstance(schema, str) and schema.isascii() and schema.isidentifier() and len(schema) < 64):
        raise ConfigurationError(f"schema: expected a name of letters, digits and _, got {shown(schema)}")
    return schema


def statements(schema: str) -> dict[str, str]:
    """Return the statements, by name."""
    return {key: statement.replace("{schema}", f'"{schema}"') for key, statement in load("postgres/ledger.sql").items()}


def script(schema: str = SCHEMA) -> str:
    """Return what makes a ledger, for `psql`.

    Raises:
        ConfigurationError: `schema` is no name.
    """
    known = statements(checked_name(schema))
    # Where a table is there already it is another ledger's, or another program's: an error then, and nothing is done.
    tables = known["schema"].replace("IF NOT EXISTS ", "")
    grants = (f'USAGE ON SCHEMA "{schema}"', f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}"')
    return _SCRIPT.format(
        namespace=known["namespace"],
        tables=tables,
        grants=";\n-- ".join(f"GRANT {right} TO ..." for right in grants),
    )


def migration(schema: str = SCHEMA) -> str:
    """Return what migrates a ledger of an older version, for `psql`.

    Raises:
        ConfigurationError: `schema` is no name.
    """
    return _MIGRATION.format(migrate=statements(checked_name(schema))["migrate_1"].rstrip().rstrip(";"))
