"""The thread that writes: many operations in one commit, each with a result of its own."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from respan_async.issuing import LedgerError
from respan_async.issuing.sqlite._writer import Writer, WriteRequest, _hand_out


class Connection(sqlite3.Connection):
    """A connection that notes its commits, and can be made to fail or to wait there."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.commits = 0
        self.fail_at: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.commits += 1
            self.gate.wait(10)
            if self.commits in self.fail_at:
                raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


@attrs.define
class World:
    """A writer with a table of numbers.

    Attributes:
        writer: The writer.
        connection: Its connection.
        idles: How often it had nothing to do.
    """

    writer: Writer
    connection: Connection
    idles: list[int]

    async def add(self, number: int) -> int:
        """Write a number; return how many there are."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0])

        return await self.writer.do(work)

    async def committing(self) -> None:
        """Wait until a commit has begun."""
        while not self.connection.commits:  # noqa: ASYNC110  another thread counts them
            await asyncio.sleep(0.001)

    async def numbers(self) -> list[int]:
        """Read what was written."""
        return await self.writer.do(lambda c: [n for (n,) in c.execute("SELECT n FROM numbers ORDER BY rowid")])


@contextlib.asynccontextmanager
async def world(idle: Callable[[], None] = lambda: None) -> AsyncIterator[World]:
    """Run a writer on a database in memory."""
    made: list[Connection] = []
    idles: list[int] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Connection)
        connection.execute("CREATE TABLE numbers (n INTEGER UNIQUE)")
        assert isinstance(connection, Connection)
        made.append(connection)
        return connection

    def idling(connection: sqlite3.Connection) -> None:
        idles.append(1)
        idle()

    writer = Writer(connect, idling, asyncio.get_running_loop())
    await writer.start()
    yield World(writer, made[0], idles)
    made[0].gate.set()
    async with asyncio.timeout(5):
        await writer.stop()


async def test_what_is_asked_for_during_a_commit_shares_the_next_one() -> None:
    """A hundred operations, two commits; each has its own result, in the order they were asked for."""
    async with world() as w:
        w.connection.gate.clear()
        first = asyncio.create_task(w.add(0))
        await w.committing()
        others = [asyncio.create_task(w.add(number)) for number in range(1, 101)]
        await asyncio.sleep(0.01)
        w.connection.gate.set()
        results = await asyncio.gather(first, *others)

        assert results == list(range(1, 102))
        assert w.connection.commits == 2


async def test_nobody_has_a_result_before_the_commit() -> None:
    """Rule 2 depends on it."""
    async with world() as w:
        w.connection.gate.clear()
        adding = asyncio.create_task(w.add(1))
        await w.committing()
        await asyncio.sleep(0.05)

        assert not adding.done()
        w.connection.gate.set()
        assert await adding == 1


async def test_one_that_fails_undoes_itself_and_nothing_else() -> None:
    """Its neighbours in the same commit are written."""
    async with world() as w:
        results = await asyncio.gather(*(w.add(number) for number in (1, 2, 1, 3, 2, 4)), return_exceptions=True)

        assert [isinstance(result, LedgerError) for result in results] == [False, False, True, False, True, False]
        assert "UNIQUE" in str(results[2])
        assert await w.numbers() == [1, 2, 3, 4]


async def test_one_that_fails_halfway_leaves_no_half() -> None:
    """What it had written before its failure is undone with it."""

    def halfway(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise LedgerError("no further")

    async with world() as w:
        results = await asyncio.gather(w.add(1), w.writer.do(halfway), w.add(2), return_exceptions=True)

        assert str(results[1]) == "no further"
        assert await w.numbers() == [1, 2]


async def test_an_error_that_nobody_expected_is_its_callers_alone() -> None:
    """The thread is everybody's, and goes on."""

    def broken(connection: sqlite3.Connection) -> None:
        raise ZeroDivisionError("a bug")

    async with world() as w, asyncio.timeout(5):
        results = await asyncio.gather(w.add(1), w.writer.do(broken), w.add(2), return_exceptions=True)

        assert isinstance(results[1], LedgerError)
        assert "a bug" in str(results[1])
        assert await w.numbers() == [1, 2]


async def test_a_commit_that_fails_fails_everybody_in_it_and_nobody_else() -> None:
    """What was in it is not there, and the next commit goes well."""
    async with world() as w:
        w.connection.fail_at = {1}
        results = await asyncio.gather(w.add(1), w.add(2), return_exceptions=True)
        again = await w.add(3)

        assert all(isinstance(result, LedgerError) and "disk I/O error" in str(result) for result in results)
        assert again == 1
        assert await w.numbers() == [3]


