"""A ledger's file in a hostile or broken place: a clear error, nothing handed out unrecorded, nothing shown."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Effect, Failed, Issued, RetryPolicy
from respan_async.issuing import AESGCMCipher, AttemptState, Issuer, LedgerError, SQLiteLedger, Ticket, TicketState
from respan_async.issuing.ledger import Intent
from respan_async.issuing.sqlite._inspect import read_snapshot
from respan_async.secret import Secret
from respan_async.testing import FakeRespan
from tests.paging import in_pages_of_one

ACCOUNT = "https://api.respan.ai abc"
QUICK = RetryPolicy(initial=0.001, maximum=0.01)
Deliver = Callable[[str, CreatedKey], Awaitable[None]]
CIPHER_KEY = bytes(range(32))


async def opened(path: Path, **settings: Any) -> SQLiteLedger:
    """Give an open ledger."""
    ledger = SQLiteLedger(path, **settings)
    await ledger.open(ACCOUNT)
    return ledger


@contextlib.asynccontextmanager
async def issuing(fake: FakeRespan, path: Path, deliver: Deliver | None = None) -> AsyncIterator[Issuer]:
    """Run a client and an issuer."""
    async with (
        AsyncRespan(fake.api_key, base_url=fake.url, retry=QUICK) as respan,
        Issuer(respan, SQLiteLedger(path), deliver=deliver) as issuer,
    ):
        yield issuer


def key(number: int, secret: str) -> CreatedKey:
    """Give a key."""
    return CreatedKey(id=f"key-{number}", name="n" * (number % 40), api_key=Secret(secret))


async def fill(ledger: SQLiteLedger, secrets: dict[int, str]) -> None:
    """Bring tickets to keys with these secrets, many at once."""

    async def one(number: int, secret: str) -> None:
        tag = f"tag{number:09}"
        epoch = await ledger.claim_attempt(Ticket(f"tenant-{number}"), Intent(tag=tag, name="n", sent={}, sent_at=0.0))
        assert await ledger.record(f"tenant-{number}", epoch, tag, key(number, secret))

    await asyncio.gather(*(one(number, secret) for number, secret in secrets.items()))


def files(folder: Path) -> dict[str, bytes]:
    """Read every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------------ who may read it


@pytest.fixture(params=[0o000, 0o022, 0o277, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the process's umask for a while."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.usefixtures("umask")
async def test_every_file_is_its_owners_alone_from_birth(tmp_path: Path) -> None:
    """0600, whatever the umask takes away or leaves: the ledger, its log, its index, and the lock."""
    ledger = await opened(tmp_path / "keys.db")
    await fill(ledger, {1: "secret"})
    modes = [(name[:13], stat.S_IMODE((tmp_path / name).stat().st_mode)) for name in sorted(files(tmp_path))]
    await ledger.aclose()

    assert modes == [("keys.db", 0o600), ("keys.db-owner", 0o600), ("keys.db-shm", 0o600), ("keys.db-wal", 0o600)]


def symlink(folder: Path, path: Path) -> None:
    """A link to a file elsewhere."""
    (folder / "elsewhere").write_bytes(b"")
    path.symlink_to(folder / "elsewhere")


def dangling_symlink(folder: Path, path: Path) -> None:
    """A link to a file that is not there, and would be made where somebody else says."""
    path.symlink_to(folder / "elsewhere")


def hard_link(folder: Path, path: Path) -> None:
    """A file with a second name."""
    (folder / "elsewhere").write_bytes(b"")
    path.hardlink_to(folder / "elsewhere")


def directory(folder: Path, path: Path) -> None:
    """A directory."""
    path.mkdir()


def pipe(folder: Path, path: Path) -> None:
    """A named pipe."""
    os.mkfifo(path)


def readable_by_others(folder: Path, path: Path) -> None:
    """A file that others may read, with something in it."""
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()
    path.chmod(0o644)


def no_folder(folder: Path, path: Path) -> None:
    """A folder that is not there."""
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (symlink, "symbolic link"),
        (dangling_symlink, "symbolic link"),
        (hard_link, "hard link"),
        (directory, "directory"),
        (pipe, "plain file"),
        (readable_by_others, "chmod 600"),
        (no_folder, "No such file or directory"),
    ],
)
async def test_a_file_that_is_no_safe_place_is_refused(tmp_path: Path, make: Any, says: str) -> None:
    """With the path and the reason; and nothing was written anywhere."""
    (tmp_path / "place").mkdir()
    path = tmp_path / "place" / "keys.db"
    make(tmp_path, path)

    with pytest.raises(LedgerError, match=says) as caught:
        await opened(path)

    assert str(path) in str(caught.value)
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == b""
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if "-owner-" in name]


