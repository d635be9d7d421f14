"""What a failure means: the table of the design, status by status, for each operation."""

import json
from typing import Any

import pytest

from respan_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    Effect,
    InvalidResponseError,
    RateLimitError,
    RespanError,
    Secret,
)
from respan_async._http.failure_table import is_over_limit, is_refusal, is_success
from respan_async._http.operations import PATH, Request, create, delete, list_page, retrieve, update
from respan_async._http.response import Response, TransportFailure
from respan_async._http.response_parsing import failure, read
from tests.unit.test_response_parsing import NOW, Headers

TOKEN = Secret("bearer-token/1")
CREATE, UPDATE, DELETE = create({}), update("i", {}), delete("i")
READS = (list_page(1, None), retrieve("i"))

NOTHING, REFUSED, UNKNOWN, WRONG_HOST, LOST = (
    (Effect.NONE, False),
    (Effect.NONE, True),
    (Effect.UNKNOWN, True),
    (Effect.UNKNOWN, False),
    (Effect.LOST, False),
)
"""Effect on a create, and whether trying again may help."""


def meant_by(status: int) -> tuple[Effect, bool]:
    """Look an answer to a create up in the table."""
    if status in (425, 429):
        return REFUSED
    if status == 408:
        return UNKNOWN
    if status in (501, 505, 511):
        return NOTHING
    if status in (521, 523, 525, 526, 530):
        return REFUSED
    return {2: LOST, 3: WRONG_HOST, 4: NOTHING, 5: UNKNOWN}[status // 100]


def meaning(request: Request[Any], result: Response | TransportFailure) -> tuple[Effect, bool]:
    """Give what the error says."""
    error = failure(request, result, TOKEN, NOW)
    return error.effect, error.retryable


def test_every_status_means_what_the_table_says() -> None:
    """For a create, from 200 to 599; of a 2xx that fails it is known only that it is of no use."""
    found = {status: meaning(CREATE, Response(status, {}, b"", oversize=status < 300)) for status in range(200, 600)}

    assert found == {status: meant_by(status) for status in range(200, 600)}
    for status, kind in ((299, InvalidResponseError), (300, APIStatusError), (399, APIStatusError)):
        assert type(failure(CREATE, Response(status, {}, b"", oversize=True), TOKEN, NOW)) is kind


def test_an_operation_that_makes_no_key_can_lose_none() -> None:
    """A change whose 2xx cannot be read may have been made, if it was the API that answered."""
    for request in (UPDATE, DELETE):
        assert meaning(request, Response(200, {}, b"", oversize=True)) == (Effect.UNKNOWN, False)
        assert meaning(request, TransportFailure("", left=True, status=200)) == (Effect.UNKNOWN, True)
        assert meaning(request, Response(500, {}, b"")) == (Effect.UNKNOWN, True)


def test_a_read_changes_nothing_whatever_is_answered() -> None:
    """Whether it is worth a second try is the same as for a create."""
    for request in READS:
        for status in (200, 302, 404, 408, 429, 500, 501, 521, 522):
            oversize = status < 300
            assert meaning(request, Response(status, {}, b"", oversize)) == (Effect.NONE, meant_by(status)[1])


@pytest.mark.parametrize(
    ("status", "effect"),
    [(None, Effect.UNKNOWN), (199, Effect.UNKNOWN), (200, Effect.LOST), (299, Effect.LOST), (300, Effect.UNKNOWN)],
)
def test_an_answer_that_broke_off_is_judged_by_its_status(status: int | None, effect: Effect) -> None:
    """A 2xx that began was a key; with anything else nobody knows. Trying again may help."""
    assert meaning(CREATE, TransportFailure("", left=True, status=status)) == (effect, True)


def test_what_never_left_has_done_nothing() -> None:
    """Whatever else is known of it."""
    assert meaning(CREATE, TransportFailure("", left=False, status=200, timed_out=True, not_http=True)) == REFUSED


def test_what_needs_another_setting_is_not_tried_again() -> None:
    """For nothing; what may have left keeps its meaning, whatever broke then."""
    assert meaning(CREATE, TransportFailure("", left=False, permanent=True)) == NOTHING
    assert meaning(CREATE, TransportFailure("", left=True, permanent=True)) == UNKNOWN


def test_what_is_no_http_comes_from_the_wrong_host() -> None:
    """Trying again will not mend it, and the create may have been made."""
    assert meaning(CREATE, TransportFailure("", left=True, status=200, not_http=True)) == WRONG_HOST


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (TransportFailure("it was reset", left=True), APIConnectionError),
        (TransportFailure("it took too long", left=True, timed_out=True), APITimeoutError),
        (TransportFailure("not HTTP", left=True, not_http=True, timed_out=True), InvalidResponseError),
    ],
    ids=lambda value: value.reason if isinstance(value, TransportFailure) else value.__name__,
)
def test_a_call_without_an_answer_says_what_was_seen(result: TransportFailure, kind: type[RespanError]) -> None:
    """And of which request; with the status, where one had arrived."""
    error = failure(UPDATE, result, TOKEN, NOW)

    assert type(error) is kind
    assert str(error) == f"PATCH {PATH}i/: {result.reason}"
    assert error.status is None
    assert failure(UPDATE, TransportFailure("", left=True, status=201), TOKEN, NOW).status == 201


