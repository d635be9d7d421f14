"""Targets: what a server may answer. Only values and errors of ours come out, and no error shows a secret."""

import math
import pickle
import re
from datetime import UTC, datetime
from typing import Any, Final

from respan_async import errors
from respan_async._http import codec, json_text, key_ids, operations, response_parsing
from respan_async._http.lenient_json import NO_CHARACTER
from respan_async._http.response import Response
from respan_async.errors import APIStatusError, Effect, InvalidResponseError, RespanError
from respan_async.issuing import _rows
from respan_async.issuing.jsonlines_sink import line_of
from respan_async.models import CreatedKey, KeyPage, TemporaryKey
from tests.fuzz.payloads import BEARER, ECHOES, TOKEN
from tests.fuzz.promises import told

NOW: Final = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
CREATE: Final = operations.create({"name": "tenant-42"})
_KEY: Final = re.compile(r"[A-Za-z0-9]{8}\.[A-Za-z0-9]{32}")


def created(data: bytes) -> None:
    """The body of a 201: a key exactly if it has an id and a secret that are of use, and one that can be kept."""
    known = _json(data)
    key_id: Any = known.get("id") if isinstance(known, dict) else None
    secret: Any = known.get("api_key") if isinstance(known, dict) else None
    if isinstance(key_id, float) and key_id.is_integer() and abs(key_id) < 2**53:
        key_id = int(key_id)
    if isinstance(key_id, int) and not isinstance(key_id, bool):
        key_id = str(key_id)
    complete = (
        isinstance(key_id, str) and key_ids.is_usable_id(key_id)
        and isinstance(secret, str) and secret.isprintable() and secret.strip() != "" and " " not in secret
        and NO_CHARACTER not in secret
    )  # fmt: skip

    key = response_parsing.read(CREATE, Response(201, {}, data), TOKEN)

    assert isinstance(key, CreatedKey) == complete, key
    if not isinstance(key, CreatedKey):
        assert isinstance(key, InvalidResponseError)
        assert key.effect is Effect.LOST
        assert not key.retryable
        _check_error(key, data)
        if isinstance(secret, str) and _KEY.fullmatch(secret):
            assert secret not in f"{key} {key.body}"
        named = response_parsing.answered_id(Response(201, {}, data))
        assert named is None or named == key_id
        return
    assert (key.id, key.api_key.reveal()) == (key_id, secret)
    if _KEY.fullmatch(key.api_key.reveal()) and data.count(secret[9:].encode()) == 1:
        assert secret[9:] not in repr(key)
    # What is kept in a ledger, and what is delivered into a file, is the same key again.
    assert _rows.key_of(codec.encode_key(key), key.api_key) == key
    delivered = codec.decode(line_of(key, "ticket"), CreatedKey)
    assert (delivered, delivered.extra) == (key, {"ticket": "ticket"})


def listed(data: bytes) -> None:
    """The body of a list: a page whose keys all have ids, or one error."""
    page = response_parsing.read(operations.list_page(1, None), Response(200, {}, data), TOKEN)

    if not isinstance(page, KeyPage):
        assert page.effect is Effect.NONE
        _check_error(page, data)
        return
    known = _json(data)
    results = known if isinstance(known, list) else known["results"]
    assert [key.id for key in page.results] == [str(result["id"]) for result in results]
    assert isinstance(page.count, int)
    follows: Any = None if isinstance(known, list) else known.get("next")
    assert (page.next_page is None) == (follows in (None, ""))
    if page.next_page is not None:
        assert 0 <= page.next_page < 10**10
        assert str(page.next_page) in re.sub("[^0-9]", "", re.sub(r"%3([0-9])", r"\1", follows))


def key(data: bytes) -> None:
    """The body of one key: whatever its fields hold, their types are the documented ones."""
    try:
        read = codec.decode(data, TemporaryKey)
    except json_text.DecodeError as error:
        told(error, most=200)
        return
    for name in ("created_at", "expiry_date", "last_used"):
        value = getattr(read, name)
        assert value is None or value.astimezone(UTC).tzinfo is UTC
    for name in ("revoked", "is_test", "is_temporary"):
        assert getattr(read, name) in (None, True, False)
    for name in ("key_usage", "max_usage"):
        assert isinstance(getattr(read, name), int | None)
    for name in ("rate_limit", "spending_limit", "spending_in_period"):
        assert getattr(read, name) is None or math.isfinite(getattr(read, name))
    assert read.expired in (True, False)
    repr(read)
    assert codec.decode(codec.encode_key(read).encode(), TemporaryKey) == read


def refused(data: bytes) -> None:
    """An answer that is no 2xx, as text: the status, header lines, an empty line, the body."""
    answer = answer_of(data)
    if 200 <= answer.status < 300:
        return

    error = response_parsing.failure(CREATE, answer, TOKEN, NOW)

    assert type(error) is (errors.class_for(answer.status) if answer.status >= 300 else InvalidResponseError)
    assert (error.effect, error.retryable) == _meaning(answer.status)
    if isinstance(error, APIStatusError):
        assert error.retry_after is None or 0 <= error.retry_after < math.inf
    _check_error(error, answer.body)


def answer_of(data: bytes) -> Response:
    """Read an answer written as text; headers are decoded as aiohttp does it."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode(errors="surrogateescape").split("\n")
    headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first) if re.fullmatch("[1-9][0-9]{2}", first, re.ASCII) else 400
    return Response(status, headers, body)


def _meaning(status: int) -> tuple[Effect, bool]:
    if status in (425, 429):
        return Effect.NONE, True
    if status == 408 or status >= 500:
        return Effect.UNKNOWN, True
    return (Effect.NONE if status >= 400 else Effect.UNKNOWN), False


def _check_error(error: RespanError, body: bytes) -> None:
    """Check that an error is bounded, shows no secret, stays redacted, and pickles."""
    shown = error.body
    assert shown is not None
    assert len(shown) <= 2_000
    assert len(str(error)) <= 700
    assert BEARER not in repr(error)
    for text in (str(error), shown, error.request_id or ""):
        assert not [echo for echo in ECHOES if echo in text]
        assert _KEY.search(text) is None, text
    if len(shown) < 2_000 and len(body) <= 2_000:
        again = response_parsing.failure(CREATE, Response(400, {}, shown.encode()), TOKEN, NOW)
        assert again.body == shown
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def _json(data: bytes) -> Any:
    try:
        return json_text.parse(data)
    except json_text.DecodeError:
        return None
