"""Everything that the README.md files show, run; and everything they point at, looked for."""

import asyncio
import base64
import inspect
import re
import secrets
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import attrs
import pytest

from respan_async import AsyncRespan, RetryPolicy, errors
from respan_async.testing import FAULTS, FakeRespan
from tests.documents import ROOT, Block, anchors, blocks, documents, links, rows, section
from tests.environment import environment

README = ROOT / "README.md"
PYTHON = blocks("python")
SCRIPTS = [block for block in PYTHON if "asyncio.run(main())" in block.code]
TESTS = [block for block in PYTHON if "def test_" in block.code]
SET_UP = [block for block in blocks("sh") if "pip install" in block.code]
COMMANDS = [block for block in blocks("sh") if block not in SET_UP]
TREES = [block for block in blocks("text") if block.code.startswith("RespanError\n")]
(TENANTS,) = blocks("csv")

PROOF = re.compile(r"\[(test_\w+)\]\(([\w/]+\.py)\)")

in_a_checkout = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="an sdist has no .ci and no .github")


@pytest.fixture
def variables(block: Block, request: pytest.FixtureRequest) -> dict[str, str]:
    """What a block finds in its environment, beside where Respan is."""
    found: dict[str, str] = {}
    if "REDIS_URL" in block.code:
        found["REDIS_URL"] = request.getfixturevalue("redis_url")
    if "DATABASE_URL" in block.code:
        found["DATABASE_URL"] = request.getfixturevalue("postgres_dsn")
    if "AESGCMCipher" in block.code:
        found["RESPAN_LEDGER_KEY"] = base64.b64encode(secrets.token_bytes(32)).decode()
    return found


