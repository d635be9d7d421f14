"""The fake server, as a plain aiohttp client or a plain socket sees it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import async_solipsism
import pytest
from yarl import URL

from respan_async.testing import FAULTS, Bucket, FakeRespan, FixedWindow, SlidingLog
from tests.virtual import VirtualLoop
from tests.waiting import until

T = TypeVar("T")
Virtual = Callable[[Callable[[], Awaitable[T]]], T]

ROOT = "/api/temporary-keys/"
SAMPLES = {
    "a": (
        "id, api_key, prefix, created, name, revoked, expiry_date, key_usage, max_usage, last_used, rate_limit, "
        "spending_limit, spending_in_period, is_test, is_temporary"
    ),
    "b": (
        "id, name, prefix, is_test, expiry_date, max_usage, rate_limit, spending_limit, created_at, api_key, key_usage"
    ),
}
"""The fields of the documented create responses, in their order."""


class Caller:
    """A client that follows nothing, retries nothing and reads everything."""

    def __init__(self, fake: FakeRespan, session: aiohttp.ClientSession) -> None:
        self.fake, self.session = fake, session

    async def __call__(
        self, method: str, path: str = ROOT, *, token: str | None = None, **sent: Any
    ) -> tuple[int, Any, dict[str, str]]:
        """Give status, body (decoded if it is JSON, else text) and headers."""
        headers = {"Authorization": f"Bearer {token or self.fake.api_key}", **sent.pop("headers", {})}
        url = URL(self.fake.url + path, encoded=True)
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **sent) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, json.loads(text) if is_json else text, dict(response.headers)

    async def create(self, **fields: Any) -> Any:
        """Create a key, and give the answer's body."""
        status, body, _ = await self("POST", json=fields)
        assert status == 201, body
        return body


def item(key_id: str) -> str:
    """Give the path of a key."""
    return f"{ROOT}{quote(key_id, safe='')}/"


