"""The protocol without sockets: requests out, answers in."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_async import (
    APIStatusError,
    BadRequestError,
    CreatedKey,
    Effect,
    InvalidRequestError,
    InvalidResponseError,
    KeyPage,
    RateLimitError,
    Secret,
    TemporaryKey,
)
from respan_async._http.key_ids import MAX_ID
from respan_async._http.operations import PATH, Request, create, delete, list_page, retrieve, update
from respan_async._http.response import Response, TransportFailure
from respan_async._http.response_parsing import answered_id, failure, read

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
TOKEN = Secret("bearer-token")
CREATION = create({})


class Headers(dict[str, str]):
    """Names as aiohttp has them: whatever their case."""

    def get(self, name: str, default: Any = None) -> Any:
        """Look a header up."""
        return next((value for key, value in self.items() if key.lower() == name.lower()), default)


def refused(
    body: object = None,
    status: int = 429,
    headers: Mapping[str, str] | None = None,
    request: Request[Any] | None = None,
) -> APIStatusError:
    """Give the error of an answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = failure(
        create({}) if request is None else request, Response(status, Headers(headers or {}), text), TOKEN, NOW
    )
    assert isinstance(error, APIStatusError)
    return error


# ------------------------------------------------------------------ requests


def test_every_request_has_its_place() -> None:
    """Method, path with its slash, and body."""
    assert (create({}).operation.method, create({}).path, create({}).body) == ("POST", "/api/temporary-keys/", b"{}")
    assert (list_page(2, None).operation.method, list_page(2, None).path) == ("GET", "/api/temporary-keys/?page=2")
    assert list_page(1, 50).path == "/api/temporary-keys/?page=1&page_size=50"
    assert (retrieve("i").operation.method, retrieve("i").path) == ("GET", "/api/temporary-keys/i/")
    assert (delete("i").operation.method, delete("i").path, delete("i").body) == (
        "DELETE",
        "/api/temporary-keys/i/",
        None,
    )
    assert (update("i", {"a": None}).operation.method, update("i", {"a": None}).body) == ("PATCH", b'{"a":null}')


@pytest.mark.parametrize(
    ("key_id", "path"),
    [
        ("vcjRcdm8.pbkdf2_sha256$1$a+b/c=", "vcjRcdm8.pbkdf2_sha256%241%24a%2Bb%2Fc%3D"),
        ("vcjRcdm8...", "vcjRcdm8..."),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("a%2Fb", "a%252Fb"),
        ("a?page=2#x", "a%3Fpage%3D2%23x"),
        ("a b\t", "a%20b%09"),
        ("schlüssel", "schl%C3%BCssel"),
        ("\U0001f511", "%F0%9F%94%91"),
        ("a;b,c:d@e!f'g(h)*", "a%3Bb%2Cc%3Ad%40e%21f%27g%28h%29%2A"),
        ("...", "..."),
        ("a..b", "a..b"),
        ("a\r\nHost: x", "a%0D%0AHost%3A%20x"),
    ],
)
def test_an_id_is_one_segment_of_a_path(key_id: str, path: str) -> None:
    """Whatever it holds: nothing of it reaches the path as it is."""
    for request in (retrieve(key_id), update(key_id, {}), delete(key_id)):
        assert request.path == f"{PATH}{path}/"


@pytest.mark.parametrize(
    "key_id",
    [
        *("", " ", "\n", ".", "..", "a/../b", "../x", "x/..", "./x", "a/./b", "..\\x", "a\\..\\b", "/..", "\ud800"),
        *("%2e%2e", "a/%2E%2e", "..%2Fx", "a%5c..%5cb", "..;", "..;a=b/x", "a" * 513),
        *(None, 5, b"id", True, ["id"]),
    ],
    ids=repr,
)
def test_an_id_that_names_another_place_is_refused(key_id: Any) -> None:
    """Some proxy between here and there would decode it and go elsewhere: DELETE on the collection, say."""
    for make in (retrieve, delete, lambda key: update(key, {})):
        with pytest.raises(InvalidRequestError, match="id: expected"):
            make(key_id)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_other_id_arrives(key_id: str) -> None:
    """What the server decodes is what was given, and has no slash of its own."""
    try:
        path = retrieve(key_id).path
    except InvalidRequestError:
        return
    segment = path.removeprefix(PATH).removesuffix("/")
    assert "/" not in segment
    assert segment.isascii()
    assert unquote(segment) == key_id


def test_a_body_is_not_in_a_repr() -> None:
    """Requests and answers are locals of frames, and so in tracebacks."""
    assert "secret" not in repr(create({"name": "secret"}))
    assert "secret" not in repr(Response(200, {"X": "secret"}, b"secret"))


