"""What a sweep does where it cannot be sure: in doubt a key lives, and no suspect is given up in silence."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import pytest

from respan_async import AsyncRespan, CreateKeyRequest, Effect, RateLimit, RespanError, Suspect
from respan_async._calls.call_service import CallService
from respan_async._calls.suspect_store import InMemorySuspectStore
from respan_async._calls.sweep import sweep
from respan_async._calls.sweep_policy import SweepPolicy, SweepReport
from respan_async.events import RevokedEvent
from respan_async.testing import FakeRespan, KeyRecord
from respan_async.testing.responses import ServerResponse
from tests.integration.sweep_world import HOUR, World, make_world
from tests.waiting import until

pytestmark = [
    pytest.mark.virtual,
    pytest.mark.filterwarnings("ignore:delta is less than resolution"),  # of virtual time: a sum of fractions
]

DAY = timedelta(days=1)
AT_ONCE = SweepPolicy(grace=0)


class Refusing(FakeRespan):
    """A server that refuses to show or to revoke some keys.

    Attributes:
        refused: Their ids.
        method: What is refused.
        status: With what.
    """

    refused: Collection[str | None] = ()
    method = "DELETE"
    status = 403

    async def _reply(self, request: Any, connection: Any) -> Any:
        path = unquote(urlsplit(str(request.rel_url)).path)
        if request.method == self.method and path.removeprefix("/api/temporary-keys/").rstrip("/") in self.refused:
            return ServerResponse(self.status, {"detail": "This key cannot be had."})
        return await super()._reply(request, connection)


@attrs.define
class Suspects:
    """Suspects of a client in a store of their own, so that they are swept when the test says so.

    Attributes:
        service: The client's.
        store: Where they are.
    """

    service: CallService
    store: InMemorySuspectStore = attrs.field(factory=InMemorySuspectStore)

    @classmethod
    def of(cls, respan: AsyncRespan, **changes: Any) -> "Suspects":
        """Take a client's suspects, some of their fields changed."""
        taken = cls(respan._service)
        for suspect in respan.suspects:
            respan.dismiss(suspect)
            taken.store.add(attrs.evolve(suspect, **changes))
        return taken

    @property
    def left(self) -> Sequence[Suspect]:
        """Those that are left."""
        return tuple(self.store)

    async def sweep(self, policy: SweepPolicy = AT_ONCE, *, ahead: timedelta = timedelta(0)) -> SweepReport:
        """Sweep, on a machine whose clock is so much ahead of the server's."""
        context = self.service.context
        clock = context.clock
        service = attrs.evolve(self.service, context=attrs.evolve(context, clock=lambda: clock() + ahead))
        return await sweep(service, self.store, policy)


def known(key_id: str, **fields: Any) -> Suspect:
    """Give a suspect whose key's id the server has told, ten minutes ago."""
    sent_at = datetime.now(UTC) - timedelta(minutes=10)
    fields = {"name": None, "tag": None, "sent": {}, "sent_at": sent_at, **fields}
    return Suspect(id=key_id, effect=Effect.LOST, reason="no secret came", **fields)


