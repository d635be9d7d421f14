"""Run one target under atheris, guided by coverage: `python -m tests.fuzz TARGET [libFuzzer's own options]`.

    pip install -e '.[test,fuzz]'
    python -m tests.fuzz refused -max_total_time=60 -max_len=4096

What is found goes to the directory `fuzz/TARGET` of the directory for temporary files, and is begun from again the next
time; what crashes is written to `crash-...`. A crash that is mended becomes a file in `tests/fuzz/corpus/TARGET`.
"""

import importlib
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# Read, not imported: what is imported before atheris has its hook in place is not instrumented.
NAMES = re.findall(r'^    "(\w+)": Target\(', Path(__file__).with_name("targets.py").read_text(), re.MULTILINE)
USAGE = f"""\
usage: python -m tests.fuzz TARGET [libFuzzer's own options], such as -max_total_time=60, the seconds after which it
ends; without that option, it ends when something is found, or by Ctrl-C. TARGET is one of:
{", ".join(NAMES)}."""


def main() -> None:
    """Read the target's name, and leave the rest to libFuzzer."""
    program, *arguments = sys.argv
    if not {"-h", "--help", "-help=1"}.isdisjoint(arguments):
        print(USAGE)
        return
    if not arguments or arguments[0] not in NAMES:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    try:
        atheris: Any = importlib.import_module("atheris")  # by name: it has no types, and is not on every platform
    except ImportError:
        sys.exit("python -m tests.fuzz: atheris is not installed; pip install -e '.[test,fuzz]' brings it")
    with atheris.instrument_imports(include=["respan_async", "email", "csv", "urllib", "yarl"]):
        from tests.fuzz.payloads import mutated
        from tests.fuzz.targets import TARGETS, corpus

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Change the structure of a document as often as its bytes."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            changed = mutated(data, chance)
            if len(changed) <= most:
                return changed
        return bytes(atheris.Mutate(data, most))

    name = arguments[0]
    found = Path(tempfile.gettempdir()) / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus(name)):
        (found / f"seed-{number:03}").write_bytes(data)
    atheris.Setup([program, *arguments[1:], str(found)], TARGETS[name].run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