def test_only_a_2xx_that_can_be_read_is_a_success() -> None:
    """From 200 to 299, of which the whole body is there."""
    good = [status for status in range(100, 600) if is_success(Response(status, {}, b""))]

    assert good == list(range(200, 300))
    assert not is_success(Response(200, {}, b"", oversize=True))
    assert not is_success(TransportFailure("", left=True, status=200))


def test_only_429_and_425_are_refusals_by_the_limit() -> None:
    """Every other 4xx is about the request."""
    assert [status for status in range(100, 600) if is_refusal(Response(status, {}, b""))] == [425, 429]
    assert not is_refusal(TransportFailure("", left=True, status=429))


NGINX = b"<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n</html>\r\n"
API = json.dumps({"detail": "Internal server error", "error_code": "INTERNAL_ERROR"}).encode()


@pytest.mark.parametrize(
    "body",
    [NGINX, b"", b"null", b'"detail"', b"[]", b"{}", b'{"message": "limited"}', b'["detail"]'],
    ids=repr,
)
def test_a_status_that_is_named_is_a_refusal_by_a_proxy(body: bytes) -> None:
    """Nothing was made, for the request did not come through; it counts as one by the limit."""
    answer, refusals = Response(503, {}, body), frozenset({503})
    error = failure(CREATE, answer, TOKEN, NOW, refusals)

    assert (error.effect, error.retryable, error.status) == (*REFUSED, 503)
    assert is_refusal(answer, refusals)
    assert is_over_limit(answer, refusals)


@pytest.mark.parametrize(
    "answer",
    [
        Response(503, {}, API),
        Response(503, {}, b'{"error": {"message": "no", "code": 5}}'),
        Response(503, {}, b'{"errors": {}}'),
        Response(503, {}, b'{"error_code": null}'),
        Response(503, {}, b'{"detail": "Internal', cut=True),
        Response(503, {}, NGINX, oversize=True),
        Response(502, {}, NGINX),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:30]!r}",
)
def test_what_the_api_itself_answers_keeps_its_meaning(answer: Response) -> None:
    """A key may have been made. So may it where the body is not whole, or the status was not named."""
    refusals = frozenset({503})
    error = failure(CREATE, answer, TOKEN, NOW, refusals)

    assert (error.effect, error.retryable) == UNKNOWN
    assert not is_refusal(answer, refusals)
    assert not is_over_limit(answer, refusals)


def test_an_origin_that_was_not_reached_is_not_a_refusal() -> None:
    """It speaks of no limit, and a failure that is repeated is to end some time."""
    for status in (501, 505, 508, 511, *range(520, 528), 530):
        assert not is_refusal(Response(status, {}, b""))


def test_a_429_counts_whoever_answers_it_and_whatever_is_named() -> None:
    """Also with the API's own body, which is the documented one, and if it breaks off."""
    for answer in (Response(429, {}, API), Response(429, {}, API[:9], cut=True), Response(429, {}, b"", oversize=True)):
        for refusals in (frozenset[int](), frozenset({503})):
            assert is_over_limit(answer, refusals)
            error = failure(CREATE, answer, TOKEN, NOW, refusals)
            assert (error.effect, error.retryable) == REFUSED


def test_a_request_knows_its_operation() -> None:
    """What is told of it, and whether it makes a key, goes by that."""
    requests = (create({}), list_page(1, None), retrieve("i"), update("i", {}), delete("i"))

    assert [request.operation.name for request in requests] == ["create", "list", "retrieve", "update", "delete"]


# ------------------------------------------------------------------ what is said


HEADERS = Headers({"X-Request-ID": "r bearer-token/1", "Retry-After": "7"})


def test_an_answer_without_a_usable_key_says_why_and_shows_no_token() -> None:
    """The token may come back in the id of the request and in the body, as JSON writes it or as itself."""
    answer = Response(201, HEADERS, b'{"id": "i", "echo": "bearer-token/1 bearer-token\\/1"}')

    error = read(CREATE, answer, TOKEN)

    assert isinstance(error, InvalidResponseError)
    assert str(error).startswith(f"POST {PATH}: answered 201, but ")
    assert "api_key" in str(error)
    assert error.request_id == "r ***"
    assert error.body == '{"id": "i", "echo": "*** ***"}'
    assert error.retryable is False


