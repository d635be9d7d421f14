"""Print where each other Python is that pyproject.toml names and this machine has: a path a line, oldest first.

    python .ci/other_pythons.py

The version that runs this is left out. It looks on the path, for python3.13 and the like, and among pyenv's. One that
cannot make an environment, as Debian's without python3-venv, or that is only a stand-in of pyenv's, does not count.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CLASSIFIER: Final = "Programming Language :: Python :: 3."
_ASKS: Final = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


def named() -> list[str]:
    """Return the versions that pyproject.toml names, such as 3.13."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    minors = [text.removeprefix(_CLASSIFIER) for text in project["classifiers"] if text.startswith(_CLASSIFIER)]
    return [f"3.{minor}" for minor in sorted(minors, key=int)]


def candidates(version: str) -> Iterator[str]:
    """Find what may be a Python of this version: on the path first, then pyenv's, newest first."""
    if found := shutil.which(f"python{version}"):
        yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [path for path in (pyenv / "versions").glob(f"{version}.*") if path.name.split(".")[2].isdecimal()]
    for release in sorted(releases, key=lambda path: int(path.name.split(".")[2]), reverse=True):
        yield str(release / "bin" / "python")


def is_usable(python: str, version: str) -> bool:
    """Whether it runs, is of this version, and can make an environment."""
    try:
        done = subprocess.run([python, "-c", _ASKS], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def main() -> None:
    """Write the paths to standard output."""
    own = f"3.{sys.version_info.minor}"
    for version in named():
        found = next((python for python in candidates(version) if is_usable(python, version)), None)
        if found is not None and version != own:
            sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main()
