"""Lists that loop, lead elsewhere or never end, and what a sweep makes of them."""

import asyncio
import itertools
import json
from typing import Any

import pytest

from respan_async import AsyncRespan, Effect, InvalidResponseError, KeyPage, RespanError, Suspect
from respan_async._calls.pagination import MAX_PAGES
from tests.hostile.misbehaviours import KEY, NAME
from tests.hostile.scenarios import ONCE, Watch, suspect
from tests.integration.raw_server import Act, Connection, RawServer, Seen, answer, key, message

pytestmark = pytest.mark.virtual

HERE = "http://127.0.0.1:1/api/temporary-keys/"
LOOPS = [f"{HERE}?page=1", "?page=0", "?page=00", "?page=1&page=1", "?page=2&page=1", "?a=1&page=%31", "?page=0001"]
"""Links that lead back, from page 1."""
NO_LINKS: list[Any] = [
    " ", "?", HERE, "javascript:alert(1)", "data:text/html,x", "//", "http://[", "http://[::1", "http://a:b@/?page=",
    "?page=-1", "?page=NaN", "?page=1e3", "?page=2.0", "?page=²", "?page=٢", "?page=%", "?page=%00", "?page= 2",
    "?page=2 ", "?PAGE=2", "#page=2", "?page[]=2", "?cursor=abc", "\x00?page=x", "\U0001f600", "?page=" + "9" * 5000,
    "?" + "&" * 100_000 + "page=2", "?" + "a=1&" * 1_000_000 + "page=2", "?page=2&" + "%61" * 2_000_000,
    0, 1, 2.5, True, False, [], ["?page=2"], {}, {"page": 2},
]  # fmt: skip
"""What is no link to a page."""
ELSEWHERE = [
    "http://elsewhere.invalid/?page=2", "https://user:password@elsewhere.invalid/api/temporary-keys/?page=2",
    "//elsewhere.invalid/x?page=2", "http://169.254.169.254/latest/meta-data?page=2", "file:///etc/passwd?page=2",
    "ftp://127.0.0.1/?page=2", "javascript:alert(1)?page=2", "?page=1&page=2", "?page=2#?page=7",
    "/api/temporary-keys/delete-all/?page=2&method=DELETE",
]  # fmt: skip
"""Links of which nothing may be taken but the number."""


def page(following: object, *keys: object, **fields: object) -> bytes:
    """Give one page."""
    return json.dumps({"results": list(keys), "count": len(keys), "next": following, **fields}).encode()


def pages(name: str, *bodies: bytes) -> Act:
    """Answer each page of a list by its number, and the last for all that come after."""

    async def do(connection: Connection, seen: Seen) -> None:
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        await connection.send(message(200, bodies[min(number, len(bodies)) - 1]))

    return Act(name, do)


async def iterate(*script: Act) -> tuple[list[str], RespanError | None, RawServer]:
    """Go through a list, and say how it ended."""
    ids: list[str] = []
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
        try:
            ids.extend([key.id async for key in respan.temporary_keys.list()])
        except RespanError as error:
            return ids, error, server
    return ids, None, server


async def test_a_list_that_leads_back_ends() -> None:
    """To the same page, to page 1 or before: one request, and InvalidResponseError."""
    for link in LOOPS:
        _, error, server = await iterate(answer(200, page(link, {"id": "key-1"})))

        assert isinstance(error, InvalidResponseError), link
        assert (error.effect, error.status) == (Effect.NONE, 200)
        assert len(server.requests) == 1, link


async def test_a_link_that_is_none_ends_the_list() -> None:
    """With an error, because the keys after it would be missing: never quietly, never in a foreign exception."""
    for link in NO_LINKS:
        _, error, server = await iterate(answer(200, page(link, {"id": "key-1"})))

        assert isinstance(error, InvalidResponseError), f"{link!r:.100}: {error!r}"
        assert len(server.requests) == 1, f"{link!r:.100}"


async def test_nothing_of_a_link_counts_but_the_number() -> None:
    """The second page is asked for where the first one was; the token goes nowhere else."""
    for link in ELSEWHERE:
        ids, error, server = await iterate(pages("two pages", page(link, {"id": "key-1"}), page(None, {"id": "key-2"})))

        assert (ids, error) == (["key-1", "key-2"], None), link
        assert [seen.target for seen in server.requests] == [f"/api/temporary-keys/?page={n}" for n in (1, 2)], link


async def test_the_same_links_on_one_page_alone() -> None:
    """Awaited, a page is a page or an InvalidResponseError."""
    links = [*LOOPS, *NO_LINKS, *ELSEWHERE]
    acts = [answer(200, page(link)) for link in links]
    async with RawServer(*acts) as server, AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
        for link in links:
            result: object
            try:
                result = await respan.temporary_keys.list()
            except InvalidResponseError as error:
                result = error

            assert isinstance(result, KeyPage | InvalidResponseError), f"{link!r:.100}"
    assert len(server.requests) == len(links)


@pytest.mark.parametrize(
    "results", [None, 5, "key-1", True, {}, {"0": {"id": "key-1"}}, [None], [5], ["key-1"], [[{"id": "key-1"}]], [{}]]
)
@pytest.mark.parametrize("bare", [False, True])
async def test_results_that_are_no_list_of_keys(results: object, bare: bool) -> None:
    """A clear error rather than a list with holes."""
    body = json.dumps(results).encode() if bare else json.dumps({"results": results, "next": None}).encode()
    ids, error, _ = await iterate(answer(200, body))

    assert ids == []
    assert isinstance(error, InvalidResponseError)


