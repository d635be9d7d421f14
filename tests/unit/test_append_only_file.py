"""A file of lines, and writing that is not done with one call."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from respan_async.issuing import LedgerError
from respan_async.issuing._append_only_file import AppendOnlyFile, write_all


def test_a_pipe_that_does_not_wait_by_itself_is_waited_for() -> None:
    """Whoever reads it may be slow: all arrives, and nothing is raised."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(300_000)
    writer = threading.Thread(target=write_all, args=(writing, data))
    writer.start()
    with os.fdopen(reading, "rb") as reader:
        arrived = reader.read(len(data))
    writer.join()
    os.close(writing)

    assert arrived == data


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns it could read the keys, whatever its mode is."""
    path = tmp_path / "keys.jsonl"
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(LedgerError, match=r"keys\.jsonl: expected a file of your own; its owner could read the keys"):
        AppendOnlyFile(str(path))


def test_a_place_that_goes_while_it_is_read_is_told(tmp_path: Path) -> None:
    """Lines in a folder that is not there any more would not survive a power cut."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = AppendOnlyFile(str(folder / "keys.jsonl"))
    shutil.rmtree(folder)

    with pytest.raises(LedgerError, match=r"keys\.jsonl: No such file or directory"):
        file.read(lambda line: None)
    file.close()


@pytest.mark.parametrize("put_back", [False, True])
def test_lines_do_not_follow_a_file_that_is_moved_away(tmp_path: Path, put_back: bool) -> None:
    """As a rotation of logs moves it: the next run would look for them where the path leads."""
    path, elsewhere = tmp_path / "keys.jsonl", tmp_path / "keys.jsonl.1"
    file = AppendOnlyFile(str(path))
    file.append(b"one\n")
    path.rename(elsewhere)
    if put_back:
        path.touch(0o600)

    with pytest.raises(FileNotFoundError, match="the file was removed, or moved away, while it was being written"):
        file.append(b"two\n")
    elsewhere.replace(path)
    file.append(b"three\n")
    file.close()

    assert path.read_bytes() == b"one\nthree\n"


def test_lines_go_to_the_file_that_was_opened_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is relative was meant from where it was given."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    file = AppendOnlyFile("keys.jsonl")
    monkeypatch.chdir(tmp_path / "elsewhere")

    file.append(b"one\n")
    file.close()

    assert (tmp_path / "keys.jsonl").read_bytes() == b"one\n"
