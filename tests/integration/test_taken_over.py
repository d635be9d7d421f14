"""A ledger that is a copy does not revoke what somebody holds: a backup that was restored, a replica that lagged."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, ConfigurationError, CreatedKey, CreateKeyRequest, Suspect
from respan_async.events import RevokedEvent
from respan_async.issuing import Issuer, Ledger, PostgresLedger, SQLiteLedger, Ticket
from respan_async.testing import FakeRespan
from tests.servers.postgres import PostgresServer
from tests.waiting import until

DAY = timedelta(days=1)
TICKETS = [Ticket(f"tenant-{number}", CreateKeyRequest(name=f"tenant {number}")) for number in range(3)]
COPIED = ("owners", "tickets", "attempts")


@attrs.define
class InFile:
    """A ledger in a file, of which a hot backup is taken.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    def ledger(self) -> Ledger:
        """Give the ledger, as another process would have it."""
        return SQLiteLedger(self.folder / "keys.db")

    def back_up(self) -> None:
        """Copy it while it is in use."""
        with (
            contextlib.closing(sqlite3.connect(self.folder / "keys.db")) as source,
            contextlib.closing(sqlite3.connect(self.folder / "backup.db")) as target,
        ):
            source.backup(target)

    def restore(self) -> None:
        """Put the copy in its place."""
        shutil.move(self.folder / "backup.db", self.folder / "keys.db")
        (self.folder / "keys.db").chmod(0o600)

    def set_back(self, seconds: float, column: str) -> None:
        """Let a time of every suspect be longer ago."""
        with contextlib.closing(sqlite3.connect(self.folder / "keys.db")) as connection, connection:
            connection.execute(f"UPDATE attempts SET {column} = {column} - ?", (seconds,))


@attrs.define
class InPostgres:
    """A ledger in Postgres, which is brought back to a point in time."""

    server: PostgresServer
    database: str

    def ledger(self) -> Ledger:
        """Give the ledger, as another process would have it."""
        return PostgresLedger(self.server.dsn(self.database))

    def back_up(self) -> None:
        """Copy its tables while they are in use."""
        tables = (f"CREATE TABLE public.{table} AS TABLE respan.{table}" for table in COPIED)
        self.server.execute("; ".join(tables), self.database)

    def restore(self) -> None:
        """Put the copies in their places; the owner of then is not heard of any more."""
        for table in COPIED:
            self.server.execute(f"DELETE FROM respan.{table}", self.database)
            self.server.execute(
                f"INSERT INTO respan.{table} OVERRIDING SYSTEM VALUE TABLE public.{table}", self.database
            )
        self.server.execute("UPDATE respan.owners SET lease_until = now()", self.database)

    def set_back(self, seconds: float, column: str) -> None:
        """Let a time of every suspect be longer ago."""
        change = f"UPDATE respan.attempts SET {column} = {column} - interval '{seconds} seconds'"
        self.server.execute(change, self.database)


@pytest.fixture(params=["file", "postgres"])
async def place(request: pytest.FixtureRequest) -> InFile | InPostgres:
    """Give a place for a ledger of each kind."""
    if request.param == "file":
        return InFile(request.getfixturevalue("tmp_path"))
    server, database = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_database")
    await PostgresLedger(server.dsn(database)).create_schema()
    return InPostgres(server, database)


@attrs.define
class World:
    """A server, and a ledger that was restored from a copy which was taken with three requests in the air."""

    fake: FakeRespan
    place: InFile | InPostgres
    delivered: dict[str, str] = attrs.field(factory=dict)
    revoked: list[str] = attrs.field(factory=list)

    async def deliver(self, ticket_id: str, key: CreatedKey) -> None:
        """Give a key to a tenant."""
        self.delivered[ticket_id] = key.id

    @contextlib.asynccontextmanager
    async def issuer(self, **settings: Any) -> AsyncIterator[Issuer]:
        """Run one life of a process."""

        def note(event: object) -> None:
            if isinstance(event, RevokedEvent):
                self.revoked.append(event.id)

        settings = {"auto_sweep": False, "deliver": self.deliver, **settings}
        async with (
            AsyncRespan(self.fake.api_key, base_url=self.fake.url, hooks=[note]) as respan,
            Issuer(respan, self.place.ledger(), **settings) as issuer,
        ):
            yield issuer

    @property
    def alive(self) -> set[str]:
        """The ids of the keys that work."""
        return {record.id for record in self.fake.alive()}


