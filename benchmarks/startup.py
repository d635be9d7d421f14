"""How long `import respan_async` takes, what comes with it, and how long it is to the first key."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import first, peers, pictures
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.processes import canned_server

_OPTIONAL: Final = ("rich", "opentelemetry", "redis", "psycopg", "cryptography")
_TARGET: Final = 1.3
_OURS: Final = "respan_async"
_AIOHTTP: Final = "aiohttp"


def run(quick: bool) -> Report:
    """Start fresh interpreters in turn."""
    with tempfile.TemporaryDirectory() as compiled:
        return _run(quick, compiled)


def _run(quick: bool, compiled: str) -> Report:
    rounds = 5 if quick else 15
    found = peers.present()
    imports = {_OURS: _OURS, _AIOHTTP: _AIOHTTP} | {
        peer.label: ", ".join(peer.modules) for name, peer in found.items() if name != "as_told"
    }
    keys = {_OURS: first.OURS} | {_AIOHTTP if name == "as_told" else peer.label: name for name, peer in found.items()}
    importing: dict[str, list[float]] = {name: [] for name in imports}
    making: dict[str, list[float]] = {name: [] for name in keys}
    with canned_server() as url:
        for turn in range(rounds + 1):
            empty = _cpu(compiled, "-c", "pass")
            for name, modules in imports.items():
                took = _cpu(compiled, "-c", f"import {modules}") - empty
                if turn:  # the first round compiles, and fills the file system's cache
                    importing[name].append(took)
            for name, who in keys.items():
                took = _cpu(compiled, "-m", "benchmarks.first", who, url) - empty
                if turn:
                    making[name].append(took)
    probe = f"import sys, {_OURS}; print(*[name for name in {_OPTIONAL!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.split()
    ratios = [mine / other for mine, other in zip(importing[_OURS], importing[_AIOHTTP], strict=True)]
    return Report(
        name="startup",
        title="How long the import takes, and how long it is to the first key.",
        conditions="user and system time of fresh interpreters, less that of an empty one in the same round; bytecode "
        "compiled before; the first "
        f"key over plain HTTP on loopback; {rounds} rounds{peers.left_out()}",
        figures=[
            Figure(name=f"import {_OURS}, against import {_AIOHTTP}", unit=TIMES, samples=ratios, at_most=_TARGET),
            *(Figure(name=_import(name), unit="ms", samples=samples) for name, samples in importing.items()),
            *(Figure(name=_key(name), unit="ms", samples=samples) for name, samples in making.items()),
            Figure(
                name="optional modules imported along",
                unit="",
                samples=[len(loaded)],
                at_most=0,
                note=", ".join(loaded) or f"looked for {', '.join(_OPTIONAL)}",
            ),
        ],
        draw=_draw,
    )


def _import(name: str) -> str:
    return f"import: {name}"


def _key(name: str) -> str:
    return f"import and first key: {name}"


def _draw(report: Report, path: Path) -> None:
    values = {figure.name: figure.median for figure in report.figures if figure.unit == "ms"}
    pictures.bars(path, values, "ms of CPU, median", [_import(_OURS), _key(_OURS)])


def _cpu(compiled: str, *arguments: str) -> float:
    """Return the milliseconds of CPU that an interpreter takes, with bytecode of everything in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = compiled
    pid = os.spawnve(os.P_NOWAIT, sys.executable, [sys.executable, *arguments], environment)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, arguments
    return 1e3 * (usage.ru_utime + usage.ru_stime)
