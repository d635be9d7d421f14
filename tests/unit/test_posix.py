"""What a file of secrets needs of the system."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from respan_async.issuing import _posix

FULL = 51
"""F_FULLFSYNC, as macOS has it."""


def test_what_this_system_has_is_not_missed() -> None:
    """Linux and macOS have all of it."""
    assert _posix.lack_of("a file") is None


@pytest.mark.parametrize("name", ["geteuid", "fchmod", "O_NOFOLLOW"])
def test_what_is_missed_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself is enough."""
    monkeypatch.delattr(os, name)

    assert str(_posix.lack_of("a file")).startswith("a file needs the file locks and permissions of POSIX")


@pytest.mark.parametrize("refused", [False, True])
def test_on_macos_the_drives_own_cache_is_written_too(
    refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By F_FULLFSYNC; by fsync on a file system that has no such thing."""
    done: list[str] = []

    def full(_: int, command: int) -> None:
        assert command == FULL
        done.append("full")
        if refused:
            raise OSError(errno.ENOTSUP, "no such thing here")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    with (tmp_path / "file").open("wb") as file:
        _posix.sync(file.fileno())

    assert done == (["full", "fsync"] if refused else ["full"])


def test_elsewhere_it_is_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which does that by itself."""
    synced: list[int] = []
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "file").open("wb") as file:
        _posix.sync(file.fileno())

        assert synced == [file.fileno()]


def test_a_lock_keeps_others_out_until_the_file_is_closed(tmp_path: Path) -> None:
    """At once, or by waiting."""
    with (tmp_path / "file").open("wb") as mine, (tmp_path / "file").open("wb") as theirs:
        _posix.lock(mine.fileno(), wait=True)
        with pytest.raises(BlockingIOError):
            _posix.lock(theirs.fileno(), wait=False)
        mine.close()

        _posix.lock(theirs.fileno(), wait=False)
