"""A ledger's file that is mounted alone is refused, because its log and locks would be each container's own."""

import os
from pathlib import Path

import pytest

from respan_async.issuing import LedgerError
from respan_async.issuing.sqlite._mount_points import check_not_mounted_alone


def mounts(folder: Path, *places: bytes) -> Path:
    """Have the system tell these mount points, as proc(5) has it."""
    told = folder / "mountinfo"
    lines = [b"36 35 98:0 /keys.db %s rw,noatime master:1 - ext4 /dev/root rw\n" % place for place in places]
    told.write_bytes(b"22 1 0:20 / / rw - overlay overlay rw\n" + b"".join(lines))
    return told


def escaped(path: Path) -> bytes:
    """Write a path as the kernel does."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in os.fsencode(path))


@pytest.mark.parametrize("name", ["keys.db", "the keys.db", "a\\b\tc\nd.db", "schlüssel.db", os.fsdecode(b"\xff.db")])
def test_a_file_that_is_a_mount_point_is_refused(tmp_path: Path, name: str) -> None:
    """With what to mount instead; whatever it is called, and whether its folder is reached by a link or not."""
    path = tmp_path / name
    told = mounts(tmp_path, b"/somewhere/else", escaped(path))
    (tmp_path / "link").symlink_to(tmp_path)

    for way in (path, tmp_path / "link" / name):
        with pytest.raises(LedgerError, match=r"this file is mounted alone.*; mount the folder, not the file"):
            check_not_mounted_alone(way, told)


def test_a_file_in_a_folder_that_is_a_mount_point_is_fine(tmp_path: Path) -> None:
    """So is one beside a file that is mounted."""
    told = mounts(tmp_path, escaped(tmp_path), escaped(tmp_path / "other.db"), b"/keys.db", b"")

    check_not_mounted_alone(tmp_path / "keys.db", told)


def test_a_mounted_file_that_a_mounted_folder_covers_is_none(tmp_path: Path) -> None:
    """The last mount is the one that is seen; of a file within that folder, it is the file's again."""
    path = tmp_path / "keys.db"

    check_not_mounted_alone(path, mounts(tmp_path, escaped(path), escaped(tmp_path)))
    with pytest.raises(LedgerError, match="mounted alone"):
        check_not_mounted_alone(path, mounts(tmp_path, escaped(tmp_path), escaped(path)))


def test_where_the_system_tells_no_mounts_nothing_is_refused(tmp_path: Path) -> None:
    """As on macOS; or what it tells is cut off."""
    (tmp_path / "cut").write_bytes(b"36 35 98:0")

    check_not_mounted_alone(tmp_path / "keys.db", tmp_path / "missing")
    check_not_mounted_alone(tmp_path / "keys.db", tmp_path / "cut")