async def test_a_disk_that_is_full_is_told_in_its_own_words() -> None:
    """SQLite undoes the whole transaction by itself then; the message is still the reason, and there is no hang."""
    async with world() as w, asyncio.timeout(5):
        pages = w.connection.execute("PRAGMA page_count").fetchone()[0]
        await w.writer.do(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())

        def big(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO numbers VALUES (zeroblob(100000))")

        results = await asyncio.gather(w.add(1), w.writer.do(big), w.add(2), return_exceptions=True)
        after = await w.add(3)

        assert isinstance(results[1], LedgerError)
        assert "full" in str(results[1])
        assert all("full" in str(result) for result in results if isinstance(result, LedgerError))
        assert after == 1 + sum(isinstance(result, int) for result in results)


async def test_what_is_withdrawn_before_it_has_begun_is_not_done() -> None:
    """A caller that was cancelled while others were being committed."""
    async with world() as w:
        w.connection.gate.clear()
        first = asyncio.create_task(w.add(1))
        await w.committing()
        second, third = asyncio.create_task(w.add(2)), asyncio.create_task(w.add(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        w.connection.gate.set()
        await asyncio.gather(first, second, third, return_exceptions=True)

        assert second.cancelled()
        assert await w.numbers() == [1, 3]


async def test_what_has_begun_is_finished_though_its_caller_is_gone() -> None:
    """It may be on its way to the disk: nothing is half done, and nobody else notices."""
    async with world() as w:
        w.connection.gate.clear()
        first, second = asyncio.create_task(w.add(1)), asyncio.create_task(w.add(2))
        await w.committing()
        first.cancel()
        await asyncio.sleep(0)
        w.connection.gate.set()
        await asyncio.gather(first, second, return_exceptions=True)

        assert first.cancelled()
        assert 1 in await w.numbers()


async def test_closing_does_what_was_asked_for_and_refuses_the_rest() -> None:
    """Twice is harmless."""
    async with world() as w:
        adding = [asyncio.create_task(w.add(number)) for number in range(50)]
        await asyncio.sleep(0)
        await asyncio.gather(w.writer.stop(), w.writer.stop())

        assert await asyncio.gather(*adding) == list(range(1, 51))
        with pytest.raises(LedgerError, match="closed"):
            await w.add(99)


async def test_tidying_up_that_fails_stops_nobody() -> None:
    """Emptying the log after a commit may find the disk full: the thread goes on, and closing is no hang."""

    def broken() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with world(broken) as w, asyncio.timeout(5):
        assert await w.add(1) == 1
        assert await w.add(2) == 2
    assert w.idles


@pytest.mark.parametrize("error", [sqlite3.OperationalError("unable to open"), LedgerError("no"), RuntimeError("bug")])
async def test_what_cannot_be_opened_is_told(error: Exception) -> None:
    """As a `LedgerError`, to whoever opens it; stopping then is no hang."""

    def connect() -> sqlite3.Connection:
        raise error

    writer = Writer(connect, lambda _: None, asyncio.get_running_loop())

    async with asyncio.timeout(5):
        with pytest.raises(LedgerError, match=str(error)):
            await writer.start()
        await writer.stop()


def in_file(path: Path) -> sqlite3.Connection:
    """Open a file that others can lock, for which SQLite itself waits for a moment only."""
    connection = sqlite3.connect(path, timeout=0.05, isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
    return connection


def add(connection: sqlite3.Connection) -> int:
    """Write a number; return how many there are."""
    connection.execute("INSERT INTO numbers VALUES (1)")
    return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0])


async def test_a_file_that_others_keep_locked_is_waited_for(tmp_path: Path) -> None:
    """A backup takes longer than SQLite waits: what was asked for meanwhile is done after it."""
    path = tmp_path / "numbers.db"
    writer = Writer(partial(in_file, path), lambda _: None, asyncio.get_running_loop())
    await writer.start()
    with closing(in_file(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = asyncio.gather(writer.do(add), writer.do(add))
        await asyncio.sleep(0.3)
        assert not asked.done()
        other.execute("COMMIT")

        assert list(await asked) == [1, 2]
    await writer.stop()


@pytest.mark.parametrize("hastened", [False, True])
async def test_a_file_that_others_keep_locked_for_too_long_is_told_and_may_be_tried_again(
    tmp_path: Path, hastened: bool
) -> None:
    """By its name; it ends nothing but what waited for it. Whoever closes a ledger waits no longer than SQLite does."""
    path = tmp_path / "numbers.db"
    patience = 60.0 if hastened else 0.1
    connect = partial(in_file, path)
    writer = Writer(connect, lambda _: None, asyncio.get_running_loop(), name="keys.db", patience=patience)
    await writer.start()
    with closing(in_file(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = asyncio.ensure_future(writer.do(add))
        if hastened:
            await asyncio.sleep(0.2)
            writer.hasten()
        async with asyncio.timeout(5):
            with pytest.raises(LedgerError) as caught:
                await asked
        other.execute("ROLLBACK")

        said = "keys.db: the ledger could not be written: another program keeps it locked (database is locked)"
        assert (str(caught.value), caught.value.retryable) == (said, True)
        assert await writer.do(add) == 1
    await writer.stop()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR])
async def test_what_a_network_share_lacks_is_told_with_what_to_do(code: int) -> None:
    """Where SQLite says no more than that something went wrong."""
    failed = sqlite3.OperationalError("locking protocol")
    failed.sqlite_errorcode = code

    def fail(_: sqlite3.Connection) -> None:
        raise failed

    async with world() as w:
        with pytest.raises(LedgerError, match="the ledger could not be written: locking protocol") as caught:
            await w.writer.do(fail)

    hint = "; a network share may lack what SQLite needs: give a path on a local disk"
    assert str(caught.value).endswith(hint) is (code != sqlite3.SQLITE_IOERR)
    assert not caught.value.retryable


async def test_a_result_that_a_closed_loop_waited_for_costs_nobody_else_theirs() -> None:
    """It is given to those who still wait, in whatever order they asked."""
    loop = asyncio.new_event_loop()
    gone: asyncio.Future[int] = loop.create_future()
    loop.close()
    here: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    requests = [WriteRequest(work=lambda _: 1, future=future) for future in (gone, here)]
    for request in requests:
        request.value = 1

    _hand_out(requests)

    assert here.result() == 1
    assert not gone.done()