async def test_an_empty_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    """There is nothing in it yet."""
    path = tmp_path / "keys.db"
    path.touch(0o644)

    await (await opened(path)).aclose()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ----------------------------------------------------------------------------------------------------- erased is erased


async def found(folder: Path, words: set[bytes]) -> list[tuple[str, bytes]]:
    """Give the words that are in any file, once the ledger has had a moment to itself."""
    left: list[tuple[str, bytes]] = []
    for _ in range(200):
        left = [(name, word) for name, content in files(folder).items() for word in words if word in content]
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


@pytest.mark.parametrize("page", [1, 40])
async def test_an_erased_secret_is_in_no_file(tmp_path: Path, page: int) -> None:
    """Not in the ledger, its log or its index, though rows were moved between pages while the secrets were there."""
    rng = random.Random(page)
    secrets = {number: f"canary{number:06}" + "x" * rng.randrange(page * 20) for number in range(1500)}
    mixed = dict(rng.sample(list(secrets.items()), len(secrets)))
    ledger = await opened(tmp_path / "keys.db")
    await fill(ledger, mixed)
    there = sum(content.count(b"canary") for content in files(tmp_path).values())

    order = rng.sample(list(secrets), len(secrets))
    await asyncio.gather(*(ledger.erase(f"tenant-{number}") for number in order[:700]))
    await fill(ledger, {number + 10_000: secret for number, secret in list(secrets.items())[:300]})
    kept = {secrets[number] for number in order[700:]} | {secrets[number] for number in range(300)}
    gone = {secrets[number][:12].encode() for number in order[:700]} - {secret[:12].encode() for secret in kept}
    left = await found(tmp_path, gone)
    await asyncio.gather(*(ledger.erase(f"tenant-{number}") for number in (*order[700:], *range(10_000, 10_300))))
    at_last = await found(tmp_path, {b"canary"})
    await ledger.aclose()

    assert there >= 1500
    assert left == []
    assert at_last == []


async def test_an_encrypted_secret_is_never_in_any_file(tmp_path: Path) -> None:
    """Not even before it is erased, and it comes back with the key alone."""
    path = tmp_path / "keys.db"
    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    await fill(ledger, {number: f"canary{number:06}" for number in range(200)})
    seen = sum(content.count(b"canary") for content in files(tmp_path).values())
    await ledger.aclose()
    seen += path.read_bytes().count(b"canary")
    again = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    record = await again.find("tenant-7")
    await again.aclose()

    assert seen == 0
    assert record is not None
    assert record.key is not None
    assert record.key.api_key.reveal() == "canary000007"


async def test_secrets_under_another_cipher_are_refused_and_everything_else_is_read(tmp_path: Path) -> None:
    """Wrong key, or none: a clear error where the secret is needed; counts, suspects and issuing go on."""
    path = tmp_path / "keys.db"
    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    await fill(ledger, {1: "secret"})
    await ledger.aclose()

    for cipher in (AESGCMCipher(bytes(32)), None):
        other = await opened(path, cipher=cipher)
        with pytest.raises(LedgerError, match="tenant-1"):
            await other.find("tenant-1")
        assert (await other.counts()).tickets[TicketState.ISSUED] == 1
        await other.aclose()


