"""Opening a ledger's file while others do the same."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from respan_async.issuing import LedgerError
from respan_async.issuing.sqlite._connection import APPLICATION, _number, check_size, open_connection
from respan_async.issuing.sqlite._file_identity import FileIdentity

_connect = sqlite3.connect


def made(connection: sqlite3.Connection) -> bool:
    """Tell whether a ledger has been made, once and whole."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == APPLICATION and connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,))


def meeting(monkeypatch: pytest.MonkeyPatch, at: str, meet: Callable[[], object], again: Callable[[], object]) -> None:
    """Do something when the first connection is about to run a statement, and when a second connection is made."""
    connections = list[sqlite3.Connection]()

    def met(statement: str) -> None:
        if statement.startswith(at):
            connections[0].set_trace_callback(None)
            meet()

    def connecting(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(*arguments, **named)
        connections.append(connection)
        if len(connections) == 1:
            connection.set_trace_callback(met)
        else:
            again()
        return connection

    monkeypatch.setattr(sqlite3, "connect", connecting)


def test_a_ledger_that_another_makes_in_the_same_moment_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when it was looked for, and is there when its turn to make it has come."""
    path = tmp_path / "keys.db"
    meeting(monkeypatch, "BEGIN EXCLUSIVE", lambda: open_connection(path).close(), lambda: None)

    with closing(open_connection(path)) as connection:
        assert made(connection)


def test_a_ledger_that_another_is_about_to_make_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses at once to turn the log on beside another that writes; it is tried again."""
    path = tmp_path / "keys.db"
    with closing(_connect(path, isolation_level=None)) as other:
        meeting(
            monkeypatch,
            "PRAGMA journal_mode",
            lambda: other.execute("BEGIN IMMEDIATE"),
            lambda: other.execute("ROLLBACK"),
        )

        with closing(open_connection(path)) as connection:
            assert made(connection)
        assert not other.in_transaction


def test_on_macos_commits_reach_the_drive(tmp_path: Path) -> None:
    """Elsewhere SQLite has no use for this setting."""
    with closing(open_connection(tmp_path / "keys.db")) as connection:
        assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_a_file_that_goes_while_it_is_looked_at_is_told(tmp_path: Path) -> None:
    """By its name, and the reason."""
    with pytest.raises(LedgerError, match=r"keys\.db: cannot be read: No such file or directory"):
        check_size(tmp_path / "keys.db")


def test_a_file_that_is_replaced_while_it_is_being_opened_is_opened_once_more(tmp_path: Path) -> None:
    """Or the one that is remembered as open would be another than SQLite has."""
    path = tmp_path / "keys.db"
    path.touch(0o600)

    class Replaced(FileIdentity):
        looks = 0

        def note(self) -> None:
            self.looks += 1
            if self.looks == 1:
                path.rename(tmp_path / "older.db")
                path.touch(0o600)
            super().note()

    files = Replaced(path)
    with closing(open_connection(path, files)) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
        files.check("written")

    assert files.looks == 2
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM meta").fetchall() == [("a",)]


@pytest.mark.parametrize(("found", "number"), [(None, 0), (("12",), 12), (("a dozen",), 0)])
def test_a_number_that_is_damaged_counts_as_none(found: Any, number: int) -> None:
    """The file was repaired by hand, or torn; what it holds besides can be read."""
    assert _number(found) == number