def expired(ago: timedelta) -> dict[str, str]:
    """Give the fields of an attempt whose key has died so long ago."""
    return {"expiry_date": (datetime.now(UTC) - ago).isoformat()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Open a world as it is by default."""
    async with make_world() as opened:
        yield opened


# ------------------------------------------------- a key whose caller was gone, and whose DELETE failed


@pytest.mark.parametrize("tag_names", [False, True])
async def test_a_key_whose_delete_fails_long_after_its_create_is_revoked_by_the_next_sweep(tag_names: bool) -> None:
    """The DELETE had waited ten minutes for its turn; the suspect has the time of the attempt, and its tag."""
    async with make_world(pace=RateLimit(1, per=600), latency=0.2, tag_names=tag_names) as world:
        keys = world.with_clock()
        world.fake.script("forbidden_403", operation="delete")
        creating = asyncio.ensure_future(keys.create(name="web", expires_in=DAY))
        await until(lambda: bool(world.fake.keys))
        creating.cancel()
        await asyncio.sleep(700)
        (suspect,) = world.respan.suspects
        (record,) = world.fake.keys.values()

        await keys.sweep(grace=0)

        assert abs(suspect.sent_at - record.created) < timedelta(seconds=2)
        assert suspect.tag == (record.name[-12:] if tag_names and record.name else None)
        assert suspect.sent["expiry_date"]
        assert world.alive == set()


async def test_a_key_that_a_batch_has_kept_for_an_hour_is_revoked_by_the_next_sweep() -> None:
    """It was made long before the batch was left, and its DELETE failed."""
    async with make_world(tag_names=False) as world:
        keys = world.with_clock()
        world.fake.script("conflict_409", operation="delete")
        async with keys.create_many([CreateKeyRequest()]):
            await asyncio.sleep(HOUR)
        await until(lambda: bool(world.respan.suspects))

        await keys.sweep(grace=0)

        assert world.alive == set()


# ------------------------------------------------------------ keys that cannot be revoked


@pytest.mark.parametrize("method", ["DELETE", "GET"])
@pytest.mark.parametrize(("stuck", "sweeps"), [(3, 2), (7, 4)])
async def test_keys_found_by_their_tags_that_cannot_be_revoked_hold_up_no_others(
    method: str, stuck: int, sweeps: int
) -> None:
    """Whichever came first: those that could not be revoked come last in the next sweep."""
    async with (
        Refusing() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True, pace=RateLimit(1000, per=1)) as respan,
    ):
        for _ in range(stuck + 5):
            fake.script("lose_answer_after_create")
            await respan.temporary_keys.create()
        suspects = Suspects.of(respan)
        ids = [next(key.id for key in fake.alive() if key.name == suspect.name) for suspect in suspects.left]
        fake.method, fake.refused = method, ids[:stuck]

        for _ in range(sweeps):
            with pytest.raises(RespanError):
                await suspects.sweep()

        assert {key.id for key in fake.alive()} & set(ids) == set(fake.refused)
        assert len(suspects.left) == stuck


async def test_a_suspect_that_has_died_ends_though_others_cannot_be_revoked() -> None:
    """Its key is not in the list, which has been read."""
    async with (
        Refusing() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True, pace=RateLimit(1000, per=1)) as respan,
    ):
        for _ in range(3):
            fake.script("lose_answer_after_create")
            await respan.temporary_keys.create()
        suspects = Suspects.of(respan)
        fake.refused = list(fake.keys)
        suspects.store.add(attrs.evolve(known(""), id=None, tag="mnopqrstuvwx", sent=expired(timedelta(hours=2))))

        with pytest.raises(RespanError):
            await suspects.sweep()

        assert len(suspects.left) == 3


@contextlib.asynccontextmanager
async def two_keys_of_one_attempt() -> AsyncIterator[tuple[Refusing, Suspects, str, list[str]]]:
    """Give a server where a proxy has repeated a POST whose answers were lost; the key that is held, and those two."""
    async with (
        Refusing() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True) as respan,
        AsyncRespan(fake.api_key, base_url=fake.url) as proxy,
    ):
        fake.script("lose_answer_after_create")
        held = await respan.temporary_keys.create()
        suspects = Suspects.of(respan)
        (left,) = suspects.left
        await proxy.temporary_keys.create(name=left.name or "")
        yield fake, suspects, held.id, [key.id for key in fake.alive() if key.id != held.id]


async def test_a_suspect_with_two_keys_stays_while_one_of_them_cannot_be_revoked() -> None:
    """The other one is revoked, and told; the next sweep takes up the one that is left."""
    async with two_keys_of_one_attempt() as (fake, suspects, held, (one, _)):
        fake.refused, fake.status = [one], 409

        with pytest.raises(RespanError):
            await suspects.sweep()
        in_between = {key.id for key in fake.alive()}
        fake.refused = ()
        report = await suspects.sweep()

        assert in_between == {held, one}
        assert report.revoked == (one,)
        assert suspects.left == ()


async def test_a_suspect_with_two_keys_stays_while_one_of_them_is_not_shown() -> None:
    """A replica that lags shows it in the list, and not by its id: it may be alive."""
    async with two_keys_of_one_attempt() as (fake, suspects, _, (one, other)):
        fake.refused, fake.method, fake.status = [one], "GET", 404

        first = await suspects.sweep()
        fake.refused = ()
        second = await suspects.sweep()

        assert (first.revoked, len(first.left)) == ((other,), 1)
        assert (second.revoked, suspects.left) == ((one,), ())


# ------------------------------------------------------------ keys that are not shown


async def test_an_api_key_of_another_account_ends_no_suspect() -> None:
    """A 404 proves nothing of a key that this sweep has not seen: the right API key revokes it later."""
    async with (
        FakeRespan() as production,
        FakeRespan() as staging,
        AsyncRespan(production.api_key, base_url=production.url) as right,
        AsyncRespan(staging.api_key, base_url=staging.url) as wrong,
    ):
        suspects = Suspects(right._service)
        suspects.store.add(known((await right.temporary_keys.create()).id))

        elsewhere = await attrs.evolve(suspects, service=wrong._service).sweep()
        report = await suspects.sweep()

        assert (elsewhere.expired, len(elsewhere.left)) == ((), 1)
        assert len(report.revoked) == 1
        assert production.alive() == []


async def test_a_known_key_that_is_not_shown_ends_by_its_expiry_and_the_log_names_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An hour after it, after one more look, as one that is found by its tag does; a week after it without one."""
    ends = {"alive": None, "dying": timedelta(minutes=30), "dead": timedelta(hours=2), "long dead": timedelta(days=8)}
    async with make_world() as world:
        suspects = Suspects(world.respan._service)
        for key_id, ago in ends.items():
            suspects.store.add(known(key_id, sent={} if ago is None else expired(ago)))

        with caplog.at_level(logging.INFO, "respan_async"):
            report = await suspects.sweep()

        assert {suspect.id for suspect in report.left} == {"alive", "dying"}
        assert {suspect.id for suspect in report.expired} == {"dead", "long dead"}
        assert world.fake.counts.by_operation["retrieve"] == 3
        told = [record.getMessage() for record in caplog.records if "was not revoked" in record.getMessage()]
        assert sorted(told) == [
            "let go of suspect 'dead', whose key was not revoked: its key has expired, and is not there any more",
            "let go of suspect 'long dead', whose key was not revoked: its key has expired",
        ]


async def test_known_keys_that_are_not_shown_cost_a_sweep_few_requests_and_hold_up_no_others(world: World) -> None:
    """Twenty in a row, and others the next time; so the one that is shown has its turn."""
    suspects = Suspects(world.respan._service)
    for number in range(50):
        suspects.store.add(known(f"key-{number}"))
    suspects.store.add(known((await world.keys.create()).id))

    for _ in range(3):
        await suspects.sweep()

    assert 3 * 20 <= len(world.requests("retrieve")) <= 4 * 20
    assert world.alive == set()
    assert len(suspects.left) == 50


async def test_sweeps_for_a_known_key_that_is_not_shown_come_ever_more_rarely(world: World) -> None:
    """Its suspect waits for its end: in a month it costs some forty requests."""
    world.respan._service.context.suspects.add(known("key-1"))

    await asyncio.sleep(31 * 24 * HOUR)

    assert len(world.respan.suspects) == 1
    assert 30 < len(world.requests("retrieve")) < 45


# ------------------------------------------------------------ clocks


def use(record: KeyRecord) -> None:
    """Somebody uses the key."""
    record.key_usage = 1


def unstated(record: KeyRecord) -> None:
    """Nothing is the matter with the key; the server does not state whether it was used."""


@pytest.mark.parametrize("doubt", [use, unstated, None])
async def test_a_suspect_whose_key_is_in_the_list_has_not_expired(doubt: Any) -> None:
    """By a clock that is fast its key died hours ago. It is alive, and was not revoked: used, unstated, one of two."""
    async with FakeRespan(shape="b") as fake, AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True) as respan:
        fake.script("lose_answer_after_create")
        await respan.temporary_keys.create(expires_in=2 * DAY)
        then = datetime.now(UTC) - 2 * DAY
        suspects = Suspects.of(respan, sent_at=then, taken_over_at=then, sent=expired(timedelta(hours=3)))
        (suspect,) = suspects.left
        (left,) = [key for key in fake.alive() if key.name == suspect.name]
        if doubt is None:
            async with AsyncRespan(fake.api_key, base_url=fake.url) as proxy:
                await proxy.temporary_keys.create(name=left.name)
        else:
            doubt(left)
        for record in fake.alive():
            record.created = then

        report = await suspects.sweep()

        assert (report.revoked, report.expired) == ((), ())
        assert report.left == (suspect,)
        assert not left.revoked


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_clock_that_is_fast_for_a_moment_costs_no_held_key(by_id: bool) -> None:
    """A suspect is left alone until a day after its take-over by this machine's clock and by the server's."""
    async with make_world() as world:
        held = await world.keys.create()
        tag = (held.name or "")[-12:]
        suspect = known(held.id, tag=tag, sent_at=datetime.now(UTC), taken_over_at=datetime.now(UTC))
        suspects = Suspects(world.respan._service)
        suspects.store.add(suspect if by_id else attrs.evolve(suspect, id=None))

        for_a_moment = await suspects.sweep(ahead=timedelta(hours=25))
        by_hand = await suspects.sweep(SweepPolicy(grace=0, taken_over=True), ahead=timedelta(hours=25))

        assert (for_a_moment.revoked, for_a_moment.expired, len(for_a_moment.left)) == ((), (), 1)
        assert by_hand.revoked == (held.id,)