async def test_a_swapped_row_is_refused(tmp_path: Path) -> None:
    """Somebody who can write the file cannot have one tenant's secret delivered as another's."""
    path = tmp_path / "keys.db"
    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    await fill(ledger, {1: "first", 2: "second"})
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tickets SET secret_id = 3 - secret_id")

    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    with pytest.raises(LedgerError, match="another ticket's"):
        await ledger.find("tenant-2")
    await ledger.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE tickets SET key = \'{"id":""}\'',
        "UPDATE tickets SET key = 'no JSON'",
        "UPDATE secrets SET secret = x''",
        "UPDATE tickets SET fields = '[]'",
    ],
)
async def test_a_damaged_record_is_told_as_such(tmp_path: Path, damage: str) -> None:
    """Bytes that a disk or a hand has changed are a `LedgerError` that names the ticket, not some error of JSON's."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    await fill(ledger, {1: "first"})
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)

    asked = CreateKeyRequest(name="another") if "fields" in damage else CreateKeyRequest()
    async with AsyncRespan("key") as respan:
        issuer = Issuer(respan, SQLiteLedger(path), force=True)
        with pytest.raises(LedgerError, match="ticket 'tenant-1': the ledger's record is damaged"):
            await issuer.issue(Ticket("tenant-1", asked))
        await issuer.aclose()


async def test_a_damaged_account_is_told_as_such(tmp_path: Path) -> None:
    """It might be anybody's."""
    path = tmp_path / "keys.db"
    await (await opened(path)).aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'nonsense' WHERE name = 'account'")

    with pytest.raises(LedgerError, match="the account it is bound to: the ledger's record is damaged"):
        await opened(path)


async def test_a_secret_whose_key_is_lost_is_let_go_when_its_api_key_has_long_expired(tmp_path: Path) -> None:
    """It is of no use to anybody, and would be told for ever; one that may live is kept."""
    path = tmp_path / "keys.db"
    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    for number, ends in enumerate([timedelta(days=-30), timedelta(days=30)]):
        attempt = Intent(tag=f"tag-{number}", name="x", sent={}, sent_at=1e9)
        epoch = await ledger.claim_attempt(Ticket(f"tenant-{number}"), attempt)
        made = CreatedKey(id=f"key-{number}", api_key=Secret("s" * 20), expiry_date=datetime.now(UTC) + ends)
        assert await ledger.record(f"tenant-{number}", epoch, attempt.tag, made)
    await ledger.aclose()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        raise AssertionError

    other = SQLiteLedger(path, AESGCMCipher(bytes(32)))
    async with AsyncRespan("key") as respan, Issuer(respan, other, deliver=deliver, force=True) as issuer:
        while (await issuer.counts()).tickets[TicketState.ISSUED] != 1:  # noqa: ASYNC110  done in the background
            await asyncio.sleep(0.01)
        left = await other.undelivered("", 10)

    assert [ticket for ticket, _ in left] == ["tenant-1"]


@pytest.mark.parametrize("column", ["key", "ticket"])
async def test_a_byte_that_is_no_text_holds_up_no_other_ticket(tmp_path: Path, column: str) -> None:
    """It is told by its ticket; the others are delivered."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    await fill(ledger, {number: f"secret-{number}" for number in range(3)})
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE tickets SET {column} = CAST(x'7bff22' AS TEXT) WHERE ticket = 'tenant-1'")

    ledger = await opened(path)
    left = dict(await ledger.undelivered("", 10))
    await ledger.aclose()

    assert len(left) == 3
    assert [type(left[f"tenant-{number}"]) for number in (0, 2)] == [CreatedKey] * 2


@pytest.mark.parametrize(
    "damage",
    [
        'sent = \'{"expiry_date": "soon"}\'',
        'sent = \'{"expiry_date": "2026-12-01T00:00:00"}\'',
        "sent = '{\"name\":'",
        "sent = '[]'",
        "sent_at = 1e300",
        "sent_at = 253402300000",
        "taken_over_at = 253402300000",
        "effect = 'perhaps'",
        "key_id = CAST(x'76636aff' AS TEXT)",
        "key_id = x'76636a'",
        "tag = x'7461672d31'",
    ],
)
async def test_a_damaged_suspect_holds_up_no_other(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and left out; the others are swept, and `status` shows them."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    for number in range(3):
        attempt = Intent(tag=f"tag-{number}", name="x", sent={"name": "x"}, sent_at=1e9)
        await ledger.claim_attempt(Ticket(f"tenant-{number}"), attempt)
        await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE attempts SET {damage} WHERE tag = 'tag-1'")

    ledger = await opened(path)
    found = await ledger.suspects()
    await ledger.aclose()

    assert sorted(suspect.tag or "" for suspect in found) == ["tag-0", "tag-2"]
    told = "(no text)" if damage.startswith("tag") else "tag-1"
    assert f"attempt '{told}': the ledger's record is damaged" in caplog.text
    assert len(read_snapshot(path).suspects) == 2


async def test_a_sweep_goes_on_past_a_suspect_whose_tag_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it has expired, and would be closed by its tag; the keys of the others are revoked."""
    path = tmp_path / "keys.db"
    async with FakeRespan() as fake:
        async with issuing(fake, path) as issuer:
            for number in range(3):
                fake.script("lose_answer_after_create")
                await issuer.issue(Ticket(f"tenant-{number}"))
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            sent = '{"expiry_date": "2020-01-01T00:00:00Z"}'
            connection.execute("UPDATE attempts SET tag = CAST(x'766aff' AS TEXT), sent = ? WHERE id = 1", (sent,))

        async with issuing(fake, path) as issuer:
            report = await issuer.sweep(grace=0)

    assert len(report.revoked) == 2
    assert r"attempt 'vj\xff': the ledger's record is damaged" in caplog.text


