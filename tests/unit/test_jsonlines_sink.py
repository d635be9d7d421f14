"""The file of delivered keys: who may read it, what it takes, how its end is mended, and when a key is delivered."""

import asyncio
import contextlib
import fcntl
import os
import resource
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from respan_async.issuing import JSONLinesSink, LedgerError
from respan_async.issuing._append_only_file import AppendOnlyFile
from respan_async.issuing.jsonlines_sink import line_of
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


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def refusal(path: str | Path, *, sandbox: bool = False) -> str:
    with pytest.raises(LedgerError) as caught:
        JSONLinesSink(path, sandbox=sandbox)
    return str(caught.value).removeprefix(f"{path}:")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of the file at each fsync."""
    sizes: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return sizes


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


async def test_a_new_file_is_private(path: Path) -> None:
    """The file is its owner's alone from birth, whatever the umask allows."""
    before = os.umask(0)
    try:
        with JSONLinesSink(path) as sink:
            assert mode(path) == 0o600
            await sink("a", KEY)
    finally:
        os.umask(before)

    assert content(path) == line_of(KEY, "a")


async def test_what_is_there_stays(path: Path) -> None:
    """Lines are added at the end, and the tickets of those that are there are known."""
    private(path, b'{"ticket":"a"}\n\n{"id":"x","ticket":"b"}\n')
    with JSONLinesSink(path) as sink:
        assert "a" in sink
        assert "b" in sink
        assert "c" not in sink
        assert sink.mended is None
        await sink("c", KEY)
        assert "c" in sink
        assert len(sink) == 3

    assert content(path).splitlines()[-1] == line_of(KEY, "c").strip()


async def test_a_ticket_is_written_once(path: Path) -> None:
    """Delivering again, at once or one after the other or after a restart, adds nothing."""
    for _ in range(2):
        with JSONLinesSink(path) as sink:
            await asyncio.gather(sink("a", KEY), sink("a", KEY), sink("b", KEY))
            await sink("a", KEY)

    assert sorted(content(path).splitlines(True)) == [line_of(KEY, "a"), line_of(KEY, "b")]


async def test_another_key_for_a_ticket_is_refused(path: Path) -> None:
    """A key whose ticket has another one in the file is not taken for delivered: its secret would be lost."""
    for _ in range(2):
        with JSONLinesSink(path) as sink:
            await sink("a", KEY)
            with pytest.raises(LedgerError, match="has another key for ticket 'a', not other"):
                await sink("a", attrs.evolve(KEY, id="other"))

    assert content(path) == line_of(KEY, "a")


async def test_a_delivery_is_on_the_disk_when_it_returns(path: Path, syncs: list[int]) -> None:
    """The last fsync was of a file that had the line."""
    with JSONLinesSink(path) as sink:
        await sink("a", KEY)
        assert syncs[-1] == len(line_of(KEY, "a"))


async def test_many_deliveries_share_an_fsync(path: Path, syncs: list[int]) -> None:
    """What comes while the disk is busy goes out in one write."""
    with JSONLinesSink(path) as sink:
        opening = len(syncs)
        await asyncio.gather(*(sink(f"t{number}", KEY) for number in range(500)))

    assert len(syncs) - opening <= 2
    assert len(content(path).splitlines()) == 500


async def test_what_was_there_is_on_the_disk_once_opened(path: Path, syncs: list[int]) -> None:
    """A line that a killed run wrote and did not sync must not count as delivered before it is."""
    private(path, line_of(KEY, "a"))
    with JSONLinesSink(path):
        assert syncs[0] == len(line_of(KEY, "a"))


async def test_a_caller_who_is_cancelled_takes_nothing_back(path: Path) -> None:
    """A line that is on its way gets there, and a later delivery of the ticket adds nothing."""
    with JSONLinesSink(path) as sink:
        delivery = asyncio.create_task(sink("a", KEY))
        await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        await sink("a", KEY)

    assert content(path) == line_of(KEY, "a")


