"""Keys that nobody holds are revoked; every other key is left alone."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import aiohttp
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respan_async import (
    APIStatusError,
    AsyncRespan,
    ConflictError,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimit,
    RespanError,
    RetryPolicy,
    Suspect,
)
from respan_async._calls.suspect_store import InMemorySuspectStore
from respan_async._calls.sweep import sweep
from respan_async._calls.sweep_policy import SweepPolicy
from respan_async.events import AttemptEvent, RevokedEvent, SuspectEvent, SweepEvent
from respan_async.testing import FakeRespan, KeyRecord
from respan_async.testing.responses import ServerResponse
from tests.integration.raw_server import RawServer, answer
from tests.integration.sweep_world import HOUR, World, make_world
from tests.virtual import VirtualLoop
from tests.waiting import until

pytestmark = [
    pytest.mark.virtual,
    pytest.mark.filterwarnings("ignore:delta is less than resolution"),  # of virtual time: a sum of fractions
]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Open a world as it is by default."""
    async with make_world() as opened:
        yield opened


# ------------------------------------------------------------ what is revoked


async def test_a_key_left_behind_is_revoked(world: World) -> None:
    """By itself, after the grace, and nothing else with it."""
    held = await world.keys.create(name="tenant-42")
    left = await world.leave(name="tenant-42", max_usage=5, expires_in=timedelta(days=1))
    assert len(world.alive) == 3

    await asyncio.sleep(120)

    assert left.revoked
    assert len(world.alive) == 2
    assert held.id in world.alive
    assert world.respan.suspects == ()
    assert [event.id for event in world.told(RevokedEvent)] == [left.id]


def normalise(record: KeyRecord) -> None:
    """The server squeezes white space, and writes every name its own way."""
    record.name = " ".join((record.name or "").upper().split()) + " "


def override(record: KeyRecord) -> None:
    """The plan has a limit of its own, which overrides the one that was sent; and a decimal is rounded."""
    record.rate_limit, record.max_usage, record.spending_limit = 60, 7, 0.3


def clamp(record: KeyRecord) -> None:
    """The plan lets no key live so long."""
    assert record.expiry_date is not None
    record.expiry_date = record.expiry_date.replace(microsecond=0) - timedelta(days=23)


def rename(record: KeyRecord) -> None:
    """Only the tag is the same."""
    record.name = f"other {(record.name or '')[-13:]}"


@pytest.mark.parametrize("change", [normalise, override, clamp, rename])
async def test_the_tag_alone_identifies(world: World, change: Callable[[KeyRecord], None]) -> None:
    """What a server makes of a name and of the other fields is no reason to leave a key that nobody holds."""
    left = await world.leave(
        name=" tenant",
        expires_in=timedelta(days=30),
        max_usage=5,
        rate_limit=100,
        spending_limit=0.1 + 0.2,
        is_test=True,
        limit_policies=[{"max_value": 1, "period": "day"}],
    )
    change(left)

    report = await world.keys.sweep(grace=0)

    assert report.revoked == (left.id,)
    assert report.left == ()


def use(record: KeyRecord) -> None:
    """Somebody uses it, so somebody holds it."""
    record.key_usage = 1


def untag(record: KeyRecord) -> None:
    """Somebody gives it another name."""
    record.name = "mine now"


@pytest.mark.parametrize("touch", [use, untag])
async def test_a_key_that_somebody_touched_stays(world: World, touch: Callable[[KeyRecord], None]) -> None:
    """Only a key that has the tag, and was never used, is proven to be nobody's."""
    left = await world.leave(name="tenant-42", max_usage=5, expires_in=timedelta(days=1))
    touch(left)

    await asyncio.sleep(2 * HOUR)

    assert left.id in world.alive
    assert len(world.respan.suspects) == 1
    assert world.told(RevokedEvent) == []
    assert world.requests("delete") == []


async def test_the_same_name_is_no_proof(world: World) -> None:
    """Ten keys of one name, each with a tag of its own: one of them is left behind, and goes alone."""
    held = [await world.keys.create(name="worker") for _ in range(5)]
    left = await world.leave(name="worker")
    held += [await world.keys.create(name="worker") for _ in range(5)]

    await asyncio.sleep(120)

    assert left.revoked
    assert {key.id for key in held} < world.alive
    assert len({record.name for record in world.fake.keys.values()}) == 12