@pytest.fixture
async def world(place: InFile | InPostgres) -> AsyncIterator[World]:
    """Give a world in which three tenants hold keys of which the ledger knows the intents alone."""
    async with FakeRespan(latency=0.4) as fake:
        world = World(fake, place)
        async with world.issuer() as issuer:
            calls = [asyncio.ensure_future(issuer.issue(ticket)) for ticket in TICKETS]
            await until(lambda: fake.counts.requests == 3)
            await asyncio.to_thread(place.back_up)
            await asyncio.gather(*calls)
        await asyncio.to_thread(place.restore)
        assert len(world.delivered) == len(world.alive) == 3
        fake._latency = (0.0, 0.0)
        yield world


def let_pass(world: World, seconds: float) -> None:
    """Let everything be longer ago."""
    for column in ("taken_over_at", "sent_at"):
        world.place.set_back(seconds, column)
    for record in world.fake.keys.values():
        record.created -= timedelta(seconds=seconds)


def let_a_day_pass(world: World) -> None:
    """Let everything be a day longer ago."""
    let_pass(world, DAY.total_seconds() + 1)


async def a_day_later(world: World) -> None:
    """Open the restored ledger once, and let a day pass after that."""
    async with world.issuer() as issuer:
        assert len(await issuer._ledger.suspects()) == 3
    let_a_day_pass(world)


# --------------------------------------------------------------------------------------------------------- by itself


async def test_a_restored_ledger_revokes_nothing_that_somebody_holds(world: World) -> None:
    """However long ago the attempts were: the day counts from when this copy took them over."""
    world.place.set_back(30 * DAY.total_seconds(), "sent_at")

    async with world.issuer(auto_sweep=True) as issuer:
        await asyncio.sleep(0.5)
        report = await issuer.sweep(grace=0)

    assert report.revoked == ()
    assert [is_recent(suspect) for suspect in report.left] == [True] * 3
    assert world.alive >= set(world.delivered.values())
    assert world.fake.counts.by_operation.get("list", 0) == 0, "there was nothing that could be looked for yet"


def is_recent(suspect: Suspect) -> bool:
    """Tell whether a suspect was taken over a moment ago."""
    return suspect.taken_over_at is not None and datetime.now(UTC) - suspect.taken_over_at < timedelta(minutes=1)


async def test_a_clock_that_was_wrong_at_the_take_over_lets_no_day_pass(world: World) -> None:
    """A machine without a clock of its own begins in the past: the day has not passed as soon as its clock is set."""
    async with world.issuer() as issuer:
        assert len(await issuer._ledger.suspects()) == 3
    world.place.set_back(2000 * DAY.total_seconds(), "taken_over_at")

    async with world.issuer(takeover_age=timedelta.max) as issuer:
        assert (await issuer.sweep(grace=0)).revoked == ()
    async with world.issuer() as issuer:
        report = await issuer.sweep(grace=0)

    assert report.revoked == ()
    assert world.alive >= set(world.delivered.values())


async def test_a_day_later_keys_that_were_used_live_on_and_others_are_revoked(world: World) -> None:
    """What stays at risk is a key that was delivered and lay idle for a day."""
    await a_day_later(world)
    used, idle, other = (world.fake.keys[key_id] for key_id in world.delivered.values())
    used.key_usage = 1
    other.name = "renamed by its tenant"

    async with world.issuer(auto_sweep=False) as issuer:
        report = await issuer.sweep(grace=0)

    assert report.revoked == (idle.id,)
    assert world.alive == {used.id, other.id}
    assert len(report.left) == 2


async def test_it_is_done_by_itself_when_the_day_is_over(world: World) -> None:
    """Without being asked to; by whoever has the ledger open then."""
    let_pass(world, 3600)

    async with world.issuer(auto_sweep=True, takeover_age=timedelta(seconds=1)):
        await asyncio.sleep(0.5)
        revoked_early = list(world.revoked)
    await asyncio.sleep(0.6)
    async with world.issuer(auto_sweep=True, takeover_age=timedelta(seconds=1)):
        await until(lambda: len(world.revoked) == 3)

    assert revoked_early == []


async def test_a_server_that_does_not_state_it_has_nothing_revoked(place: InFile | InPostgres) -> None:
    """One whose answers lack `last_used`: what is absent counts as used."""
    async with FakeRespan(shape="b") as fake:
        world = World(fake, place)
        await crash(world)
        let_a_day_pass(world)
        async with world.issuer() as issuer:
            report = await issuer.sweep(grace=0)
            by_hand = await issuer.sweep(grace=0, taken_over=True)

    assert (report.revoked, len(report.left)) == ((), 1)
    assert len(by_hand.revoked) == 1


