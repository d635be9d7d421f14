"""Several workers on one ledger, one of them stopped for longer than its lease: still one live key for each ticket."""

import asyncio
import contextlib
import itertools
import signal
import sqlite3
from asyncio.subprocess import Process
from pathlib import Path

import attrs
import pytest

from tests.crash.world import final_sweep, world


async def test_two_workers_at_once_issue_each_ticket_once(tmp_path: Path) -> None:
    """Both work through the same 200 tickets; whoever comes second finds the key, or the other one at work on it."""
    async with world(tmp_path, tickets=200, seed=11) as first:
        second = attrs.evolve(first, out=tmp_path / "second.jsonl")

        async with first.worker() as one, second.worker() as other:
            assert await first.end(one)
            assert await second.end(other)

        recorded = await final_sweep(first)
        lines = [*first.lines(), *second.lines()]
        assert {line["ticket"]: line["id"] for line in lines} == recorded
        assert all(first.fake.keys[line["id"]].api_key == line["api_key"] for line in lines)
        assert {record.id for record in first.fake.alive()} == set(recorded.values()) == first.handed_out()
        assert first.lines(), "the first worker had nothing to do"
        assert second.lines(), "the second worker had nothing to do"


async def stop_outside_of_a_commit(worker: Process, ledger: Path) -> None:
    """Stop a worker at a moment at which it does not hold SQLite's own lock, which nobody can take from it."""
    for _ in range(100):
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.01)
        with contextlib.closing(sqlite3.connect(ledger, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                # Nor within the truncation of its log, which would make every other one wait.
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.OperationalError:
                busy = True
        if not busy:
            return
        worker.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.001)
    raise AssertionError("the worker is never outside of a commit")


@pytest.mark.parametrize("point", ["request arrived", pytest.param("key made", marks=pytest.mark.hostile)])
async def test_a_worker_that_was_stopped_beyond_its_lease_spoils_nothing(tmp_path: Path, point: str) -> None:
    """Another finishes; what the first one had in the air is neither recorded when it wakes, nor alive."""
    async with world(tmp_path, tickets=60, seed=12) as first:
        first.lease = 0.5
        second = attrs.evolve(first, out=tmp_path / "second.jsonl")

        async with first.worker() as stopped:
            await first.until(point, 20, stopped)
            await stop_outside_of_a_commit(stopped, first.ledger)
            await asyncio.sleep(2 * first.lease)
            assert await second.live()
            stopped.send_signal(signal.SIGCONT)
            assert await first.end(stopped)

        recorded = await final_sweep(first)
        lines = [*first.lines(), *second.lines()]
        assert {line["ticket"]: line["id"] for line in lines} == recorded
        assert len(first.fake.alive()) == 60
        assert {record.id for record in first.fake.alive()} == set(recorded.values()) == first.handed_out()
        assert second.lines(), "nothing was left for the second worker"


async def test_workers_that_open_a_new_ledger_at_the_same_time_get_along(tmp_path: Path) -> None:
    """The file is made once, whoever comes first."""
    async with world(tmp_path, tickets=5, seed=13) as world_:
        workers = [attrs.evolve(world_, out=tmp_path / f"{number}.jsonl") for number in range(4)]

        assert all(await asyncio.gather(*(worker.live() for worker in workers)))

        recorded = await final_sweep(world_)
        lines = itertools.chain.from_iterable(worker.lines() for worker in workers)
        assert {line["ticket"]: line["id"] for line in lines} == recorded
        assert {record.id for record in world_.fake.alive()} == set(recorded.values())
