"""The example services, under a real uvicorn and a real aiohttp server: crowds, browsers that hang up, SIGTERM."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from respan_async import AsyncRespan
from respan_async.issuing import Issuer, SQLiteLedger
from respan_async.testing import FakeRespan, SlidingLog
from tests.environment import environment
from tests.waiting import until

EXAMPLES = Path(__file__).parents[1] / "examples"
GIVEN = "pace=DOCUMENTED_LIMIT"
LEARNED = 'pace="auto"'
"""In place of the documented limit, for tests that make more than 60 requests at a server that is faster."""

IN_FLIGHT = 64
"""What a client has in the air at most, unless it is told otherwise."""

BATCHED = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from respan_async import CreateKeyRequest, Issued
from service import app

plain = app.router.lifespan_context


async def issue_all(respan):
    requests = (CreateKeyRequest(name=f"batch-{number}") for number in range(int(Path("batch").read_text())))
    with Path("held").open("w") as held:
        async with respan.temporary_keys.create_many(requests) as batch:
            async for outcome in batch:
                if isinstance(outcome, Issued):
                    print(outcome.key.id, file=held, flush=True)


@asynccontextmanager
async def lifespan(app):
    async with plain(app) as state:
        batch = asyncio.create_task(issue_all(state["respan"]))
        yield state
        batch.cancel()
        await asyncio.wait({batch})


app.router.lifespan_context = lifespan
"""
"""The FastAPI service with a batch in its process, which ends before the client is closed."""


@attrs.frozen
class Kind:
    """One of the examples.

    Attributes:
        name: Its framework's.
        code: The example's.
        method: How it is asked for a key.
        exit_code: How its process ends at SIGTERM; uvicorn lets the signal have its way once all is done.
        own_end: What of the code makes it give up for browsers that are gone, and what to put there so that it won't.
    """

    name: str
    code: str
    method: str
    exit_code: int
    own_end: tuple[str, str]


FASTAPI = Kind(
    "fastapi",
    (EXAMPLES / "fastapi_service.py").read_text(),
    "POST",
    -signal.SIGTERM,
    ("{working, watching}", "{working}"),
)
AIOHTTP = Kind(
    "aiohttp",
    (EXAMPLES / "aiohttp_service.py").read_text(),
    "PUT",
    0,
    ("handler_cancellation=True", "handler_cancellation=False"),
)

both = pytest.mark.parametrize("kind", [FASTAPI, AIOHTTP], ids=lambda kind: kind.name)


