"""The file of issued keys: who may read it, what it takes, and how its end is mended."""

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from respan_async.cli.exits import WrongUse
from respan_async.cli.keyfile import KeyFile, digest, line_of, open_keys
from respan_async.models import CreatedKey, TemporaryKey
from respan_async.secret import Secret

KEY = CreatedKey(
    id="vcjRcdm8.x",
    api_key=Secret("vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"),
    name="Acme",
    expiry_date=datetime(2030, 1, 31, 12, tzinfo=UTC),
    extra={"user": "not shown"},
)


def private(path: Path, content: bytes) -> str:
    path.touch(0o600)
    path.write_bytes(content)
    return str(path)


def refusal(path: str | Path, *, sandbox: bool = False) -> str:
    with pytest.raises(WrongUse) as caught, open_keys(str(path), sandbox=sandbox):
        pass
    return str(caught.value).removeprefix(f"{path}:")


def test_a_line() -> None:
    """A line begins with the ticket, the id and the secret, has dates in UTC, and nothing the library does not know."""
    line = line_of(KEY, "tenant-1")

    assert line.startswith(
        b'{"ticket":"tenant-1","id":"vcjRcdm8.x","api_key":"vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",'
    )
    assert line.endswith(b"}\n")
    fields = orjson.loads(line)
    assert fields["expiry_date"] == "2030-01-31T12:00:00Z"
    assert fields["max_usage"] is None
    assert not fields.keys() & {"extra", "user", "sandbox"}


def test_a_line_without_a_secret() -> None:
    """A key that was only read has none."""
    assert "api_key" not in orjson.loads(line_of(TemporaryKey(id="a")))


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """The file is its owner's alone from birth, whatever the umask allows."""
    path = tmp_path / "keys.jsonl"
    before = os.umask(0)
    try:
        with open_keys(str(path), sandbox=False) as store:
            store.write(line_of(KEY, "a"))
            store.sync()
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == line_of(KEY, "a")


def test_what_is_there_stays(tmp_path: Path) -> None:
    """Lines are added at the end, and the tickets of those that are there are known."""
    path = private(tmp_path / "keys.jsonl", b'{"ticket":"a"}\n\n{"id":"x","ticket":"b"}\n')
    with open_keys(path, sandbox=False) as store:
        store.write(b'{"ticket":"c"}\n')

        assert store.issued == {digest("a"), digest("b")}
        assert store.mended is None
    assert Path(path).read_bytes().splitlines()[-1] == b'{"ticket":"c"}'


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """A line that a killed run left unfinished counts as not issued, and its key is named as far as it is known."""
    path = private(tmp_path / "keys.jsonl", b'{"ticket":"a"}\n{"ticket":"b","id":"x y","api_key":"vcj')
    with open_keys(path, sandbox=False) as store:
        assert store.issued == {digest("a")}
        assert store.mended == (
            f"{path}:2: the last line for b had been cut off, and its key's secret with it; it was removed and counts "
            "as not issued; the key may be alive: respan-keys delete -- 'x y'"
        )
    assert Path(path).read_bytes() == b'{"ticket":"a"}\n'


@pytest.mark.parametrize("torn", [b"{", b'{"tick', b'{"ticket":"b', b'{"ticket":"b","id":"x', b"\0\0\0"])
def test_wherever_it_was_torn(tmp_path: Path, torn: bytes) -> None:
    """However little is left of the last line, it is cut off."""
    path = private(tmp_path / "keys.jsonl", b'{"ticket":"a"}\n' + torn)
    with open_keys(path, sandbox=False) as store:
        assert store.mended is not None
    assert Path(path).read_bytes() == b'{"ticket":"a"}\n'


def test_a_whole_line_without_its_end(tmp_path: Path) -> None:
    """A last line that lacks only its line feed gets it, and counts as issued."""
    path = private(tmp_path / "keys.jsonl", b'{"ticket":"a"}')
    with open_keys(path, sandbox=False) as store:
        assert store.issued == {digest("a")}
    assert Path(path).read_bytes() == b'{"ticket":"a"}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"hello",
        b'{"ticket":"a"}\nhello\n{"tick',
        b'{"id":"x"}\n',
        b'{"ticket":1}\n',
        b"[]\n",
        b'["a"]',
        b"null\n",
        b"\xff\xfe\n",
        b"ticket,name\na,b\n",
    ],
)
def test_another_kind_of_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """A file that is no such list of keys is refused, and stays as it was to the last byte."""
    path = private(tmp_path / "keys.jsonl", content)

    assert "expected a JSON object with a ticket" in refusal(path)
    assert Path(path).read_bytes() == content


def test_make_believe_and_real_keys_do_not_mix(tmp_path: Path) -> None:
    """A trial in the sandbox must not pass for the real thing, nor the other way round."""
    real = private(tmp_path / "real.jsonl", line_of(KEY, "a"))
    trial = private(tmp_path / "trial.jsonl", line_of(KEY, "a", sandbox=True))

    assert "real keys" in refusal(real, sandbox=True)
    assert "the sandbox's keys" in refusal(trial, sandbox=False)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """When a line cannot be written whole, what was written of it is taken back."""
    path = private(tmp_path / "keys.jsonl", b'{"ticket":"a"}\n')
    fd = os.open(path, os.O_RDONLY)
    try:
        store = KeyFile(path, fd, sandbox=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            store.write(b"x\n")
    finally:
        os.close(fd)
    assert Path(path).read_bytes() == b'{"ticket":"a"}\n'


def test_files_that_are_no_place_for_secrets(tmp_path: Path) -> None:
    """Links, pipes, directories and files that others can read are refused, with the way out where there is one."""
    path = Path(private(tmp_path / "keys.jsonl", b""))
    link = tmp_path / "link"
    link.symlink_to(path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    assert refusal(link) == " expected a file, not a symbolic link; give the path it leads to"
    assert refusal(fifo) == " expected a regular file"
    assert refusal("/dev/null") == " expected a regular file"
    assert refusal(tmp_path) == " Is a directory"
    assert refusal(tmp_path / "none" / "keys.jsonl") == " No such file or directory"
    assert "null byte" in refusal("a\0b")
    path.chmod(0o640)
    assert refusal(path) == f" other users could read the keys; chmod 600 {path}"
    path.chmod(0o600)
    (tmp_path / "second name").hardlink_to(path)
    assert refusal(path) == " expected a file with one name; this one has 2 (hard links)"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """A file that another run writes to is refused."""
    path = tmp_path / "keys.jsonl"
    with open_keys(str(path), sandbox=False):
        assert refusal(path) == " another run is writing to it"

    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