async def test_a_loop_that_ends_takes_the_callers_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written then is written whole, and nobody waits for ever to hear of it."""
    go_on = threading.Event()
    with JSONLinesSink(path) as sink:
        monkeypatch.setattr(os, "fsync", lambda _: go_on.wait(10))
        callers = [asyncio.create_task(sink(name, KEY)) for name in ("a", "b")]
        while not content(path):  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)
        for task in asyncio.all_tasks() - {asyncio.current_task(), *callers}:
            task.cancel()
        await asyncio.wait(callers, timeout=10)
        go_on.set()

        assert [caller.cancelled() for caller in callers] == [True, True]
        assert "a" not in sink
    assert content(path) == line_of(KEY, "a") + line_of(KEY, "b")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_of_a_closed_loop_that_is_collected_late_takes_no_line_with_it(path: Path) -> None:
    """The garbage collector ends it whenever it likes: also while the next loop's line waits to be written."""
    sink = JSONLinesSink(path)
    other = attrs.evolve(KEY, id="vcjRcdm8.y")
    left: list[asyncio.Task[Any]] = []

    async def first() -> None:
        left.append(asyncio.ensure_future(sink("t-1", KEY)))
        while sink._writer is None:  # noqa: ASYNC110  it begins in a turn of its own
            await asyncio.sleep(0)
        left.append(sink._writer)
        await asyncio.sleep(0)

    async def second() -> None:
        delivering = asyncio.ensure_future(sink("t-2", other))
        while sink._writer is None or sink._writer in left:  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
        old = left[-1].get_coro()
        assert asyncio.iscoroutine(old)
        with contextlib.suppress(RuntimeError):
            old.close()  # as the collector does it
        await delivering

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    loop.close()
    asyncio.run(second())

    assert "t-2" in sink
    assert b'"t-2"' in content(path)


