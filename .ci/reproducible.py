"""Build the sdist and the wheel twice, as different people would, and see that every byte is the same.

    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) python .ci/reproducible.py DIRECTORY

The second builder has another directory, clock, time zone, language and umask, got the files in another order, and has
worked there: caches, an environment, keys. Then the contents are compared with what git knows, and what was built is
left in DIRECTORY. hatchling and build are the environment's; who wants the bytes of a release takes those of
.ci/dev.lock.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LITTER: Final = (
    "keys.db", "keys.jsonl", "build/lib/x.py", ".venv/bin/python", "tests/__pycache__/x.pyc", ".hypothesis/x",
    "respan_async/__pycache__/client.cpython-311.pyc", "respan_async/keys.db-wal", "respan_async/keys.jsonl",
)  # fmt: skip
IN_THE_SDIST: Final = ("respan_async/", "tests/", "benchmarks/")
BESIDE_THEM: Final = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore", "PKG-INFO"}
OF_THE_WHEEL: Final = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def tracked() -> list[str]:
    """Return what git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def copy(names: list[str], to: Path, mode: int, modified: int) -> None:
    """Copy files one after the other, as if they had been checked out then."""
    for name in names:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        runs = os.access(ROOT / name, os.X_OK)
        target.chmod(mode | (mode >> 2 & 0o111) if runs else mode)
        os.utime(target, (modified, modified))


def build(source: Path, umask: int, **environment: str) -> dict[str, Path]:
    """Build both; return them by their names."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "../dist", "."]
    done = subprocess.run(command, cwd=source, umask=umask, env={**os.environ, **environment}, capture_output=True)
    if done.returncode:
        sys.exit(f"the build failed:\n{done.stdout.decode()}\n{done.stderr.decode()}")
    return {path.name: path for path in sorted((source.parent / "dist").iterdir())}


def contents(path: Path) -> set[str]:
    """Return the names of the files in an archive."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {entry.filename for entry in wheel.infolist() if not entry.is_dir()}
    with tarfile.open(path) as sdist:
        return {member.name.partition("/")[2] for member in sdist if not member.isdir()}


def expected(path: Path, known: list[str]) -> set[str]:
    """Return the names of the files that should be in an archive."""
    if path.suffix == ".whl":
        name, version, *_ = path.name.split("-")
        about = {f"{name}-{version}.dist-info/{part}" for part in OF_THE_WHEEL}
        # A folder's README.md is for those who read the source.
        return {file for file in known if file.startswith("respan_async/") and not file.endswith("/README.md")} | about
    return {file for file in known if file.startswith(IN_THE_SDIST)} | BESIDE_THEM


def main() -> None:
    """Build twice and compare."""
    if len(sys.argv) != 2 or not os.environ.get("SOURCE_DATE_EPOCH", "").isdigit():
        sys.exit("usage: SOURCE_DATE_EPOCH=seconds python .ci/reproducible.py DIRECTORY")
    known = tracked()
    with tempfile.TemporaryDirectory() as there:
        one, other = Path(there) / "one" / "checkout", Path(there) / "an other" / "deeper" / "place"
        copy(known, one, 0o644, 1_700_000_000)
        copy(known[::-1], other, 0o600, 1_800_000_000)
        for name in LITTER:
            (other / name).parent.mkdir(parents=True, exist_ok=True)
            (other / name).write_text("not for others")
        first = build(one, 0o022, TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1")
        second = build(other, 0o077, TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", PYTHONHASHSEED="2")
        if list(first) != list(second) or len(first) != 2:
            sys.exit(f"built {list(first)} and {list(second)}")
        for name, path in first.items():
            if path.read_bytes() != second[name].read_bytes():
                sys.exit(f"{name}: two builds differ")
            if odd := contents(path) ^ expected(path, known):
                sys.exit(f"{name}: there and not expected, or expected and not there: {', '.join(sorted(odd))}")
            shutil.copy2(path, sys.argv[1])
            sys.stdout.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")


if __name__ == "__main__":
    main()
