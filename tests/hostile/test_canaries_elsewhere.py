"""Canaries looked for outside of the process: commands, their files and arguments, Redis, Postgres, OpenTelemetry."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, CreatedKey, RateLimit, RetryPolicy
from respan_async.errors import RespanError
from respan_async.issuing import AESGCMCipher, Issuer, PostgresLedger, SQLiteLedger, Ticket
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan
from tests.hostile.canaries import BEARER, CIPHER_KEY, HEADER, KEYS, OLD_CIPHER_KEY, PROXY, Seeker, Witness
from tests.integration.cli_world import COMMAND, Server
from tests.integration.test_otel import Telemetry
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

QUICK = RetryPolicy(initial=0.001, maximum=0.001)


# ------------------------------------------------------------------------ telemetry


async def test_telemetry_exports_no_secret() -> None:
    """Spans, their attributes and events, and every metric; of successes, failures, retries and an issuer."""
    telemetry = Telemetry()
    async with FakeRespan(api_keys=[BEARER]) as fake:
        respan = AsyncRespan(BEARER, base_url=fake.url, hooks=[telemetry.hook], retry=QUICK, tag_names=True)
        view = respan.with_options(extra_headers={"X-Canary": HEADER})
        async with (
            respan,
            Issuer(view, SQLiteLedger(":memory:", AESGCMCipher(CIPHER_KEY))) as issuer,
            telemetry.hook.observing(respan, issuer),
        ):
            with telemetry.tracer.start_as_current_span("caller"):
                fake.script("lose_answer_after_create", "no_api_key", "unauthorized_401", operation="create")
                for number in range(4):
                    with contextlib.suppress(RespanError):
                        await issuer.issue(Ticket(f"tenant-{number}"))
                await view.temporary_keys.list()
        secrets = [record.api_key for record in fake.keys.values()]

    exported = telemetry.exported()
    assert len(secrets) >= 3
    assert exported.count("trace_id") > 4
    assert Seeker(BEARER, HEADER, *KEYS, *secrets).find(exported) is None


# ------------------------------------------------------------------------- commands


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fake server that takes the canary for its API key."""
    server = Server()
    server.fake = FakeRespan(api_keys=[BEARER])
    server.start()
    yield server
    server.stop()