async def test_a_tag_is_twelve_characters_after_the_name(world: World) -> None:
    """Fresh for each attempt, also where no name was given; a name may then have 36 characters."""
    await world.leave(name="x" * 36)
    await world.keys.create()

    names = [record.name for record in world.fake.keys.values()]
    assert [name[:-12] for name in names] == ["x" * 36 + " ~", "x" * 36 + " ~", "~"]
    assert len({name[-12:] for name in names}) == 3
    assert all(set(name[-12:]) <= set("abcdefghijklmnopqrstuvwxyz234567") for name in names)
    with pytest.raises(RespanError, match="name: expected at most 36 characters"):
        await world.keys.create(name="x" * 37)


async def test_without_a_tag_a_key_is_left_alone() -> None:
    """A name and a date are no proof: the suspect is reported, and nothing is even looked for."""
    async with make_world(tag_names=False) as world:
        left = await world.leave(name="tenant-42")
        report = await world.keys.sweep()
        await asyncio.sleep(2 * HOUR)

        assert left.id in world.alive
        assert report.revoked == ()
        assert [suspect.tag for suspect in report.left] == [None]
        assert world.respan.suspects == report.left
        assert world.requests("list") == world.requests("delete") == []


@pytest.mark.parametrize("tag_names", [True, False])
async def test_a_key_whose_id_was_told_is_revoked_by_it(tag_names: bool) -> None:
    """An answer without a secret, but with an id: no list, no tag, no waiting needed."""
    async with make_world(tag_names=tag_names) as world:
        world.fake.script("no_api_key")
        with pytest.raises(InvalidResponseError) as caught:
            await world.keys.create()
        (left,) = world.fake.keys
        assert [suspect.id for suspect in caught.value.suspects] == [left]
        report = await world.keys.sweep()

        assert world.alive == set()
        assert set(report.revoked) <= {left}
        assert report.left == world.respan.suspects == ()
        assert world.requests("list") == []
        assert {unquote(path).split("/")[3] for _, path in world.requests("delete")} == {left.partition("/")[0]}


async def test_a_key_that_was_made_late_is_found(world: World) -> None:
    """Half a minute after we gave up on it: the sweep waits longer than that."""
    world.fake.script("late_create:30")
    held = await world.keys.create(name="tenant-42")

    report = await world.keys.sweep()

    assert len(world.fake.keys) == 2
    assert world.alive == {held.id}
    assert len(report.revoked) <= 1
    assert world.respan.suspects == ()


async def test_a_key_that_was_made_very_late_is_found_by_a_later_sweep(world: World) -> None:
    """Absence proves nothing: the suspect stays, and is looked for again."""
    world.fake.script("late_create:300")
    held = await world.keys.create()

    report = await world.keys.sweep()
    assert (report.revoked, len(report.left)) == ((), 1)
    await asyncio.sleep(HOUR)

    assert len(world.fake.keys) == 2
    assert world.alive == {held.id}
    assert world.respan.suspects == ()


async def test_two_sweeps_at_once_do_no_harm(world: World) -> None:
    """Besides the automatic one."""
    lefts = [await world.leave() for _ in range(3)]

    reports = await asyncio.gather(world.keys.sweep(grace=5), world.keys.sweep(grace=5), world.keys.sweep(grace=5))
    await asyncio.sleep(120)

    assert all(left.revoked for left in lefts)
    assert all(report.left == () for report in reports)
    assert len(world.alive) == 3


async def test_two_keys_with_one_tag_both_go(world: World) -> None:
    """A proxy that repeats a POST makes two keys of one attempt."""
    left = await world.leave(name="tenant-42", max_usage=5)
    async with AsyncRespan(world.fake.api_key, base_url=world.fake.url) as proxy:
        await proxy.temporary_keys.create(name=left.name, max_usage=5)

    report = await world.keys.sweep(grace=0)

    assert len(report.revoked) == 2
    assert len(world.alive) == 1


async def test_a_suspect_ends_with_its_key(world: World) -> None:
    """When its expiry has passed, and an hour for a clock that may be wrong."""
    keys = world.with_clock()
    world.fake.script("reset")
    await keys.create(expires_in=timedelta(hours=1))
    (suspect,) = world.respan.suspects

    await asyncio.sleep(1.5 * HOUR)
    early = await keys.sweep()
    await asyncio.sleep(HOUR)
    late = await keys.sweep()

    assert (early.expired, early.left) == ((), (suspect,))
    assert (late.expired, late.left, late.revoked) == ((suspect,), (), ())
    assert world.respan.suspects == ()


# ------------------------------------------------------------ how it is done