async def test_a_name_that_is_damaged_is_shown_and_its_suspect_is_swept_all_the_same(tmp_path: Path) -> None:
    """A suspect is found by its tag; what is no UTF-8 is escaped, as JSON wants it."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    attempt = Intent(tag="tag-1", name="x", sent={"name": "x"}, sent_at=1e9)
    await ledger.claim_attempt(Ticket("tenant-1"), attempt)
    await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE attempts SET name = CAST(x'78ff' AS TEXT), reason = CAST(x'ff' AS TEXT)")

    (suspect,) = read_snapshot(path).suspects

    assert (suspect.tag, suspect.name, suspect.reason) == ("tag-1", r"x\xff", r"\xff")


@pytest.mark.parametrize("at", ["tenant-0", "tenant-1", "tenant-2"])
@pytest.mark.parametrize("damage", ["CAST(x'74656e616e742d30ff' AS TEXT)", "CAST(x'ff' AS TEXT)", "x'74656e616e74'"])
async def test_what_comes_after_a_damaged_id_is_read(tmp_path: Path, at: str, damage: str) -> None:
    """Page by page, wherever a page ends: to deliver it, to know what has a key, to rotate."""
    path = tmp_path / "keys.db"
    ledger = await opened(path, cipher=AESGCMCipher(CIPHER_KEY))
    await fill(ledger, dict.fromkeys(range(3), "secret"))
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE tickets SET ticket = {damage} WHERE ticket = '{at}'")
    intact = [name for name in ("tenant-0", "tenant-1", "tenant-2") if name != at]

    ledger = await opened(path, cipher=AESGCMCipher(bytes(32), old_keys=(CIPHER_KEY,)))
    left, known = await in_pages_of_one(ledger)
    rotated = await ledger.rotate()
    await ledger.aclose()

    assert [name for name, key in left.items() if isinstance(key, CreatedKey)] == intact
    assert [name for name in known if name.startswith("tenant-") and name.isprintable()] == intact
    assert rotated == 2
    assert len(read_snapshot(path).undelivered) == 3


@pytest.mark.parametrize("secret", ["'a text'", "7", "x''"])
async def test_a_secret_of_another_type_stops_no_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    """A repair has put it there; the others are encrypted anew."""
    path = tmp_path / "keys.db"
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, SQLiteLedger(path, cipher=AESGCMCipher(b"a" * 32))) as issuer,
    ):
        for number in (1, 2):
            await issuer.issue(Ticket(f"tenant-{number}", CreateKeyRequest()))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE secrets SET secret = {secret} WHERE id = (SELECT min(id) FROM secrets)")
        connection.commit()

    ledger = SQLiteLedger(path, cipher=AESGCMCipher(b"b" * 32, old_keys=(b"a" * 32,)))
    await ledger.open(ACCOUNT, force=True)
    rotated = await ledger.rotate()
    await ledger.aclose()

    assert rotated == 1
    assert "ticket 'tenant-1'" in caplog.text
    assert "is not encrypted anew" in caplog.text


async def test_a_secret_under_a_damaged_id_is_erased_long_after_its_key_has_expired(tmp_path: Path) -> None:
    """As any other is that was not delivered."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    await fill(ledger, {1: "secret-of-long-ago"})
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tickets SET ticket = CAST(x'ff' AS TEXT)")

    ledger = await opened(path)
    ((name, _),) = await ledger.undelivered("", 10)
    await ledger.erase(name)
    await ledger.aclose()

    assert b"secret-of-long-ago" not in path.read_bytes()