@attrs.define
class Shell:
    """Run commands, with the secrets in their environment, and see all that they leave behind.

    Attributes:
        folder: Where they run.
        environment: Theirs.
        witness: Told everything but the standard output of those that may write keys there.
    """

    folder: Path
    environment: dict[str, str]
    witness: Witness

    def run(self, *argv: str, keys_on_stdout: bool = False, **more: str) -> tuple[int, str, str]:
        """Run a command to its end; meanwhile look at its arguments and at its children, as `ps` shows them."""
        process = subprocess.Popen(
            (*COMMAND, *argv),
            cwd=self.folder,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < until:
            self._look(Path("/proc") / str(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        out, err = process.communicate(timeout=1)
        self.witness.note(f"what {argv} says", err)
        if not keys_on_stdout:
            self.witness.note(f"what {argv} gives", out)
        self.witness.files(self.folder, but=lambda path: path.name == "keys.jsonl")
        return process.returncode, out, err

    def _look(self, process: Path) -> None:
        try:
            self.witness.note("arguments", (process / "cmdline").read_bytes())
            children = [
                child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
            ]
        except OSError:
            return  # it has ended, or this is not Linux
        assert not children, "a command starts no other program, which would inherit its environment"


@pytest.mark.hostile
def test_commands_show_no_secret_but_where_it_belongs(server: Server, tmp_path: Path) -> None:
    """Every command, good and bad: a key is on standard output or in `--out`, and the others' keys are nowhere."""
    folder = tmp_path / "here"
    (folder / "tmp").mkdir(parents=True)
    witness = Witness()
    paths = {"PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    secrets = {"RESPAN_API_KEY": BEARER, "RESPAN_LEDGER_KEY": CIPHER_KEY, "RESPAN_BASE_URL": server.fake.url}
    shell = Shell(folder, {**paths, **secrets, "PYTHONDONTWRITEBYTECODE": "1"}, witness)
    (folder / "t.csv").write_text("ticket,name\n" + "".join(f"t{n},Tenant {n}\n" for n in range(5)))

    code, out, _ = shell.run("create", "--name", "one", keys_on_stdout=True)
    assert code == 0
    made = next(iter(server.fake.keys.values()))
    assert made.api_key in out
    for argv in (["list"], ["update", made.id, "--name", "b"], ["show", "none"]):
        shell.run(argv[0], "-v", *argv[1:])
    server.fake.script("lose_answer_after_create", "error_500", operation="create")
    code, _, _ = shell.run("issue", "-v", "t.csv", "--out", "keys.jsonl", "--rate", "auto")
    assert code == 0
    shell.run("status", "--out", "keys.jsonl", "--json")
    shell.run("sweep", "--out", "keys.jsonl", "--grace", "0")
    turned = ("ledger", "rotate", "--out", "keys.jsonl")
    assert shell.run(*turned, RESPAN_LEDGER_KEY=OLD_CIPHER_KEY, RESPAN_LEDGER_OLD_KEYS=CIPHER_KEY)[0] == 0
    assert shell.run("issue", "t.csv", "--out", "keys.jsonl", RESPAN_LEDGER_KEY=CIPHER_KEY[:-4])[0] == 2
    assert shell.run("list", RESPAN_API_KEY=f"{BEARER}\n")[0] == 2
    assert shell.run("list", RESPAN_BASE_URL=f"https://me:{PROXY}@host", RESPAN_KEYS_DEBUG="1")[0] == 1

    held = (folder / "keys.jsonl").read_text()
    assert all(record.api_key in held for record in server.fake.alive() if record.id != made.id)
    witness.check(BEARER, PROXY, *KEYS, *(record.api_key for record in server.fake.keys.values()), least=15)


@pytest.mark.hostile
def test_a_killed_run_leaves_no_secret_in_the_clear(server: Server, tmp_path: Path) -> None:
    """Its ledger is encrypted, and nothing else was written: no core file, no temporary one."""
    environment = {**os.environ, "RESPAN_API_KEY": BEARER, "RESPAN_LEDGER_KEY": CIPHER_KEY, "TMPDIR": str(tmp_path)}
    (tmp_path / "t.csv").write_text("ticket\n" + "".join(f"t{n}\n" for n in range(2000)))
    nobody, full = os.pipe()  # so that most of what is made stays in the ledger
    process = subprocess.Popen(
        (*COMMAND, "issue", "t.csv", "--ledger", "keys.db", "--rate", "auto", "--base-url", server.fake.url),
        cwd=tmp_path,
        env=environment,
        stdout=full,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 20
    while len(server.fake.keys) < 200 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    os.close(full)
    os.close(nobody)
    witness = Witness()
    witness.files(tmp_path)

    assert len(server.fake.keys) >= 200
    witness.check(BEARER, *KEYS, *(record.api_key for record in list(server.fake.keys.values())), least=3)


# ------------------------------------------------------------------ Redis, Postgres


@pytest.mark.hostile
async def test_redis_is_told_no_secret(tmp_path: Path) -> None:
    """Neither the token nor a name: what comes through the wire is numbers, and a password only to log in."""
    server = RedisServer(tmp_path, settings=("--requirepass", PROXY))
    server.start()
    try:
        url = server.url.replace("//", f"//:{PROXY}@")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"AUTH {PROXY}\r\nMONITOR\r\n".encode())
        assert await reader.readexactly(10) == b"+OK\r\n+OK\r\n"
        async with FakeRespan(api_keys=[BEARER]) as fake:
            window = RedisWindow(url, RateLimit(20, per=1))
            async with AsyncRespan(BEARER, base_url=fake.url, pace=window) as respan:
                for _ in range(5):
                    await respan.temporary_keys.create(name="a-name-of-a-tenant")
            secrets = [record.api_key for record in fake.keys.values()]
        told = await reader.read(1_000_000)
        writer.close()
    finally:
        server.stop()

    assert b"evalsha" in told.lower()
    assert Seeker(BEARER, PROXY, *secrets, "a-name-of-a-tenant").find(told) is None
    assert all(Seeker(BEARER, *secrets).find(path.read_bytes()) is None for path in tmp_path.iterdir())  # noqa: ASYNC240  nobody else waits


@pytest.mark.hostile
async def test_postgres_is_told_no_secret_when_there_is_a_cipher(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Neither its tables, nor its log of every statement with every parameter, nor its files."""
    for setting in ("log_statement = 'all'", "log_parameter_max_length = -1", "log_min_duration_statement = 0"):
        postgres_server.execute(f"ALTER DATABASE {postgres_database} SET {setting}")
    began = len(postgres_server.log)
    delivered: dict[str, str] = {}

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered[ticket_id] = key.api_key.reveal()

    dsn = postgres_server.dsn(postgres_database)
    await PostgresLedger(dsn).create_schema()
    async with FakeRespan(api_keys=[BEARER]) as fake:
        for how, ticket in ((None, "kept"), (deliver, "delivered")):
            ledger = PostgresLedger(dsn, AESGCMCipher(CIPHER_KEY))
            async with AsyncRespan(BEARER, base_url=fake.url) as respan, Issuer(respan, ledger, deliver=how) as issuer:
                await issuer.issue(Ticket(ticket))
                await issuer.issue(Ticket(ticket))
        ledger = PostgresLedger(dsn, AESGCMCipher(OLD_CIPHER_KEY, old_keys=(CIPHER_KEY,)))
        await ledger.open(f"{fake.url} ?")
        await ledger.rotate()
        await ledger.aclose()
        secrets = [record.api_key for record in fake.keys.values()]
    postgres_server.execute("CHECKPOINT")
    seeker = Seeker(BEARER, *KEYS, *secrets)
    found = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'respan'"
    rows: list[Any] = [
        postgres_server.execute(f'SELECT * FROM respan."{name}"', postgres_database)
        for (name,) in postgres_server.execute(found, postgres_database)
    ]
    log = postgres_server.log[began:]

    assert delivered["delivered"] in secrets
    assert "kept" in log
    assert "INSERT" in log
    assert seeker.find(log) is None
    assert rows
    assert seeker.find(repr(rows)) is None


def test_the_interpreter_is_the_one_that_is_tested() -> None:
    """Or commands would be run by another, with another library."""
    assert COMMAND[0] == sys.executable