async def test_the_list_is_read_to_its_end_before_anything_is_deleted(world: World) -> None:
    """Deleting moves the pages under the reader. And each key is asked for again right before its DELETE."""
    lefts = [(await world.leave()).id]
    held = await asyncio.gather(*(world.keys.create() for _ in range(249)))
    lefts += [(await world.leave()).id for _ in range(2)]
    before = len(world.sent)

    report = await world.keys.sweep(grace=0)

    assert set(report.revoked) == set(lefts)
    assert {key.id for key in held} < world.alive
    order = [(method, unquote(path)) for _, method, path in world.sent[before:]]
    root = "/api/temporary-keys/"
    listed = [("GET", f"{root}?page={number}&page_size=100") for number in (1, 2, 3)]
    checked = [(method, f"{root}{key_id}/") for key_id in report.revoked for method in ("GET", "DELETE")]
    assert order == listed + checked


async def test_a_key_that_is_used_at_the_last_moment_stays(world: World) -> None:
    """What the list said may be old: it is asked for again."""
    left = await world.leave()

    def on_list(event: Any) -> None:
        if isinstance(event, AttemptEvent) and event.operation == "list":
            use(left)

    async with AsyncRespan(world.fake.api_key, base_url=world.fake.url, hooks=[on_list]) as other:
        for suspect in world.respan.suspects:
            other._service.context.suspects.add(suspect)
        report = await other.temporary_keys.sweep(grace=0)

    assert report.revoked == ()
    assert len(report.left) == 1
    assert left.id in world.alive
    assert world.fake.counts.by_operation["retrieve"] == 1


async def test_a_key_that_goes_meanwhile_is_no_problem() -> None:
    """Somebody revokes it between the list and the second look: the suspect stays, as absence proves nothing."""
    async with make_world(latency=0.1) as world:
        left = await world.leave()

        async def revoke(key_id: str) -> None:
            await until(lambda: bool(world.requests("list")))
            async with AsyncRespan(world.fake.api_key, base_url=world.fake.url) as other:
                await other.temporary_keys.delete(key_id)

        revoking = asyncio.ensure_future(revoke(left.id))
        report = await world.keys.sweep(grace=1)
        await revoking

        assert (report.revoked, len(report.left)) == ((), 1)
        assert world.requests("delete") == []
        assert len(world.alive) == 1


def absent(page: str = "") -> ServerResponse:
    """Give a 404: of the API, or a page for a route that is not there."""
    return ServerResponse(404, text=page) if page else ServerResponse(404, {"detail": "Not found."})


class Lagging(FakeRespan):
    """A server whose database lags: to a DELETE, or a GET, it says that there is no such key, some times."""

    method = "DELETE"
    missing: Sequence[ServerResponse] = ()

    async def _reply(self, request: Any, connection: Any) -> Any:
        if request.method == self.method and request.path.count("/") == 4 and self.missing:
            answer, *self.missing = self.missing
            return answer
        return await super()._reply(request, connection)


class Forbidding(FakeRespan):
    """A server by which some keys may not be revoked."""

    forbidden: Sequence[str | None] = ()

    async def _reply(self, request: Any, connection: Any) -> Any:
        if (
            request.method == "DELETE"
            and unquote(urlsplit(str(request.rel_url)).path).removeprefix("/api/temporary-keys/").rstrip("/")
            in self.forbidden
        ):
            return ServerResponse(403, {"detail": "You do not have permission to perform this action."})
        return await super()._reply(request, connection)


class Unreadable(FakeRespan):
    """A server that shows one key in no way that can be read."""

    unreadable = ""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self._trouble = trouble

    async def _reply(self, request: Any, connection: Any) -> Any:
        path = unquote(urlsplit(str(request.rel_url)).path)
        if request.method == "GET" and path.removeprefix("/api/temporary-keys/").rstrip("/") == self.unreadable:
            if self._trouble == "a page":
                return ServerResponse(200, text="<h1>deploying</h1>")
            connection.reset()
        return await super()._reply(request, connection)


@pytest.mark.parametrize("answer", [absent(), absent("<h1>no such route</h1>")], ids=["of the API", "a page"])
async def test_a_404_to_the_delete_of_a_key_just_made_proves_nothing(answer: ServerResponse) -> None:
    """Its caller was gone when it arrived: it is a suspect by its id, and its DELETE is repeated, without any tags."""
    events: list[Any] = []
    async with (
        Lagging(latency=1) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, hooks=[events.append]) as respan,
    ):
        fake.missing = [answer]
        creating = asyncio.ensure_future(respan.temporary_keys.create())
        await until(lambda: fake.counts.requests)
        creating.cancel()
        await asyncio.sleep(1.5)
        (key_id,) = fake.keys
        told_at_first = [type(event) for event in events if isinstance(event, RevokedEvent | SuspectEvent)]
        await asyncio.sleep(HOUR)

        assert fake.alive() == []
        assert respan.suspects == ()
    assert told_at_first == [SuspectEvent]
    assert [event.id for event in events if isinstance(event, RevokedEvent)] == [key_id]


