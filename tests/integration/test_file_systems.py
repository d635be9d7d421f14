"""Ledgers and files of keys on file systems that lack something: modes, owners, locks, or a sync of directories."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from respan_async.issuing import JSONLinesSink, LedgerError, SQLiteLedger

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
