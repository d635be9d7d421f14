"""Small words that the command line shows."""

import pytest

from respan_async import TemporaryKey
from respan_async.cli.key_commands import _state
from respan_async.cli.ledger_location import _database_name


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (TemporaryKey(id="a", revoked=True), "revoked"),
        (TemporaryKey(id="a", status="paused"), "paused"),
        (TemporaryKey(id="a"), "alive"),
    ],
)
def test_the_state_of_a_key(key: TemporaryKey, word: str) -> None:
    """In one word."""
    assert _state(key) == word


@pytest.mark.parametrize(
    ("dsn", "name"),
    [
        ("postgresql://me:secret@host/db?sslmode=require", "postgresql://host/db"),
        ("postgresql://[bad/db", "postgresql://"),
        ("postgresql:///sec@ret", "postgresql://"),
    ],
)
def test_a_database_is_named_without_its_password(dsn: str, name: str) -> None:
    """Whatever is not sure to be none is left out."""
    assert _database_name(dsn) == name
