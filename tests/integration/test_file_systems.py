"""Ledgers and files of keys on file systems that lack something: modes, owners, locks, or a sync of directories."""

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from respan_async import CreatedKey, Secret
from respan_async.issuing import JSONLinesSink, LedgerError, SQLiteLedger
from respan_async.issuing._append_only_file import AppendOnlyFile
from respan_async.issuing.sqlite._inspect import read_snapshot

ACCOUNT = "https://api.respan.ai 0123456789abcdef"


async def open_ledger(path: Path) -> None:
    """Open a ledger, and close it."""
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    await ledger.aclose()


async def open_sink(path: Path) -> None:
    """Open a file of keys, and close it."""
    JSONLinesSink(path).close()


PLACES = pytest.mark.parametrize("open_place", [open_ledger, open_sink])


def seen_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[int]], None]) -> None:
    """Let the system describe plain files otherwise than they are."""

    def told(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def tell(*arguments: Any, **named: Any) -> os.stat_result:
            status = look(*arguments, **named)
            fields = list(map(int, status))
            if stat.S_ISREG(status.st_mode):
                change(fields)
            return os.stat_result(fields)

        return tell

    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, told(getattr(os, name)))


def without_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may do everything with a file, as WSL has it for the files of Windows; a chmod does nothing."""

    def open_to_all(fields: list[int]) -> None:
        fields[stat.ST_MODE] |= 0o777

    seen_as(monkeypatch, open_to_all)
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, lambda *_, **__: None)


def with_modes_that_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with a chmod that is refused, as on VFAT."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    without_modes(monkeypatch)
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)


MODELESS = pytest.mark.parametrize("modeless", [without_modes, with_modes_that_cannot_be_set])


@PLACES
@MODELESS
async def test_a_file_system_without_modes_is_refused_before_anything_is_kept_on_it(
    open_place: Any, modeless: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, the first time and every time after; and nothing is left behind."""
    path = tmp_path / "keys"
    modeless(monkeypatch)

    for _ in range(2):
        with pytest.raises(LedgerError) as caught:
            await open_place(path)
        assert str(caught.value).startswith(f"{path}: this file system does not keep who may read a file")
        assert "give a path on another file system" in str(caught.value)

    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  nothing else runs here


@PLACES
@MODELESS
@pytest.mark.parametrize("content", [b"", b'{"ticket":"t"}\n'])
async def test_a_file_that_is_there_already_is_not_told_to_be_mended_by_chmod_where_that_does_nothing(
    open_place: Any, modeless: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the file system's, and the file is left as it was."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    modeless(monkeypatch)

    with pytest.raises(LedgerError, match="this file system does not keep who may read a file") as caught:
        await open_place(path)

    assert "chmod" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]  # noqa: ASYNC240  nothing else runs here
    assert path.read_bytes() == content


@PLACES
async def test_a_file_that_others_can_read_is_mended_by_chmod_where_that_does_something(
    open_place: Any, tmp_path: Path
) -> None:
    """The command that is given can be pasted as it is, whatever the file is called."""
    path = tmp_path / "the keys"
    path.write_bytes(b'{"ticket":"t"}\n')
    path.chmod(0o644)

    with pytest.raises(LedgerError) as caught:
        await open_place(path)

    assert str(caught.value) == f"{path}: others can read it; make it private with: chmod 600 '{path}'"
    assert [file.name for file in tmp_path.iterdir()] == ["the keys"]  # noqa: ASYNC240  nothing else runs here


@PLACES
async def test_a_file_system_that_gives_new_files_to_somebody_else_is_refused(
    open_place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a share does that is mounted with another `uid`."""

    def somebody_elses(fields: list[int]) -> None:
        fields[stat.ST_UID] = os.geteuid() + 1

    seen_as(monkeypatch, somebody_elses)

    with pytest.raises(LedgerError, match="keys: this file system gives a new file to another user"):
        await open_place(tmp_path / "keys")

    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  nothing else runs here


@PLACES
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
async def test_a_new_file_is_its_owners_to_read_and_write_whatever_the_umask(
    open_place: Any, umask: int, tmp_path: Path
) -> None:
    """Also one that would take the writing from its owner."""
    path = tmp_path / "keys"
    before = os.umask(umask)
    try:
        await open_place(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@PLACES
async def test_a_file_whose_file_system_cannot_be_tried_is_told_to_be_made_private(
    open_place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes no other file beside it."""
    path = tmp_path / "keys"
    path.write_bytes(b'{"ticket":"t"}\n')
    path.chmod(0o640)
    opening = os.open

    def full(name: Any, flags: int, *mode: Any, **named: Any) -> int:
        if str(name).endswith(".probe"):
            raise OSError(28, "No space left on device")
        return opening(name, flags, *mode, **named)

    monkeypatch.setattr(os, "open", full)

    with pytest.raises(LedgerError, match="others can read it; make it private with: chmod 600"):
        await open_place(path)


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]


