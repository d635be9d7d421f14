"""The example of a fleet: workers on one queue, one ledger and one pace, one of them killed in the middle."""

import asyncio
import base64
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from respan_async.testing import FakeRespan, SlidingLog
from tests.environment import environment
from tests.integration.fleet import made
from tests.servers.postgres import PostgresServer

EXAMPLE = Path(__file__).parents[1] / "examples" / "fleet.py"
_RESCUING = """
async def rescuing():
    async with fleet.queue.open_async():
        await fleet.rescue(0)
"""
"""What the program does by itself, once a minute."""


@attrs.define
class Fleet:
    """The example, and what it finds around it.

    Attributes:
        fake: Respan.
        folder: Where the program is.
        env: Its environment.
        server: Its Postgres.
        database: Which database of that.
    """

    fake: FakeRespan
    folder: Path
    env: dict[str, str]
    server: PostgresServer
    database: str

    async def start(self, coroutine: str) -> Process:
        """Run a coroutine of the program in a process of its own."""
        code = f"import asyncio, fleet\n{_RESCUING}\nasyncio.run({coroutine})"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", code), cwd=self.folder, env=self.env, stdout=PIPE, stderr=PIPE
        )

    async def run(self, coroutine: str) -> None:
        """Run one to its end."""
        process = await self.start(coroutine)
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()

    @asynccontextmanager
    async def workers(self, number: int, *, troubled: bool = False) -> AsyncIterator[list[Process]]:
        """Start workers, and let those that are left at the end stop as an operator would."""
        processes = [await self.start("fleet.work()") for _ in range(number)]
        try:
            yield processes
        finally:
            for process in processes:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
            for process in processes:
                _, said = await process.communicate()
                assert process.returncode in (0, -signal.SIGKILL), said.decode()
                assert troubled or "Traceback" not in said.decode(), said.decode()

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Look into the database."""
        return self.server.execute(statement, self.database)

    async def until(self, statement: str, seconds: float = 60) -> None:
        """Wait until a statement finds something."""
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(self.ask, statement):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.05)

    def age_the_first(self) -> None:
        """Let the time pass after which the worker that was started first counts as dead."""
        self.ask(
            "UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 minute'"
            " WHERE id = (SELECT min(id) FROM procrastinate_workers)"
        )
        self.ask(
            "UPDATE respan.owners SET lease_until = lease_until - interval '1 minute'"
            " WHERE id = (SELECT min(id) FROM respan.owners)"
        )


@pytest.fixture
async def fleet(
    postgres_server: PostgresServer, postgres_database: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """Give the program with everything it needs, set up."""
    # As fast as the fake server lets it.
    code = EXAMPLE.read_text()
    assert code.count("DOCUMENTED_LIMIT") == 2
    fast = code.replace("DOCUMENTED_LIMIT)", "RateLimit(40, per=1))").replace("DOCUMENTED_LIMIT,", "RateLimit,")
    (tmp_path / "fleet.py").write_text(fast)
    async with FakeRespan(limit=SlidingLog(40, per=1), latency=(0.01, 0.05)) as fake:
        env = environment(
            fake,
            DATABASE_URL=postgres_server.dsn(postgres_database),
            REDIS_URL=redis_url,
            RESPAN_LEDGER_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
        )
        ready = Fleet(fake, tmp_path, env, postgres_server, postgres_database)
        await ready.run("fleet.set_up()")
        yield ready


LEFT = "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') AND task_name = 'issue'"


@pytest.mark.hostile
async def test_a_worker_goes_on_after_its_database_was_started_anew(fleet: Fleet) -> None:
    """Its process ends when it is told to, and only then."""
    await fleet.run("fleet.set_up()")  # again
    async with fleet.workers(1, troubled=True) as (worker,):
        await fleet.run("fleet.enqueue('2026-11', ['tenant-1'])")
        await fleet.until("SELECT 1 FROM respan.tickets WHERE state = 'delivered'")
        before = fleet.ask("SELECT max(id) FROM procrastinate_workers")[0][0]
        fleet.server.stop()
        await asyncio.sleep(1)
        fleet.server.start()
        await fleet.until(f"SELECT 1 FROM procrastinate_workers WHERE id > {before}")
        await fleet.run("fleet.enqueue('2026-11', ['tenant-2'])")
        await fleet.until("SELECT 1 FROM respan.tickets WHERE ticket = 'tenant-2/2026-11' AND state = 'delivered'")

        assert worker.returncode is None


async def test_a_worker_whose_api_key_is_refused_stops_and_leaves_its_jobs_to_others(fleet: Fleet) -> None:
    """No job fails for it."""
    await fleet.run(f"fleet.enqueue('2026-11', {[f'tenant-{number}' for number in range(60)]})")
    fleet.fake.chance("unauthorized_401", 1, operation="create")
    async with fleet.workers(1) as (worker,), asyncio.timeout(30):
        await worker.communicate()

    assert not fleet.ask("SELECT 1 FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')")
    assert len(fleet.ask(LEFT)) == 60
    assert fleet.fake.counts.by_operation["create"] <= 40


async def test_workers_on_one_queue_make_each_key_once_though_one_is_killed(fleet: Fleet) -> None:
    """Three workers; one is killed with jobs in its hands; each ticket has one key, and the server refuses nothing."""
    tenants = [f"tenant-{number}" for number in range(80)]
    await fleet.run(f"fleet.enqueue('2026-11', {tenants})")
    async with fleet.workers(1) as (first,), AsyncExitStack() as others:
        await fleet.until("SELECT 1 FROM procrastinate_workers, respan.owners")
        await others.enter_async_context(fleet.workers(2))
        await made(fleet.fake, 25)
        first.kill()
        await first.wait()
        fleet.age_the_first()
        await fleet.run(f"fleet.enqueue('2026-11', {tenants[:10]})")  # asked for twice: no harm
        await fleet.run("rescuing()")
        await fleet.until(
            "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
            " AND task_name = 'issue')"
        )

    delivered = "SELECT ticket, key_id FROM respan.tickets WHERE state = 'delivered'"
    recorded = {ticket: key_id for ticket, key_id in fleet.ask(delivered)}  # noqa: C416  two of any
    suspects = fleet.ask("SELECT tag FROM respan.attempts WHERE state IN ('suspect', 'intent')")
    alive = {record.id for record in fleet.fake.alive()}
    assert set(recorded) == {f"{tenant}/2026-11" for tenant in tenants}
    assert set(recorded.values()) <= alive
    assert len(alive) - len(recorded) <= len(suspects)  # what the killed one had in the air
    assert fleet.fake.counts.refused == 0
    assert fleet.fake.max_in_window(1) <= 40
    assert not fleet.ask("SELECT 1 FROM procrastinate_jobs WHERE status = 'failed'")
