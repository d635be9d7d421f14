"""A ledger whose files are removed or replaced while a program has them open: it issues nothing more."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Effect
from respan_async.issuing import Issuer, LedgerError, SQLiteLedger, Ticket, TicketState
from respan_async.issuing.ledger import Intent
from respan_async.secret import Secret
from respan_async.testing import FakeRespan

ACCOUNT = "https://api.respan.ai 0123456789abcdef"


def ticket(number: int) -> Ticket:
    """Give a ticket."""
    return Ticket(f"tenant-{number}", CreateKeyRequest(name=f"tenant {number}"))


def removed(path: Path) -> None:
    """As `rm keys.db*` does it."""
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


def the_file_alone(path: Path) -> None:
    """As `rm keys.db` does it."""
    path.unlink()


def moved_away(path: Path) -> None:
    """As a rotation of logs does it."""
    path.rename(path.with_name("older.db"))


def replaced(path: Path) -> None:
    """As a deployment does it that brings its files along."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.chmod(0o600)
    copy.replace(path)


def without_its_log(path: Path) -> None:
    """As somebody does it who tidies up."""
    path.with_name(f"{path.name}-wal").unlink()


def without_the_index_of_its_log(path: Path) -> None:
    """The same."""
    path.with_name(f"{path.name}-shm").unlink()


MISHAPS = pytest.mark.parametrize(
    "mishap", [removed, the_file_alone, moved_away, replaced, without_its_log, without_the_index_of_its_log]
)


