"""Web frameworks whose limiter is within the app: slowapi, Django REST Framework, express-rate-limit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.limiters.limiter import Counts, Software
from benchmarks.processes import Server
from respan_async import RateLimit

_EXPRESS: Final = Path(__file__).with_name("express.cjs")
_ANSWER: Final = Path(__file__).parents[2] / "tests" / "samples" / "create-response-a.json"
_PACKAGES: Final = {"express": "5.3.0", "express-rate-limit": "8.7.5"}
_INSTALLING: Final = 120.0


class App:
    """A server that counts its answers by their statuses.

    Attributes:
        url: Where it is.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._server = Server(command, environment)
        self.url = self._server.url

    def stop(self) -> Counts:
        """End it."""
        statuses: dict[str, int] = json.loads(self._server.stop())
        return Counts(statuses.pop("201", 0), statuses.pop("429", 0), other=sum(statuses.values()))


def _python(module: str, *arguments: object) -> App:
    return App([sys.executable, "-m", f"tests.servers.{module}", *map(str, arguments)])


def _software(*names: str) -> Software:
    try:
        return Software(tuple(f"{name} {version(name)}" for name in names))
    except PackageNotFoundError as error:
        return Software((), f"{names[0]} ({error.name} is not installed; extra: test)")


@cache
def slowapi_software() -> Software:
    """Find slowapi and what it is built on."""
    return _software("slowapi", "limits", "starlette", "uvicorn")


@cache
def drf_software() -> Software:
    """Find Django REST Framework and what it is built on."""
    return _software("djangorestframework", "django", "uvicorn")


def slowapi(strategy: str) -> Callable[[RateLimit], App]:
    """Return what starts a Starlette app with a strategy of `limits`, which keeps its counts in memory."""
    return lambda limit: _python("slowapi_server", strategy, limit.limit, f"{limit.per:g}")


def drf(limit: RateLimit) -> App:
    """Start a Django app."""
    return _python("drf_server", limit.limit, limit.per)


def _modules() -> Path:
    """Return where npm's packages are installed, below the user's cache."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cached / "respan_async-benchmarks" / "-".join(_PACKAGES.values()) / "node_modules"


@cache
def express_software() -> Software:
    """Find express-rate-limit, and install it into the user's cache when it is not there."""
    label = "express-rate-limit"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return Software((), f"{label} (node and npm are not installed)")
    modules = _modules()
    if not all((modules / name / "package.json").exists() for name in _PACKAGES):
        modules.parent.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{number}" for name, number in _PACKAGES.items()]
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(modules.parent), *wanted]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=_INSTALLING)
        except (OSError, subprocess.SubprocessError) as error:
            return Software((), f"{label} (npm could not install it: {type(error).__name__})")
    return Software(tuple(f"{name} {number}" for name, number in _PACKAGES.items()))


def express(limit: RateLimit) -> App:
    """Start an express app."""
    command = ["node", str(_EXPRESS), str(limit.limit), f"{limit.per:g}", str(_ANSWER)]
    return App(command, {"NODE_PATH": str(_modules())})