class SlowRespan(FakeRespan):
    """A server that does what it is asked, and keeps every answer back until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def _reply(self, request: Any, connection: Any) -> Any:
        answer = await super()._reply(request, connection)
        await self.go_on.wait()
        return answer


@attrs.define
class Service:
    """A service, in a process of its own.

    Attributes:
        kind: Which.
        port: Where it listens, on loopback.
        folder: Its working directory.
        fake: The Respan it knows.
        process: It.
    """

    kind: Kind
    port: int
    folder: Path
    fake: FakeRespan
    process: asyncio.subprocess.Process
    browser: aiohttp.ClientSession

    def path(self, tenant: str) -> str:
        """Where a tenant's key is asked for."""
        return f"/tenants/{tenant}/key"

    async def ask(self, tenant: str) -> tuple[int, Any, str | None]:
        """Ask for a tenant's key: the status, the body, and when to come again."""
        async with self.browser.request(self.kind.method, self.path(tenant)) as response:
            body = await response.json() if response.content_type == "application/json" else None
            return response.status, body, response.headers.get("Retry-After")

    async def key(self, tenant: str) -> str:
        """Ask for a tenant's key, and get it: its id."""
        status, body, _ = await self.ask(tenant)
        assert status < 300, body
        assert self.fake.keys[body["id"]].api_key == body["api_key"]
        return str(body["id"])

    async def call_and_hang_up(self, browsers: int) -> None:
        """Let as many ask for their tenants' keys, and hang up when all that can be in the air is, and seen to be."""
        writers = await asyncio.gather(*(self._call(f"tenant-{number}") for number in range(browsers)))
        await until(lambda: self.fake.counts.requests == IN_FLIGHT)
        await self._round_trip()
        for writer in writers:
            writer.close()
        await self._round_trip()

    async def _call(self, tenant: str) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            f"{self.kind.method} {self.path(tenant)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        await writer.drain()
        return writer

    async def _round_trip(self) -> None:
        """Wait until the service has seen what was sent to it, and has had a turn or two to act on it."""
        for _ in range(3):
            async with self.browser.get("/") as response:
                assert response.status == 404

    async def begin_batch(self, size: int) -> None:
        """Let a batch begin beside the requests, and see it well under way."""
        if self.kind is AIOHTTP:
            tenants = [f"batch-{number}" for number in range(size)]
            async with self.browser.post("/batches", json=tenants) as response:
                assert response.status == 202
        await until(lambda: len(self.fake.keys) >= 100)

    async def end(self) -> str:
        """Send SIGTERM, wait for the end, and give what it had to complain about."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        async with asyncio.timeout(60):
            _, complaints = await self.process.communicate()
        assert self.process.returncode == self.kind.exit_code, complaints.decode()
        return complaints.decode()

    async def unrecorded(self, delivered: set[str]) -> list[str]:
        """Give the keys that work and are held neither by a browser nor, once it has ended, by the service."""
        unheld = [record.id for record in self.fake.unheld(delivered)]
        if self.kind is FASTAPI:
            held = self.folder / "held"
            recorded = set(held.read_text().split()) if held.exists() else set()
            return [key_id for key_id in unheld if key_id not in recorded]
        async with (
            AsyncRespan(self.fake.api_key, base_url=self.fake.url) as respan,
            Issuer(respan, SQLiteLedger(self.folder / "keys.db")) as issuer,
        ):
            return [key_id for key_id in unheld if not await issuer._suspects.owns_key(key_id)]


@asynccontextmanager
async def serving(
    kind: Kind, folder: Path, fake: FakeRespan, *, pace: str = GIVEN, code: str | None = None, batch: int = 0
) -> AsyncIterator[Service]:
    """Serve an example: as it stands, but for a pace or the code that is given; with a batch of so many beside it."""
    code = code or kind.code
    assert code.count(GIVEN) == 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "service.py").write_text(code.replace(GIVEN, pace))
    if kind is FASTAPI:
        (folder / "batched.py").write_text(BATCHED)
        (folder / "batch").write_text(str(batch))
        app = "batched:app" if batch else "service:app"
        command = ["-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
    else:
        command = ["service.py"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always::ResourceWarning", *command),
        cwd=folder,
        env=environment(fake, PORT=str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    browsers = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=browsers) as browser:
            service = Service(kind, port, folder, fake, process, browser)
            await listening(service)
            yield service
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def listening(service: Service) -> None:
    """Wait until a service answers."""
    async with asyncio.timeout(60):
        while service.process.returncode is None:
            with suppress(aiohttp.ClientConnectionError):
                async with service.browser.get("/"):
                    return
            await asyncio.sleep(0.05)
    raise AssertionError((await service.process.communicate())[1].decode())


@both
async def test_a_crowd_gets_its_keys_while_a_batch_runs(kind: Kind, tmp_path: Path) -> None:
    """200 requests at once, behind 4,000 tenants of the same process: each has its key before the batch has its own."""
    async with (
        FakeRespan(limit=SlidingLog(2000, per=1), latency=0.005) as fake,
        serving(kind, tmp_path, fake, pace=LEARNED, batch=4000) as service,
    ):
        await service.begin_batch(4000)
        ids = await asyncio.gather(*(service.key(f"tenant-{number}") for number in range(200)))
        made_by_then = len(fake.keys)
        await until(lambda: len(fake.keys) == 4200)
        complaints = await service.end()

        assert len(set(ids)) == 200
        assert made_by_then < 4000
        assert (fake.counts.created, fake.counts.alive) == (4200, 4200)
        assert complaints == ""


@both
async def test_browsers_that_hang_up_leave_no_key_behind(kind: Kind, tmp_path: Path) -> None:
    """What had left is revoked, or is there when its browser asks again; what still waited is never sent."""
    async with SlowRespan() as fake, serving(kind, tmp_path, fake, pace=LEARNED) as service:
        staying = asyncio.create_task(service.key("staying"))
        await until(lambda: fake.counts.requests == 1)
        await service.call_and_hang_up(100)
        fake.go_on.set()
        held = {await staying}
        if kind is AIOHTTP:
            held.update(await asyncio.gather(*(service.key(f"tenant-{number}") for number in range(100))))
        complaints = await service.end()

        assert held <= {record.id for record in fake.alive()}
        assert [record.name for record in fake.unheld(held)] == []
        assert fake.counts.created == (IN_FLIGHT if kind is FASTAPI else 101)
        assert fake.counts.revoked == (IN_FLIGHT - 1 if kind is FASTAPI else 0)
        assert complaints == ""


@both
async def test_a_server_left_to_itself_works_for_browsers_that_are_gone(kind: Kind, tmp_path: Path) -> None:
    """Why the examples do something about it: otherwise those who wait get keys too, long after they have left."""
    code = kind.code.replace(*kind.own_end)
    assert code != kind.code
    async with SlowRespan() as fake, serving(kind, tmp_path, fake, pace=LEARNED, code=code) as service:
        await service.call_and_hang_up(100)
        fake.go_on.set()
        await service.end()

        assert fake.counts.alive == 100


@both
async def test_a_graceful_shutdown_under_load_loses_nothing(kind: Kind, tmp_path: Path) -> None:
    """SIGTERM with 40 browsers and a batch at work: every key is a browser's, the batch's, or revoked; no complaint."""
    delivered = set[str]()
    statuses = set[int]()

    async def browse(service: Service, number: int) -> None:
        visit = 0
        with suppress(aiohttp.ClientConnectionError):
            while True:
                visit += 1
                status, body, _ = await service.ask(f"tenant-{number}-{visit}")
                statuses.add(status)
                delivered.add(body["id"])

    async with (
        FakeRespan(latency=0.05) as fake,
        serving(kind, tmp_path, fake, pace=LEARNED, batch=20_000) as service,
    ):
        await service.begin_batch(20_000)
        browsing = [asyncio.create_task(browse(service, number)) for number in range(40)]
        await until(lambda: len(delivered) >= 200 and fake.counts.requests > len(fake.keys))  # some are in the air
        complaints = await service.end()
        await asyncio.gather(*browsing)
        unrecorded = await service.unrecorded(delivered)

        assert len(statuses) == 1
        assert delivered <= {record.id for record in fake.alive()}
        assert unrecorded == []
        assert fake.counts.created < 20_000
        assert complaints == ""


@both
async def test_who_would_wait_too_long_is_told_when_to_come_again(kind: Kind, tmp_path: Path) -> None:
    """A refusal for longer than anybody waits is a 503 with Retry-After, at once."""
    async with FakeRespan() as fake, serving(kind, tmp_path, fake) as service:
        fake.script("refuse:300")

        status, _, retry_after = await service.ask("tenant-1")

        assert (status, retry_after) == (503, "300" if kind is FASTAPI else "5")
        assert await service.end() == ""


@both
async def test_who_comes_when_the_limit_is_used_up_is_told_at_once_and_nothing_is_refused(
    kind: Kind, tmp_path: Path
) -> None:
    """65 browsers at a server that lets in 60 a minute: five hear at once to come again, because the limit is given."""
    async with (
        FakeRespan(limit=SlidingLog(60, per=60), latency=0.05) as fake,
        serving(kind, tmp_path, fake) as service,
    ):
        answers = await asyncio.gather(*(service.ask(f"tenant-{number}") for number in range(65)))

        told = [int(after) for status, _, after in answers if status == 503 and after is not None]
        assert len(told) == 5
        assert sum(status < 300 for status, _, _ in answers) == 60
        assert all(50 <= seconds <= 61 for seconds in told) if kind is FASTAPI else set(told) == {5}
        assert fake.counts.refused == 0
        assert await service.end() == ""


async def test_a_limit_that_was_learned_tells_when_there_is_room_again(tmp_path: Path) -> None:
    """Five keys a minute for ten requests: the five that cannot have one within 5 s hear how long that minute is."""
    async with (
        FakeRespan(limit=SlidingLog(5, per=60), latency=0.05) as fake,
        serving(FASTAPI, tmp_path, fake, pace=LEARNED) as service,
    ):
        answers = await asyncio.gather(*(service.ask(f"tenant-{number}") for number in range(10)))

        assert sorted(status for status, _, _ in answers) == [201] * 5 + [503] * 5
        assert all(50 <= int(after) <= 61 for _, _, after in answers if after is not None)
        assert fake.counts.refused > 0
        assert await service.end() == ""


@pytest.mark.parametrize("tenant", ["x" * 37, "a%00b"])
@both
async def test_a_name_that_no_key_can_have_is_the_browsers_mistake(kind: Kind, tenant: str, tmp_path: Path) -> None:
    """Nothing is sent for it, nor for the batch that it is part of."""
    async with FakeRespan() as fake, serving(kind, tmp_path, fake) as service:
        status, _, _ = await service.ask(tenant)
        if kind is AIOHTTP:
            async with service.browser.post("/batches", json=["acme", tenant.replace("%00", "\0")]) as response:
                assert response.status == 400

        assert status in (400, 422)
        assert fake.keys == {}
        assert await service.end() == ""


async def test_a_batch_that_is_none_is_the_browsers_mistake(tmp_path: Path) -> None:
    """No JSON, or another than a list of names: 400, and not a traceback in the service's log."""
    async with FakeRespan() as fake, serving(AIOHTTP, tmp_path, fake) as service:
        for body in (b"{bad", b"", b"\xff", b"5", b'"acme"', b'{"acme": 1}', b"[5]", b"[" * 200_000):
            async with service.browser.post("/batches", data=body) as response:
                assert response.status == 400, body[:10]

        assert fake.keys == {}
        assert await service.end() == ""


async def test_a_batch_that_ends_says_why(tmp_path: Path) -> None:
    """In one line, when the API key is not accepted."""
    async with FakeRespan() as fake, serving(AIOHTTP, tmp_path, fake) as service:
        fake.chance("unauthorized_401", 1, operation="create")
        async with service.browser.post("/batches", json=["acme"]) as response:
            assert response.status == 202
        await until(lambda: fake.counts.requests > 0)
        complaints = await service.end()

    assert "the batch has ended: " in complaints
    assert "Traceback" not in complaints


async def test_a_tenant_that_asks_again_gets_the_same_key(tmp_path: Path) -> None:
    """A ticket has one key, also for browsers that ask at the same time, and for a service that was started again."""
    async with FakeRespan(latency=0.05) as fake:
        async with serving(AIOHTTP, tmp_path, fake) as service:
            ids = set(await asyncio.gather(*(service.key("acme") for _ in range(10))))
            assert await service.end() == ""
        async with serving(AIOHTTP, tmp_path, fake) as service:
            ids.add(await service.key("acme"))
            assert await service.end() == ""

        assert ids == set(fake.keys)
        assert fake.counts.created == 1
