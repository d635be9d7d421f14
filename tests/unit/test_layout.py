"""What is public, by its name, and what stays behind an underscore; how much there is to see at first."""

import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import respan_async
from respan_async import issuing
from tests.documents import ROOT, blocks

BLOCKS = [block.code for block in blocks("python")]
EXAMPLES = [path.read_text() for path in sorted((ROOT / "tests/examples").glob("*.py"))]
PACKAGE = Path(respan_async.__file__).parent
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


# ---------------------------------------------------------- private attributes


def foreign_accesses(path: Path, root: Path = PACKAGE) -> Iterator[str]:
    """Find private attributes that are taken from anything but an object's own self, or a new object of its class."""
    tree = ast.parse(path.read_text())
    libraries = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}  # os._exit
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        own = {"self", "cls"} | made_here(function) | libraries
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                base = ast.unparse(node.value)
                if base not in own and node.attr not in of_this_file(tree, base):
                    yield f"{path.relative_to(root)}:{node.lineno}: {ast.unparse(node)}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def made_here(function: ast.AST) -> set[str]:
    """Return the names that stand for an object which the function makes without calling its class."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("object.__new__(")
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def of_this_file(tree: ast.Module, base: str) -> set[str]:
    """Return the private attributes that this file declares, for a plain name; none for a way through an object."""
    if not base.isidentifier():
        return set()
    return {
        name
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_private(name := node.target.id)
    }


def test_nothing_reaches_into_another_object() -> None:
    """No attribute with an underscore is taken from a neighbour, in any file of the package."""
    found = [access for path in sorted(PACKAGE.rglob("*.py")) for access in foreign_accesses(path)]

    assert found == []


def test_reaching_into_another_object_is_found(tmp_path: Path) -> None:
    """The test above sees a neighbour's attribute, directly or by way of one's own."""
    path = tmp_path / "module.py"
    path.write_text("class A:\n    def run(self, other):\n        return self._b._c, other._d, self._e\n")

    found = {ast.unparse(ast.parse(access.rpartition(": ")[2])) for access in foreign_accesses(path, tmp_path)}

    assert found == {"self._b._c", "other._d"}
