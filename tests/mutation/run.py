"""Change the library in a thousand places, one at a time, and see that some test fails each time.

    pip install -e '.[mutation]'
    python -m tests.mutation.run                     # all groups: some forty minutes on two cores
    python -m tests.mutation.run protocol --work /tmp/mutants

Functions are mutated by mutmut: operators, numbers, strings, arguments, assignments, `case`s. What mutmut leaves alone
(tables, constants, defaults, functions with a decorator) is mutated by `values.py`. Both work on a copy. The tests are
those of one module, quick ones; what survives them is tried again with the slower ones of its group.

What is printed in the end is the table for `SURVIVORS.md`; `survivors.diff` in the work directory shows each survivor.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.mutation import values

ROOT = Path(__file__).parents[2]
COPIED = ("respan_async", "tests", "pyproject.toml", "README.md", "LICENSE")
LEFT_OVER = re.compile(r"survived|no tests|suspicious|not checked")


def unit(*names: str) -> tuple[str, ...]:
    """Name files of unit tests."""
    return tuple(f"tests/unit/test_{name}.py" for name in names)


@attrs.frozen
class Group:
    """Modules, and the tests that hold them.

    Attributes:
        files: Whose functions are mutated by mutmut, and whose values by `values.py`.
        quick: Tests for every mutant.
        slow: More tests, for those that survive.
        values_only: There are no functions.
    """

    files: tuple[str, ...]
    quick: tuple[str, ...]
    slow: tuple[str, ...] = ()
    values_only: bool = False


GROUPS: Mapping[str, Group] = {
    "states": Group(
        ("respan_async/issuing/states.py",),
        (*unit("states"), "tests/contract/test_ledger.py::test_the_table_of_states_says_what_the_ledgers_do"),
        values_only=True,
    ),
    "protocol": Group(
        (
            "respan_async/errors.py",
            "respan_async/_http/body_excerpt.py",
            "respan_async/_http/body_origin.py",
            "respan_async/retry.py",
            "respan_async/_http/failure_table.py",
            "respan_async/_http/operations.py",
            "respan_async/_http/response.py",
            "respan_async/_http/response_parsing.py",
            "respan_async/_http/header_parsing.py",
            "respan_async/_http/rate_headers.py",
            "respan_async/_http/retry_after.py",
        ),
        (
            *unit("failure_classification", "response_parsing", "retry", "errors", "rate_headers"),
            "tests/properties/test_retry.py",
        ),
        ("tests/integration/test_operations.py",),
    ),
    "redaction": Group(
        ("respan_async/_http/redaction.py",), unit("redaction", "failure_classification", "response_parsing")
    ),
    "pacing": Group(
        tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "respan_async/_pacing").rglob("[!_]*.py"))),
        (
            *unit("burst_cap", "circuit_breaker", "configuration", "limit_estimator", "limit_scout", "local_window"),
            *unit("others", "pacer", "pacer_refusals", "probe_backoff", "refusal_review", "reservation_scheduler"),
            *unit("slot_accounting", "store_outage"),
            *unit("shared_window", "shared_window_states", "sliding_log", "slow_start", "store_outage", "wait_queue"),
        ),
        (
            "tests/properties/test_pace.py",
            *(f"tests/pace/{path.name}" for path in sorted((ROOT / "tests/pace").glob("test_*.py"))),
        ),
    ),
}


def configure(work: Path, group: Group, tests: Sequence[str]) -> None:
    """Write mutmut's settings into a copy; in `pyproject.toml` they would be in everybody's way."""
    lists = {
        "source_paths": ["respan_async"],
        "only_mutate": group.files,
        "also_copy": ["conftest.py", "README.md", "LICENSE"],
        # A protocol's defaults, which would give it members; what is logged.
        "do_not_mutate_patterns": ["ahead: int = 0", r"_logger\."],
        "pytest_add_cli_args": ["-n0", "-pno:cacheprovider"],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{name} =\n" + "".join(f"    {item}\n" for item in items) for name, items in lists.items()]
    settings = "timeout_multiplier = 6.0\ntimeout_constant = 1.0\n"
    (work / "setup.cfg").write_text("[mutmut]\n" + "".join(lines) + settings)


def mutmut(work: Path, *arguments: str, check: bool = True) -> str:
    """Run it in a copy."""
    command = [str(Path(sys.executable).with_name("mutmut")), *arguments]  # run by -m, it imports itself twice
    return subprocess.run(command, cwd=work, check=check, stdout=subprocess.PIPE, text=True).stdout


def verdicts(work: Path) -> dict[str, str]:
    """Return what became of each mutant, by its name."""
    found = re.findall(r"^ *(\S+): (.+)$", mutmut(work, "results", "--all", "true"), flags=re.MULTILINE)
    return dict(found)


def mutate_functions(work: Path, group: Group) -> dict[str, Counter[str]]:
    """Let mutmut do its work; return the verdicts by file."""
    children = f"--max-children={os.cpu_count() or 1}"
    configure(work, group, group.quick)
    mutmut(work, "run", children, "respan_async.*")
    found = verdicts(work)
    left = [name for name, verdict in found.items() if LEFT_OVER.search(verdict)]
    if left and group.slow:
        configure(work, group, (*group.quick, *group.slow))
        mutmut(work, "run", children, *left)
        second = verdicts(work)  # with other tests, mutmut forgets what it knew of the rest
        found |= {name: second[name] for name in left}
    counted: dict[str, Counter[str]] = {file: Counter() for file in group.files}
    with (work / "survivors.diff").open("a") as diffs:
        for name, verdict in found.items():
            counted[name.partition(".x")[0].replace(".", "/") + ".py"][verdict] += 1
            if LEFT_OVER.search(verdict):
                diffs.write(mutmut(work, "show", name, check=False) or f"# {name}: {verdict}\n")
    return counted


def mutate_values(work: Path, group: Group) -> dict[str, Counter[str]]:
    """Mutate what is in no function; return the verdicts by file."""
    counted = {}
    with (work / "survivors.diff").open("a") as diffs:
        for file in group.files:
            # Those that are called after the module come first: they are the likeliest to fail, and the first ends it.
            tests = sorted(group.quick, key=lambda test: Path(file).stem not in test)
            results = values.run(Path(file), tests)
            counted[file] = Counter(verdict for verdict, _ in results)
            diffs.writelines(f"# {file}: {mutant}\n" for verdict, mutant in results if verdict == "survived")
    return counted


def main() -> None:
    """Do what was asked on the command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.mutation.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"some of: {', '.join(GROUPS)}; all, if none is named"
    )
    parser.add_argument("--work", type=Path, default=None, help="a new directory for the copies")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(unknown)}")
    place = (asked.work or Path(tempfile.mkdtemp(prefix="mutants-"))).resolve()
    table = ["| module | mutants | killed | timeout | survived |", "|---|---|---|---|---|"]
    for name in asked.groups or GROUPS:
        group, work = GROUPS[name], place / name
        work.mkdir(parents=True)
        for copied in COPIED:
            source = ROOT / copied
            shutil.copytree(source, work / copied) if source.is_dir() else shutil.copy(source, work)
        shutil.copy(Path(__file__).with_name("cases.py"), work / "conftest.py")
        by_kind = {} if group.values_only else {"functions": mutate_functions(work, group)}
        os.chdir(work)
        by_kind["values"] = mutate_values(work, group)
        for kind, counted in by_kind.items():
            for file, verdict in counted.items():
                left = sum(number for word, number in verdict.items() if LEFT_OVER.search(word))
                row = (verdict.total(), verdict["killed"], verdict["timeout"], left)
                table.append(f"| `{file}`, {kind} | {' | '.join(map(str, row))} |")
    print(*table, f"\nEach survivor: {place}/*/survivors.diff", sep="\n")


if __name__ == "__main__":
    main()