async def test_a_404_ends_a_suspect_only_when_its_key_is_not_new(caplog: pytest.LogCaptureFixture) -> None:
    """A sweep within the first minute leaves it; one after that takes the API's word if the key is not shown besides.

    It never takes the word of a page.
    """
    async with Lagging() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        fake.missing = [absent()] * 9
        fake.script("no_api_key")
        with pytest.raises(InvalidResponseError):
            await respan.temporary_keys.create()
        early = await respan.temporary_keys.sweep()
        (suspect,) = respan.suspects
        assert respan.dismiss(suspect)
        old = attrs.evolve(suspect, sent_at=suspect.sent_at - timedelta(minutes=2))
        respan._service.context.suspects.add(old)
        fake.missing = [absent("<h1>deploying</h1>")] * 9
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.sweep()
        after_a_page = respan.suspects
        fake.missing = [absent()]  # in the words of another framework for a route that it lacks
        with pytest.raises(NotFoundError):
            await respan.temporary_keys.sweep()
        still_shown = respan.suspects
        for record in fake.keys.values():
            record.revoked = True
        late = await respan.temporary_keys.sweep()

        assert (early.revoked, early.left) == ((), (suspect,))
        assert after_a_page == still_shown == (old,)
        assert (late.revoked, late.expired, late.left) == ((), (old,), ())  # it is gone, and that was not our doing


async def test_known_keys_that_cannot_be_revoked_hold_up_no_others() -> None:
    """Such as those that were made under a former API key: the list is read all the same, and other ids are tried."""
    async with (
        Forbidding() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True, retry=RetryPolicy(initial=0.01)) as respan,
    ):
        while len([suspect for suspect in respan.suspects if suspect.id]) < 4:
            fake.script("no_api_key")
            with contextlib.suppress(InvalidResponseError):
                await respan.temporary_keys.create(name="known")
        *fake.forbidden, _ = [suspect.id for suspect in respan.suspects]
        for _ in range(5):
            fake.script("lose_answer_after_create")
            await respan.temporary_keys.create(name="found by its tag")

        for _ in range(12):
            with pytest.raises(PermissionDeniedError):
                await respan.temporary_keys.sweep(grace=0)

        assert {suspect.id for suspect in respan.suspects} == set(fake.forbidden)


async def test_a_key_that_is_known_by_its_id_and_was_used_is_somebodys(world: World) -> None:
    """Whatever a ledger that lags behind says of it."""
    world.fake.script("no_api_key")
    with pytest.raises(InvalidResponseError):
        await world.keys.create(name="tenant-42")
    ((key_id, record),) = world.fake.keys.items()
    record.key_usage = 7

    report = await world.keys.sweep(grace=0)

    assert [suspect.id for suspect in report.left] == [key_id]
    assert not record.revoked
    assert not world.requests("delete")


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_known_key_that_goes_between_two_looks_is_gone_and_one_that_was_recorded_stays(recorded: bool) -> None:
    """The first look shows it, the DELETE and the second do not: it was somebody else who revoked it."""
    sent_at = datetime.now(UTC) - timedelta(minutes=10)
    told = {"id": "key-1", "name": "x", "created": sent_at.isoformat()}
    gone = answer(404, {"detail": "Not found."})
    suspect = Suspect(name="x", tag=None, id="key-1", effect=Effect.LOST, sent_at=sent_at, sent={}, reason="lost")
    store = Recording(recorded)
    store.add(suspect)
    async with RawServer(answer(200, told), gone, gone) as server, AsyncRespan("token", base_url=server.url) as respan:
        report = await sweep(respan._service, store, SweepPolicy(grace=0))

    assert (report.revoked, report.expired) == ((), () if recorded else (suspect,))
    assert server.methods == ([] if recorded else ["GET", "DELETE", "GET"])


async def test_a_404_after_a_delete_whose_answer_was_lost_is_success(world: World) -> None:
    """That is what it looks like."""
    await world.leave()
    world.fake.script("disconnect_after_create", operation="delete")

    report = await world.keys.sweep(grace=0)

    assert len(report.revoked) == 1
    assert world.fake.counts.by_operation["delete"] == 2
    assert world.respan.suspects == ()


