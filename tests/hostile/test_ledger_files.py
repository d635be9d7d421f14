"""A ledger's files, attacked by whoever can write beside them, and by our own process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from respan_async import CreatedKey, Secret
from respan_async.errors import LedgerError
from respan_async.issuing import SQLiteLedger, Ticket
from respan_async.issuing.ledger import Intent
from respan_async.issuing.sqlite._connection import check_size

ACCOUNT = "https://api.respan.ai 0123456789abcdef"
BESIDE = ["-wal", "-shm", "-journal"]

_OPEN_AND_CLOSE = f"""
import asyncio, sys
from respan_async.issuing import SQLiteLedger

async def main():
    ledger = SQLiteLedger(sys.argv[1])
    await ledger.open({ACCOUNT!r})
    await ledger.aclose()

asyncio.run(main())
"""


async def opened(path: Path) -> SQLiteLedger:
    """Give a ledger that is open."""
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    return ledger


def open_elsewhere(path: Path) -> None:
    """Open and close a ledger in a process of its own."""
    subprocess.run([sys.executable, "-c", _OPEN_AND_CLOSE, str(path)], check=True, timeout=30)


def after_a_power_cut(path: Path) -> Path:
    """Give a copy of a ledger and its log as they are at this moment."""
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
        Path(f"{copy}{suffix}").chmod(0o600)
    return copy


async def test_a_second_ledger_in_this_process_does_not_take_the_locks_of_the_first(tmp_path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes *any* descriptor of it.

    Another process would then take itself for the last one, and remove the log that this one goes on writing to: keys
    that were recorded, durably, would be gone.
    """
    path = tmp_path / "keys.db"
    first, second = await opened(path), await opened(path)
    open_elsewhere(path)

    epoch = await first.claim_attempt(Ticket("tenant-1"), Intent(tag="a", name=None, sent={}, sent_at=0.0))
    assert await first.record("tenant-1", epoch, "a", CreatedKey(id="key-1", api_key=Secret("secret")))
    copy = after_a_power_cut(path)
    await first.aclose()
    await second.aclose()
    after = await opened(copy)
    record = await after.find("tenant-1")
    await after.aclose()

    assert record is not None
    assert record.key is not None
    assert record.key.id == "key-1"


def symlink(beside: Path, elsewhere: Path) -> None:
    """A link to a file of somebody's choosing."""
    elsewhere.touch()
    beside.symlink_to(elsewhere)


def hard_link(beside: Path, elsewhere: Path) -> None:
    """A second name of it."""
    elsewhere.touch()
    beside.hardlink_to(elsewhere)


def readable(beside: Path, _: Path) -> None:
    """A file that others may read."""
    beside.write_bytes(b"not empty")
    beside.chmod(0o644)


TRAPS: dict[str, Callable[[Path, Path], object]] = {
    "symlink": symlink,
    "dangling symlink": lambda beside, elsewhere: beside.symlink_to(elsewhere),
    "hard link": hard_link,
    "pipe": lambda beside, _: os.mkfifo(beside),
    "directory": lambda beside, _: beside.mkdir(),
    "readable": readable,
}


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_trap_beside_a_ledger_is_not_written_to(trap: str, tmp_path: Path) -> None:
    """Its log would take the secrets to wherever somebody has led it beforehand."""
    for suffix in BESIDE:
        folder, elsewhere = tmp_path / suffix, tmp_path / f"elsewhere{suffix}"
        folder.mkdir()
        beside = folder / f"keys.db{suffix}"
        TRAPS[trap](beside, elsewhere)

        with pytest.raises(LedgerError) as caught:
            await opened(folder / "keys.db")

        assert str(beside) in str(caught.value)
        assert not elsewhere.exists() or elsewhere.read_bytes() == b""
        assert not list(folder.glob("*-owner-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
@pytest.mark.parametrize("suffix", ["", *BESIDE])
async def test_somebody_elses_file_does_not_become_a_ledger(tmp_path: Path, suffix: str) -> None:
    """In a folder for everybody they may have made it beforehand, empty and 0600; and it stays theirs."""
    path = tmp_path / f"keys.db{suffix}"
    path.touch(0o600)
    os.chown(path, 65534, -1)

    with pytest.raises(LedgerError, match="another user"):
        await opened(tmp_path / "keys.db")

    assert path.read_bytes() == b""


@pytest.mark.parametrize("place", ["/dev/null", "/dev/stdout", "/dev/full", "/"])
async def test_a_device_does_not_become_a_ledger(place: str) -> None:
    """Nor does a terminal, nor a folder."""
    with pytest.raises(LedgerError, match=place):
        await opened(Path(place))


def test_a_file_that_is_removed_meanwhile_is_not_made_by_sqlite(tmp_path: Path) -> None:
    """Whose files others may read, where the umask lets them."""
    with pytest.raises(LedgerError, match="No such file"):
        check_size(tmp_path / "keys.db")


async def test_a_linked_folder_is_the_folder_itself(tmp_path: Path) -> None:
    """As /tmp and /var are on some systems: only the file's own name must be no link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    await (await opened(tmp_path / "link" / "keys.db")).aclose()

    assert (tmp_path / "real" / "keys.db").is_file()