# ------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "Not found."}, "Not found."),
        ({"error": "Conflict."}, "Conflict."),
        ({"detail": "Validation error", "errors": {"name": ["Too long."]}}, "Validation error; name: Too long."),
        ({"name": ["Too long.", "Odd."], "max_usage": ["Too low."]}, "name: Too long. Odd.; max_usage: Too low."),
        ({"error": {"message": "Bad", "type": "x", "param": None, "code": 5}}, "Bad"),
        (["One.", "Two."], "One. Two."),
        ("A sentence.", "A sentence."),
        ({"limit_policies": [{"period": ["Wrong."]}]}, "limit_policies: period: Wrong."),
    ],
)
def test_what_the_server_said_is_in_the_message(body: object, said: str) -> None:
    """In each of its shapes."""
    error = refused(body, 400)

    assert str(error) == f"POST {PATH}: answered 400: {said}"
    assert isinstance(error, BadRequestError)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", {}, None, 5, [], {"detail": 5}, {"a": {"b": None}}, b"\xff"),
        *(b"[" * 990 + b"]" * 990, b'{"a":' * 330 + b"1" + b"}" * 330, b"[" * 9999),
    ],
    ids=lambda body: repr(body)[:20],
)
def test_a_body_that_says_nothing_is_no_problem(body: object) -> None:
    """The message is then the status alone; the body is there to be looked at."""
    error = refused(body, 400)

    assert str(error) == f"POST {PATH}: answered 400"
    assert isinstance(error.body, str)


def test_a_message_and_a_body_are_bounded() -> None:
    """A server that writes a megabyte does not write it into a log."""
    short = refused({"detail": "x" * 1900}, 400)
    long = refused({"detail": "x" * 2**20}, 400)

    assert 500 < len(str(short)) < 600
    assert len(str(long)) < 100
    assert long.body is not None
    assert len(long.body) == 2000


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda data: json.dumps(data).encode())
)
def test_no_body_breaks_anything(body: bytes) -> None:
    """Every answer is an error of ours."""
    for status in (302, 400, 429, 500):
        assert refused(body, status).status == status


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"api_key": "x.y"}', '{"api_key": "***"}'),
        (b'{"api_key" :"a\\"b"}', '{"api_key" :"***"}'),
        (b'{"api_key": 12345, "id": 1}', '{"api_key": "***", "id": 1}'),
        (b'{"api_key": null}', '{"api_key": "***"}'),
        (b'{"hashed_key": "pbkdf2$salt', '{"hashed_key": "***"'),
        (b"key vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV.", "key vcjRcdm8.***."),
        (rb'"wrong:\nvcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"', r'"wrong:\nvcjRcdm8.***"'),
        (b"Bearer%20vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV", "Bearer%20vcjRcdm8.***"),
        (b"Bearer bearer-token bearer-token", "Bearer *** ***"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_a_body_is_shown_without_secrets(body: bytes, shown: str) -> None:
    """Keys by their names and by their form, and our own token."""
    assert refused(body, 400).body == shown


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "key-1", "key": "rsp_live_0123456789abcdefgh"}',
        b'{"id": "key-1", "key": {"value": "abcdefghijklmnopqrstuvwxyz"}}',
        b'{"api_key": "short", "other": "short"}',
        b'{"api_key": "with - all $ kinds # of ? letters", "x": "y all $ kinds # of ? letters"}',
        b"<b>vcjRcdm8:5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV</b>",
        b"abcdefghijklmnopqrstuvwxyz" * 1000,
    ],
)
def test_a_key_of_a_form_that_nobody_knows_is_not_shown(body: bytes) -> None:
    """A server that has changed made a key, and answered it in its own way; the error goes into a log."""
    unread = read(create({}), Response(201, {}, body), TOKEN)
    too_long = failure(create({}), Response(201, {}, body, oversize=True), TOKEN, NOW)

    for error in (unread, too_long):
        assert isinstance(error, InvalidResponseError)
        assert error.body is not None
        for part in ("0123456789ab", "abcdefghijkl", "short", "all $ kinds # of ? letters", "5hSZiXrA698O"):
            assert part not in error.body


def test_what_a_server_says_is_one_line_that_nothing_obeys() -> None:
    """A message goes into a log, where a line break would begin an entry of the server's own, or onto a terminal."""
    said = "no\r\n2026-01-01 ERROR forged\x1b]0;title\x07\x9b2J\u202edesrever\u2028"

    for body in ({"detail": said}, {"errors": {said: [said]}}, {"error": {"message": said}}, [said]):
        assert str(refused(body, 400)).isprintable()


