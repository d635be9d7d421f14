"""Writes the psql scripts with which an administrator makes a ledger, or migrates one."""

from typing import Final

from respan_async.issuing.postgres._statements import SCHEMA, checked_name, statements

_SCRIPT: Final = """\
-- A ledger of respan-async, made once by an administrator: respan-keys ledger schema | psql DATABASE
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


def script(schema: str = SCHEMA) -> str:
    """Return the script that makes a ledger, for `psql`.

    Raises:
        ConfigurationError: `schema` is not a valid name.
    """
    known = statements(checked_name(schema))
    # A table that exists already belongs to another ledger or program: the script then fails, and changes nothing.
    tables = known["schema"].replace("IF NOT EXISTS ", "")
    grants = (f'USAGE ON SCHEMA "{schema}"', f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}"')
    return _SCRIPT.format(
        namespace=known["namespace"],
        tables=tables,
        grants=";\n-- ".join(f"GRANT {right} TO ..." for right in grants),
    )


def migration(schema: str = SCHEMA) -> str:
    """Return the script that migrates a ledger of an older version, for `psql`.

    Raises:
        ConfigurationError: `schema` is not a valid name.
    """
    return _MIGRATION.format(migrate=statements(checked_name(schema))["migrate_1"])
