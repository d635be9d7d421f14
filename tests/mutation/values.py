"""Mutants of what mutmut leaves alone: tables, constants, defaults, and functions with a decorator.

mutmut puts each mutant of a function behind a switch, which it cannot do outside of functions. Here the file itself is
changed, one place at a time, and put back.

    python -m tests.mutation.values respan_async/issuing/states.py -- tests/unit/test_states.py
"""

import ast
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

_LIMIT = 120.0
"""Seconds after which a mutant is one that hangs."""
_METADATA = frozenset({"repr", "eq", "kw_only", "frozen"})
_NAMES = frozenset({"_logger", "logger", "__slots__", "__all__"})
_SMALL = 10

_COMPARED: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
}
_COMPUTED: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}


@attrs.frozen
class Mutant:
    """One place of a file, written differently.

    Attributes:
        line: Where.
        start: In bytes of the file.
        end: In bytes of the file.
        text: What stands there instead.
    """

    line: int
    start: int
    end: int
    text: str

    def of(self, source: bytes) -> bytes:
        """Return the file with this in it."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def shown(self, source: bytes) -> str:
        """Return what is changed into what, in a line."""
        return f"line {self.line}: {source[self.start : self.end].decode()!r:.60} -> {self.text!r:.60}"


def enums(package: Path) -> dict[str, list[str]]:
    """Return the members of every enumeration of the package."""
    found = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
                members = [ast.unparse(item.targets[0]) for item in node.body if isinstance(item, ast.Assign)]
                found[node.name] = members
    return found


class Places:
    """The mutants of one file.

    Args:
        source: The file.
        members: Those of each enumeration, any of which may stand in for another.
    """

    def __init__(self, source: bytes, members: dict[str, list[str]]) -> None:
        self._source = source
        self._members = members
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        """Return them in the order of the file."""
        for statement in ast.parse(self._source).body:
            if isinstance(statement, ast.ClassDef):
                for inner in statement.body:
                    yield from self._of_statement(inner)
            else:
                yield from self._of_statement(statement)

    def _of_statement(self, node: ast.stmt) -> Iterator[Mutant]:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if node.decorator_list and not any("overload" in ast.unparse(each) for each in node.decorator_list):
                    for inner in node.body:
                        yield from self._below(inner)
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                called = isinstance(value, ast.Call) and ast.unparse(value.func) in ("TypeVar", "logging.getLogger")
                if ast.unparse(target) not in _NAMES and not called:
                    yield from self._below(value)

    def _below(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring, or the dots of a protocol
        if isinstance(node, ast.keyword) and node.arg in _METADATA:
            return
        if isinstance(node, ast.expr):
            for text in self._instead(node):
                yield Mutant(node.lineno, self._at(node), self._at(node, end=True), text)
        for child in ast.iter_child_nodes(node):
            yield from self._below(child)

    def _at(self, node: ast.expr, *, end: bool = False) -> int:
        line, column = (node.end_lineno, node.end_col_offset) if end else (node.lineno, node.col_offset)
        assert line is not None
        assert column is not None
        return self._lines[line - 1] + column

    def _instead(self, node: ast.expr) -> Iterator[str]:
        match node:
            case ast.Constant(value=bool(value)):
                yield str(not value)
            case ast.Constant(value=int(value)):
                yield from (str(value + 1), str(value - 1)) if value <= _SMALL else (str(value * 2), str(value // 2))
            case ast.Constant(value=float(value)):
                yield from (str(value * 2), str(value / 2)) if value else ("1.0",)
            case ast.Constant(value=str(value)) if value:
                yield repr("XX" + value)
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in self._members:
                yield from (f"{owner}.{other}" for other in self._members[owner] if other != name)
            case ast.Tuple(elts=items, ctx=ast.Load()):
                for dropped in items:
                    kept = [ast.unparse(item) for item in items if item is not dropped]
                    yield "(" + "".join(f"{item}, " for item in kept) + ")"
            case ast.Dict(keys=keys, values=values):
                for left_out in range(len(keys)):
                    kept_keys, kept_values = (
                        keys[:left_out] + keys[left_out + 1 :],
                        values[:left_out] + values[left_out + 1 :],
                    )
                    yield ast.unparse(ast.Dict(kept_keys, kept_values))
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                for sign in _COMPARED.get(type(operator), ()):
                    yield f"{ast.unparse(left)} {sign} {ast.unparse(right)}"
            case ast.BoolOp(op=operator, values=parts):
                word = " or " if isinstance(operator, ast.And) else " and "
                yield f"({word.join(ast.unparse(part) for part in parts)})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield f"({ast.unparse(operand)})"
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _COMPUTED:
                yield f"({ast.unparse(left)} {_COMPUTED[type(operator)]} {ast.unparse(right)})"
            case ast.IfExp(body=body, orelse=otherwise):
                yield from (f"({ast.unparse(body)})", f"({ast.unparse(otherwise)})")


def verdict(tests: list[str]) -> str:
    """Run the tests on what now stands in the files."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", "--no-header", *tests]
    # A session of its own, so that whatever a hanging mutant has started ends with it.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return "survived" if process.wait(_LIMIT) == 0 else "killed"
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(path: Path, tests: list[str], package: Path = Path("respan_async")) -> list[tuple[str, str]]:
    """Return the verdict on each mutant of a file, and what it was."""
    source = path.read_bytes()
    results = []
    try:
        for mutant in Places(source, enums(package)).mutants():
            path.write_bytes(mutant.of(source))
            results.append((verdict(tests), mutant.shown(source)))
            print(*results[-1], flush=True)
    finally:
        path.write_bytes(source)
    return results


if __name__ == "__main__":
    separator = sys.argv.index("--")
    for name in sys.argv[1:separator]:
        run(Path(name), sys.argv[separator + 1 :])