def test_an_answer_that_is_too_large_says_so() -> None:
    """With what was read of it, which shows no token either."""
    error = failure(CREATE, Response(201, HEADERS, b"bearer-token/1", oversize=True), TOKEN, NOW)

    assert type(error) is InvalidResponseError
    assert str(error) == f"POST {PATH}: the answer is larger than this client reads"
    assert (error.status, error.request_id, error.body) == (201, "r ***", "***")


def test_a_redirect_says_where_it_would_have_gone_wrong() -> None:
    """It is never followed, and most likely the host is wrong."""
    error = failure(CREATE, Response(301, HEADERS, b"bearer-token/1"), TOKEN, NOW)

    assert str(error) == (f"POST {PATH}: answered 301, a redirect, which is never followed; is base_url right?")
    assert (error.status, error.request_id, error.body) == (301, "r ***", "***")


def test_a_refusal_says_what_the_server_said_without_the_token() -> None:
    """JSON can write any text in escapes, which are undone only when the message is read out of it."""
    body = b'{"detail": "for \\u0062earer-token/1: slow down"}'

    error = failure(CREATE, Response(429, HEADERS, body), TOKEN, NOW)

    assert isinstance(error, RateLimitError)
    assert str(error) == f"POST {PATH}: answered 429: for ***: slow down"
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            403,
            b"<!DOCTYPE html>\n<title>Access denied |\n api.respan.ai used Cloudflare</title><body>Error 1020",
            (
                " with a page, not in the API's own JSON ('Access denied | api.respan.ai used Cloudflare'): "
                "the answer of a firewall or proxy in front of the API"
            ),
        ),
        (
            403,
            b"error code: 1020\n",
            (
                " with a page, not in the API's own JSON (error code 1020): "
                "the answer of a firewall or proxy in front of the API"
            ),
        ),
        (
            404,
            b"  <html><h1>Not Found</h1></html>",
            (
                " with a page, not in the API's own JSON (without a title): "
                "the answer of a server without this route; is base_url right?"
            ),
        ),
        (403, b'{"detail": "No."}', ": No."),
        (403, b"", ""),
        (403, b"forbidden", ""),
        (400, b"<html><title>Bad</title></html>", ""),
    ],
)
def test_a_page_in_place_of_the_apis_json_is_told_as_such(status: int, body: bytes, said: str) -> None:
    """Whoever reads it looks at the firewall or the address, and not at the API key."""
    error = failure(CREATE, Response(status, {}, body), TOKEN, NOW)

    assert str(error) == f"POST /api/temporary-keys/: answered {status}{said}"


def test_the_title_of_a_page_shows_no_token_and_is_one_line() -> None:
    """It is the server's word, as any body is."""
    body = b"<html><title>\x1b[2J denied: bearer-token/1</title></html>"

    said = str(failure(CREATE, Response(403, {}, body), TOKEN, NOW))
    assert "bearer-token" not in said
    assert said.isprintable()
    assert "denied: ***" in said


@pytest.mark.parametrize(("length", "said"), [(2_000, True), (2_001, False)])
def test_a_long_body_is_not_searched_for_a_message(length: int, said: bool) -> None:
    """What is shown of it is no longer whole JSON."""
    body = b'{"detail": "no"}'.ljust(length)

    assert str(failure(CREATE, Response(400, {}, body), TOKEN, NOW)).endswith(": no") is said


@pytest.mark.parametrize(("deep", "said"), [(5, "no"), (6, "")])
def test_a_message_is_not_looked_for_at_any_depth(deep: int, said: str) -> None:
    """Five levels down it is one; below that it is somebody's data."""
    body = b"[" * deep + b'"no"' + b"]" * deep

    assert str(failure(CREATE, Response(400, {}, body), TOKEN, NOW)) == f"POST {PATH}: answered 400" + (
        said and f": {said}"
    )


def test_a_key_that_is_cut_in_half_by_the_bound_is_not_shown() -> None:
    """What is long is cut before it is searched, and half a key at the cut is not known for one."""
    token = Secret("t" * 1_000)  # shrinks to three characters, so that the cut is within what is shown
    before = b"t" * 5_000 + b" " * 980
    key = b"vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"

    shown = failure(CREATE, Response(400, {}, before + key), token, NOW).body

    assert shown is not None
    assert shown == "***"
    assert failure(CREATE, Response(400, {}, before[:-22] + key), token, NOW).body == f"***{' ' * 958}vcjRcdm8.***"


def test_without_a_token_keys_are_hidden_all_the_same() -> None:
    """An answer may be read where the token is not at hand."""
    error = failure(CREATE, Response(400, {}, b"vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"), None, NOW)

    assert error.body == "vcjRcdm8.***"