@pytest.mark.parametrize("damage", ["'yesterday'", "1e300", "253402300000", "x'00'"])
async def test_a_damaged_time_of_a_ticket_keeps_nobody_from_looking(tmp_path: Path, damage: str) -> None:
    """The ticket is shown without it, and the others are whole."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    await fill(ledger, {1: "first", 2: "second"})
    await ledger.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE tickets SET issued_at = {damage} WHERE ticket = 'tenant-1'")

    first, second = read_snapshot(path).undelivered

    assert (first.ticket, first.issued_at) == ("tenant-1", None)
    assert second.issued_at is not None


@pytest.mark.parametrize("token", ["'a' || char(0) || 'b'", "'../../x'", "CAST(x'ff' AS TEXT)", "x'ff'"])
async def test_an_owner_with_a_damaged_name_keeps_nobody_from_the_ledger(tmp_path: Path, token: str) -> None:
    """Its lease will end; whatever it is called, no other file is touched."""
    path = tmp_path / "keys.db"
    await (await opened(path)).aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"INSERT INTO owners (token, lease_until, version) VALUES ({token}, 0.0, 2)")

    await (await opened(path)).aclose()

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM owners").fetchone() == (0,)


# ----------------------------------------------------------------------------------------------------------- torn files


async def torn(path: Path) -> bytes:
    """Make a ledger with 400 keys, and give the bytes of its file."""
    ledger = await opened(path)
    await fill(ledger, {number: f"secret{number:06}" for number in range(400)})
    await ledger.aclose()
    return files(path.parent)[path.name]


async def read_all(path: Path) -> tuple[int, int]:
    """Look every ticket up; tell how many were right, and how many raised. Nothing may be wrong."""
    right = raised = 0
    ledger = await opened(path)
    for number in range(400):
        try:
            record = await ledger.find(f"tenant-{number}")
        except LedgerError:
            raised += 1
            continue
        if record is not None:
            assert record.key is not None
            assert record.key.api_key.reveal() == f"secret{number:06}"
            right += 1
    await ledger.aclose()
    return right, raised


@pytest.mark.parametrize("part", [0.5, 0.8, 0.95])
async def test_a_truncated_file_is_refused_and_left_as_it_is(tmp_path: Path, part: float) -> None:
    """Issuing on from it could issue twice; what was readable is still readable, by SQLite's own means."""
    path = tmp_path / "keys.db"
    whole = await torn(path)
    path.write_bytes(whole[: int(len(whole) * part)])

    cut = path.read_bytes()

    with pytest.raises(LedgerError, match="malformed") as caught:
        await opened(path)

    assert str(path) in str(caught.value)
    assert path.read_bytes() == cut
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")  # SQLite's own way to read what is left
        right = 0
        for number in range(400):
            with contextlib.suppress(sqlite3.DatabaseError):
                right += connection.execute(
                    "SELECT key_id FROM tickets WHERE ticket = ?", (f"tenant-{number}",)
                ).fetchone() == (f"key-{number}",)
    assert right > 0, "nothing of what was left could be read"


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one " * 500, b"x", bytes(8192)])
async def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """With a clear sentence."""
    path = tmp_path / "keys.db"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(LedgerError, match="no ledger") as caught:
        await opened(path)

    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert list(files(tmp_path)) == ["keys.db"]


@pytest.mark.parametrize("version", [0, 1, 99])
async def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path, version: int) -> None:
    """Whatever that program's own version is."""
    path = tmp_path / "keys.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE tickets (number INTEGER)")
        connection.execute(f"PRAGMA user_version = {version}")
    path.chmod(0o600)
    before = path.read_bytes()

    with pytest.raises(LedgerError, match="no ledger"):
        await opened(path)

    assert path.read_bytes() == before


