"""What comes with the library: declared, locked, licensed, and nothing that was not asked for."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).parent.parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]
FOR_USERS: Final = ("cli", "crypto", "otel", "postgres", "redis", "testing")
LOCKED: Final = (*FOR_USERS, "test", "lint")

OF_AN_EXTRA: Final = {
    "cli": {"rich"},
    "issuing/cipher": {"cryptography"},
    "issuing/connections": {"psycopg"},
    "issuing/postgres": {"psycopg"},
    "issuing/schema": {"psycopg"},
    "otel": {"opentelemetry-api"},
    "redis": {"redis"},
    "testing/plugin": {"pytest", "pytest-asyncio"},
}
"""Which part may import what is not a dependency of everybody's."""

PERMISSIVE: Final = re.compile(r"MIT|BSD|Apache|PSF|Python Software Foundation|MPL-2\.0|ISC", re.IGNORECASE)
LESSER: Final = {"psycopg"}
"""LGPL: used as a library, under an extra, and not changed."""


in_a_checkout = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="an sdist has no .ci")


def requirements(*groups: list[str]) -> Iterator[Requirement]:
    """Read requirements, without those that only join extras."""
    for group in groups:
        for text in group:
            requirement = Requirement(text)
            if requirement.name != PROJECT["name"]:
                yield requirement


@cache
def imports(path: Path) -> set[str]:
    """Find what a file imports, wherever in it, by the names under which it is installed."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    names -= sys.stdlib_module_names | {"respan_async"}
    return {canonicalize_name("opentelemetry-api" if name == "opentelemetry" else name) for name in names}


def test_every_import_is_a_declared_dependency() -> None:
    """Of the core, or of the extra that the part belongs to: what comes along by chance today may not tomorrow."""
    core = {canonicalize_name(requirement.name) for requirement in requirements(PROJECT["dependencies"])}
    extras = {canonicalize_name(r.name) for r in requirements(*(EXTRAS[name] for name in FOR_USERS))}
    package = ROOT / "respan_async"

    for path in sorted(package.rglob("*.py")):
        part = str(path.relative_to(package).with_suffix(""))
        allowed = set(core).union(*(names for place, names in OF_AN_EXTRA.items() if part.startswith(place)))
        assert imports(path) <= allowed, f"{part} imports {imports(path) - allowed}"
    optional = set().union(*OF_AN_EXTRA.values())
    assert optional == extras


def test_every_dependency_is_imported() -> None:
    """What nobody imports is weight, and one more thing to trust."""
    imported = set().union(*map(imports, (ROOT / "respan_async").rglob("*.py")))

    declared = requirements(PROJECT["dependencies"], *(EXTRAS[name] for name in FOR_USERS))
    assert {canonicalize_name(requirement.name) for requirement in declared} <= imported


def test_licenses_go_with_ours() -> None:
    """Permissive ones, as this library's own is."""
    for requirement in requirements(PROJECT["dependencies"], *(EXTRAS[name] for name in FOR_USERS)):
        about = importlib.metadata.metadata(requirement.name)
        said = [text[:100] for name in ("License-Expression", "License") for text in about.get_all(name) or ()]
        said += [text for text in about.get_all("Classifier") or () if text.startswith("License")]
        if requirement.name in LESSER:
            assert "LGPL" in " ".join(said)
        else:
            assert PERMISSIVE.search(" ".join(said)), f"{requirement.name}: {said}"


# ------------------------------------------------------------------ the lock


def locked() -> dict[NormalizedName, str]:
    """Read the lock: names and versions."""
    entries = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / ".ci" / "dev.lock").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in entries}


@in_a_checkout
def test_the_lock_still_satisfies_what_is_declared() -> None:
    """When this fails, run `.ci/lock`."""
    versions = locked()

    for requirement in requirements(PROJECT["dependencies"], *(EXTRAS[name] for name in LOCKED)):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in .ci/dev.lock; run .ci/lock"
        assert requirement.specifier.contains(Version(version)), f"{requirement}: {version} is locked; run .ci/lock"


