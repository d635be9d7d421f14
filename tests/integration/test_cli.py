"""`respan-keys` from its arguments to its exit code, against a fake server in a thread of its own."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from respan_async.cli import main
from tests.integration.cli_world import (
    Run,
    Server,
    held,
    run_fixture,  # noqa: F401  a fixture
    server_fixture,  # noqa: F401  a fixture
    tenants,
    until,
)
from tests.servers.certificate import certify

HOSTILE = "\x1b]0;owned\x07"


def test_issue(server: Server, run: Run) -> None:
    """Every ticket has its key in the file, with its secret, and nobody else has one; the summary says so."""
    code, out, err = run("issue", tenants(40), "--out", "keys.jsonl")

    lines = held()
    assert (code, out) == (0, [])
    assert sorted(line["ticket"] for line in lines) == sorted(f"t{number}" for number in range(40))
    assert {line["id"] for line in lines} == server.ids()
    assert {line["api_key"] for line in lines} == {record.api_key for record in server.fake.alive()}
    assert Path("keys.jsonl").stat().st_mode & 0o777 == 0o600
    assert "40 issued in " in err
    assert "0 already issued, 0 failed, 0 not sent, 0 refused, 0 suspects" in err
    assert "40/40 issued" in err


def test_issue_again(server: Server, run: Run) -> None:
    """The same command again sends nothing."""
    run("issue", tenants(5), "--out", "keys.jsonl")
    before = Path("keys.jsonl").read_bytes()
    code, _, err = run("issue", "t.csv", "--out", "keys.jsonl")

    assert code == 0
    assert "0 issued in 0.0 s (0.0/s), 5 already issued" in err
    assert Path("keys.jsonl").read_bytes() == before
    assert server.fake.counts.requests == 5


def test_issue_goes_on_from_a_file_without_a_ledger(server: Server, run: Run) -> None:
    """Tickets whose line is there count as issued, with a ledger that was lost, but for one that was cut off."""
    run("issue", tenants(5), "--out", "keys.jsonl")
    Path("keys.jsonl.ledger").unlink()
    whole = Path("keys.jsonl").read_bytes()
    Path("keys.jsonl").write_bytes(whole[:-50])
    code, _, err = run("issue", "t.csv", "--out", "keys.jsonl")

    assert code == 0
    assert "had been cut off" in err
    assert "1 issued in " in err
    assert "4 already issued" in err
    assert len({line["ticket"] for line in held()}) == 5


def test_issue_to_standard_output(server: Server, run: Run) -> None:
    """Without --out, keys go to standard output, and only they."""
    code, out, _ = run("issue", tenants(3), "--rate", "auto", "--max-in-flight", "2")

    assert code == 0
    assert {line["id"] for line in out} == server.ids()
    assert server.fake.counts.max_in_flight <= 2


def test_issue_from_standard_input(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads standard input, which is checked as a whole before anything is sent, too."""
    for text, expected in ((b"name\na\nb\n", 0), (b"name\na\na\n", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        code, out, err = run("issue", "-")
        assert code == expected
        assert len(out) == (2 if expected == 0 else 0)
    assert "<stdin>:3: ticket: expected each only once, got 'a' as in line 2" in err
    assert server.fake.counts.requests == 2


def test_bad_lines_send_nothing(server: Server, run: Run) -> None:
    """One bad line among good ones ends with 2: nothing is sent, and no file is made."""
    Path("t.csv").write_text("ticket,max_usage\na,1\nb,x\n")
    code, _, err = run("issue", "t.csv", "--out", "keys.jsonl")

    assert code == 2
    assert err.splitlines() == [
        "t.csv:3: max_usage: expected a positive whole number, or -1 for no limit, got 'x'",
        "respan-keys: t.csv: 1 bad line; nothing was sent",
    ]
    assert not Path("keys.jsonl").exists()
    assert server.fake.counts.requests == 0


def test_some_fail(server: Server, run: Run) -> None:
    """One tenant's failure is one line with its place, ends with 1, and is tried again by the same command."""
    server.fake.script("ok", "unprocessable_422")
    code, _, err = run("issue", tenants(3), "--out", "keys.jsonl", "--max-in-flight", "1")

    assert code == 1
    assert (
        "t.csv:3: t1: POST /api/temporary-keys/: answered 422: Validation error; name: This value is not valid." in err
    )
    assert "2 issued in " in err
    assert "1 failed, 0 not sent" in err
    assert "to go on: respan-keys issue t.csv --out keys.jsonl --max-in-flight 1" in err
    assert run("issue", "t.csv", "--out", "keys.jsonl")[0] == 0
    assert len(held()) == 3


def test_many_fail(server: Server, run: Run) -> None:
    """The first twenty failures are lines, the others are counted."""
    server.fake.chance("unprocessable_422", 1)
    code, _, err = run("issue", tenants(30), "--out", "keys.jsonl")

    assert code == 1
    assert err.count("answered 422") == 20
    assert "... and 10 more failures" in err
    assert "0 issued in " in err


def test_the_last_status_says_why_nothing_is_sent(server: Server, run: Run) -> None:
    """Whoever waited for it, or comes back later, sees what held it up."""
    server.fake.chance("garbage", 1)
    code, _, err = run("issue", tenants(3), "--out", "keys.jsonl", "--rate", "100/1s")

    assert code == 1
    assert " 3 failed; paused, the server fails" in err


def test_suspects_are_named(server: Server, run: Run) -> None:
    """An answer that got lost leaves a suspect, which the summary counts, with the way to deal with it."""
    server.fake.script("lose_answer_after_create")
    code, _, err = run("issue", tenants(1), "--out", "keys.jsonl")

    assert code == 0
    assert "1 suspects" in err
    assert "respan-keys sweep --ledger keys.jsonl.ledger revokes them" in err
    assert len(server.fake.unheld(line["id"] for line in held())) == 1


def test_a_lost_secret_is_told(server: Server, run: Run) -> None:
    """A key that was made without its secret arriving is a failure that says so, and `sweep` revokes it."""
    server.fake.script("no_api_key")
    server.fake.chance("conflict_409", 1, operation="delete")  # or the run revokes it before it ends
    code, _, err = run("issue", tenants(1), "--out", "keys.jsonl")
    server.fake.chance("conflict_409", 0, operation="delete")

    assert len(server.ids()) == code == 1
    assert "; a key was made, and its secret is lost" in err
    assert "1 suspects" in err
    assert run("sweep", "--ledger", "keys.jsonl.ledger", "--grace", "0")[0] == 0
    assert server.ids() == set()


@pytest.mark.parametrize("api_key", ["wrong", "forbidden"])
def test_the_key_is_refused(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch, api_key: str) -> None:
    """An API key that is not accepted ends a run and a call with 3, and is said once, not for every tenant."""
    monkeypatch.setenv("RESPAN_API_KEY", api_key)
    code, _, err = run("issue", tenants(200), "--out", "keys.jsonl", "--max-in-flight", "8")

    assert code == 3
    assert server.fake.counts.requests <= 8
    assert len([line for line in err.splitlines() if "answered 40" in line]) == 1
    assert "0 failed, 200 not sent" in err
    assert run("list")[0] == 3


def test_a_tenant_that_is_forbidden_is_told(server: Server, run: Run) -> None:
    """Before any other has its key, too: it is that tenant's failure, and each line of the summary is true."""
    server.fake.script("forbidden_403", "ok", "forbidden_403")
    code, _, err = run("issue", tenants(10), "--out", "keys.jsonl", "--max-in-flight", "1")

    assert code == 1
    assert len([line for line in err.splitlines() if "answered 403" in line]) == 2
    assert "2 failed" in err


def test_a_certificate_that_does_not_verify(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is no tenant's failure: said once, with the host and the reason, and the run ends at once."""
    context, _ = certify(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with contextlib.suppress(ssl.SSLError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RESPAN_API_KEY", "some-key")
        monkeypatch.setenv("RESPAN_BASE_URL", f"https://{host}")
        monkeypatch.chdir(tmp_path)
        code, _, err = run("issue", tenants(200), "--out", "keys.jsonl", "--max-in-flight", "8")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert code == 1
    assert err.count(f"no TLS connection to {host}: its certificate does not verify (self") == 1
    assert "0 failed, 200 not sent" in err


def test_no_key_no_file(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an API key nothing begins."""
    monkeypatch.delenv("RESPAN_API_KEY")
    for argv in (["issue", tenants(1), "--out", "keys.jsonl"], ["list"]):
        code, _, err = run(*argv)
        assert code == 2
        assert err == (
            "respan-keys: RESPAN_API_KEY: expected the API key in this environment variable, or its file in "
            "RESPAN_API_KEY_FILE, got none\n"
        )
    assert not Path("keys.jsonl").exists()


def test_wrong_places(server: Server, run: Run) -> None:
    """A file that is no place for keys, an unknown input and a wrong URL end with 2 and one sentence."""
    tenants(1)
    Path("notes.txt").write_text("hello\n")
    Path("notes.txt").chmod(0o600)
    for argv in (
        ["issue", "none.csv"],
        ["issue", "t.csv", "--out", "notes.txt"],
        ["issue", "t.csv", "--out", "t.csv"],
        ["issue", "t.csv", "--base-url", "http://example.com"],
        ["update", "x"],
        ["show", ".."],
        ["create", "--expires-in", "1h", "--expiry-date", "2030-01-31T12:00:00Z"],
        ["sandbox", "--port", "0", "--fault", "reset:1:0.5"],
    ):
        code, _, err = run(*argv)
        assert code == 2, argv
        assert len(err.splitlines()) == 1
        assert err.startswith("respan-keys: ")
    assert Path("notes.txt").read_text() == "hello\n"
    assert server.fake.counts.requests == 0


def test_hostile_text(server: Server, run: Run) -> None:
    """What a file holds reaches the terminal escaped."""
    Path("t.csv").write_text(f"name\n{HOSTILE}\n")
    code, _, err = run("issue", "t.csv", "--out", "keys.jsonl")

    assert code == 2
    assert "\x1b" not in err
    assert "\\x1b]0;owned\\x07" in err


def test_sandbox_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--sandbox needs no key and no account, marks its lines, and counts at the end; twice in a row as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESPAN_API_KEY", raising=False)
    code, _, err = run("issue", tenants(12), "--sandbox", "--out", "keys.jsonl")

    assert code == 0
    assert "sandbox: 12 requests, 0 refused, 12 keys made, 12 alive, 0 of them held by nobody" in err
    assert all(line["sandbox"] is True for line in held())
    code, _, err = run("issue", "t.csv", "--sandbox", "--out", "keys.jsonl")
    assert code == 0
    assert "12 already issued" in err


def test_one_key_from_birth_to_death(server: Server, run: Run) -> None:
    """create, show, update, list and delete do what they say, and only create shows a secret."""
    code, (key,), err = run(
        "create", "--name", "Acme", "--expires-in", "1h", "--max-usage", "-1", "--rate-limit", "60", "--is-test"
    )
    assert (code, err) == (0, "")
    assert key["api_key"] == server.fake.keys[key["id"]].api_key
    assert (key["name"], key["max_usage"], key["rate_limit"], key["is_test"]) == ("Acme", -1, 60, True)

    code, (shown,), _ = run("show", key["id"])
    assert code == 0
    assert "api_key" not in shown
    code, (updated,), _ = run("update", key["id"], "--rate-limit", "null", "--name", "Other")
    assert (code, updated["rate_limit"], updated["name"]) == (0, None, "Other")
    code, listed, _ = run("list")
    assert (code, [line["id"] for line in listed]) == (0, [key["id"]])
    assert "api_key" not in listed[0]
    code, out, err = run("delete", key["id"])
    assert (code, out, err) == (0, [], f"key {key['id']} is revoked\n")
    assert run("delete", key["id"])[0] == 1
    assert run("delete", key["id"], "--missing-ok") == (0, [], f"key {key['id']} is not there\n")
    code, _, err = run("delete", key["id"], "--missing-ok", "--base-url", f"{server.fake.url}/elsewhere")
    assert code != 0
    assert "is not there" not in err
    assert run("show", key["id"])[0] == 1


def test_an_unencrypted_url_is_refused_in_the_words_of_the_command_line(server: Server, run: Run) -> None:
    """What can be done about it can be done there, where there is no such argument as `allow_http`."""
    code, _, err = run("list", "--base-url", "http://example.com")

    assert code == 2
    assert err.endswith(
        "to example.com; give --base-url or RESPAN_BASE_URL an https:// URL, or a tunnel's end on this machine\n"
    )


def test_list_pages(server: Server, run: Run) -> None:
    """`list` reads every page, or the one that was asked for."""
    run("issue", tenants(5), "--out", "keys.jsonl")

    assert len(run("list", "--page-size", "2")[1]) == 5
    assert len(run("list", "--page-size", "2", "--page", "3")[1]) == 1


def test_a_reader_of_a_single_command_who_left(server: Server, run: Run) -> None:
    """It ends without a word, with the code of a broken pipe."""
    run("create")
    reading, writing = os.pipe()
    os.close(reading)
    output = os.dup(1)
    os.dup2(writing, 1)
    try:
        code = main(["list"])
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(writing)

    assert code == 141


def test_an_interrupt_while_a_single_command_waits(server: Server, run: Run) -> None:
    """Ctrl-C ends it with 130 and a word, not with a traceback."""
    server.fake.script("stall_before", operation="list")
    main_thread = threading.get_ident()

    def interrupt() -> None:
        until(lambda: server.fake.counts.requests == 1)
        signal.pthread_kill(main_thread, signal.SIGINT)
        threading.Event().wait(0.5)  # a server that went before the interrupt is noticed would be another story
        server.go_away()  # or what is in the air would be waited for

    interrupter = threading.Thread(target=interrupt)
    # As a process begins; what ran before in this one may have left another handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupter.start()
        ended = run("list")
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended == (130, [], "respan-keys: interrupted\n")


class Typing(io.RawIOBase):
    """Somebody at a keyboard, who thinks better of it."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise KeyboardInterrupt


def test_an_interrupt_while_tenants_are_typed(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is anything to wait for, Ctrl-C ends a command at once, with 130 and a word."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Typing())))

    assert run("issue", "-", "--out", "keys.jsonl") == (130, [], "respan-keys: interrupted\n")
    assert server.fake.counts.requests == 0


def test_nobody_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be reached ends with 1 and one sentence."""
    monkeypatch.setenv("RESPAN_API_KEY", "x")
    monkeypatch.setattr("asyncio.sleep", _soon)
    code, _, err = run("list", "--base-url", "http://127.0.0.1:1")

    assert code == 1
    assert len(err.splitlines()) == 1


_sleep = asyncio.sleep


async def _soon(delay: float, result: object = None) -> object:
    return await _sleep(0, result)


def test_closed_streams(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closed what a command reads from or prints to is told so in a sentence, before anything is sent."""
    tenants(1)
    printing = ("issue", "t.csv"), ("create",), ("list",), ("status", "--out", "keys.jsonl"), ("sandbox", "--port", "0")
    monkeypatch.setattr("sys.stdin", None)
    read = run("issue", "-", "--out", "keys.jsonl")
    monkeypatch.setattr("sys.stdout", None)
    printed = [run(*command) for command in printing]

    assert read[0] == 2
    assert read[2].startswith("respan-keys: standard input: is closed; ")
    for code, _, err in printed:
        assert code == 2
        assert err.startswith("respan-keys: standard output: is closed; ")
    assert server.fake.counts.requests == 0
    assert [path.name for path in Path().iterdir()] == ["t.csv"]


def test_telling(server: Server, run: Run) -> None:
    """-v shows what the client tells."""
    server.fake.script("refuse:0.5", "refuse:0.5")
    code, _, err = run("create", "-v")

    assert code == 0
    assert "info: requests are held back" in err


def test_an_unexpected_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours is one sentence too, and its traceback is there for those who ask."""

    def broken(main: Coroutine[Any, Any, None]) -> None:
        main.close()
        raise KeyError("x")

    monkeypatch.setattr("asyncio.run", broken)
    assert run("show", "x")[::2] == (
        1,
        "respan-keys: unexpected KeyError: 'x'; RESPAN_KEYS_DEBUG=1 in the environment shows where\n",
    )
    monkeypatch.setenv("RESPAN_KEYS_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["show", "x"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version says the name and the version."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("respan-keys ")


def test_wrong_arguments_show_nothing_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """They may be any bytes; what is wrong with them is shown escaped."""
    for argv in (("status", "--no\x1b[2J\udce9"), ("status\x1b[2J",), ("sandbox", "--port", "\x1b[2J")):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        err = capsys.readouterr().err
        assert caught.value.code == 2
        assert "\x1b" not in err
        assert "\\x1b[2J" in err


def test_nothing_is_null_on_the_command_line(server: Server, run: Run) -> None:
    """And so it is said."""
    for argv in (("create", "--rate-limit", "None"), ("update", "key-1", "--rate-limit", "None")):
        code, _, err = run(*argv)
        assert code == 2
        assert "rate_limit: expected a whole number of requests a minute, 0 or more, or null, got 'None'" in err
    assert run("create", "--rate-limit", "null")[0] == 0
