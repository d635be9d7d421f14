"""nginx and HAProxy: reverse proxies with a limit before a server without one, each in a process of its own."""

import getpass
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.limiters.limiter import Counts, Software
from benchmarks.processes import Server, python
from respan_async import RateLimit

_HERE: Final = Path(__file__).parent
_LOG: Final = "access.log"
_START: Final = 10.0


def _program(name: str) -> str | None:
    """Find a program also where an unprivileged user's PATH does not lead."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin")))


def _software(label: str, name: str, package: str) -> Software:
    program = _program(name)
    if program is None:
        return Software((), f"{label} (not installed; in Debian: {package})")
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return Software((f"{label} {found[0] if found else 'of unknown version'}",))


@cache
def nginx_software() -> Software:
    """Find nginx."""
    return _software("nginx", "nginx", "nginx-light")


@cache
def haproxy_software() -> Software:
    """Find HAProxy."""
    return _software("HAProxy", "haproxy", "haproxy")


class Proxy:
    """A proxy and its upstream. The upstream counts what was let in, and the proxy's log what was refused.

    Attributes:
        url: Where the proxy is.
    """

    def __init__(self, command: Sequence[str], template: str, values: Mapping[str, object], refusal: int = 429) -> None:
        self._refusal = refusal
        with ExitStack() as undoing:
            self._temporary = tempfile.TemporaryDirectory()
            undoing.callback(self._temporary.cleanup)
            self._folder = Path(self._temporary.name)
            self._upstream = Server(python("server"))
            undoing.callback(self._upstream.stop)
            port = _free_port()
            written = _written(template, {**values, "port": port, "upstream": self._upstream.url.rpartition(":")[2]})
            (self._folder / template).write_text(written)
            # Only HAProxy writes its log there; nginx opens the file that its configuration names.
            with (self._folder / _LOG).open("ab") as log, (self._folder / "stderr").open("wb") as complaints:
                self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=complaints)
            undoing.callback(self._end)
            self._await(port)
            self.url = f"http://127.0.0.1:{port}"
            undoing.pop_all()

    def stop(self) -> Counts:
        """End both."""
        with self._temporary:
            self._end()
            statuses = Counter((self._folder / _LOG).read_text().split())
            refused = statuses.pop(str(self._refusal), 0)
            let_in = int(self._upstream.stop())
            return Counts(let_in, refused, other=max(statuses.total() - let_in, 0))

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _await(self, port: int) -> None:
        until = time.monotonic() + _START
        while True:
            try:
                # Nothing is sent, so that neither proxy counts or logs a request.
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self._folder / "stderr").read_text()) from None
                time.sleep(0.02)
            else:
                return


def _written(template: str, values: Mapping[str, object]) -> str:
    text = (_HERE / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def nginx(burst: str, refusal: int = 429) -> Callable[[RateLimit], Proxy]:
    """Return what starts nginx with so much `burst`, which is written as in its configuration, and may be empty."""

    def start(limit: RateLimit) -> Proxy:
        values = {
            "rate": f"{limit.limit / limit.per:g}",
            "burst": burst,
            "status": "" if refusal == 503 else f"limit_req_status {refusal};",  # 503 is the default
            # Its worker would be `nobody`, who may not write into the folder.
            "user": f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
        }
        command = [_program("nginx") or "nginx", "-p", ".", "-c", "nginx.conf", "-e", "error.log"]
        return Proxy(command, "nginx.conf", values, refusal)

    return start


def haproxy(limit: RateLimit) -> Proxy:
    """Start HAProxy, which refuses by the rate of requests; it counts those that it refuses too."""
    values = {"limit": limit.limit, "period": round(1000 * limit.per)}
    return Proxy([_program("haproxy") or "haproxy", "-db", "-f", "haproxy.cfg"], "haproxy.cfg", values)
