"""What is public, by its name: an underscore marks what only the package itself may import."""

import ast
import pkgutil
from collections.abc import Iterator

import pytest

import respan_async
from respan_async import issuing
from tests.documents import ROOT, blocks

BLOCKS = [block.code for block in blocks("python")]
EXAMPLES = [path.read_text() for path in sorted((ROOT / "tests/examples").glob("*.py"))]
AT_THE_ROOT = 12
README_LINES = 280


def imported(source: str) -> Iterator[str]:
    """Return the full names of the modules and of the names that a program imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("source", [*BLOCKS, *EXAMPLES, (ROOT / "tests/typing/api.py").read_text()])
def test_what_users_are_shown_imports_nothing_internal(source: str) -> None:
    """Every program of a README, every example, and the typed one, gets along with public names."""
    ours = [name for name in imported(source) if name.split(".")[0] == "respan_async"]

    assert ours
    assert [name for name in ours if any(part.startswith("_") for part in name.split("."))] == []


def test_a_module_for_issuing_without_an_underscore_has_something_for_users() -> None:
    """Each public module of `respan_async.issuing` defines a name that the package exports."""
    homes = {getattr(issuing, name).__module__ for name in issuing.__all__}
    modules = [
        module for module in pkgutil.walk_packages(issuing.__path__, "respan_async.issuing.") if not module.ispkg
    ]
    public = {module.name for module in modules if not module.name.rpartition(".")[2].startswith("_")}

    assert public
    assert public - homes == set()


def test_the_root_is_seen_at_a_glance() -> None:
    """At most a dozen modules are at the root, beside the packages."""
    modules = [module.name for module in pkgutil.iter_modules(respan_async.__path__) if not module.ispkg]

    assert len(modules) <= AT_THE_ROOT


def test_the_readme_does_not_grow() -> None:
    """A reader sees where it ends: what is about one folder is in the README of that folder."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