def test_an_effect_is_stored_and_told_under_its_own_name() -> None:
    """A ledger outlives the version that wrote it. From harmless to worst, whichever comes first."""
    assert [effect.value for effect in Effect] == ["none", "unknown", "lost"]
    for worse, other in ((Effect.LOST, Effect.UNKNOWN), (Effect.LOST, Effect.NONE), (Effect.UNKNOWN, Effect.NONE)):
        assert worse.or_worse(other) is other.or_worse(worse) is worse


@pytest.mark.parametrize(
    "written",
    ['a"b\\c/d', r"a\"b\\c/d", r"a\"b\\c\/d", "a%22b%5Cc%2Fd", "a&quot;b\\c/d"],
    ids=["itself", "json", "json with slashes", "url", "html"],
)
def test_a_token_is_known_however_it_is_written(written: str) -> None:
    """A server may echo it in a document of any kind."""
    error = failure(CREATE, Response(400, {}, f"<{written}>".encode()), Secret('a"b\\c/d'), NOW)

    assert error.body == "<***>"


def test_a_date_in_a_body_is_compared_with_this_clock() -> None:
    """The server's own date belongs to its header."""
    body = b'{"error": {"message": "no", "retry_after": "Thu, 31 Jan 2030 12:01:00 GMT"}}'

    error = failure(CREATE, Response(429, Headers({"Date": "Thu, 31 Jan 2030 11:00:00 GMT"}), body), TOKEN, NOW)

    assert isinstance(error, RateLimitError)
    assert error.retry_after == 60.0


def test_what_is_not_told_of_an_answer_is_not_so() -> None:
    """It was read to its end, and what was asked went out once."""
    assert Response(200, {}, b"") == Response(200, {}, b"", oversize=False, resends=0, cut=False)
    assert TransportFailure("x", left=True) == TransportFailure(
        "x", left=True, status=None, timed_out=False, not_http=False, permanent=False, resends=0
    )


@pytest.mark.parametrize(("status", "said"), [(199, "which ends no request"), (200, "larger than this client reads")])
def test_an_answer_without_an_end_or_beyond_measure_is_called_what_it_is(status: int, said: str) -> None:
    """The first 2xx is an answer to a request."""
    error = failure(CREATE, Response(status, {}, b"", oversize=True), TOKEN, NOW)

    assert isinstance(error, InvalidResponseError)
    assert said in str(error)


@pytest.mark.parametrize(("status", "shown"), [(299, "***"), (300, "correct-horse-battery-staple")])
def test_what_may_be_a_secret_of_any_form_is_hidden_where_a_key_may_have_been_made(status: int, shown: str) -> None:
    """By no other answer: a long word is what tells what is wrong."""
    error = failure(CREATE, Response(status, {}, b"correct-horse-battery-staple", oversize=True), TOKEN, NOW)

    assert error.body == shown


def test_only_a_429_speaks_of_the_limit() -> None:
    """A 425 is a refusal too, and says nothing of a limit."""
    assert [status for status in range(100, 600) if is_over_limit(Response(status, {}, b""))] == [429]
    assert not is_over_limit(TransportFailure("x", left=True, status=429))


def test_without_a_token_a_request_id_is_told_all_the_same() -> None:
    """There is nothing to be kept out of it."""
    error = failure(CREATE, Response(500, Headers({"X-Request-ID": "r-1"}), b""), None, NOW)

    assert isinstance(error, APIStatusError)
    assert error.request_id == "r-1"


@pytest.mark.parametrize(("spaces", "body"), [(999, "***"), (998, f"***{' ' * 998}ab")])
def test_a_body_of_as_many_bytes_as_are_looked_at_is_whole(spaces: int, body: str) -> None:
    """Only of a longer one the end is left out, where a key may be cut in half."""
    token = Secret("t" * 1_000)

    error = failure(CREATE, Response(400, {}, b"t" * 5_000 + b" " * spaces + b"ab"), token, NOW)

    assert error.body == body


@pytest.mark.parametrize("secret", ["5", '""', "null", "[]"])
def test_what_is_no_secret_is_not_taken_for_one(secret: str) -> None:
    """A server that has changed may put anything in its place."""
    body = f'{{"id": "i", "api_key": {secret}}}'.encode()

    error = failure(CREATE, Response(201, {}, body, oversize=True), TOKEN, NOW)

    assert error.body == '{"id": "i", "api_key": "***"}'


def test_a_token_in_escapes_of_escapes_is_not_said() -> None:
    """JSON within JSON is plain only after it was read once."""
    written = "".join(f"\\u{ord(letter):04x}" for letter in TOKEN.reveal())

    error = failure(CREATE, Response(400, {}, json.dumps({"detail": written}).encode()), TOKEN, NOW)

    assert str(error).endswith(": ***")