@pytest.fixture
async def fake() -> AsyncIterator[FakeRespan]:
    """Run a server without a limit."""
    async with FakeRespan() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client session."""
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def call(fake: FakeRespan, session: aiohttp.ClientSession) -> Caller:
    """Call the server."""
    return Caller(fake, session)


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> Virtual[Any]:
    """Run a coroutine on an event loop with virtual time, whose sockets are in memory."""
    monkeypatch.setattr(
        "aiohttp.connector.aiohappyeyeballs.start_connection", async_solipsism.aiohappyeyeballs_start_connection
    )

    def run(main: Callable[[], Awaitable[T]]) -> T:
        async def wrapped() -> T:
            return await main()

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(wrapped())

    return run


async def exchange(fake: FakeRespan, line: str = f"POST {ROOT}", body: bytes = b"{}") -> bytes:
    """Send a request over a plain socket, and give every byte that comes back before the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fake.url.rsplit(":", 1)[1]))
    head = (
        f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fake.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    try:
        return await reader.read()
    finally:
        writer.close()


# ---- the five operations


@pytest.mark.parametrize("shape", ["a", "b"])
async def test_a_create_answers_with_the_documented_fields(shape: Any, session: aiohttp.ClientSession) -> None:
    """Each shape has the fields of its documented sample, in the same order, with the values that were sent."""
    async with FakeRespan(shape=shape) as fake:
        body = await Caller(fake, session).create(
            name="t", max_usage=5, rate_limit=9, spending_limit=1.5, is_test=True, expiry_date="2030-01-02T03:04:05Z"
        )

        assert ", ".join(body) == SAMPLES[shape]
        assert (body["name"], body["max_usage"], body["rate_limit"], body["spending_limit"]) == ("t", 5, 9, 1.5)
        assert (body["is_test"], body["expiry_date"]) == (True, "2030-01-02T03:04:05Z")
        assert fake.keys[body["id"]].api_key == body["api_key"]
        assert len(body["api_key"].partition(".")[2]) == 32


async def test_a_create_without_fields_gets_defaults(call: Caller) -> None:
    """An empty object, and an empty body too, make a key that never expires."""
    first = await call.create()
    status, second, _ = await call("POST")

    assert (status, first["max_usage"], first["expiry_date"]) == (201, -1, None)
    assert first["id"] != second["id"]


async def test_a_key_goes_through_its_life(call: Caller) -> None:
    """Made, listed, retrieved, changed, deleted; then there is none."""
    made = await call.create(name="one")
    path = item(made["id"])

    status, shown, _ = await call("GET", path)
    assert (status, shown) == (200, {k: v for k, v in made.items() if k != "api_key"})
    status, changed, _ = await call("PATCH", path, json={"name": "two", "max_usage": 7, "is_test": True})
    assert (status, changed["name"], changed["max_usage"], changed["is_test"]) == (200, "two", 7, False)
    assert "api_key" not in changed
    status, page, _ = await call("GET")
    assert page == {"results": [changed], "count": 1, "previous": None, "next": None, "current_filters": {}}
    status, nothing, _ = await call("DELETE", path)
    assert (status, nothing) == (204, "")
    assert [(await call(m, path))[:2] for m in ("GET", "PATCH", "DELETE")] == [(404, {"detail": "Not found."})] * 3
    assert (await call("GET"))[1]["results"] == []
    assert call.fake.keys[made["id"]].revoked


async def test_the_list_comes_in_pages_newest_first(call: Caller) -> None:
    """Pages follow each other by absolute URLs, and `count` is what is on the page."""
    ids = [(await call.create())["id"] for _ in range(5)]

    _, first, _ = await call("GET", f"{ROOT}?page_size=2")
    _, second, _ = await call("GET", first["next"].removeprefix(call.fake.url))
    _, third, _ = await call("GET", second["next"].removeprefix(call.fake.url))

    assert [k["id"] for page in (first, second, third) for k in page["results"]] == ids[::-1]
    assert [p["count"] for p in (first, second, third)] == [2, 2, 1]
    assert first["next"] == f"{call.fake.url}{ROOT}?page_size=2&page=2"
    assert (first["previous"], third["next"]) == (None, None)
    assert second["previous"] == f"{call.fake.url}{ROOT}?page_size=2"


@pytest.mark.parametrize("page", ["2", "0", "-1", "x"])
async def test_a_page_that_is_not_there_is_a_404(call: Caller, page: str) -> None:
    """The words are Django REST Framework's."""
    assert (await call("GET", f"{ROOT}?page={page}"))[:2] == (404, {"detail": "Invalid page."})


async def test_the_list_may_be_a_bare_array(session: aiohttp.ClientSession) -> None:
    """The older documented form has every key at once."""
    async with FakeRespan(list_shape="array", page_size=1) as fake:
        call = Caller(fake, session)
        ids = [(await call.create())["id"] for _ in range(3)]

        assert [k["id"] for k in (await call("GET"))[1]] == ids[::-1]


# ---- what Django and Django REST Framework say


@pytest.mark.parametrize("path", [ROOT[:-1], f"{ROOT}abc", f"{ROOT[:-1]}?page=2"])
async def test_a_path_without_its_slash_is_redirected(call: Caller, path: str) -> None:
    """A 301 to the path with it, whatever the method, and nothing is made."""
    bare, question, query = path.partition("?")

    status, _, headers = await call("POST", path, json={})

    assert (status, headers["Location"]) == (301, f"{bare}/{question}{query}")
    assert call.fake.counts.created == 0


@pytest.mark.parametrize("path", ["/", "/api/", "/api/temporary-key/", f"{ROOT}a/b/", "/api/temporary-keysx/"])
async def test_a_missing_route_answers_html(call: Caller, path: str) -> None:
    """Django's router knows nothing of JSON."""
    status, text, headers = await call("GET", path)

    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert "<h1>Not Found</h1>" in text


async def test_a_wrong_method_is_a_405(call: Caller) -> None:
    """It says what is allowed."""
    status, body, headers = await call("PUT", item("x"))

    assert (status, body) == (405, {"detail": 'Method "PUT" not allowed.'})
    assert headers["Allow"] == "GET, PATCH, DELETE"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic test-key", "Bearer wrong"])
async def test_a_token_that_is_missing_or_wrong_is_a_401(call: Caller, header: str) -> None:
    """It comes with a challenge, and before the limit is asked."""
    status, body, headers = await call("POST", json={}, headers={"Authorization": header})

    assert (status, list(body), headers["WWW-Authenticate"]) == (401, ["detail"], "Bearer")
    assert call.fake.admissions == []


async def test_tokens_may_be_several_or_forbidden(session: aiohttp.ClientSession) -> None:
    """Every accepted token works, and a forbidden one gets 403."""
    async with FakeRespan(api_keys=("one", "two"), forbidden_keys=("three",)) as fake:
        call = Caller(fake, session)

        assert fake.api_key == "one"
        assert [(await call("GET", token=token))[0] for token in ("one", "two", "three", "four")] == [
            200,
            200,
            403,
            401,
        ]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "x" * 51, "Ensure this field has no more than 50 characters."),
        ("name", None, "This field may not be null."),
        ("name", "", "This field may not be blank."),
        ("name", True, "Not a valid string."),
        ("name", "a\x00", "Null characters are not allowed."),
        ("max_usage", 0, "Ensure this value is -1 or greater than 0."),
        ("max_usage", -2, "Ensure this value is greater than or equal to -1."),
        ("max_usage", "many", "A valid integer is required."),
        ("max_usage", True, "A valid integer is required."),
        ("max_usage", None, "This field may not be null."),
        ("rate_limit", -1, "Ensure this value is greater than or equal to 0."),
        ("rate_limit", 1.5, "A valid integer is required."),
        ("spending_limit", -0.5, "Ensure this value is greater than or equal to 0."),
        ("spending_limit", "much", "A valid number is required."),
        ("spending_limit", [], "A valid number is required."),
        ("spending_limit", "inf", "A valid number is required."),
        ("is_test", "perhaps", "Must be a valid boolean."),
        ("is_test", None, "This field may not be null."),
        ("expiry_date", "tomorrow", "Datetime has wrong format."),
        ("expiry_date", "2030-01-01", "Datetime has wrong format."),
        ("expiry_date", 5, "Datetime has wrong format."),
        ("expiry_date", "0001-01-01T00:00:00+05:00", "Datetime has wrong format."),
        ("spending_limit", 10**400, "A valid number is required."),
        ("limit_policies", {}, 'Expected a list of items but got type "dict".'),
        ("limit_policies", [1], "Invalid data. Expected a dictionary, but got int."),
        ("limit_policies", [{"max_value": 1}], "period: This field is required."),
    ],
)
async def test_a_wrong_field_is_named(call: Caller, field: str, value: object, sentence: str) -> None:
    """The body is the bare form: a list of sentences for each field that is wrong."""
    status, body, _ = await call("POST", json={field: value, "unknown": object.__name__})

    assert (status, list(body)) == (400, [field])
    assert body[field][0].startswith(sentence)
    assert call.fake.counts.created == 0