async def test_pages_of_garbage_spoil_only_what_was_on_them(tmp_path: Path) -> None:
    """A bad sector in the middle: some tickets raise, the others are right."""
    path = tmp_path / "keys.db"
    whole = bytearray(await torn(path))
    middle = len(whole) // 2 // 4096 * 4096
    whole[middle : middle + 4096] = random.Random(0).randbytes(4096)
    path.write_bytes(whole)

    right, raised = await read_all(path)

    assert right > 150
    assert right + raised <= 400


async def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """This code does not know what the rows of that one mean."""
    path = tmp_path / "keys.db"
    await (await opened(path)).aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    with pytest.raises(LedgerError, match="newer version"):
        await opened(path)

    assert path.read_bytes() == before


async def test_a_file_that_is_removed_while_it_is_in_use_is_told_and_not_made_anew(tmp_path: Path) -> None:
    """What is read beside the writer is not there; an empty file in its place would look like a ledger."""
    path = tmp_path / "keys.db"
    ledger = await opened(path)
    path.unlink()

    with pytest.raises(LedgerError, match="could not be read"):
        await ledger.suspects()

    assert not path.exists()
    await ledger.aclose()


def test_a_ledger_that_is_not_there_has_no_snapshot(tmp_path: Path) -> None:
    """And looking for it makes none."""
    with pytest.raises(LedgerError, match="there is no such ledger"):
        read_snapshot(tmp_path / "keys.db")

    assert list(tmp_path.iterdir()) == []


async def test_without_its_log_a_ledger_has_what_was_in_the_file(tmp_path: Path) -> None:
    """A log that went missing takes the last commits with it; what had reached the file is still there, and right."""
    path, copy = tmp_path / "keys.db", tmp_path / "copy.db"
    await torn(path)
    ledger = await opened(path)
    await fill(ledger, dict.fromkeys(range(1000, 1010), "new"))
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    await ledger.aclose()

    assert await read_all(copy) == (400, 0)


