"""Print, as pip's constraints, the lowest version that pyproject.toml allows of each thing it names.

    python .ci/lowest.py > lowest.txt && pip install --constraint lowest.txt '.[test]'

What those depend on in turn is pip's to choose. The tools and peers of this repository are left out: their ranges bind
nobody's program.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

LEFT_OUT: Final = ("bench", "fuzz", "lint", "mutation")

_RANGE: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?>=(?P<lowest>[\w.]+)(?:,[^;]*)?(?:;(?P<marker>.*))?")


def requirements(project: dict[str, Any], left_out: tuple[str, ...] = LEFT_OUT) -> Iterator[re.Match[str]]:
    """Find the name, the lowest version and the marker of each requirement; what only joins extras is passed over."""
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *(text for extra in extras if extra not in left_out for text in extras[extra]),
    ]:
        if not text.startswith(f"{project['name']}["):
            found = _RANGE.fullmatch(text)
            if found is None:
                sys.exit(f"pyproject.toml: {text!r} has no lowest version")
            yield found


def main() -> None:
    """Write the constraints to standard output."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    for found in requirements(project):
        marker = f" ;{found['marker']}" if found["marker"] else ""
        sys.stdout.write(f"{found['name']}=={found['lowest']}{marker}\n")


if __name__ == "__main__":
    main()
