"""Canaries driven through issuing: deliveries, ledgers and sinks that work, and that fail with a key in hand."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from respan_async import AsyncRespan, CreatedKey, RetryPolicy, Secret
from respan_async.errors import RespanError
from respan_async.issuing import AESGCMCipher, Issuer, JSONLinesSink, SQLiteLedger, Ticket
from respan_async.issuing.sqlite._inspect import read_snapshot
from respan_async.testing import FakeRespan
from tests.hostile.canaries import API_KEY, BEARER, CIPHER_KEY, KEYS, Witness

PATIENT = RetryPolicy(initial=0.001, maximum=0.001)


class Place:
    """Where keys are delivered, which fails with the key in hand until it does not."""

    def __init__(self) -> None:
        self.fails = True
        self.held: dict[str, str] = {}
        self.full = asyncio.Event()

    async def __call__(self, ticket_id: str, key: CreatedKey) -> None:
        """Take a key."""
        if self.fails:
            text = key.api_key.reveal()
            raise OSError(f"could not store {text}")
        self.held[ticket_id] = key.api_key.reveal()
        if len(self.held) == 4:
            self.full.set()


@pytest.mark.parametrize("encrypted", [pytest.param(False, marks=pytest.mark.hostile), True])
async def test_issuing_shows_no_key(encrypted: bool, witness: Witness, tmp_path: Path) -> None:
    """Deliveries that fail with the key in hand; files while secrets are kept, and after they were delivered."""
    path = tmp_path / "keys.db"
    cipher = AESGCMCipher(CIPHER_KEY) if encrypted else None
    place = Place()
    async with (
        FakeRespan(api_keys=[BEARER]) as fake,
        AsyncRespan(BEARER, base_url=fake.url, hooks=[witness], retry=PATIENT) as respan,
    ):
        async with Issuer(respan, SQLiteLedger(path, cipher), deliver=place) as issuer:
            fake.script("no_api_key", "lose_answer_after_create", "error_500", operation="create")
            with pytest.raises(RespanError) as caught:
                await issuer.issue(Ticket("tenant-x"))
            witness.catch(caught.value)
            outcomes = [await issuer.issue(Ticket("tenant-0"))]
            if encrypted:
                witness.files(tmp_path)
            async with issuer.issue_many([Ticket(f"tenant-{number}") for number in range(4)]) as batch:
                async for outcome in batch:
                    witness.look("an outcome", outcome)
                    witness.look("a batch", batch, batch.progress, batch.__dict__)
            witness.look(
                "issuing",
                issuer,
                *outcomes,
                await issuer.counts(),
                await issuer._suspects.pending(),
                read_snapshot(path),
            )
        assert place.held == {}
        place.fails = False
        async with Issuer(respan, SQLiteLedger(path, cipher), deliver=place) as issuer:
            await place.full.wait()
            witness.look(
                "issuing", issuer, await issuer.counts(), await issuer._suspects.pending(), read_snapshot(path)
            )
            await issuer.sweep(grace=0)
        witness.files(tmp_path)
        secrets = [record.api_key for record in fake.keys.values()]

    assert set(place.held.values()) <= set(secrets)
    assert len(place.held) == 4
    witness.check(*secrets, *KEYS)


async def test_a_ledger_that_fails_shows_no_key(witness: Witness, tmp_path: Path) -> None:
    """When it cannot write one, cannot read one, or has it under another cipher."""
    path = tmp_path / "keys.db"
    made = CreatedKey(id="key-1", api_key=Secret(API_KEY))
    async with FakeRespan(api_keys=[BEARER]) as fake, AsyncRespan(BEARER, base_url=fake.url) as respan:
        async with Issuer(respan, SQLiteLedger(path)) as issuer:
            assert (await issuer.issue(Ticket("tenant-0"))).key.api_key
            with closing(sqlite3.connect(path)) as beside:
                beside.execute("CREATE TRIGGER no BEFORE INSERT ON secrets BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(RespanError) as caught:
                await issuer.issue(Ticket("tenant-1"))
            witness.catch(caught.value)
            with closing(sqlite3.connect(path)) as beside:
                beside.execute("DROP TRIGGER no")
        for cipher in (AESGCMCipher(CIPHER_KEY), None):
            ledger = SQLiteLedger(path, cipher)
            await ledger.open("https://a.example ?", force=True)
            for work in (ledger.find("tenant-0"), ledger.rotate(), ledger.record("tenant-9", 1, "tag", made)):
                try:
                    witness.look("a record", await work)
                except RespanError as error:
                    witness.catch(error)
            witness.look("what is kept", *await ledger.undelivered("", 10))
            await ledger.aclose()
        secrets = [record.api_key for record in fake.keys.values()]

    witness.check(API_KEY, *secrets)


async def test_a_sink_that_fails_shows_no_key(witness: Witness, tmp_path: Path) -> None:
    """Its file was removed, or holds something else, or is closed."""
    made = CreatedKey(id="key-1", api_key=Secret(API_KEY))
    path = tmp_path / "keys.jsonl"
    sink = JSONLinesSink(path)
    await sink("tenant-0", made)
    with pytest.raises(RespanError) as caught:
        await sink("tenant-0", CreatedKey(id="key-2", api_key=Secret(API_KEY)))
    witness.catch(caught.value)
    path.rename(path.with_name("gone"))
    path.with_name("gone").unlink()
    with pytest.raises(OSError, match="removed") as failed:
        await sink("tenant-1", made)
    witness.catch(failed.value)
    sink.close()
    with pytest.raises(RespanError) as caught:
        await sink("tenant-2", made)
    witness.catch(caught.value)
    for line in (f'{{"ticket": 5, "api_key": "{API_KEY}"}}\n', f'{{"api_key": "{API_KEY}", "x'):
        path.write_text(line)
        path.chmod(0o600)
        with pytest.raises(RespanError) as caught:
            JSONLinesSink(path)
        witness.catch(caught.value)

    witness.look("a sink", sink, vars(sink))
    witness.check(API_KEY)