async def test_a_line_that_was_not_written_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that it was, so its secret is not erased."""
    sink = JSONLinesSink(path)

    def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(sink._file, "append", refuse)
    delivering = asyncio.ensure_future(sink("t-1", KEY))
    with pytest.raises(asyncio.CancelledError):
        await delivering

    assert "t-1" not in sink


def test_a_file_that_is_closed_is_not_read_again(path: Path) -> None:
    """As by a loop that comes after its closing."""
    file = AppendOnlyFile(str(path))
    file.close()

    with pytest.raises(LedgerError, match="is closed"):
        file.read_again(lambda _: None)


async def test_a_torn_line_is_cut_off(path: Path) -> None:
    """A line that a killed run left unfinished is removed, and its ticket can be delivered."""
    private(path, b'{"ticket":"a"}\n{"ticket":"b","id":"x y","api_key":"vcj')
    with JSONLinesSink(path) as sink:
        assert "b" not in sink
        assert sink.mended == f'{path}:2: the last line, of ticket "b", had been cut off by a crash, and was removed'
        assert content(path) == b'{"ticket":"a"}\n'
        await sink("b", KEY)

    assert content(path) == b'{"ticket":"a"}\n' + line_of(KEY, "b")


@pytest.mark.parametrize(
    "torn", [b"{", b'{"tick', b'{"ticket":"b', b'{"ticket":"b\xc3', b'{"ticket":"b","i', b"\0\0\0"]
)
def test_wherever_it_was_torn(path: Path, torn: bytes) -> None:
    """However little is left of the last line, it is cut off."""
    private(path, b'{"ticket":"a"}\n' + torn)
    with JSONLinesSink(path) as sink:
        assert sink.mended is not None
    assert content(path) == b'{"ticket":"a"}\n'


def test_torn_all_along_the_line(path: Path) -> None:
    """A file cut off anywhere in its last line is mended, and has the ticket only if all but the line feed is there."""
    whole = line_of(KEY, "a") + line_of(KEY, "b")
    for length in (*range(len(line_of(KEY, "a")) + 1, len(whole), 9), len(whole) - 2, len(whole) - 1):
        private(path, whole[:length])
        with JSONLinesSink(path) as sink:
            assert ("b" in sink) is (length == len(whole) - 1)
        assert content(path) == (whole if length == len(whole) - 1 else line_of(KEY, "a"))


def test_a_whole_line_without_its_end(path: Path) -> None:
    """A last line that lacks only its line feed gets it, and counts."""
    private(path, b'{"ticket":"a"}')
    with JSONLinesSink(path) as sink:
        assert "a" in sink
    assert content(path) == b'{"ticket":"a"}\n'


@pytest.mark.parametrize(
    "other",
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
def test_another_kind_of_file_is_left_alone(path: Path, other: bytes) -> None:
    """A file that is no such list of keys is refused, and stays as it was to the last byte."""
    private(path, other)

    assert "the file was left as it is" in refusal(path)
    assert content(path) == other


def test_make_believe_and_real_keys_do_not_mix(tmp_path: Path) -> None:
    """A trial in the sandbox must not pass for the real thing, nor the other way round."""
    real = private(tmp_path / "real.jsonl", line_of(KEY, "a"))
    trial = private(tmp_path / "trial.jsonl", line_of(KEY, "a", sandbox=True))

    assert "real keys" in refusal(real, sandbox=True)
    assert "the sandbox's keys" in refusal(trial, sandbox=False)


async def test_a_failed_write_leaves_nothing(path: Path) -> None:
    """When lines cannot be written whole, each caller is told, nothing of them stays, and a later try succeeds."""
    private(path, line_of(KEY, "a"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JSONLinesSink(path) as sink:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(line_of(KEY, "a")) - 9, limits[1]))
        try:
            results = await asyncio.gather(sink("b", KEY), sink("c", KEY), return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [type(result) for result in results] == [OSError, OSError]
        assert results[0] is not results[1]
        assert str(path) in str(results[0])
        assert content(path) == line_of(KEY, "a")
        assert "b" not in sink
        await sink("b", KEY)

    assert content(path) == line_of(KEY, "a") + line_of(KEY, "b")


async def test_a_failed_fsync_is_a_failed_delivery(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may have dropped what it was given, so the line is taken back, and written anew by the next try."""
    with JSONLinesSink(path) as sink:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _fail)
            with pytest.raises(OSError, match="Input/output error"):
                await sink("a", KEY)
        assert content(path) == b""
        await sink("a", KEY)

    assert content(path) == line_of(KEY, "a")


async def test_what_could_not_be_taken_back_is_before_the_next_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However badly a disk fails, no line is ever added to half a line."""
    with JSONLinesSink(path) as sink:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _fail)
            patch.setattr(os, "ftruncate", _fail)
            with pytest.raises(OSError, match="Input/output error"):
                await sink("a", KEY)
        await sink("b", KEY)

    assert content(path) == line_of(KEY, "b")


def _fail(*_: Any) -> None:
    raise OSError(5, "Input/output error")


async def test_a_file_that_is_removed_meanwhile(path: Path) -> None:
    """Keys are not written where nobody will find them."""
    with JSONLinesSink(path) as sink:
        os.unlink(path)  # noqa: PTH108  within an async test
        with pytest.raises(FileNotFoundError, match="was removed"):
            await sink("a", KEY)


async def test_a_closed_file(path: Path) -> None:
    """A sink that was closed says so, and may be closed again."""
    sink = JSONLinesSink(path)
    sink.close()
    sink.close()

    with pytest.raises(LedgerError, match="is closed"):
        await sink("a", KEY)


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
    assert refusal("a\0b") == "'a\\x00b': no file can have this name"
    assert refusal("a\ud800b") == "'a\\ud800b': no file can have this name"
    path.chmod(0o640)
    assert refusal(path) == f" others can read it; make it private with: chmod 600 {path}"
    path.chmod(0o600)
    (tmp_path / "second name").hardlink_to(path)
    assert refusal(path) == " expected a file with one name; this one has 2 (hard links)"


def test_one_run_at_a_time(path: Path) -> None:
    """A file that another run writes to is refused."""
    with JSONLinesSink(path):
        assert refusal(path) == " another run is writing to it"

    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
