"""The lock by which it is known that an owner's process has ended."""

import os
from pathlib import Path

import pytest

from respan_async.issuing import LedgerError
from respan_async.issuing.sqlite._liveness_lock import LivenessLock


def test_an_owner_is_dead_when_nobody_holds_its_lock(tmp_path: Path) -> None:
    """Whether its process has ended in order, or left its file behind."""
    lock, other = LivenessLock(tmp_path / "keys.db"), LivenessLock(tmp_path / "keys.db")
    lock.acquire()
    assert not other.is_dead(lock.token)

    left = tmp_path / "keys.db-owner-left"
    left.touch()
    assert other.is_dead("left")
    other.forget("left")
    assert not left.exists()

    lock.release()
    assert other.is_dead(lock.token)
    assert list(tmp_path.iterdir()) == []


def test_an_owner_of_whom_nobody_can_tell_is_not_dead(tmp_path: Path) -> None:
    """Somebody has put a link in the place of its lock, which is not followed: its lease will tell."""
    (tmp_path / "elsewhere").touch()
    (tmp_path / "keys.db-owner-abc").symlink_to(tmp_path / "elsewhere")

    assert not LivenessLock(tmp_path / "keys.db").is_dead("abc")


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """By the path, and the reason."""
    name = "k" * os.pathconf(tmp_path, "PC_NAME_MAX")

    with pytest.raises(LedgerError, match=r"-owner-[0-9a-f]{32}: cannot be made: File name too long"):
        LivenessLock(tmp_path / name).acquire()