# -------------------------------------------------------------------------------------------------------- broken places


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Have a small disk in a folder."""
    if shutil.which("mount") is None:
        pytest.skip("this machine has no mount, which makes a small disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this process may not mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def mounted_alone(path: Path, source: Path) -> Iterator[None]:
    """Have a file in another one's place, as a container has it that is given a single file."""
    if shutil.which("mount") is None:
        pytest.skip("this machine has no mount, which puts a file in another one's place")
    if subprocess.run(["mount", "--bind", source, path], capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a disk while it is in use."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let nobody, not even root, change a file or folder."""
    if shutil.which("chattr") is None:
        pytest.skip("this machine has no chattr, which makes a file immutable")
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("this process may not make a file immutable")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


async def test_a_ledger_that_is_mounted_alone_is_refused(tmp_path: Path) -> None:
    """Two containers would have a log and locks of their own beside it, and make a key each for one ticket."""
    path, source = tmp_path / "the keys.db", tmp_path / "source.db"
    for file in (path, source):
        file.touch(0o600)
    refused = pytest.raises(LedgerError, match=r"the keys\.db: .*; mount the folder, not the file$")

    with mounted_alone(path, source), refused:
        await opened(path)

    assert (path.read_bytes(), sorted(files(tmp_path))) == (b"", ["source.db", "the keys.db"])


@pytest.mark.parametrize("what", ["file", "folder", "disk"])
async def test_a_read_only_place_is_told(tmp_path: Path, what: str) -> None:
    """A file, a folder, or a disk that cannot be written: a `LedgerError` when it is opened, and no key is made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    path = folder / "keys.db"
    with contextlib.ExitStack() as stack:
        if what == "disk":
            stack.enter_context(mounted(folder, "4m"))
        await (await opened(path)).aclose()
        if what == "disk":
            remount(folder, "ro")
        else:
            stack.enter_context(immutable(path if what == "file" else folder))

        async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            issuer = Issuer(respan, SQLiteLedger(path), force=True)
            with pytest.raises(LedgerError):
                await issuer.issue(Ticket("tenant-1"))
            assert fake.counts.requests == 0


async def test_a_full_disk_hands_out_nothing_unrecorded(tmp_path: Path) -> None:
    """Issuing and delivering until it is full: clear errors, no hang; with room again, everything is put right."""
    folder = tmp_path / "disk"
    folder.mkdir()
    delivered: dict[str, str] = {}

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered[ticket_id] = key.id

    tickets = [Ticket(f"tenant-{number}", CreateKeyRequest(name=f"{number} " + "x" * 30)) for number in range(600)]
    with mounted(folder, "256k"):
        async with FakeRespan() as fake:
            async with asyncio.timeout(40), issuing(fake, folder / "keys.db", deliver) as issuer:
                outcomes = await issuer.issue_many(tickets)
            handed_out = {o.item.id: o.key.id for o in outcomes if isinstance(o, Issued)}
            errors = [o.error for o in outcomes if isinstance(o, Failed)]
            remount(folder, "size=8m")
            async with issuing(fake, folder / "keys.db", deliver) as issuer:
                again = await issuer.issue_many(tickets)
                await issuer.sweep(grace=0, taken_over=True)
            alive = {record.id for record in fake.alive()}

    issued = {o.item.id: o.key.id for o in again if isinstance(o, Issued)}
    assert errors
    assert all(isinstance(error, LedgerError) for error in errors)
    assert any("full" in str(error) for error in errors)
    assert len(issued) == 600
    assert handed_out.items() <= issued.items()
    assert alive == set(issued.values())


class FailingConnection(sqlite3.Connection):
    """A connection on which some commits fail, before or after they are done."""

    failures: list[str] = []  # noqa: RUF012  shared on purpose: the test sets what comes

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or not self.failures:
            return super().execute(sql, *arguments)
        when = self.failures.pop()
        if when == "after":
            super().execute(sql)
        raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["intent", "record"])
async def test_a_commit_that_failed_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, step: str
) -> None:
    """Whether it was written or not: nothing is handed out unrecorded, and no key is alive that is not the ticket's."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FailingConnection))
    async with FakeRespan(latency=0.05) as fake:
        async with issuing(fake, tmp_path / "keys.db") as issuer:
            call = asyncio.create_task(issuer.issue(Ticket("tenant-1")))
            if step == "record":
                while not fake.counts.requests:  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.001)
            monkeypatch.setattr(FailingConnection, "failures", [when])
            outcome: Any = (await asyncio.gather(call, return_exceptions=True))[0]
            issued = await issuer.issue(Ticket("tenant-1"))
            await issuer.sweep(grace=0)
            counts = await issuer.counts()

        assert isinstance(outcome, Issued) == (step == "record" and when == "after"), outcome
        if isinstance(outcome, Issued):
            assert outcome.key.id == issued.key.id
        else:
            assert isinstance(outcome, LedgerError)
            assert outcome.effect is (Effect.LOST if step == "record" else Effect.NONE)
        assert [record.id for record in fake.alive()] == [issued.key.id]
        assert counts.attempts[AttemptState.INTENT] == counts.attempts[AttemptState.SUSPECT] == 0


async def test_a_ledger_that_was_restored_from_a_dump_says_so(tmp_path: Path) -> None:
    """What marks the file as a ledger is not in the dump; nothing is written into it."""
    path, restored = tmp_path / "keys.db", tmp_path / "restored.db"
    ledger = SQLiteLedger(path)
    await ledger.open(ACCOUNT)
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(restored)) as target:
        target.executescript("\n".join(source.iterdump()))
    restored.chmod(0o600)
    before = restored.read_bytes()

    with pytest.raises(LedgerError, match=r"restored from a dump in SQL.*; restore a copy that SQLite's \.backup"):
        await SQLiteLedger(restored).open(ACCOUNT)
    assert restored.read_bytes() == before


async def test_a_reading_for_which_the_system_has_no_thread_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as the ledger's error, and not as Python's."""
    ledger = SQLiteLedger(tmp_path / "keys.db")
    await ledger.open(ACCOUNT)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LedgerError, match=r"keys\.db: the ledger could not be read: ") as caught:
        await ledger.undelivered("", 1)

    monkeypatch.undo()
    assert caught.value.retryable
    assert await ledger.undelivered("", 1) == []
    await ledger.aclose()