# ------------------------------------------------------------ names that are copied


async def test_a_program_that_copies_names_loses_no_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its key has the tag of a lost attempt, but was made an hour after it; whose is whose cannot be known."""
    service = world.service_with_clock()
    world.fake.script("lose_answer_after_create")
    held = await service.create(CreateKeyRequest(name="tenant-42"))
    suspects = attrs.evolve(Suspects.of(world.respan), service=service)
    (suspect,) = suspects.left
    (left,) = world.alive - {held.id}
    await asyncio.sleep(HOUR)
    async with AsyncRespan(world.fake.api_key, base_url=world.fake.url) as other:
        copy = await other.temporary_keys.create(name=suspect.name or "")

    with_both = await suspects.sweep()
    again = await suspects.sweep()
    world.fake.keys[left].revoked = True  # and now the program takes its old key away
    with_the_copy_alone = await suspects.sweep()

    for report in (with_both, again, with_the_copy_alone):
        assert (report.revoked, report.expired, report.left) == ((), (), (suspect,))
    assert copy.id in world.alive
    told = [record.getMessage() for record in caplog.records if "copied the name" in record.getMessage()]
    assert len(told) == 2
    assert all(key_id in "".join(told) for key_id in (left, copy.id))


async def test_within_a_long_grace_no_key_is_late(world: World) -> None:
    """Who waits two hours before a sweep says that a request may take so long."""
    service = world.service_with_clock()
    world.fake.script("late_create:3600")
    held = await service.create(CreateKeyRequest())
    suspects = attrs.evolve(Suspects.of(world.respan), service=service)

    report = await suspects.sweep(SweepPolicy(grace=2 * HOUR))

    assert len(report.revoked) == 1
    assert world.alive == {held.id}


async def test_a_sweep_that_revokes_tells_it_once_for_each_key(world: World) -> None:
    """Also of a suspect with two keys, which a proxy has made by repeating its request."""
    left = await world.leave()
    async with AsyncRespan(world.fake.api_key, base_url=world.fake.url) as proxy:
        twin = await proxy.temporary_keys.create(name=left.name)

    await world.keys.sweep(grace=0)

    assert sorted(event.id for event in world.told(RevokedEvent)) == sorted([left.id, twin.id])


async def test_a_dry_run_tells_which_suspects_would_end(world: World) -> None:
    """And ends none."""
    suspects = Suspects(world.respan._service)
    suspects.store.add(attrs.evolve(known(""), id=None, tag="mnopqrstuvwx", sent=expired(timedelta(days=30))))

    report = await suspects.sweep(SweepPolicy(grace=0, dry_run=True))

    assert [suspect.tag for suspect in report.expired] == ["mnopqrstuvwx"]
    assert report.left == ()
    assert len(suspects.left) == 1


async def test_a_known_key_that_was_taken_over_just_now_is_not_asked_for(world: World) -> None:
    """It is left alone for a day, and costs no request until then."""
    held = await world.keys.create()
    suspects = Suspects(world.respan._service)
    suspects.store.add(known(held.id, taken_over_at=datetime.now(UTC)))

    report = await suspects.sweep()

    assert (report.revoked, len(report.left)) == ((), 1)
    assert world.requests("retrieve") == []