@MISHAPS
async def test_nothing_is_sent_once_the_ledger_is_gone(
    mishap: Callable[[Path], None], respan: AsyncRespan, fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """Another program would issue the same tickets: of each there would be two keys."""
    path = tmp_path / "keys.db"
    async with Issuer(respan, SQLiteLedger(path), auto_sweep=False) as issuer:
        await issuer.issue(ticket(1))
        mishap(path)

        for number in (2, 3):
            with pytest.raises(
                LedgerError, match=r"could not be written: keys\.db\S* was removed, or replaced by another file"
            ) as caught:
                await issuer.issue(ticket(number))
            assert caught.value.effect is Effect.NONE
            assert not caught.value.retryable
        with pytest.raises(LedgerError, match=r"could not be read: .* was removed, or replaced"):
            await issuer.counts()

    assert fake_respan.counts.created == 1


@MISHAPS
async def test_a_key_that_arrives_after_the_ledger_is_gone_is_revoked(
    mishap: Callable[[Path], None], respan: AsyncRespan, fake_respan: FakeRespan, tmp_path: Path
) -> None:
    """It could not be put on record, and nobody holds it."""
    path = tmp_path / "keys.db"

    class Removed(SQLiteLedger):
        async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
            epoch = await super().claim_attempt(ticket, intent)
            mishap(path)
            return epoch

    async with Issuer(respan, Removed(path), auto_sweep=False) as issuer:
        with pytest.raises(LedgerError, match=r"was removed, or replaced .* its key is being revoked") as caught:
            await issuer.issue(ticket(1))
    await respan.aclose()

    assert caught.value.effect is Effect.LOST
    assert fake_respan.counts.created == 1
    assert fake_respan.alive() == []


async def test_closing_leaves_the_files_of_whoever_came_after(tmp_path: Path) -> None:
    """The log of the new ledger has the name of the old one's."""
    path = tmp_path / "keys.db"
    first = SQLiteLedger(path)
    await first.open(ACCOUNT)
    await first.claim_attempt(ticket(1), Intent(tag="a", name=None, sent={}, sent_at=0.0))
    removed(path)
    second = SQLiteLedger(path)
    await second.open(ACCOUNT)
    await second.claim_attempt(ticket(2), Intent(tag="b", name=None, sent={}, sent_at=0.0))

    await first.aclose()

    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT ticket FROM tickets").fetchall()
    await second.aclose()
    assert found == [("tenant-2",)]


async def test_another_working_directory_is_no_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is relative was meant from where the ledger was opened."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ledger = SQLiteLedger("keys.db")
    await ledger.open(ACCOUNT)
    monkeypatch.chdir(tmp_path / "elsewhere")

    other = SQLiteLedger("keys.db")
    await other.open(ACCOUNT)
    await other.claim_attempt(ticket(9), Intent(tag="other", name=None, sent={}, sent_at=0.0))
    beside = SQLiteLedger(tmp_path / "keys.db", lease=0.2)
    await beside.open(ACCOUNT)
    epoch = await beside.claim_attempt(ticket(2), Intent(tag="beside", name=None, sent={}, sent_at=0.0))

    await ledger.claim_attempt(ticket(1), Intent(tag="a", name=None, sent={}, sent_at=0.0))
    await ledger._session.owner.lease_keeper._reclaim_owners()  # as at each beat

    assert (await ledger.counts()).tickets[TicketState.CLAIMED] == 2
    made = CreatedKey(id="key-2", api_key=Secret("x" * 20))
    assert await beside.record("tenant-2", epoch, "beside", made) is True
    for opened in (beside, other, ledger):
        await opened.aclose()
    assert beside_it(tmp_path) == []


async def test_a_ledger_is_opened_again_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another working directory, a second ledger would make a second key."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ledger = SQLiteLedger("keys.db")
    await ledger.open(ACCOUNT)
    await record(ledger, 1)
    await ledger.aclose()
    await ledger.open(ACCOUNT)
    await ledger.aclose()

    monkeypatch.chdir(tmp_path / "elsewhere")
    await ledger.open(ACCOUNT)

    assert (await ledger.counts()).tickets[TicketState.ISSUED] == 1
    await ledger.aclose()
    assert beside_it(tmp_path / "elsewhere") == []


async def test_a_backup_beside_the_log_of_a_killed_run_is_refused(tmp_path: Path) -> None:
    """SQLite would write that log into it. Nothing is changed, so that the right file can be put back."""
    path, backup = tmp_path / "keys.db", tmp_path / "backup.db"
    await filled(path, range(60))
    shutil.copy(path, backup)
    await filled(path, range(60, 160))
    log = tmp_path / "log"
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    for number in range(160, 180):
        await record(ledger, number)
    shutil.copy(f"{path}-wal", log)  # as it is when the process is killed now
    await ledger.aclose()

    shutil.copy(backup, path)
    shutil.copy(log, f"{path}-wal")
    (tmp_path / "keys.db-owner-0123").touch()
    with pytest.raises(LedgerError, match=r"not the file that its log, keys.db-wal, was written for .*backup"):
        await SQLiteLedger(path).open(ACCOUNT)
    assert path.read_bytes() == backup.read_bytes()

    for left in beside_it(tmp_path):
        left.unlink()
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    assert (await ledger.counts()).tickets[TicketState.ISSUED] == 60
    await ledger.aclose()


@pytest.mark.parametrize(
    ("kind", "told"), [("no database", "this is no ledger"), ("half a ledger", "damaged, or not the file")]
)
async def test_what_lies_beside_a_log_and_is_no_whole_ledger_is_told_as_such(
    tmp_path: Path, kind: str, told: str
) -> None:
    """And left as it is."""
    path = tmp_path / "keys.db"
    await filled(path, range(60))
    data = path.read_bytes()[: 3 * 4096] if kind == "half a ledger" else b"no database" * 1000
    path.write_bytes(data)
    (tmp_path / "keys.db-wal").write_bytes(b"a log" * 100)
    (tmp_path / "keys.db-wal").chmod(0o600)

    with pytest.raises(LedgerError, match=told):
        await SQLiteLedger(path).open(ACCOUNT)
    assert path.read_bytes() == data


async def test_a_log_beside_its_own_file_is_taken(tmp_path: Path) -> None:
    """That of a process that was killed holds what was issued last."""
    path = tmp_path / "keys.db"
    await filled(path, range(60))
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    for number in range(60, 80):
        await record(ledger, number)
    (tmp_path / "elsewhere").mkdir()
    for part in ("", "-wal"):
        shutil.copy(f"{path}{part}", tmp_path / "elsewhere" / f"keys.db{part}")
    await ledger.aclose()

    again = SQLiteLedger(tmp_path / "elsewhere" / "keys.db")
    await again.open(ACCOUNT)

    assert (await again.counts()).tickets[TicketState.ISSUED] == 80
    await again.aclose()


def beside_it(folder: Path) -> list[Path]:
    """Give the files that lie beside the ledger's own."""
    return list(folder.glob("keys.db-*"))


async def record(ledger: SQLiteLedger, number: int) -> None:
    """Bring a ticket to its key."""
    tag = f"tag{number:09}"
    epoch = await ledger.claim_attempt(ticket(number), Intent(tag=tag, name="n", sent={}, sent_at=1e9))
    key = CreatedKey(id=f"key-{number}", api_key=Secret(f"secret-{number:06}"))
    assert await ledger.record(f"tenant-{number}", epoch, tag, key)


async def filled(path: Path, numbers: range) -> None:
    """Bring tickets to keys, in a ledger that is closed after it."""
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    for number in numbers:
        await record(ledger, number)
    await ledger.aclose()


async def test_a_folder_that_cannot_be_entered_any_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the path and the reason; it may be mended while the program runs."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open(ACCOUNT)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("os.stat", refuse)
        with pytest.raises(LedgerError, match=r"keys\.db: cannot be looked at: Permission denied") as caught:
            await ledger.claim_attempt(ticket(1), Intent(tag="a", name=None, sent={}, sent_at=0.0))
    await ledger.claim_attempt(ticket(1), Intent(tag="a", name=None, sent={}, sent_at=0.0))
    await ledger.aclose()

    assert caught.value.retryable
