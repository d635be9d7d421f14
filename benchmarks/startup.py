"""How long `import respan_async` takes, and what comes with it."""

import subprocess
import sys
import time
from typing import Final

from benchmarks.figures import TIMES, Figure, Report

_OPTIONAL: Final = ("rich", "opentelemetry", "redis", "psycopg", "cryptography")


def run(quick: bool) -> Report:
    """Start fresh interpreters in turn."""
    rounds = 5 if quick else 15
    code = {"ours": "import respan_async", "aiohttp": "import aiohttp", "python": "pass"}
    took: dict[str, list[float]] = {name: [] for name in code}
    for turn in range(rounds + 1):
        for name, text in code.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", text], check=True)
            if turn:  # the first round fills the file system's cache
                took[name].append(1e3 * (time.perf_counter() - began))
    probe = f"import sys, respan_async; print(*[name for name in {_OPTIONAL!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.split()
    ours = [mine - base for mine, base in zip(took["ours"], took["python"], strict=True)]
    theirs = [mine - base for mine, base in zip(took["aiohttp"], took["python"], strict=True)]
    return Report(
        name="startup",
        title="How long the import takes.",
        conditions=f"wall time of fresh interpreters, less that of an empty one in the same round, {rounds} rounds",
        figures=[
            Figure(
                name="import respan_async, against import aiohttp",
                unit=TIMES,
                samples=[mine / other for mine, other in zip(ours, theirs, strict=True)],
            ),
            Figure(name="import respan_async", unit="ms", samples=ours),
            Figure(name="import aiohttp", unit="ms", samples=theirs),
            Figure(
                name="optional modules imported along",
                unit="",
                samples=[len(loaded)],
                at_most=0,
                note=", ".join(loaded) or f"looked for {', '.join(_OPTIONAL)}",
            ),
        ],
    )