@in_a_checkout
def test_the_lock_holds_hashes_and_no_places() -> None:
    """Each line is a version, a hash or a reason; where it is fetched from is for whoever installs it to say."""
    text = (ROOT / ".ci" / "dev.lock").read_text()
    entries = re.split(r"^(?=\w)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)

    assert len(entries) > 50
    for entry in filter(None, entries):
        head, *hashes = [line.strip().removesuffix("\\").strip() for line in entry.strip().splitlines()]
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!-]+( ; [\w .'=<>!()]+)?", head), head
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), head
    assert "://" not in text
    assert "file:" not in text
    assert not re.search(r"^#.*(/|-i )\S*(simple|home|tmp|opt)", text, re.MULTILINE)


@in_a_checkout
def test_the_lock_is_whole() -> None:
    """What the locked things need is locked too; pip would refuse the file otherwise."""
    versions = locked()
    environment = {**default_environment(), "extra": ""}

    installed = {canonicalize_name(found.name): found for found in importlib.metadata.distributions()}
    for name in versions.keys() & installed.keys():
        # Another version may need other things.
        needs = (installed[name].requires if installed[name].version == versions[name] else None) or ()
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({key: str(value) for key, value in environment.items()}):
                assert canonicalize_name(need.name) in versions, f"{name} needs {need.name}; run .ci/lock"


# ------------------------------------------------------------- the lower ends


def script(name: str) -> dict[str, Any]:
    """Return what a program of CI defines, without running it."""
    path = ROOT / ".ci" / f"{name}.py"
    defined: dict[str, Any] = {"__name__": name, "__file__": str(path)}
    exec(compile(path.read_text(), path.name, "exec"), defined)
    return defined


@in_a_checkout
def test_every_range_has_a_lowest_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is tested: what `.ci/lowest.py` prints is what the suite runs with."""
    script("lowest")["main"]()

    printed = [Requirement(line) for line in capsys.readouterr().out.splitlines()]
    declared = list(requirements(PROJECT["dependencies"], *(EXTRAS[name] for name in (*FOR_USERS, "test"))))
    assert sorted(requirement.name for requirement in printed) == sorted(requirement.name for requirement in declared)
    for requirement in declared:
        lowest = next(str(found.specifier) for found in printed if found.name == requirement.name)
        assert lowest.startswith("==")
        assert requirement.specifier.contains(lowest.removeprefix("=="))


# --------------------------------------------------------------- the Pythons


@in_a_checkout
def test_the_pythons_that_are_named_are_the_ones_that_are_tested() -> None:
    """The classifiers are the workflow's rows, from the lowest that may install it on, and none is left out."""
    named = script("other_pythons")["named"]()
    (rows,) = re.findall(r"^ *python: \[(.*)\]$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)

    assert re.findall(r'"([\d.]+)"', rows) == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named == [f"3.{minor}" for minor in range(11, 11 + len(named))]
    assert f"3.{sys.version_info.minor}" in named


@in_a_checkout
def test_ci_finds_the_other_pythons_of_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the path or among pyenv's, the newest release first; neither its own nor one that does not run."""
    ours = script("other_pythons")
    own, *others = sorted(ours["named"](), key=lambda version: version != f"3.{sys.version_info.minor}")

    def install(place: Path, says: str) -> str:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/sh\n{says}\n")
        place.chmod(0o755)
        return str(place)

    pyenv = tmp_path / "pyenv" / "versions"
    install(tmp_path / "bin" / f"python{own}", f"echo {own}")
    install(tmp_path / "bin" / f"python{others[0]}", "exit 127")  # a stand-in of pyenv's
    install(pyenv / f"{others[0]}.9" / "bin" / "python", f"echo {others[0]}")
    newest = install(pyenv / f"{others[0]}.10" / "bin" / "python", f"echo {others[0]}")
    install(pyenv / f"{others[0]}.11-dev" / "bin" / "python", f"echo {others[0]}")
    install(tmp_path / "bin" / f"python{others[1]}", "echo 3.8")
    plain = install(tmp_path / "bin" / f"python{others[2]}", f"echo {others[2]}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))

    ours["main"]()

    assert capsys.readouterr().out.splitlines() == [newest, plain]


# ------------------------------------------------------------ the tests of users


def test_the_extra_for_tests_brings_no_database() -> None:
    """Nothing but pytest and what runs asynchronous tests, in either of which a program may be alone."""
    assert {requirement.name for requirement in requirements(EXTRAS["testing"])} == {"pytest", "pytest-asyncio"}