async def test_fields_are_taken_as_the_server_takes_them(call: Caller) -> None:
    """Nulls where allowed, numbers in strings, dates without a zone, other zones; unknown fields are ignored."""
    body = await call.create(
        name="  padded ", rate_limit=None, spending_limit=None, max_usage="3", expiry_date="2030-01-01T02:00:00+02:00",
        is_test="true", limit_policies=[{"max_value": 1, "period": "day"}], unknown=1,
    )  # fmt: skip
    naive = await call.create(expiry_date="2030-01-01T00:00:00", spending_limit="2.5", max_usage=4.0)

    assert (body["name"], body["max_usage"], body["is_test"]) == ("padded", 3, True)
    assert (await call.create(is_test="False"))["is_test"] is False
    assert body["expiry_date"] == naive["expiry_date"] == "2030-01-01T00:00:00Z"
    assert (naive["spending_limit"], naive["max_usage"]) == (2.5, 4)
    assert "unknown" not in body
    assert call.fake.keys[body["id"]].body["unknown"] == 1


@pytest.mark.parametrize(
    ("body", "start"),
    [
        (b"{", "JSON parse error - Expecting property name"),
        (b'{"spending_limit": NaN}', "JSON parse error - Out of range float values are not JSON compliant: 'NaN'"),
        (b"\xff", "JSON parse error - 'utf-8' codec"),
        (b"[" * 100_000, "JSON parse error - "),
    ],
)
async def test_a_body_that_is_no_json_is_a_400(call: Caller, body: bytes, start: str) -> None:
    """The words are the parser's."""
    status, answer, _ = await call("POST", data=body, headers={"Content-Type": "application/json"})

    assert status == 400
    assert answer["detail"].startswith(start)