async def _run(*command: str, cwd: Path, env: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


# --------------------------------------------------------------------- blocks


def test_every_block_is_run_or_compared() -> None:
    """No block is left out of what is done here."""
    assert len(PYTHON) > 10
    assert [*map(str, blocks())] == sorted(
        map(str, [*SCRIPTS, *TESTS, *SET_UP, *COMMANDS, *TREES, TENANTS]), key=[*map(str, blocks())].index
    )


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
async def test_a_script_runs_as_it_stands(block: Block, variables: dict[str, str], tmp_path: Path) -> None:
    """A block that calls asyncio.run does so without a complaint, and its secrets do not show."""
    async with FakeRespan() as fake:
        code, out, err = await _run(
            sys.executable, "-W", "error", "-c", block.code, cwd=tmp_path, env=environment(fake, **variables)
        )
        made = [key.api_key for key in fake.keys.values()]

    assert (code, err) == (0, "")
    assert made or "FakeRespan(" in block.code  # or it brings its own server
    assert not any(secret in out for secret in made)


@pytest.mark.parametrize("block", TESTS, ids=str)
async def test_a_test_passes_as_it_stands(block: Block, variables: dict[str, str], tmp_path: Path) -> None:
    """A block with a test passes under pytest, in a folder of its own."""
    (tmp_path / "test_block.py").write_text(block.code)

    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    code, out, _ = await _run(*command, cwd=tmp_path, env=environment(None, **variables))

    assert code == 0, out
    assert "1 passed" in out


@in_a_checkout
def test_the_set_up_commands_are_the_ones_that_ci_runs() -> None:
    """The README's test command is a line of .ci/run, where coverage looks on, so that it cannot rot."""
    issue, tests = (block.code.strip() for block in SET_UP)

    assert "\n" not in issue
    assert "\n" not in tests
    assert issue.startswith("python3 -m venv .venv && .venv/bin/pip install -q '.[cli]' && ")
    assert tests.endswith("pytest")
    watched = f"{tests.removesuffix('pytest')}coverage run -m pytest"
    assert watched in (ROOT / ".ci" / "run").read_text().splitlines()


async def test_the_first_command_issues_keys(tmp_path: Path) -> None:
    """What comes after the installation in the README's first command, for a part of the tenants."""
    command = SET_UP[0].code.strip().rpartition(" && ")[2]
    samples = tmp_path / "tests/samples"
    samples.mkdir(parents=True)
    tenants = (ROOT / "tests/samples/tenants.csv").read_text().splitlines(keepends=True)
    (samples / "tenants.csv").write_text("".join(tenants[:11]))

    arguments = shlex.split(command.removeprefix(".venv/bin/"))
    code, _, err = await _run(*arguments, cwd=tmp_path, env=environment(None))

    assert code == 0, err
    assert len(tenants) == 301
    assert len((tmp_path / "keys.jsonl").read_text().splitlines()) == 10


@pytest.mark.parametrize("block", COMMANDS, ids=str)
async def test_commands_work_in_their_order(block: Block, tmp_path: Path) -> None:
    """A block for the shell does what it says, line by line, against a fake server; ID is that of a key."""
    (tmp_path / "tenants.csv").write_text(TENANTS.code)

    async with FakeRespan() as fake:
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            key = await respan.temporary_keys.create(name="theirs")
        script = re.sub(r"\bID\b", shlex.quote(key.id), block.code)
        code, _, err = await _run("bash", "-eu", "-o", "pipefail", "-c", script, cwd=tmp_path, env=environment(fake))
        alive = {key.name.partition(" ~")[0] for key in fake.alive()}

    assert code == 0, err
    assert ("tenants.csv" in script) == ({"acme", "globex"} <= alive)
    assert ("theirs" in alive) == ("respan-keys delete" not in script)


async def test_every_command_is_shown() -> None:
    """Each command that respan-keys lists is in some block, or named in the text beside it."""
    _, out, _ = await _run("respan-keys", "--help", cwd=ROOT, env=environment(None))
    commands = set(re.findall(r"^    (\w+) ", out, re.MULTILINE))
    shown = set(re.findall(r"respan-keys (\w+)", (ROOT / "respan_async/cli/README.md").read_text()))

    assert len(commands) > 8
    assert shown >= commands
    assert {command for block in COMMANDS for command in re.findall(r"respan-keys (\w+)", block.code)} >= commands


def test_the_error_tree_is_the_one_in_the_code() -> None:
    """The tree is drawn in two places, and is the same in both."""
    (tree,) = TREES
    documented = "\n".join(line.strip() for line in (errors.__doc__ or "").splitlines())

    assert "\n".join(line.strip() for line in tree.code.strip().splitlines()) in documented


# --------------------------------------------------------------------- tables


def test_the_settings_are_those_of_the_client() -> None:
    """Every setting is in the README's table, with its default; and so are those of the retry policy."""
    text = section(README, "Settings")
    settings = {name: default for name, default, _ in rows(text)}
    parameters = inspect.signature(AsyncRespan).parameters
    policy = re.search(r"^`RetryPolicy\((.*?)\)`: ", text, re.DOTALL | re.MULTILINE)

    assert policy is not None
    assert {name.strip("`") for name in settings} == set(parameters)
    for name, default in settings.items():
        if name not in ("`api_key`", "`base_url`", "`retry`"):  # out of the environment, or in the text below
            assert default.strip("`").replace('"', "'") == repr(parameters[name.strip("`")].default), name
    assert dict(re.findall(r"(\w+)=([^,]+)", policy[1].replace('"', "'"))) == {
        field.name: repr(field.default) for field in attrs.fields(RetryPolicy)
    }


def test_the_faults_are_those_of_the_fake_server() -> None:
    """Every fault is in the table, in the words of the code."""
    told = rows(section(ROOT / "respan_async/testing/README.md", "Faults"))

    assert told == [[f"`{fault.name}`", fault.meaning] for fault in FAULTS.values()]


def test_every_line_of_what_survives_names_its_proof() -> None:
    """The test is there, in the file that the line leads to."""
    survives = [row for row in rows(section(ROOT / "tests/README.md", "What survives what")) if row[1]]

    assert len(survives) > 30
    for row in survives:
        proofs = PROOF.findall(row[2])
        assert proofs, row
        for name, path in proofs:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE), row


def test_the_commands_for_the_suites_are_there() -> None:
    """Every folder of tests is in the map, and each command of the map names files and modules that are there."""
    suites = rows(section(ROOT / "tests/README.md", "Which suite proves what"))
    named = {name for row in suites for name in re.findall(r"\]\((\w+)", row[0])}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")} - {"servers"}

    assert folders <= named
    for row in suites:
        for command in re.findall(r"`([^`]+)`", row[2]):
            program, *arguments = shlex.split(command)
            if program == "pytest":
                paths = [word for word in arguments if not word.startswith("-")]
                assert [path for path in paths if not (ROOT / path).exists()] == [], command
            elif program == "python":
                assert find_spec(arguments[1]) is not None, command
            else:
                assert program in ("mypy", "pyright"), command


# ---------------------------------------------------------------------- links


@in_a_checkout
@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    """Every link to a file leads to one, and to a heading in it where it names one."""
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path

        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@in_a_checkout
@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_path_in_the_text_is_there(path: Path) -> None:
    """What a text names as a file or a folder of this repository is one."""
    named = re.findall(r"`((?:tests|benchmarks|respan_async|\.ci|\.github)/[\w./-]*)`", path.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_readme_can_be_found() -> None:
    """The README leads to each of the others, in at most two steps."""
    seen, step = {README}, {README}
    for _ in range(2):
        leads = {(path.parent / link.partition("#")[0]).resolve() for path in step for link in links(path)}
        step = {path for path in leads if path.suffix == ".md"}
        seen |= step

    assert {path for path in documents() if path.name == "README.md"} - seen == set()
