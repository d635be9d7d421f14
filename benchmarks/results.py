"""Write what was found: JSON for each benchmark, pictures, and one table for people."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Report, number

_HERE: Final = Path(__file__).parent

_PEERS: Final = ("respan-api", "openai", "stripe", "httpx", "aiohttp-retry", "tenacity", "cattrs", "aiolimiter")

_HEAD: Final = """# Figures

Written by `python -m benchmarks`. Medians; the spread is from the lowest to the highest sample. Differences under 5 %
mean nothing.
"""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "peers": {name: _version(name) for name in _PEERS},
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "aiohttp": version("aiohttp"),
    }


def folder(quick: bool) -> Path:
    """Return where results are kept: those of a quick run apart, and out of version control."""
    return _HERE / ("quick" if quick else "results")


def write(report: Report, quick: bool) -> list[str]:
    """Write a report's JSON and its picture; return notes on what was left out."""
    place = folder(quick)
    place.mkdir(exist_ok=True)
    notes: list[str] = []
    picture: str | None = None
    if report.draw is not None:
        if find_spec("matplotlib") is None:
            notes.append("no picture: matplotlib is not installed (extra: bench)")
        else:
            picture = f"{report.name}.png"
            report.draw(report, place / picture)
    content = {
        "name": report.name,
        "title": report.title,
        "conditions": report.conditions,
        "date": datetime.now(UTC).date().isoformat(),
        "quick": quick,
        "machine": _machine(),
        "picture": picture,
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "median": figure.median,
                "spread": figure.spread,
                "at_most": figure.at_most,
                "met": figure.met,
                "verdict": figure.verdict,
                "note": figure.note,
                "samples": [float(f"{sample:.5g}") for sample in figure.samples],
            }
            for figure in report.figures
        ],
    }
    (place / f"{report.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    return notes


def write_table(names: list[str], quick: bool) -> None:
    """Write the table out of all the JSON there is, in this order."""
    place = folder(quick)
    place.mkdir(exist_ok=True)
    parts = [_HEAD]
    for name in names:
        file = place / f"{name}.json"
        if file.exists():
            parts.append(_section(json.loads(file.read_text())))
    (place / "README.md").write_text("\n".join(parts))


def _section(content: dict[str, Any]) -> str:
    machine = content["machine"]
    quick = ", quick run" if content["quick"] else ""
    software = f"{machine['implementation']} {machine['python']}, aiohttp {machine['aiohttp']}"
    software += "".join(f", {name} {found}" for name, found in machine.get("peers", {}).items() if found)
    lines = [
        f"## {content['name']}",
        "",
        content["title"],
        "",
        f"Conditions: {content['conditions']}.",
        f"{content['date']}{quick}; {machine['cpus']} CPUs, {machine['system']}, {software}.",
        "",
        "| figure | median | spread | target | note |",
        "|---|---|---|---|---|",
    ]
    for figure in content["figures"]:
        median = f"{number(figure['median'])} {figure['unit']}".strip()
        cells = (figure["name"], median, figure["spread"], figure["verdict"], figure["note"])
        lines.append(f"| {' | '.join(cells)} |")
    if content["picture"]:
        lines += ["", f"![{content['name']}]({content['picture']})"]
    return "\n".join([*lines, ""])