def test_the_id_of_a_request_is_told() -> None:
    """Where it is one, and not without an end."""
    assert refused(headers={"X-Request-ID": "r-1"}).request_id == "r-1"
    assert refused(headers={"x-request-id": "r" * 999}).request_id == "r" * 200
    assert refused(headers={"X-Request-ID": "a\x00b"}).request_id is None
    assert refused(headers={"X-Request-ID": "r bearer-token"}).request_id == "r ***"
    assert refused().request_id is None


def test_a_redirect_asks_whether_the_host_is_right() -> None:
    """The most likely reason, in the message."""
    assert "is base_url right?" in str(refused(status=301))


# ---------------------------------------------------------------- meanings


@pytest.mark.parametrize("request_", [list_page(1, None), retrieve("i")], ids=lambda request: request.operation.name)
@pytest.mark.parametrize(
    "result",
    [
        TransportFailure("", left=True),
        TransportFailure("", left=True, status=200),
        Response(500, {}, b""),
        Response(302, {}, b""),
    ],
    ids=repr,
)
def test_a_read_changes_nothing(request_: Request[Any], result: Response | TransportFailure) -> None:
    """Whatever happens to its answer."""
    error = failure(request_, result, TOKEN, NOW)

    assert error.effect is Effect.NONE


def test_a_refusal_tells_how_long() -> None:
    """The error carries what the server asked."""
    error = refused({"retry_after": 3}, 429)

    assert isinstance(error, RateLimitError)
    assert (error.retry_after, error.effect, error.retryable) == (3.0, Effect.NONE, True)


# ------------------------------------------------------------------- reading


def test_a_good_answer_is_read() -> None:
    """As the model that was asked for."""
    text = b'{"id": "i", "api_key": "k"}'

    key = read(create({}), Response(201, {}, text), TOKEN)
    assert isinstance(key, CreatedKey)
    assert read(retrieve("i"), Response(200, {}, text), TOKEN) == TemporaryKey(id="i")
    assert read(list_page(1, None), Response(200, {}, b"[]"), TOKEN) == KeyPage()


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"NaN", b"[" * 10_000, b"{}", b'{"id": 1' + b"0" * 5000 + b"}", b"<html>"],
    ids=lambda text: repr(text)[:20],
)
def test_a_bad_answer_is_returned_as_an_error(text: bytes) -> None:
    """Returned, not raised; LOST for a create; with nothing chained to it that holds the answer."""
    requests: list[tuple[Any, Effect]] = [
        (create({}), Effect.LOST),
        (retrieve("i"), Effect.NONE),
        (list_page(1, None), Effect.NONE),
    ]
    for request, effect in requests:
        error = read(request, Response(200, {}, text), TOKEN)

        assert isinstance(error, InvalidResponseError)
        assert (error.effect, error.retryable, error.status) == (effect, False, 200)
        assert error.__cause__ is None
        assert error.__context__ is None


@pytest.mark.parametrize(
    ("body", "key_id"),
    [
        ({"id": "i"}, "i"),
        ({"id": ""}, None),
        ({"id": "a" * 513}, None),
        ({"id": 5}, "5"),
        ({"id": 5.5}, None),
        ({"id": True}, None),
        ({"id": ".."}, None),
        ({"id": "a/../b"}, None),
        ({"id": " "}, None),
        ({"id": "a\nb"}, None),
        ({"id": "x" * 513}, None),
        ({}, None),
        (["i"], None),
        ("i", None),
        (None, None),
    ],
)
def test_an_id_without_a_key_is_remembered(body: object, key_id: str | None) -> None:
    """By it, the key that nobody holds can be revoked; what could not be sent back would only be in the way."""
    assert answered_id(Response(201, {}, json.dumps(body).encode())) == key_id
    assert answered_id(Response(201, {}, b"<html>")) is None


@pytest.mark.parametrize("status", [302, 400, 408, 500, 502, 520])
def test_an_id_in_an_error_is_no_keys(status: int) -> None:
    """It may be the error's, the request's, or that of somebody's key."""
    assert answered_id(Response(status, {}, b'{"id": 42, "error": "database timeout"}')) is None


@pytest.mark.parametrize("status", [0, 99, 101, 199])
def test_a_status_below_200_ends_nothing(status: int) -> None:
    """It is no answer that this client knows; a key may have been made."""
    error = failure(create({}), Response(status, {}, b""), TOKEN, NOW)

    assert isinstance(error, InvalidResponseError)
    assert (error.effect, error.retryable, error.status) == (Effect.UNKNOWN, False, status)
    assert str(error).endswith(f"answered {status}, which ends no request")


def test_the_longest_id_has_a_path() -> None:
    """One that is longer is refused before anything is sent."""
    assert retrieve("i" * MAX_ID).path == f"{PATH}{'i' * MAX_ID}/"
    with pytest.raises(InvalidRequestError, match=f"at most {MAX_ID} characters, got {MAX_ID + 1}"):
        retrieve("i" * (MAX_ID + 1))
