"""What works on Windows, in interpreters that lack what Windows lacks; and what says that it needs POSIX."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from respan_async.testing import FakeRespan
from tests.environment import environment

ROOT: Final = Path(__file__).parents[2]


async def elsewhere(
    code: str, folder: Path, fake: FakeRespan | None = None, **variables: str
) -> tuple[int | None, str, str]:
    """Run a program in a fresh interpreter without what Windows lacks."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", f"import tests.without_posix\n{code}"),
        cwd=folder,
        env=environment(fake, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


LACK: Final = "needs the file locks and permissions of POSIX, which this system does not have"
NO_LEDGER: Final = f"a ledger in a file {LACK}; use a PostgresLedger, or ':memory:' for tests"

MODULES = """
import importlib, pkgutil, respan_async
for module in pkgutil.walk_packages(respan_async.__path__, "respan_async."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from respan_async.errors import ConfigurationError, LedgerError
from respan_async.issuing import JSONLinesSink, SQLiteLedger
from respan_async.issuing.sqlite._inspect import read_snapshot

for open_it in (SQLiteLedger, JSONLinesSink, read_snapshot):
    try:
        open_it("keys.db")
    except (ConfigurationError, LedgerError) as error:
        print(f"{type(error).__name__}: {error}")

import asyncio, signal
from respan_async.cli.interrupts import interrupts

async def main():
    before = signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        told = asyncio.Event()
        with interrupts(told.set):
            signal.raise_signal(number)
            await asyncio.wait_for(told.wait(), 10)
    assert signal.getsignal(signal.SIGTERM) is before

asyncio.run(main())
"""


async def test_every_module_is_imported_and_what_needs_posix_says_so(tmp_path: Path) -> None:
    """In one sentence, before a file is made, with what to do instead. Ctrl-C is told without the loop's help."""
    code, out, err = await elsewhere(MODULES, tmp_path)

    assert (code, err) == (0, "")
    ledger, sink, snapshot = out.splitlines()
    assert ledger == f"ConfigurationError: path: {NO_LEDGER}"
    assert (
        sink == f"LedgerError: keys.db: a file of keys {LACK}; keys can go to standard output, or to a deliver function"
    )
    assert snapshot == f"LedgerError: keys.db: a ledger in a file {LACK}"
    assert not (tmp_path / "keys.db").exists()


CLIENT = """
import asyncio
from datetime import timedelta
from respan_async import AsyncRespan, CreateKeyRequest, Effect, Issued
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan

async def main():
    async with FakeRespan() as fake:
        fake.script("lose_answer_after_create", "unavailable_503", "refuse:0.01")
        async with AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True) as respan:
            keys = respan.temporary_keys
            made = await keys.create(name="tenant-42", expires_in=timedelta(hours=1))
            report = await keys.sweep(grace=0)
            batch = await keys.create_many(CreateKeyRequest(name=f"t-{n}") for n in range(20))
            await keys.update(made.id, name="x")
            await keys.delete(made.id)
            async with Issuer(respan, SQLiteLedger(":memory:")) as issuer:
                first, again = [await issuer.issue(Ticket("acme", CreateKeyRequest())) for _ in range(2)]
            assert len(report.revoked) == 1 and all(isinstance(one, Issued) for one in batch), (report, batch)
            assert first.key.id == again.key.id and again.replayed
            assert len({one.key.name for one in batch}) == 20
            assert fake.unheld([first.key.id, *(one.key.id for one in batch)]) == []

asyncio.run(main())
"""


async def test_the_client_works(tmp_path: Path) -> None:
    """Single calls, retries, suspects and their sweep, a batch, tags, a ledger in memory, and the fake server."""
    code, out, err = await elsewhere(CLIENT, tmp_path)

    assert (code, out) == (0, ""), err
    assert "Traceback" not in err


PLUGIN = """
import pytest
from respan_async import AsyncRespan, Effect
from respan_async.testing import FakeRespan

pytest_plugins = ["respan_async.testing.plugin"]

@pytest.mark.asyncio
async def test_a_lost_answer(respan: AsyncRespan, fake_respan: FakeRespan) -> None:
    fake_respan.script("lose_answer_after_create")
    key = await respan.temporary_keys.create(name="tenant-42")
    assert len(fake_respan.unheld([key.id])) == 1
    assert respan.suspects[0].effect is Effect.UNKNOWN
"""


async def test_the_plugin_works(tmp_path: Path) -> None:
    """In a user's own tests."""
    (tmp_path / "test_theirs.py").write_text(PLUGIN)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    run = (
        "import pytest\nraise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'pytest_asyncio.plugin']))"
    )

    code, out, err = await elsewhere(run, tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert (code, err) == (0, ""), out
    assert "1 passed" in out


COMMANDS = """
from respan_async.cli import main
print(main(["create", "--name", "demo"]), flush=True)
print(main(["issue", "t.csv"]), flush=True)
print(main(["issue", "t.csv", "--out", "keys.jsonl"]))
"""


async def test_commands_work(tmp_path: Path) -> None:
    """Those that make one call, and a run to standard output."""
    (tmp_path / "t.csv").write_text("ticket\na\nb\n")
    async with FakeRespan() as fake:
        code, out, err = await elsewhere(COMMANDS, tmp_path, fake)

    lines = out.splitlines()
    assert (code, [lines[at] for at in (1, 4, 5)]) == (0, ["0", "0", "2"]), err
    assert out.count('"api_key"') == fake.counts.created == 3
    assert err.splitlines()[-1] == f"respan-keys: path: {NO_LEDGER}"


@pytest.mark.hostile
async def test_what_is_tested_on_every_system_passes_without_posix() -> None:
    """The tests that the workflow runs on Windows and macOS, or a change would break them unseen until then."""
    command = (sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "tests.without_posix", "@tests/portable.txt")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(None), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()

    assert process.returncode == 0, out.decode()