async def test_a_body_of_another_kind_is_refused(call: Caller) -> None:
    """JSON that is no object is a 400, and what is not said to be JSON a 415."""
    status, body, _ = await call("POST", json=[1])
    assert (status, body) == (400, {"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]})
    status, body, _ = await call("POST", data=b"name=x", headers={"Content-Type": "text/plain"})
    assert (status, body) == (415, {"detail": 'Unsupported media type "text/plain" in request.'})


# ---- limits


async def test_the_limit_is_shared_by_all_operations(call: Caller) -> None:
    """Sixty requests in a minute are sixty requests of any kind, and a refused one does not count."""
    call.fake.limit = SlidingLog(3, per=60)
    made = await call.create()
    await call("GET")
    await call("GET", item(made["id"]))

    status, body, headers = await call("DELETE", item(made["id"]))

    assert (status, body) == (429, {"detail": "Rate limit exceeded", "retry_after": 60})
    assert "Retry-After" not in headers
    assert (len(call.fake.admissions), call.fake.max_in_window(60), call.fake.counts.refused) == (3, 3, 1)
    assert call.fake.counts.alive == 1


@pytest.mark.parametrize(
    ("where", "digits", "body", "header"),
    [
        ("body", 0, {"detail": "Rate limit exceeded", "retry_after": 60}, None),
        ("header", 0, {"detail": "Request was throttled. Expected available in 60 seconds."}, "60"),
        ("both", 0, {"detail": "Rate limit exceeded", "retry_after": 60}, "60"),
        ("none", 0, {"detail": "Rate limit exceeded"}, None),
    ],
)
async def test_a_refusal_tells_where_it_was_told_to(
    session: aiohttp.ClientSession, where: Any, digits: int, body: object, header: str | None
) -> None:
    """The wait is in the body, in the header, in both or in neither."""
    async with FakeRespan(limit=FixedWindow(1, per=1e9), retry_after=where, retry_after_digits=digits) as fake:
        call = Caller(fake, session)
        fake.limit = SlidingLog(1, per=60)
        await call.create()

        status, answer, headers = await call("POST", json={})

        assert (status, answer, headers.get("Retry-After")) == (429, body, header)


async def test_a_refusal_may_be_precise(session: aiohttp.ClientSession) -> None:
    """With digits to keep, the wait is rounded up to them."""
    async with FakeRespan(limit=Bucket(1, per=0.5, burst=1), retry_after_digits=3) as fake:
        call = Caller(fake, session)
        await call.create()

        _, answer, _ = await call("POST", json={})

        assert 0.3 < answer["retry_after"] <= 0.5
        assert round(answer["retry_after"], 3) == answer["retry_after"]


# ---- faults


async def test_a_script_is_followed_in_order_by_its_operation_only(call: Caller) -> None:
    """Each request takes one name; other operations pass by, and an empty script is good behaviour."""
    call.fake.script("error_500", "ok", "html_502")
    call.fake.script("conflict_409", operation="list")

    created = [(await call("POST", json={}))[0] for _ in range(4)]
    listed = [(await call("GET"))[0] for _ in range(2)]

    assert (created, listed) == ([500, 201, 502, 201], [409, 200])
    assert call.fake.counts.by_status == {500: 1, 201: 2, 502: 1, 409: 1, 200: 1}
    assert [record.answered for record in call.fake.keys.values()] == [True, True]


async def test_a_script_for_any_operation_meets_the_next_request(call: Caller) -> None:
    """Whatever that is for."""
    call.fake.script("error_500", "forbidden_403", operation="any")

    assert [(await call(method))[0] for method in ("GET", "POST", "GET")] == [500, 403, 200]


async def test_a_request_refused_by_the_limit_leaves_its_fault_to_the_next(call: Caller) -> None:
    """A fault comes after the limit; a refusal by script asks no limit and takes no slot."""
    call.fake.limit = SlidingLog(1, per=60)
    call.fake.script("refuse:2.5", "ok", "error_500")

    answers = [(await call("POST", json={}))[:2] for _ in range(3)]
    call.fake.limit = None

    assert answers[0] == (429, {"detail": "Rate limit exceeded", "retry_after": 2.5})
    assert [status for status, _ in answers] == [429, 201, 429]
    assert (await call("POST", json={}))[0] == 500
    assert (len(call.fake.admissions), call.fake.counts.refused) == (2, 2)


async def test_chance_is_the_seeds(session: aiohttp.ClientSession) -> None:
    """The same seed gives the same faults, ids and secrets, another seed others."""

    async def run(seed: int) -> tuple[list[int], list[str]]:
        async with FakeRespan(seed=seed) as fake:
            fake.chance("error_500", 0.5)
            call = Caller(fake, session)
            return [(await call("POST", json={}))[0] for _ in range(30)], [r.api_key for r in fake.keys.values()]

    first, again, other = await run(1), await run(1), await run(2)

    assert first == again != other
    assert {500, 201} == set(first[0])


@pytest.mark.parametrize(
    ("names", "operation", "message"),
    [
        (("resset",), "create", "no fault 'resset'; there are ok, "),
        (("reset:5",), "create", "takes no argument"),
        (("refuse:soon",), "create", "a number of seconds"),
        (("reset",), "post", "no operation 'post'; there are create, "),
    ],
)
async def test_a_script_with_a_mistake_is_refused(
    fake: FakeRespan, names: tuple[str, ...], operation: str, message: str
) -> None:
    """The message says what there is."""
    with pytest.raises(ValueError, match=message):
        fake.script(*names, operation=operation)


async def test_a_scripted_refusal_waits_a_whole_second_in_the_header(session: aiohttp.ClientSession) -> None:
    """Retry-After has no fraction unless the script asks for one."""
    async with FakeRespan(retry_after="header") as fake:
        fake.script("refuse", "refuse:0.5")
        call = Caller(fake, session)

        assert [(await call("POST", json={}))[2]["Retry-After"] for _ in range(2)] == ["1", "0.5"]


async def test_a_chance_is_a_probability(fake: FakeRespan) -> None:
    """Percentages are a mistake."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        fake.chance("reset", 2)


STATUSES: dict[str, tuple[int, int, object]] = {
    "ok": (201, 1, None),
    "refuse": (429, 0, {"detail": "Rate limit exceeded", "retry_after": 1}),
    "refuse_bare": (429, 0, ""),
    "html_502": (502, 0, None),
    "html_502_after": (502, 1, None),
    "error_500": (500, 0, {"detail": "Internal server error", "error_code": "INTERNAL_ERROR"}),
    "unavailable_503": (503, 0, None),
    "timeout_408": (408, 0, None),
    "too_early_425": (425, 0, None),
    "unauthorized_401": (401, 0, None),
    "forbidden_403": (403, 0, None),
    "conflict_409": (409, 0, {"error": "Conflict."}),
    "unprocessable_422": (
        422,
        0,
        {"detail": "Validation error", "errors": {"name": ["This value is not valid."]}},
    ),
    "redirect": (307, 0, ""),
    "empty_2xx": (201, 1, ""),
    "not_json": (201, 1, None),
    "no_api_key": (201, 1, None),
    "null_api_key": (201, 1, None),
    "number_api_key": (201, 1, None),
}
"""Name: the status seen, the keys made, and the body (None: looked at elsewhere)."""
CUT_OFF = {
    "reset": (aiohttp.ClientOSError, 0),
    "lose_answer_after_create": (aiohttp.ClientOSError, 1),
    "disconnect_after_create": (aiohttp.ServerDisconnectedError, 1),
    "late_create": (aiohttp.ClientOSError, 0),
    "truncate": (aiohttp.ClientPayloadError, 1),
    "garbage": (aiohttp.ClientResponseError, 1),
}
"""Name: what aiohttp raises, and the keys made by then."""
ELSEWHERE = {"stall", "stall_before", "huge"}


def test_every_fault_is_tried() -> None:
    """The tables of these tests have every name."""
    assert STATUSES.keys() | CUT_OFF.keys() | ELSEWHERE == FAULTS.keys()


@pytest.mark.parametrize("name", STATUSES)
async def test_a_fault_with_an_answer(call: Caller, name: str) -> None:
    """The status, the body and the number of keys made are those of the table."""
    status, created, body = STATUSES[name]
    call.fake.script(name)

    seen, answer, headers = await call("POST", json={"name": "n"})

    assert (seen, call.fake.counts.created, call.fake.counts.by_status) == (status, created, {status: 1})
    if body is not None:
        assert answer == body
    if name.startswith("html") or name == "not_json":
        assert headers["Content-Type"].startswith("text/html")
        assert answer.startswith("<!doctype html>")
    assert "Retry-After" not in headers
    assert [r.answered for r in call.fake.keys.values()] == [name == "ok"] * created
    assert len(call.fake.admissions) == (0 if name.startswith("refuse") else 1)


async def test_the_faults_of_api_key(call: Caller) -> None:
    """The answer is whole but for `api_key`: absent, null, a number."""
    call.fake.script("no_api_key", "null_api_key", "number_api_key")

    answers = [await call.create() for _ in range(3)]

    assert [body.get("api_key", "absent") for body in answers] == ["absent", None, 12345]
    assert all(body["id"] in call.fake.keys for body in answers)


async def test_a_redirect_leads_to_another_host(call: Caller) -> None:
    """A client that follows it gives its token away."""
    call.fake.script("redirect")

    assert (await call("POST", json={}))[2]["Location"] == "https://elsewhere.example/api/temporary-keys/"


@pytest.mark.parametrize("name", CUT_OFF)
async def test_a_fault_without_an_answer(call: Caller, name: str) -> None:
    """The client sees the connection end, and only the server knows whether a key was made."""
    error, created = CUT_OFF[name]
    call.fake.script(f"{name}:60" if name == "late_create" else name)

    with pytest.raises(error):
        await call("POST", json={})

    assert (call.fake.counts.created, call.fake.counts.by_status) == (created, {0: 1})
    assert not any(record.answered for record in call.fake.keys.values())
    assert len(call.fake.unheld([])) == created


@pytest.mark.parametrize(("name", "is_reset"), [("reset", True), ("disconnect_after_create", False)])
async def test_a_reset_is_one_and_a_disconnect_is_none(fake: FakeRespan, name: str, is_reset: bool) -> None:
    """On the wire the one is RST, the other FIN, and neither sends a byte."""
    fake.script(name)

    if is_reset:
        with pytest.raises(ConnectionResetError):
            await exchange(fake)
    else:
        assert await exchange(fake) == b""


async def test_a_truncated_answer_stops_in_its_middle(fake: FakeRespan) -> None:
    """The headers promise more than comes."""
    fake.script("truncate")

    head, _, body = (await exchange(fake)).partition(b"\r\n\r\n")

    length = int(head.split(b"Content-Length: ")[1])
    assert head.startswith(b"HTTP/1.1 201 ")
    assert len(body) == length // 2


async def test_a_truncated_delete_stops_in_its_head(call: Caller) -> None:
    """There is no body to cut."""
    key = await call.create()
    call.fake.script("truncate", operation="delete")

    answer = await exchange(call.fake, f"DELETE {item(key['id'])}", b"")

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"\r\n\r\n" not in answer
    assert call.fake.counts.revoked == 1


async def test_garbage_is_no_http(fake: FakeRespan) -> None:
    """Not even the first line is."""
    fake.script("garbage")

    assert not (await exchange(fake)).startswith(b"HTTP/")


async def test_a_late_create_happens_after_the_connection_ended(call: Caller) -> None:
    """First nothing, then, once it has settled, a key that nobody was told of."""
    call.fake.script("late_create:0.01")
    with pytest.raises(aiohttp.ClientOSError):
        await call("POST", json={"name": "tardy"})
    assert call.fake.keys == {}

    await call.fake.settle()

    (record,) = call.fake.keys.values()
    assert (record.name, record.late, record.answered) == ("tardy", True, False)
    assert call.fake.unheld([]) == [record]
    assert call.fake.unheld([record.id]) == []


@pytest.mark.parametrize(("name", "created"), [("stall", 1), ("stall_before", 0)])
async def test_a_stall_lasts_until_the_client_goes_away(call: Caller, name: str, created: int) -> None:
    """No answer comes; the request is over when the client gives up."""
    call.fake.script(name)
    calling = asyncio.create_task(call("POST", json={}))
    await until(lambda: call.fake.counts.requests and call.fake.counts.created == created)

    await asyncio.wait({calling}, timeout=0.02)
    assert not calling.done()
    calling.cancel()
    await until(lambda: call.fake.counts.by_status)

    assert (call.fake.counts.created, call.fake.counts.by_status) == (created, {0: 1})


async def test_a_stall_does_not_outlive_the_server(session: aiohttp.ClientSession) -> None:
    """Leaving the `async with` resets it, and leaves no task of the server behind."""
    before = asyncio.all_tasks()
    async with FakeRespan() as fake:
        fake.script("stall", "late_create:100")
        call = Caller(fake, session)
        stalled = asyncio.create_task(call("POST", json={}))
        await until(lambda: bool(fake.keys))
        with pytest.raises(aiohttp.ClientOSError):
            await call("POST", json={})

    with pytest.raises(aiohttp.ClientError):
        await stalled
    assert asyncio.all_tasks() == before


async def test_a_huge_answer_is_streamed(fake: FakeRespan, session: aiohttp.ClientSession) -> None:
    """Its body goes on until the client has had enough; the key is there."""
    fake.script("huge")

    async with session.post(fake.url + ROOT, headers={"Authorization": f"Bearer {fake.api_key}"}, json={}) as response:
        start = await response.content.readexactly(2**20)
        response.close()

    assert (response.status, start.strip(), fake.counts.created) == (201, b"", 1)


async def test_a_huge_answer_has_fifty_megabytes(fake: FakeRespan, session: aiohttp.ClientSession) -> None:
    """A client that reads on gets them all."""
    fake.script("huge")
    size = 0

    async with session.post(fake.url + ROOT, headers={"Authorization": f"Bearer {fake.api_key}"}, json={}) as response:
        async for chunk in response.content.iter_any():
            size += len(chunk)

    assert size == 50 * 2**20


async def test_a_fault_leaves_a_bad_request_what_it_is(call: Caller) -> None:
    """What spoils a success has nothing to spoil in a 400."""
    call.fake.script("no_api_key", "not_json", "huge")

    assert [(await call("POST", json={"max_usage": 0}))[0] for _ in range(3)] == [400, 400, 400]


async def test_faults_meet_other_operations_too(call: Caller) -> None:
    """A delete can lose its answer as a create can."""
    key = await call.create()
    call.fake.script("html_502_after", operation="delete")
    call.fake.script("not_json", "no_api_key", operation="list")

    assert (await call("DELETE", item(key["id"])))[0] == 502
    assert call.fake.keys[key["id"]].revoked
    assert (await call("GET"))[1].startswith("<!doctype")
    assert (await call("GET"))[1]["results"] == []


# ---- outage, latency, counts, time


async def test_an_outage_refuses_and_resets(call: Caller) -> None:
    """While it lasts nothing gets in, on open connections neither; the moment it ends all is well, on the same port."""
    await call.create()
    url = call.fake.url

    call.fake.down = True
    assert call.fake.down
    with pytest.raises(aiohttp.ClientConnectionError):
        await call("GET")
    with pytest.raises(aiohttp.ClientConnectorError):
        await call("POST", json={})
    call.fake.down = False
    call.fake.down = False  # which changes nothing

    assert (await call("POST", json={}))[0] == 201
    assert (call.fake.url, call.fake.counts.created, call.fake.down) == (url, 2, False)


async def test_an_outage_resets_who_had_just_connected(fake: FakeRespan) -> None:
    """However far the event loop had come with the connection when it began."""
    port = int(fake.url.rsplit(":", 1)[1])
    for turns in (0, 1, 3, 4, 5):  # after the second, asyncio itself forgets the connection
        client = socket.create_connection(("127.0.0.1", port))
        for _ in range(turns):
            await asyncio.sleep(0)
        fake.down = True
        client.setblocking(False)

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 10)
        client.close()
        fake.down = False


@pytest.mark.parametrize("fault", ["garbage", "disconnect_after_create", "lose_answer_after_create", "truncate"])
async def test_who_has_gone_is_not_answered(fault: str) -> None:
    """A client that goes while the server works leaves nothing to be spoiled; the work is done."""
    async with FakeRespan(latency=0.03) as fake:
        fake.script(fault)
        going = asyncio.create_task(exchange(fake))
        await until(lambda: bool(fake.counts.requests))
        going.cancel()

        await until(lambda: bool(fake.counts.by_status))

        assert fake.counts.by_status == {0: 1}
        assert fake.counts.created == 1


async def test_an_outage_loses_answers_and_not_work(session: aiohttp.ClientSession) -> None:
    """A request under way when it begins is done, and its answer lost."""
    async with FakeRespan(latency=0.02) as fake:
        pending = asyncio.create_task(Caller(fake, session)("POST", json={}))
        await until(lambda: bool(fake.counts.requests))

        fake.down = True

        with pytest.raises(aiohttp.ClientConnectionError):
            await pending
        await until(lambda: bool(fake.counts.by_status))
        assert [record.answered for record in fake.keys.values()] == [False]


async def test_the_counts_are_a_snapshot_of_what_happened(session: aiohttp.ClientSession) -> None:
    """Requests, connections and keys are counted, and the snapshot stays as it is."""
    async with FakeRespan(latency=(0.001, 0.005)) as fake:
        call = Caller(fake, session)
        before = fake.counts
        made = await asyncio.gather(*(call.create(expiry_date="2020-01-01T00:00:00Z" if i else None) for i in range(5)))
        await call("DELETE", item(made[0]["id"]))
        await call("GET", "/nowhere")

        assert before.requests == 0
        counts = fake.counts
        assert (counts.requests, counts.created, counts.revoked, counts.alive, counts.refused) == (7, 5, 1, 0, 0)
        assert counts.by_operation == {"create": 5, "delete": 1, "other": 1}
        assert counts.by_status == {201: 5, 204: 1, 404: 1}
        assert (counts.max_in_flight, counts.connections) == (5, 5)


async def test_ids_need_encoding(call: Caller) -> None:
    """Among some keys of shape "a" there are ids with a slash, which are found only when it is encoded."""
    ids = [(await call.create())["id"] for _ in range(20)]

    assert any("/" in key_id for key_id in ids)
    assert {(await call("GET", item(key_id)))[0] for key_id in ids} == {200}
    assert len(set(ids)) == 20


async def test_it_must_be_running() -> None:
    """Before `async with` there is no address."""
    with pytest.raises(RuntimeError, match="async with"):
        _ = FakeRespan().url


def test_an_hour_passes_in_a_moment(virtual: Virtual[Any]) -> None:
    """On a loop with virtual time a client obeys every refusal for an hour, and the server's clock goes along."""

    async def main() -> None:
        async with FakeRespan(limit=SlidingLog(60, per=60), latency=0.05) as fake, aiohttp.ClientSession() as session:
            call, start = Caller(fake, session), fake.now()

            async def worker() -> None:
                done = 0
                while done < 180:
                    status, body, _ = await call("POST", json={})
                    if status == 429:
                        await asyncio.sleep(body["retry_after"])
                    done += status == 201

            await asyncio.gather(*(worker() for _ in range(20)))

            assert fake.counts.created == 3600
            assert fake.max_in_window(60) == 60
            assert fake.now() - start >= timedelta(minutes=59)
            assert fake.now() > datetime.now(UTC) + timedelta(minutes=58)

    virtual(main)


def test_faults_and_outages_work_in_virtual_time(virtual: Virtual[Any]) -> None:
    """Expiry, late creates, an outage and dropped connections need no real second."""

    async def main() -> None:
        async with FakeRespan() as fake, aiohttp.ClientSession() as session:
            call = Caller(fake, session)
            fake.script("reset", "late_create:3600", "truncate", "garbage", "disconnect_after_create", "stall")
            for _ in range(5):
                with pytest.raises(aiohttp.ClientError):
                    await call("POST", json={})
            with pytest.raises(TimeoutError):
                await call("POST", json={}, timeout=aiohttp.ClientTimeout(total=30))
            fake.down = True
            with pytest.raises(aiohttp.ClientConnectorError):
                await call("POST", json={})
            await asyncio.sleep(60)
            fake.down = False
            lifetime = fake.now() + timedelta(hours=2)
            await call.create(expiry_date=lifetime.isoformat())
            await fake.settle()
            assert fake.counts.alive == 6
            await asyncio.sleep(7200)
            assert fake.counts.alive == 5
            assert [record.late for record in fake.keys.values()] == [False] * 5 + [True]

    virtual(main)


@pytest.mark.parametrize("shape", ["a", "b"])
def test_the_shapes_are_the_documented_ones(shape: str) -> None:
    """The lists of fields in this file are those of the documented samples."""
    sample = json.loads((Path(__file__).parents[1] / "samples" / f"create-response-{shape}.json").read_text())

    assert ", ".join(sample) == SAMPLES[shape]


# ---- what came in, and the clock


async def test_requests_are_kept_as_they_came(call: Caller) -> None:
    """With what they asked for as JSON; refused and wrong ones too, and nothing of the token in what is shown."""
    made = await call.create(name="a", max_usage=3)
    await call("PATCH", item(made["id"]), json={"name": "b"})
    await call("GET", f"{ROOT}?page=2")
    await call("POST", data=b"{no", headers={"Content-Type": "application/json"})

    created, updated, listed, wrong = call.fake.requests
    assert (created.operation, created.method, created.json) == ("create", "POST", {"name": "a", "max_usage": 3})
    assert (updated.operation, updated.key_id, updated.json) == ("update", made["id"], {"name": "b"})
    assert (listed.operation, listed.path, listed.json) == ("list", f"{ROOT}?page=2", None)
    assert wrong.body == b"{no"
    with pytest.raises(ValueError, match="property name"):
        _ = wrong.json
    assert created.headers["authorization"] == f"Bearer {call.fake.api_key}"
    assert call.fake.api_key not in repr(created)


async def test_time_passes_at_once(call: Caller) -> None:
    """A limit has room again, keys expire, and what takes its time has had it; nothing else on the loop notices."""
    call.fake.limit = SlidingLog(2, per=60)
    began, told = asyncio.get_running_loop().time(), list[float]()
    call.fake.followers.append(told.append)
    await call.create(expiry_date=(call.fake.now() + timedelta(seconds=30)).isoformat())
    call.fake.script("late_create:50")
    with pytest.raises(aiohttp.ClientConnectionError):
        await call("POST")
    refused, alive = (await call("POST"))[0], len(call.fake.alive())
    call.fake.advance(60)
    await call.fake.settle()

    assert (refused, alive) == (429, 1)
    assert [key.late for key in call.fake.alive()] == [True]
    assert (await call("POST"))[0] == 201
    assert call.fake.max_in_window(60) == 2
    assert told == [60]
    assert asyncio.get_running_loop().time() - began < 10


async def test_a_slow_request_is_over_when_its_time_has_passed(session: aiohttp.ClientSession) -> None:
    """What has longer to wait goes on waiting, for the rest."""
    async with FakeRespan(latency=100) as fake:
        slow = asyncio.create_task(Caller(fake, session)("POST"))
        await until(lambda: len(fake.requests) == 1)
        fake.advance(49)
        await asyncio.sleep(0.01)
        created_too_early = fake.counts.created
        fake.advance(2)
        await until(lambda: fake.counts.created == 1)
        fake.advance(50)
        status, _, _ = await slow

    assert (created_too_early, status) == (0, 201)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_time_does_not_go_back(fake: FakeRespan, seconds: float) -> None:
    """Nor nowhere."""
    with pytest.raises(ValueError, match="0 or more"):
        fake.advance(seconds)


async def test_a_fault_by_chance_that_a_refusal_came_before_is_nobodys() -> None:
    """There is no script for it to go back to; the next request has a chance of its own."""
    async with FakeRespan(limit=SlidingLog(1, per=60.0)) as fake, aiohttp.ClientSession() as session:
        fake.chance("conflict_409", 1.0)
        caller = Caller(fake, session)
        statuses = [(await caller("POST", json={}))[0] for _ in range(3)]

    assert statuses == [409, 429, 429]