@pytest.mark.parametrize("count", [-1, 0, 10**30, 2.5, None, "many", [], {}, True])
async def test_a_count_that_lies_costs_no_key(count: object) -> None:
    """Only `next` says whether there is more."""
    script = pages("lies", page("?page=2", {"id": "key-1"}, count=count), page(None, {"id": "key-2"}, count=count))

    ids, error, _ = await iterate(script)

    assert (ids, error) == (["key-1", "key-2"], None)


async def test_empty_pages_are_gone_over() -> None:
    """A server that filters its pages may leave some empty."""
    bodies = [page(f"?page={number + 1}") for number in range(1, 30)]

    ids, error, server = await iterate(pages("empty pages", *bodies, page(None, {"id": "key-1"})))

    assert (ids, error, len(server.requests)) == (["key-1"], None, 30)


async def test_a_list_that_jumps_ends() -> None:
    """Further with every page, up to numbers of ten digits and beyond."""
    jumps = (f"?page={10**exponent}" for exponent in itertools.count(1))

    async def do(connection: Connection, _: Seen) -> None:
        await connection.send(message(200, page(next(jumps))))

    _, error, server = await iterate(Act("jumps", do))

    assert isinstance(error, InvalidResponseError)
    assert len(server.requests) <= 11


@pytest.mark.hostile
async def test_a_list_without_end_ends() -> None:
    """After ten thousand pages, empty ones included."""

    async def do(connection: Connection, seen: Seen) -> None:
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        await connection.send(message(200, page(f"?page={number + 1}")))

    _, error, server = await iterate(Act("goes on", do))

    assert isinstance(error, InvalidResponseError)
    assert len(server.requests) == MAX_PAGES


# ------------------------------------------------------------------- a sweep


@pytest.mark.parametrize("key_id", ["..", ".", "a/../b", "a\\..", " ", "a\nb", "x" * 600, "key\u200b"])
async def test_an_id_that_leads_elsewhere_revokes_nothing_and_is_in_nobodys_way(key_id: str) -> None:
    """Told in an answer without a key, or in the list under our own tag: the sweep goes on to the others."""
    listed = [{"id": key_id, "name": NAME}, {"id": "key-1", "name": NAME}]
    good = key(id="key-1", name=NAME)
    script = (answer(201, {"id": key_id}), answer(200, {"results": listed, "next": None}), good, good)
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
        with pytest.raises(InvalidResponseError) as caught:
            await respan.temporary_keys.create()
        respan._service.context.suspects.add(suspect())
        report = await respan.temporary_keys.sweep(grace=0)

        assert (caught.value.effect, caught.value.suspects[0].id) == (Effect.LOST, None)
        assert report.revoked == ("key-1",)
        assert respan.suspects == caught.value.suspects
    assert [seen.target for seen in server.requests if seen.method == "DELETE"] == ["/api/temporary-keys/key-1/"]


LISTED: dict[str, dict[str, Any]] = {
    "another name": {"name": "tenant"},
    "no name": {},
    "a name that is a number": {"name": 5},
    "our name, longer": {"name": f"{NAME}x"},
    "half of the tag": {"name": NAME[:-6]},
    "used": {"name": NAME, "key_usage": 1},
    "used some time": {"name": NAME, "last_used": "2026-01-02T00:00:00Z"},
    "revoked": {"name": NAME, "revoked": True},
    "spent": {"name": NAME, "spending_in_period": 0.5},
}


async def test_a_list_that_shows_somebody_elses_key_has_it_left_alone() -> None:
    """Whatever a server shows, only a key that has our tag, and was never used, is revoked."""
    watch = Watch()
    for name, shown in LISTED.items():
        watch.case = f"sweep, where the server shows {name}"
        body = page(None, {"id": "victim", **shown})
        ours = suspect()
        ours = Suspect(
            name=ours.name, tag=ours.tag, effect=ours.effect, sent_at=ours.sent_at, sent={"max_usage": 5}, reason=""
        )
        async with (
            RawServer(answer(200, body)) as server,
            AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
        ):
            respan._service.context.suspects.add(ours)
            report = await respan.temporary_keys.sweep(grace=0)
        watch.check(report.left == (ours,), "the suspect is gone")
        watch.check(server.methods == ["GET"], f"it sent {server.methods}")

    watch.verdict()


async def test_a_key_that_changes_between_the_list_and_the_second_look_is_left_alone() -> None:
    """It was used meanwhile: somebody holds it."""
    used = json.dumps({"id": "key-1", "name": NAME, "key_usage": 1}).encode()
    script = (answer(200, b'{"results":[%s],"next":null}' % KEY), answer(200, used))
    async with RawServer(*script) as server, AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
        respan._service.context.suspects.add(suspect())
        report = await respan.temporary_keys.sweep(grace=0)

    assert report.revoked == ()
    assert server.methods == ["GET", "GET"]


async def test_a_list_that_never_ends_does_not_hold_interactive_calls() -> None:
    """A sweep reads on at the lowest priority; a create beside it is as quick as ever."""

    async def do(connection: Connection, seen: Seen) -> None:
        if seen.method == "POST":
            await made.do(connection, seen)
            return
        number = int(seen.target.partition("page=")[2].partition("&")[0])
        await asyncio.sleep(0.1)
        await connection.send(message(200, page(f"?page={number + 1}")))

    made = key()
    async with (
        RawServer(Act("goes on", do)) as server,
        AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
    ):
        respan._service.context.suspects.add(suspect())
        sweeping = asyncio.ensure_future(respan.temporary_keys.sweep(grace=0))
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        await respan.temporary_keys.create()

        assert asyncio.get_running_loop().time() - began < 0.1
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    assert server.methods.count("GET") > 10