class Recording(InMemorySuspectStore):
    """Suspects of which a ledger may know by now whose key it is."""

    def __init__(self, recorded: bool) -> None:
        super().__init__()
        self._recorded = recorded

    async def owns_key(self, key_id: str) -> bool:
        return self._recorded


@pytest.mark.parametrize("tagged", [False, True])
async def test_a_known_id_that_is_another_keys_is_left_alone(tagged: bool) -> None:
    """A server or a cache may answer with what was there already."""
    long_ago = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    told = {"id": "key-1", "name": "billing of tenant-42", "created": long_ago}
    aside = {"GET": answer(200, told), "DELETE": answer(204)}
    async with (
        RawServer(answer(200, told), aside=aside) as server,
        AsyncRespan("token", base_url=server.url, tag_names=tagged) as respan,
    ):
        with pytest.raises(InvalidResponseError):
            await respan.temporary_keys.create(name="tenant-43")
        report = await respan.temporary_keys.sweep(grace=0)

        assert [suspect.id for suspect in report.left] == ["key-1"]
        assert "DELETE" not in server.methods


@pytest.mark.parametrize("trouble", ["a page", "a reset"])
async def test_a_key_that_cannot_be_read_holds_up_no_others(trouble: str) -> None:
    """The others are revoked; the sweep says that it failed."""
    async with (
        Unreadable(trouble) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True, retry=RetryPolicy(initial=0.01)) as respan,
    ):
        for _ in range(5):
            fake.script("lose_answer_after_create")
            await respan.temporary_keys.create(name="tenant")
        suspects = {suspect.tag for suspect in respan.suspects}
        fake.unreadable = next(key.id for key in fake.alive() if key.name[-12:] in suspects)

        with pytest.raises(RespanError):
            await respan.temporary_keys.sweep(grace=0)

        assert len(respan.suspects) == 1


async def test_a_page_for_a_missing_route_is_no_answer_to_the_second_look() -> None:
    """The sweep says that it failed, and nothing is taken for gone."""
    async with Lagging() as fake, AsyncRespan(fake.api_key, base_url=fake.url, tag_names=True) as respan:
        fake.script("lose_answer_after_create")
        await respan.temporary_keys.create()
        fake.method, fake.missing = "GET", [absent("<h1>deploying</h1>")]

        with pytest.raises(NotFoundError):
            await respan.temporary_keys.sweep(grace=0)

        assert len(respan.suspects) == 1


async def test_a_dry_run_tells_what_a_sweep_would_do_and_sends_no_delete(world: World) -> None:
    """It looks as a sweep does; nothing is revoked, ended or told."""
    left = await world.leave()
    world.fake.script("reset")
    await world.keys.create()

    report = await world.keys.sweep(grace=0, dry_run=True)

    assert report.dry_run
    assert report.revoked == (left.id,)
    assert len(report.left) == 1
    assert left.id in world.alive
    assert len(world.respan.suspects) == 2
    assert world.requests("delete") == world.told(RevokedEvent) == world.told(SweepEvent) == []