async def crash(world: World) -> str:
    """Leave a key that nobody holds, of an attempt that was taken over; return its id."""
    world.fake.script("stall")
    respan = AsyncRespan(world.fake.api_key, base_url=world.fake.url)
    issuer = Issuer(respan, world.place.ledger(), auto_sweep=False)
    call = asyncio.ensure_future(issuer.issue(TICKETS[0]))
    await until(lambda: world.fake.keys)
    await issuer._ledger.aclose()  # as if the process were gone: its lock is free, and its intent is left
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await respan.aclose(0)
    await issuer.aclose()
    (key_id,) = world.fake.keys
    return key_id


async def test_of_two_keys_with_one_tag_neither_is_revoked_by_itself(place: InFile | InPostgres) -> None:
    """A proxy that repeats a POST makes two of one attempt, and one of them may have been handed out."""
    async with FakeRespan() as fake:
        world = World(fake, place)
        left = fake.keys[await crash(world)]
        async with AsyncRespan(fake.api_key, base_url=fake.url) as proxy:
            await proxy.temporary_keys.create(name=left.name)
        let_a_day_pass(world)
        async with world.issuer() as issuer:
            report = await issuer.sweep(grace=0)
            by_hand = await issuer.sweep(grace=0, taken_over=True)

    assert report.revoked == ()
    assert len(by_hand.revoked) == 2


async def test_with_none_it_is_never_done_by_itself(world: World) -> None:
    """That is the answer to the risk."""
    await a_day_later(world)
    world.place.set_back(300 * DAY.total_seconds(), "taken_over_at")

    async with world.issuer(takeover_age=None) as issuer:
        report = await issuer.sweep(grace=0)

    assert (report.revoked, len(report.left)) == ((), 3)
    assert len(world.alive) == 3


# ----------------------------------------------------------------------------------------------- on a person's word


async def test_a_person_may_say_that_there_is_no_copy(place: InFile | InPostgres) -> None:
    """After a plain crash, what was in the air is then revoked at once; a dry run lists it first."""
    async with FakeRespan() as fake:
        world = World(fake, place)
        left = await crash(world)
        async with world.issuer() as issuer:
            by_itself = await issuer.sweep(grace=0)
            listed = await issuer.sweep(grace=0, taken_over=True, dry_run=True)
            deletes = fake.counts.by_operation.get("delete", 0)
            report = await issuer.sweep(grace=0, taken_over=True)

        assert (by_itself.revoked, len(by_itself.left)) == ((), 1)
        assert (listed.revoked, listed.left, deletes) == ((left,), (), 0)
        assert (report.revoked, report.left) == ((left,), ())
        assert world.alive == set()


async def test_the_log_says_once_what_is_left_to_a_person(
    place: InFile | InPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """That suspects were taken over, and what becomes of them."""
    async with FakeRespan() as fake:
        world = World(fake, place)
        await crash(world)
        async with world.issuer(auto_sweep=True):
            await until(lambda: "taken over" in caplog.text)

    told = [record.getMessage() for record in caplog.records if "taken over" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("1 suspects were taken over from processes that are gone")


@pytest.mark.parametrize("age", [5, timedelta(seconds=-1), "1d"])
def test_an_age_is_a_timedelta_or_none(age: Any) -> None:
    """Anything else is told at once."""
    with pytest.raises(ConfigurationError, match="takeover_age: expected a timedelta"):
        Issuer(AsyncRespan("key"), SQLiteLedger(":memory:"), takeover_age=age)


async def test_what_the_grace_cuts_off_is_taken_over_from_nobody(tmp_path: Path) -> None:
    """The process that closes knows that no answer came: the next run revokes the key as any other."""
    async with FakeRespan(latency=0.3) as fake:
        world = World(fake, InFile(tmp_path))
        async with AsyncRespan(fake.api_key, base_url=fake.url) as respan:
            issuer = Issuer(respan, world.place.ledger())
            call = asyncio.ensure_future(issuer.issue(TICKETS[0]))
            await until(lambda: fake.counts.requests)
            await respan.aclose(grace=0.05)
            await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.3)
        async with world.issuer() as again:
            (suspect,) = await again._ledger.suspects()
            report = await again.sweep(grace=0)

    assert suspect.taken_over_at is None
    assert len(report.revoked) == 1