@PLACES
@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
async def test_a_file_system_without_locks_is_refused_by_the_name_of_the_file(
    open_place: Any, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an NFS is without its lock service; what was made for nothing is removed."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with pytest.raises(LedgerError) as caught:
        await open_place(tmp_path / "keys")

    assert str(caught.value).startswith(f"{tmp_path / 'keys'}")
    assert f"cannot be locked: {os.strerror(number)}; some network shares have no locks" in str(caught.value)
    left = {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240  nothing else runs here
    assert left <= ({"keys"} if open_place is open_ledger else set()), "an empty ledger alone may be left"


def refuse_to_sync(monkeypatch: pytest.MonkeyPatch, number: int, *, directories: bool) -> None:
    """Let directories, or else plain files, have no fsync."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) is directories:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
async def test_a_directory_that_cannot_be_synced_keeps_keys_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share keeps its directories in its own way, and says so to whoever asks."""
    refuse_to_sync(monkeypatch, number, directories=True)
    path = tmp_path / "keys"

    with JSONLinesSink(path) as sink:
        await sink("t", CreatedKey(id="key-1", api_key=Secret("prefix12.abc")))

    with JSONLinesSink(path) as again:
        assert "t" in again


@pytest.mark.parametrize(("number", "directories"), [(errno.EIO, True), (errno.EIO, False), (errno.EINVAL, False)])
def test_a_file_that_cannot_be_synced_is_refused_by_its_name(
    number: int, directories: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is broken, or a file system on which no line is safe."""
    refuse_to_sync(monkeypatch, number, directories=directories)

    with pytest.raises(LedgerError, match=r"keys: .*: keys in it might not survive a power cut; give a path"):
        JSONLinesSink(tmp_path / "keys")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_run_has_just_made_is_left_to_it(tmp_path: Path) -> None:
    """It was made here, and the other run was faster to lock it."""
    path = tmp_path / "keys"
    ours = AppendOnlyFile(str(path))
    with JSONLinesSink(path):
        with pytest.raises(LedgerError, match="another run is writing to it"):
            ours.lock()
        ours.discard()

        assert path.exists()


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that went away, say."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "dup", refuse)

    with pytest.raises(LedgerError, match=r"keys: cannot be read: Stale file handle$"):
        JSONLinesSink(tmp_path / "keys")


async def test_a_ledger_that_others_keep_locked_may_be_looked_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person with a tool has it for themselves: it is worth another try, for whoever looks and whoever opens."""
    path = tmp_path / "keys.db"
    await open_ledger(path)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *found, **named: connect(*found, **{**named, "timeout": 0.0}))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE theirs (n INTEGER)")

        with pytest.raises(
            LedgerError, match=r"keys\.db: the ledger could not be read: another program keeps it"
        ) as seen:
            read_snapshot(path)

    assert seen.value.retryable


@pytest.mark.parametrize("name", ["file:keys.db?mode=rwc", "file:keys.db", "file:///nowhere/keys.db"])
async def test_a_path_that_looks_like_a_uri_is_the_path_that_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite, where it was built so, would open another file than the private one that was made for the secrets."""
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)

    ledger = SQLiteLedger(name)
    await ledger.open(ACCOUNT)
    assert await ledger.suspects() == []
    await ledger.aclose()

    files = [found for found in tmp_path.rglob("*") if found.is_file()]  # noqa: ASYNC240  nothing else runs here
    assert files == [tmp_path / path]
    assert read_snapshot(name).account == ACCOUNT
