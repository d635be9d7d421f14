"""Secrets of the environment: in a variable, or in a file that another one names, as mounts are."""

import base64
import os
import traceback
from pathlib import Path

import pytest

from respan_async import AsyncRespan, ConfigurationError, Secret
from respan_async.cli import main
from respan_async.cli.cipher_from_env import cipher_from_env
from respan_async.cli.exit_codes import WrongUse
from respan_async.issuing import AESGCMCipher
from respan_async.secret import secret_of_environment
from respan_async.testing import FakeRespan

NAME = "RESPAN_API_KEY"
KEYS = [base64.b64encode(letter * 32).decode() for letter in (b"a", b"b", b"c")]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("RESPAN_")]:
        monkeypatch.delenv(name)


def mounted(folder: Path, content: bytes) -> str:
    """Mount a secret, by links as Kubernetes does, for everybody to read."""
    (folder / "..2026").mkdir()
    file = folder / "..2026" / "secret"
    file.write_bytes(content)
    file.chmod(0o444)
    (folder / "secret").symlink_to(file)
    return str(folder / "secret")


@pytest.mark.parametrize(
    "content", [b"sesame-42", b"sesame-42\n", b"\r\n sesame-42\t\r\n", b"\xef\xbb\xbfsesame-42\r\n"], ids=repr
)
def test_a_file_holds_a_secret(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space around it, and a mark of Windows' editors, are no part of it."""
    monkeypatch.setenv(f"{NAME}_FILE", mounted(tmp_path, content))

    assert secret_of_environment(NAME) == Secret("sesame-42")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files and unit files write one that is not given."""
    assert secret_of_environment(NAME) is None
    monkeypatch.setenv(NAME, "")
    monkeypatch.setenv(f"{NAME}_FILE", "")
    assert secret_of_environment(NAME) is None
    monkeypatch.setenv(NAME, "sesame-42")
    assert secret_of_environment(NAME) == Secret("sesame-42")


def test_one_of_two_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell which was meant."""
    monkeypatch.setenv(NAME, "sesame-42")
    monkeypatch.setenv(f"{NAME}_FILE", mounted(tmp_path, b"sesame-43"))
    with pytest.raises(ConfigurationError, match=f"^{NAME}: expected it or {NAME}_FILE to be set, got both$"):
        AsyncRespan()

    AsyncRespan("given")  # asks neither


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"sesame\xff", "holds bytes that are no UTF-8"),
        (b"sesame" * 20_000, "has more than 65536 bytes"),
    ],
    ids=["empty", "blank", "binary", "long"],
)
def test_a_file_without_a_secret_is_refused(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At construction, by its path, and without what is in it, also in a traceback with locals."""
    path = mounted(tmp_path, content)
    monkeypatch.setenv(f"{NAME}_FILE", path)
    with pytest.raises(ConfigurationError) as caught:
        AsyncRespan()

    assert str(caught.value) == f"{NAME}_FILE: expected a file that holds a secret, but {path!r} {said}"
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "sesame" not in shown.replace(str(tmp_path), "").partition("secret.py")[2]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        monkeypatch.setenv(f"{NAME}_FILE", str(path))
        with pytest.raises(ConfigurationError, match=f"{NAME}_FILE: .* cannot be read: {reason}$"):
            AsyncRespan()


def test_a_file_of_an_impossible_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other key that no header can carry."""
    monkeypatch.setenv(f"{NAME}_FILE", mounted(tmp_path, b"two words"))
    with pytest.raises(ConfigurationError, match=r"^api_key: expected printable ASCII without spaces"):
        AsyncRespan()


async def test_a_client_takes_its_key_out_of_a_file(
    fake_respan: FakeRespan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And issues with it."""
    monkeypatch.setenv(f"{NAME}_FILE", mounted(tmp_path, f"{fake_respan.api_key}\n".encode()))
    async with AsyncRespan(base_url=fake_respan.url) as respan:
        key = await respan.temporary_keys.create()

    assert key.id in fake_respan.keys


def test_a_cipher_takes_its_key_out_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as out of the variable."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY_FILE", mounted(tmp_path, f"{KEYS[0]}\n".encode()))

    assert AESGCMCipher().key_id == AESGCMCipher(KEYS[0]).key_id


def test_the_command_line_takes_all_its_keys_out_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's key, and its former ones, each in a line of its own."""
    (tmp_path / "old").mkdir()
    monkeypatch.setenv("RESPAN_LEDGER_KEY_FILE", mounted(tmp_path, f"{KEYS[0]}\n".encode()))
    monkeypatch.setenv("RESPAN_LEDGER_OLD_KEYS_FILE", mounted(tmp_path / "old", f"{KEYS[1]}\n{KEYS[2]}\n".encode()))

    made = cipher_from_env()

    assert made is not None
    assert made.key_id == AESGCMCipher(KEYS[0]).key_id
    assert all(made.has_key(AESGCMCipher(key).key_id) for key in KEYS)


def test_the_command_line_says_what_is_wrong_with_a_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and the code 2."""
    monkeypatch.setenv(f"{NAME}_FILE", "/nowhere/secret")
    assert main(["list"]) == 2
    assert capfd.readouterr().err == (
        "respan-keys: RESPAN_API_KEY_FILE: expected a file that holds a secret, but '/nowhere/secret' cannot be read: "
        "No such file or directory\n"
    )
    monkeypatch.setenv("RESPAN_LEDGER_KEY_FILE", "/nowhere/secret")
    with pytest.raises(WrongUse, match=r"^RESPAN_LEDGER_KEY_FILE: expected a file that holds a secret"):
        cipher_from_env()


def test_the_command_line_says_where_a_key_may_come_from(capfd: pytest.CaptureFixture[str]) -> None:
    """Out of a variable, or a file."""
    assert main(["list"]) == 2
    assert "in this environment variable, or its file in RESPAN_API_KEY_FILE, got none" in capfd.readouterr().err