async def test_suspects_without_a_tag_are_bounded_and_can_be_dismissed(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand lost answers are remembered, the oldest of more are forgotten, and the log says so once."""
    async with make_world(tag_names=False) as world:
        for number in range(1_003):
            world.fake.script("reset")
            await world.keys.create(name=f"tenant-{number}")

        suspects = world.respan.suspects
        assert [suspect.name for suspect in suspects] == [f"tenant-{number}" for number in range(3, 1_003)]
        assert [r.levelname for r in caplog.records if "the oldest are forgotten" in r.message] == ["WARNING"]
        assert world.respan.dismiss(suspects[0])
        assert not world.respan.dismiss(suspects[0])
        assert world.respan.suspects == suspects[1:]


async def test_a_suspect_that_was_dismissed_is_not_looked_for(world: World) -> None:
    """A person has said that it is settled."""
    left = await world.leave()
    (suspect,) = world.respan.suspects

    world.respan.dismiss(suspect)
    await asyncio.sleep(2 * HOUR)

    assert left.id in world.alive
    assert world.requests("list") == []


async def test_a_list_that_fails_is_told_and_changes_nothing(world: World) -> None:
    """The suspects stay for the next sweep."""
    left = await world.leave()
    world.fake.script("conflict_409", operation="list")

    with pytest.raises(APIStatusError):
        await world.keys.sweep(grace=0)
    assert len(world.respan.suspects) == 1
    report = await world.keys.sweep(grace=0)

    assert report.revoked == (left.id,)


async def test_sweeping_nothing_sends_nothing(world: World) -> None:
    """And takes no time."""
    began = asyncio.get_running_loop().time()

    report = await world.keys.sweep()

    assert (report.revoked, report.expired, report.left) == ((), (), ())
    assert asyncio.get_running_loop().time() == began
    assert world.sent == []
    assert [(event.revoked, event.left) for event in world.told(SweepEvent)] == [(0, 0)]


# ------------------------------------------------------------ by itself


async def test_sweeps_that_find_nothing_come_ever_more_rarely(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """From ten minutes to a day, and the log says once why; many suspects at once cause no more of them."""
    for _ in range(5):
        world.fake.script("reset")
        await world.keys.create()

    with caplog.at_level(logging.INFO, "respan_async"):
        await asyncio.sleep(31 * 24 * HOUR)

    # The grace before each of them is by the wall clock, which stands still in virtual time.
    times = [at for at, _ in world.requests("list")]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:8] == pytest.approx([600 * 2**number for number in range(8)], abs=2)
    assert pauses[8:] == pytest.approx([86_400] * len(pauses[8:]), abs=2)
    assert len(times) < 42
    assert len(world.respan.suspects) == 5
    assert [record.message for record in caplog.records if "rarely" in record.message] == [
        "a sweep has found no key of 5 suspects; the next come ever more rarely"
    ]


async def test_a_new_suspect_is_looked_for_soon(world: World) -> None:
    """However rare the sweeps had become; and no more often than every ten minutes."""
    world.fake.script("reset")
    await world.keys.create()
    await asyncio.sleep(10 * 24 * HOUR)
    before = len(world.requests("list"))

    left = await world.leave()
    for _ in range(10):
        await asyncio.sleep(70)
        world.fake.script("reset")
        await world.keys.create()

    assert left.revoked
    assert len(world.requests("list")) - before <= 2


async def test_the_keys_of_one_outage_are_revoked_by_one_sweep(world: World) -> None:
    """It begins when the youngest suspect is old enough, and not when the first one is."""
    left = []
    for _ in range(8):
        left.append(await world.leave())
        await asyncio.sleep(5)

    await asyncio.sleep(150)

    assert all(record.revoked for record in left)
    assert len(world.requests("list")) == 1


async def test_suspects_that_keep_coming_do_not_put_a_sweep_off(world: World) -> None:
    """It waits twice the grace at most."""
    left = [await world.leave()]
    for _ in range(30):
        await asyncio.sleep(10)
        left.append(await world.leave())

    assert left[0].revoked
    assert all(record.revoked for record in left[:10])


async def test_it_stops_when_nothing_is_left_and_begins_again(world: World) -> None:
    """No suspects, no requests."""
    await world.leave()
    await asyncio.sleep(2 * HOUR)
    assert len(world.requests("list")) == 1

    second = await world.leave()
    await asyncio.sleep(120)

    assert second.revoked
    assert len(world.requests("list")) == 2


@pytest.mark.parametrize("fault", ["forbidden_403", "unauthorized_401"])
async def test_it_sweeps_again_when_it_may_list_again(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning while it may not, ever fewer tries; and when it may, all that was left is revoked."""
    world.fake.chance(fault, 1, operation="list")
    lefts = [await world.leave()]
    await asyncio.sleep(2 * HOUR)
    lefts.append(await world.leave())
    await asyncio.sleep(24 * HOUR)
    tries = len(world.requests("list"))
    world.fake.chance(fault, 0, operation="list")
    await asyncio.sleep(24 * HOUR)

    warned = [record for record in caplog.records if "may not sweep" in record.message]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert tries <= 12
    assert all(left.revoked for left in lefts)
    assert world.respan.suspects == ()


async def test_it_ends_with_the_session(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A session of the user's own that was closed is not asked again and again."""
    await world.leave()
    async with aiohttp.ClientSession() as session:
        world.respan._service.context.transport._given = session
    with caplog.at_level(logging.INFO, "respan_async"):
        await asyncio.sleep(2 * HOUR)

    assert world.requests("list") == []
    assert len(world.respan.suspects) == 1
    assert "did not get through" not in caplog.text


async def test_it_goes_on_after_a_failure(world: World) -> None:
    """A server that is away for a while is asked again ten minutes later."""
    world.fake.script(*["error_500"] * 5, operation="list")
    left = await world.leave()

    await asyncio.sleep(HOUR)

    assert left.revoked
    assert len(world.requests("list")) == 6


async def test_it_lets_everybody_else_go_first() -> None:
    """The sweep waits while there is other work for the account's slots."""
    async with make_world(pace=RateLimit(10, per=60)) as world:
        await world.leave()
        await asyncio.sleep(59)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(world.keys.create() for _ in range(30)))
        (listed, _), *_ = world.requests("list") or [(began + HOUR, "")]
        waited_for = [at for at, _ in world.requests("create") if began <= at < listed]

        # A lower class still gets every twentieth slot.
        assert len(waited_for) >= 19


async def test_a_view_leaves_suspects_to_the_same_book(world: World) -> None:
    """And they are swept as well."""
    world.fake.script("lose_answer_after_create")
    held = await world.respan.with_options(deadline=30).temporary_keys.create()

    await asyncio.sleep(120)

    assert world.alive == {held.id}


async def test_closing_says_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """Suspects that cannot be settled in time are told once more, and nothing waits for them."""
    loop = asyncio.get_running_loop()
    async with make_world() as world:
        await world.leave()
        began = loop.time()
        await world.respan.aclose()

        assert loop.time() - began < 1
        assert len(world.respan.suspects) == 1
    assert "closed with 1 suspects left" in caplog.text


async def test_a_key_that_could_not_be_revoked_after_its_caller_left_is_swept() -> None:
    """It is a suspect with an id then, told to hooks like any other."""
    async with make_world(latency=1) as world:
        world.fake.script("conflict_409", operation="delete")
        creating = asyncio.ensure_future(world.keys.create())
        await until(lambda: bool(world.requests("create")))
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        await asyncio.sleep(HOUR)

        (key_id,) = world.fake.keys
        assert world.alive == set()
        assert world.respan.suspects == ()
        assert [(event.suspect.id, event.suspect.effect) for event in world.told(SuspectEvent)] == [
            (key_id, Effect.LOST)
        ]
        assert [event.id for event in world.told(RevokedEvent)] == [key_id]


async def test_a_key_that_cannot_be_revoked_does_not_keep_the_others_alive(world: World) -> None:
    """The sweep goes on to the other suspects, and tells of the failure at its end."""
    world.fake.script("no_api_key", "no_api_key")
    world.fake.script("conflict_409", "conflict_409", operation="delete")
    for _ in range(2):
        with pytest.raises(InvalidResponseError):
            await world.keys.create()
    await asyncio.sleep(1)  # the client has swept by itself, at its first suspect
    assert len(world.respan.suspects) == 2

    with pytest.raises(ConflictError):
        await world.keys.sweep(grace=0)

    assert len(world.respan.suspects) == 1
    assert world.alive == {world.respan.suspects[0].id}


# ------------------------------------------------------------ whatever happens

FAULTS = [
    *("ok", "ok", "ok", "refuse:1", "lose_answer_after_create", "disconnect_after_create", "late_create:20"),
    *("late_create:400", "truncate", "stall", "not_json", "no_api_key", "empty_2xx", "html_502_after", "error_500"),
    *("reset", "garbage", "redirect", "null_api_key", "timeout_408", "conflict_409"),
]
LISTING = ["ok", "ok", "error_500", "refuse:1", "reset", "truncate"]


@given(
    faults=st.lists(st.sampled_from(FAULTS), min_size=5, max_size=40),
    listing=st.lists(st.sampled_from(LISTING), max_size=5),
    patience=st.lists(st.sampled_from([None, None, 0.0, 0.5, 3.0]), min_size=12, max_size=12),
    shape=st.sampled_from(["a", "b"]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_the_end_the_keys_alive_are_the_keys_handed_out(
    faults: list[str], listing: list[str], patience: list[float | None], shape: Any
) -> None:
    """Lost answers, late keys, cancelled callers, a list that fails: a few hours later, nothing is left of it."""

    async def main() -> tuple[set[str], set[str]]:
        async with FakeRespan(shape=shape, latency=(0.1, 1.0)) as fake:
            fake.script(*faults)
            fake.script(*listing, operation="list")
            policy = RetryPolicy(initial=0.1, maximum=1.0)
            async with AsyncRespan(fake.api_key, base_url=fake.url, timeout=5, tag_names=True, retry=policy) as respan:

                async def create(number: int, seconds: float | None) -> str:
                    async with asyncio.timeout(seconds):
                        return (await respan.temporary_keys.create(name=f"tenant-{number}")).id

                outcomes = await asyncio.gather(
                    *(create(number, seconds) for number, seconds in enumerate(patience)), return_exceptions=True
                )
                await asyncio.sleep(6 * HOUR)
                await fake.settle()
                for outcome in outcomes:
                    assert isinstance(outcome, str | RespanError | TimeoutError)
                return {record.id for record in fake.alive()}, {id_ for id_ in outcomes if isinstance(id_, str)}

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        alive, handed_out = runner.run(main())

    assert alive == handed_out


# ----------------------------------------------------------- what stands in nobody's way


async def test_an_expiry_at_the_end_of_time_stops_no_sweep(world: World) -> None:
    """A suspect whose key lives until the year 9999 is swept as any other."""
    far = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    left = [await world.leave(expiry_date=far), await world.leave()]

    report = await world.keys.sweep(grace=0)

    assert set(report.revoked) == {record.id for record in left}


async def test_a_key_that_cannot_be_revoked_hides_no_other(world: World) -> None:
    """The others are revoked, and the failure is told at the end."""
    left = [await world.leave() for _ in range(3)]
    world.fake.script(*["conflict_409"], operation="delete")

    with pytest.raises(ConflictError):
        await world.keys.sweep(grace=0)

    assert len(world.alive & {record.id for record in left}) == 1
    assert len(world.respan.suspects) == 1


async def test_keys_that_cannot_be_revoked_now_and_then_do_not_end_a_sweep(world: World) -> None:
    """Three of ten may not be: the others are revoked, because it is not three in a row."""
    left = [await world.leave() for _ in range(10)]
    world.fake.script("ok", "forbidden_403", "ok", "forbidden_403", "ok", "forbidden_403", operation="delete")

    with pytest.raises(PermissionDeniedError):
        await world.keys.sweep(grace=0)

    assert len(world.alive & {record.id for record in left}) == 3


async def test_a_suspect_that_could_not_be_revoked_has_not_expired() -> None:
    """By a clock that is fast its key died long ago; it was found alive, and stays a suspect."""
    async with make_world() as world:
        await world.leave(expires_in=timedelta(minutes=5))
        (suspect,) = world.respan.suspects
        old = {**suspect.sent, "expiry_date": (datetime.now(UTC) - timedelta(hours=2)).isoformat()}
        assert world.respan.dismiss(suspect)
        world.respan._service.context.suspects.add(attrs.evolve(suspect, sent=old))
        world.fake.script("conflict_409", operation="delete")

        with pytest.raises(ConflictError):
            await world.keys.sweep(grace=0)

        assert len(world.respan.suspects) == 1


@pytest.mark.parametrize(("fault", "most"), [("unauthorized_401", 1), ("forbidden_403", 3)])
async def test_an_api_key_that_may_not_revoke_is_not_tried_for_each_suspect(fault: str, most: int) -> None:
    """401 is about the API key; several 403 in a row are, too."""
    async with make_world() as world:
        for _ in range(10):
            await world.leave()
        world.fake.chance(fault, 1, operation="delete")

        with pytest.raises(RespanError):
            await world.keys.sweep(grace=0)

        assert len(world.requests("delete")) == most
        assert len(world.respan.suspects) == 10
        world.fake.chance(fault, 0, operation="delete")


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan"), True, "60", None, timedelta(seconds=1)])
async def test_a_grace_is_a_number_of_seconds(world: World, grace: Any) -> None:
    """Nothing waits for ever, and nothing is guessed."""
    with pytest.raises(InvalidRequestError, match="grace: expected a number of seconds, 0 or more, got"):
        await world.keys.sweep(grace=grace)


async def test_a_page_in_answer_to_a_delete_revokes_nothing() -> None:
    """A gateway's maintenance page under 200 says nothing of a key."""
    page = answer(200, b"<html><title>Maintenance</title></html>")
    async with RawServer(page) as server, AsyncRespan("token", base_url=server.url) as respan:
        with pytest.raises(InvalidResponseError, match="with a page, which the API never writes") as caught:
            await respan.temporary_keys.delete("key-1")

    assert caught.value.effect is Effect.UNKNOWN


async def test_what_is_no_suspect_cannot_be_dismissed(world: World) -> None:
    """All of them at once are a mistake that is easily made."""
    await world.leave()

    with pytest.raises(InvalidRequestError, match="suspect: expected one of `suspects`, got tuple"):
        world.respan.dismiss(cast("Any", world.respan.suspects))
    assert len(world.respan.suspects) == 1
