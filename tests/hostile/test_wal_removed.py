"""A ledger whose log was removed after a crash: SQLite opens it as it was at some time before; a ledger does not."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from respan_async import CreateKeyRequest
from respan_async.issuing import LedgerError, SQLiteLedger, Ticket, TicketState
from respan_async.issuing.ledger import Intent

ACCOUNT = "host key"


async def opened(path: Path) -> SQLiteLedger:
    """Give an open ledger."""
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    return ledger


async def claim(ledger: SQLiteLedger, *numbers: int) -> None:
    """Write something."""
    for number in numbers:
        intent = Intent(tag=f"tag-{number}", name=None, sent={}, sent_at=0.0)
        await ledger.claim_attempt(Ticket(f"tenant-{number}", CreateKeyRequest()), intent)


def left_by_a_crash(folder: Path, to: Path, *, without: Iterable[str] = ()) -> Path:
    """Copy what a process that is killed now would leave, but for files whose names end so."""
    to.mkdir()
    for path in folder.iterdir():
        if not path.name.endswith(tuple(without)):
            shutil.copy(path, to)
    return to / "keys.db"


async def test_a_ledger_that_has_lost_its_log_is_not_opened(tmp_path: Path) -> None:
    """The error names the log, and what to do; with the log everything is there, and without a word."""
    (tmp_path / "alive").mkdir()
    ledger = await opened(tmp_path / "alive" / "keys.db")
    await claim(ledger, 1, 2, 3)
    whole = left_by_a_crash(tmp_path / "alive", tmp_path / "whole")
    torn = left_by_a_crash(tmp_path / "alive", tmp_path / "torn", without=["-wal", "-shm"])
    await ledger.aclose()

    for _ in range(2):  # it is no better the second time
        with pytest.raises(LedgerError, match=r"gone: its log, keys\.db-wal, was removed.* keys\.db-owner-\* to go on"):
            await opened(torn)
    again = await opened(whole)
    counts = await again.counts()
    await again.aclose()
    (lock,) = torn.parent.glob("keys.db-owner-*")
    lock.unlink()
    await (await opened(torn)).aclose()

    assert counts.tickets[TicketState.CLAIMED] == 3


async def test_an_older_file_in_its_place_is_not_opened(tmp_path: Path) -> None:
    """A backup put back after a crash lacks what was written since: its tickets would get other keys."""
    (tmp_path / "alive").mkdir()
    path = tmp_path / "alive" / "keys.db"
    await (await opened(path)).aclose()
    backup = left_by_a_crash(tmp_path / "alive", tmp_path / "backup")
    ledger = await opened(path)
    await claim(ledger, 1)
    torn = left_by_a_crash(tmp_path / "alive", tmp_path / "torn", without=["-wal", "-shm"])
    await ledger.aclose()
    shutil.copy(backup, torn)

    with pytest.raises(LedgerError, match="replaced by an older one"):
        await opened(torn)


async def test_nobody_is_alarmed_by_what_is_whole(tmp_path: Path) -> None:
    """By owners that live beside each other, by one that died before its note, or by a file that is no note."""
    path = tmp_path / "keys.db"
    one, other = await opened(path), await opened(path)
    await claim(one, 1)
    await claim(other, 2)
    await claim(one, 3)
    third = await opened(path)
    dead = tmp_path / "keys.db-owner-00"
    for note in (b"", b"1", b"0" * 20, b"x" * 20):
        dead.write_bytes(note)
        await (await opened(path)).aclose()
    for ledger in (third, one, other):
        await ledger.aclose()

    dead.unlink()
    dead.symlink_to(tmp_path / "elsewhere")
    await (await opened(path)).aclose()

    dead.unlink()
    await (await opened(path)).aclose()
    assert [file.name for file in tmp_path.iterdir()] == ["keys.db"]  # noqa: ASYNC240  nothing else runs here
