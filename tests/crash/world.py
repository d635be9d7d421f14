"""A worker process and the server it issues from, and what must hold in the end."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from respan_async import AsyncRespan
from respan_async.issuing import AttemptState, Issuer, TicketState
from respan_async.testing import FakeRespan, Limit
from tests.crash.worker import ledger_at

WORKER = Path(__file__).with_name("worker.py")
AT_LEDGER = (
    "before claim_attempt",
    "after claim_attempt",
    "before record",
    "after record",
    "before erase",
    "after erase",
)
AT_DELIVERY = ("before deliver", "in deliver", "after deliver")
AT_COMMIT = ("before commit", "in commit", "after commit")
SERVER_SIDE = ("request arrived", "key made")
POINTS = (*AT_LEDGER, *AT_DELIVERY, *AT_COMMIT, *SERVER_SIDE)

TROUBLE = {
    "lose_answer_after_create": 0.03,
    "disconnect_after_create": 0.02,
    "late_create:0.3": 0.03,
    "html_502_after": 0.03,
    "html_502": 0.02,
    "truncate": 0.02,
    "no_api_key": 0.01,
    "reset": 0.02,
}
"""What creates meet by chance."""


@attrs.define
class World:
    """A server full of trouble, and a worker that is started over and over.

    Attributes:
        fake: The server.
        folder: Where the worker keeps its files.
        tickets: How many the worker issues.
        lease: The lease of its ledger, in seconds.
        dsn: Where its ledger is, when that is no file.
        out: The file it delivers to.
        lives: How often the worker was started.
        kills: How often it was killed.
    """

    fake: FakeRespan
    folder: Path
    tickets: int
    lease: float = 30.0
    dsn: str = ""
    out: Path = attrs.field(default=attrs.Factory(lambda self: self.folder / "out.jsonl", takes_self=True))
    lives: int = 0
    kills: int = 0

    @property
    def ledger(self) -> Path:
        """The worker's ledger, when that is a file."""
        return self.folder / "keys.db"

    @property
    def place(self) -> str:
        """Where the worker's ledger is."""
        return self.dsn or str(self.ledger)

    def lines(self) -> list[dict[str, str]]:
        """Give what was delivered."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def handed_out(self) -> set[str]:
        """Give the ids of the keys that the worker's own code has got from `issue_many`."""
        path = self.folder / "handed-out"
        return {line.split()[1] for line in path.read_text().splitlines()} if path.exists() else set()

    async def live(self, point: str = "", time: int = 1) -> bool:
        """Let the worker live until it is through, or killed; tell whether it is through."""
        async with self.worker(point if point not in SERVER_SIDE else "", time) as worker:
            if point in SERVER_SIDE:
                await self.until(point, time, worker)
                self._kill(worker)
            return await self.end(worker)

    async def live_for(self, seconds: float) -> bool:
        """Let the worker live for so long after its start; tell whether it is through before."""
        async with self.worker() as worker:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.wait(), seconds)
            self._kill(worker)
            return await self.end(worker)

    @contextlib.asynccontextmanager
    async def worker(self, point: str = "", time: int = 1) -> AsyncIterator[Process]:
        """Start a worker; kill it if it still lives in the end."""
        self.lives += 1
        options = {
            "--url": self.fake.url,
            "--ledger": self.place,
            "--out": self.out,
            "--lease": self.lease,
            "--handed-out": self.folder / "handed-out",
            "--tickets": self.tickets,
            "--point": point,
            "--time": time,
        }
        words = itertools.chain.from_iterable((name, str(value)) for name, value in options.items())
        worker = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), *words, stdout=PIPE)
        try:
            assert worker.stdout is not None
            await worker.stdout.readline()
            yield worker
        finally:
            if worker.returncode is None:
                self._kill(worker)
                await worker.wait()

    async def until(self, point: str, time: int, worker: Process) -> None:
        """Wait until the server has come to a point; half of the latency lies on either side of the work."""

        def passed() -> int:
            return len(self.fake.keys) if point == "key made" else self.fake.counts.requests

        before = passed()
        while passed() < before + time and worker.returncode is None:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)

    def _kill(self, worker: Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    async def end(self, worker: Process) -> bool:
        """Wait for a worker's end; tell whether it is through."""
        async with asyncio.timeout(60):
            ended_with = await worker.wait()
        assert ended_with in (0, -signal.SIGKILL), f"the worker failed with {ended_with}"
        self.kills += ended_with != 0
        return ended_with == 0


@contextlib.asynccontextmanager
async def world(folder: Path, tickets: int, seed: int, limit: Limit | None = None) -> AsyncIterator[World]:
    """Run a server with trouble, and let what is left be looked at in the end."""
    async with FakeRespan(limit=limit, retry_after_digits=2, latency=(0.002, 0.02), seed=seed) as fake:
        for fault, probability in TROUBLE.items():
            fake.chance(fault, probability)
        yield World(fake, folder, tickets)


async def final_sweep(world: World) -> dict[str, str]:
    """Sweep until nothing is left to be found; return the key id that each ticket has in the ledger."""
    fake = world.fake
    await fake.settle()
    async with (
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, ledger_at(world.place)) as issuer,
    ):
        await issuer.sweep(grace=0, taken_over=True)
        counts = await issuer.counts()
        assert counts.attempts[AttemptState.INTENT] == 0
        assert counts.tickets[TicketState.DELIVERED] == sum(counts.tickets.values()) == world.tickets
    recorded = "SELECT ticket, key_id FROM "
    if world.dsn:
        import psycopg

        async with await psycopg.AsyncConnection.connect(world.dsn) as beside:
            return dict(await (await beside.execute(recorded + "respan.tickets")).fetchall())
    with contextlib.closing(sqlite3.connect(world.ledger)) as connection:
        return dict(connection.execute(recorded + "tickets").fetchall())


async def check(world: World) -> None:
    """See that every ticket has exactly one live key, which is recorded and delivered, and that nothing else lives."""
    fake = world.fake
    recorded = await final_sweep(world)
    lines = world.lines()
    delivered = {line["ticket"]: line["id"] for line in lines}
    made_for = {f"tenant {number}": f"tenant-{number}" for number in range(world.tickets)}
    alive = {made_for[record.name.rpartition(" ~")[0]]: record.id for record in fake.alive()}

    assert len(lines) == len(delivered) == world.tickets, "a ticket was delivered twice, or never"
    assert len(fake.alive()) == world.tickets, "a key is alive that nobody holds, or one that somebody holds is dead"
    assert alive == recorded == delivered
    assert all(fake.keys[line["id"]].api_key == line["api_key"] for line in lines), "a secret was lost"
    assert world.handed_out() <= set(recorded.values()), "a key that was handed out is not its ticket's"
