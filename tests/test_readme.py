"""Everything the README shows, run."""

import asyncio
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from respan_async import errors
from respan_async.testing import FakeRespan
from tests.environment import environment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SCRIPTS = [block for block in BLOCKS if "asyncio.run(main())" in block]
TESTS = [block for block in BLOCKS if "def test_" in block]
COMMANDS = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)

SURVIVES = re.findall(
    r"^\| (?!\*\*|-|trouble).*$", README.partition("## What survives what")[2].partition("\n## ")[0], re.M
)
PROOF = re.compile(r"\[(test_\w+)\]\((tests/[\w/]+\.py)\)")

FIXTURES = {"REDIS_URL": "redis_url", "DATABASE_URL": "postgres_dsn"}
"""The fixture, by the environment variable it gives the value of; made for the blocks that mention the variable."""


@pytest.fixture
def variables(block: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """What a block finds in its environment, beside where Respan is."""
    return {name: request.getfixturevalue(fixture) for name, fixture in FIXTURES.items() if name in block}


async def _run(*command: str, cwd: Path, env: dict[str, str], stop: bool = False) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    if stop:
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def test_every_line_of_what_survives_names_its_proof() -> None:
    """The test is there, in the file that the line leads to."""
    assert len(SURVIVES) > 30
    for line in SURVIVES:
        proofs = PROOF.findall(line)
        assert proofs, line
        for name, path in proofs:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), line


def test_every_python_block_has_its_test() -> None:
    """No block is left out of what is run here."""
    assert sorted(BLOCKS) == sorted([*SCRIPTS, *TESTS])


@pytest.mark.parametrize("block", SCRIPTS, ids=range(len(SCRIPTS)))
async def test_a_script_runs_as_it_stands(block: str, variables: dict[str, str], tmp_path: Path) -> None:
    """A block that calls asyncio.run does so without a complaint, and its secrets do not show."""
    async with FakeRespan() as fake:
        code, out, err = await _run(
            sys.executable, "-W", "error", "-c", block, cwd=tmp_path, env=environment(fake, **variables)
        )
        secrets = [key.api_key for key in fake.keys.values()]

    assert (code, err) == (0, "")
    assert secrets
    assert not any(secret in out for secret in secrets)


@pytest.mark.parametrize("block", TESTS, ids=range(len(TESTS)))
async def test_a_test_passes_as_it_stands(block: str, variables: dict[str, str], tmp_path: Path) -> None:
    """A block with a test passes under pytest, in a folder of its own."""
    (tmp_path / "test_block.py").write_text(block)

    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    code, out, _ = await _run(*command, cwd=tmp_path, env=environment(None, **variables))

    assert code == 0, out
    assert "1 passed" in out


def test_the_set_up_commands_are_the_ones_that_ci_runs() -> None:
    """The README's test command is a line of .ci/run, where coverage looks on, so that it cannot rot."""
    issue, tests = COMMANDS[0].strip(), COMMANDS[1].strip()

    assert "\n" not in issue
    assert "\n" not in tests
    assert issue.endswith("respan-keys issue tests/samples/tenants.csv --sandbox --out keys.jsonl")
    assert tests.endswith("pytest")
    watched = f"{tests.removesuffix('pytest')}coverage run -m pytest"
    assert watched in (ROOT / ".ci" / "run").read_text().splitlines()


async def test_the_command_line_examples_work_in_their_order(tmp_path: Path) -> None:
    """Every respan-keys line of the README does what it says, against a fake server."""
    (tmp_path / "tenants.csv").write_text("name,expires_in\nacme,1h\nglobex,30m\n")
    lines = [shlex.split(line, comments=True) for line in COMMANDS[2].splitlines() if line.strip()]
    key_id = ""

    async with FakeRespan() as fake:
        for command in lines:
            arguments = [key_id if word == "ID" else word for word in command]
            sandbox = command[1] == "sandbox"
            code, out, err = await _run(*arguments, cwd=tmp_path, env=environment(fake), stop=sandbox)
            if command[1] == "create":
                key_id = json.loads(out)["id"]
            assert code == 0, err

        assert {key.name.partition(" ~")[0] for key in fake.alive()} == {"acme", "globex"}
    assert {command[1] for command in lines} == {
        *("issue", "status", "sweep", "create", "list", "show", "update", "delete", "sandbox"),
    }


def test_the_error_tree_is_the_one_in_the_code() -> None:
    """The tree is drawn in two places, and is the same in both."""
    drawn = re.search(r"^```text\n(RespanError\n.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert drawn is not None
    documented = "\n".join(line.strip() for line in (errors.__doc__ or "").splitlines())

    assert "\n".join(line.strip() for line in drawn[1].strip().splitlines()) in documented


def test_every_link_to_a_file_leads_to_one() -> None:
    """A table that points at its proof points at something."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
