"""Between models and JSON: strictly out, leniently in, and never a key without a secret."""

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from respan_async import (
    UNSET,
    CreatedKey,
    CreateKeyRequest,
    KeyPage,
    LimitPolicy,
    Secret,
    TemporaryKey,
    UpdateKeyRequest,
)
from respan_async._http import json_text
from respan_async._http.codec import decode, encode_key, fields_of
from respan_async._http.json_text import DecodeError, encode

SAMPLES = Path(__file__).parent.parent / "samples"
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
API_KEY = "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"
FULL = {
    "id": "key-1",
    "suffix": "gV",
    "tags": ["a"],
    "status": "active",
    "project": None,
    "prefix": "vcjRcdm8",
    "hashed_key": "pbkdf2_sha256$1$salt$hash",
    "created": "2025-03-16T01:19:17.074170Z",
    "name": "tenant-42",
    "revoked": False,
    "expiry_date": "2030-03-15T01:19:33.263343+05:30",
    "key_usage": 3,
    "max_usage": -1,
    "last_used": "2025-03-17T00:00:00Z",
    "rate_limit": 100.0,
    "spending_limit": 5,
    "spending_in_period": 0.5,
    "is_test": True,
    "is_temporary": True,
    "revoked_at": None,
    "user": {"email": "somebody@example.com"},
}
"""Every field that the server is known to send."""


def key(**fields: Any) -> TemporaryKey:
    """Read a key of which only some fields are told."""
    return decode(json.dumps({"id": "key-1", **fields}).encode(), TemporaryKey)


# ------------------------------------------------------------------ requests


def test_only_what_is_given_is_sent() -> None:
    """UNSET stays at home; None goes out as null."""
    assert fields_of(CreateKeyRequest(), NOW) == {}
    assert encode(fields_of(CreateKeyRequest(), NOW)) == b"{}"
    assert fields_of(UpdateKeyRequest(rate_limit=None), NOW) == {"rate_limit": None}
    assert fields_of(CreateKeyRequest(name="", is_test=False, spending_limit=0), NOW) == {
        "name": "",
        "is_test": False,
        "spending_limit": 0,
    }


def test_every_field_has_its_documented_name() -> None:
    """As the server reads them."""
    policy = LimitPolicy(
        max_value=1.5, period="60", metric="cost", warning_threshold=1, name="n", notification_method_id="m"
    )
    request = CreateKeyRequest(
        name="a", expiry_date=NOW, max_usage=5, rate_limit=6, spending_limit=7.5, is_test=True, limit_policies=[policy]
    )

    assert json.loads(encode(fields_of(request, NOW))) == {
        "name": "a",
        "expiry_date": "2030-01-31T12:00:00Z",
        "max_usage": 5,
        "rate_limit": 6,
        "spending_limit": 7.5,
        "is_test": True,
        "limit_policies": [
            {
                "max_value": 1.5,
                "period": "60",
                "metric": "cost",
                "warning_threshold": 1,
                "name": "n",
                "notification_method_id": "m",
            }
        ],
    }


def test_a_policy_sends_only_what_is_given_too() -> None:
    """Its optional fields stay at home."""
    request = CreateKeyRequest(limit_policies=[LimitPolicy(max_value=1, period="day")])

    assert fields_of(request, NOW) == {"limit_policies": [{"max_value": 1, "period": "day"}]}


@pytest.mark.parametrize(
    ("now", "life", "ends"),
    [
        (NOW, timedelta(hours=1), "2030-01-31T13:00:00Z"),
        (NOW.replace(microsecond=1), timedelta(hours=1), "2030-01-31T13:00:01Z"),
        (NOW, timedelta(microseconds=1), "2030-01-31T12:00:01Z"),
        (NOW.astimezone(timezone(timedelta(hours=-8))), timedelta(hours=1), "2030-01-31T13:00:00Z"),
    ],
)
def test_a_life_becomes_its_end(now: datetime, life: timedelta, ends: str) -> None:
    """In UTC, in whole seconds, and never shorter than was asked."""
    assert fields_of(CreateKeyRequest(expires_in=life), now) == {"expiry_date": ends}


@given(
    st.timedeltas(timedelta(microseconds=1), timedelta(days=3650)),
    st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_a_life_is_as_long_as_asked_and_less_than_a_second_longer(life: timedelta, now: datetime) -> None:
    """Whenever it begins."""
    sent = fields_of(CreateKeyRequest(expires_in=life), now)["expiry_date"]

    assert timedelta(0) <= datetime.fromisoformat(sent) - (now + life) < timedelta(seconds=1)


policies = st.builds(
    LimitPolicy,
    max_value=st.integers(0, 2**62) | st.floats(0, 1e300),
    period=st.sampled_from(["minute", "hour", "3600"]),
    metric=st.just(UNSET) | st.sampled_from(["cost", "token_count"]),
    name=st.just(UNSET) | st.text(st.characters(codec="utf-8")),
)
instants = st.datetimes(datetime(1900, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())  # noqa: DTZ001
requests = st.builds(
    CreateKeyRequest,
    name=st.just(UNSET) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=50),
    expiry_date=st.just(UNSET) | instants,
    max_usage=st.just(UNSET) | st.just(-1) | st.integers(1, 2**62),
    rate_limit=st.just(UNSET) | st.none() | st.integers(0, 2**62),
    spending_limit=st.just(UNSET) | st.none() | st.floats(0, 1e300),
    is_test=st.just(UNSET) | st.booleans(),
    limit_policies=st.just(UNSET) | st.lists(policies, max_size=3),
)


@given(requests)
def test_a_request_survives_the_wire(request: CreateKeyRequest) -> None:
    """What a server reads in the JSON makes an equal request."""
    sent = json.loads(encode(fields_of(request, NOW)))

    assert CreateKeyRequest(**sent) == request


def test_what_python_calls_a_float_is_sent_as_a_number() -> None:
    """numpy's numbers are floats of their own class."""

    class Float64(float):
        pass

    sent = encode(fields_of(CreateKeyRequest(spending_limit=Float64(1.5)), NOW))

    assert json.loads(sent) == {"spending_limit": 1.5}


# ------------------------------------------------------------------- answers


def test_both_documented_answers_to_a_create_are_read() -> None:
    """`created` and `created_at`, with and without the rest."""
    a = decode((SAMPLES / "create-response-a.json").read_bytes(), CreatedKey)
    b = decode((SAMPLES / "create-response-b.json").read_bytes(), CreatedKey)

    assert (a.id, a.name, a.max_usage) == ("vcjRcdm8...", "Respan temporary key", -1)
    assert (a.created_at, a.last_used) == (datetime(2025, 3, 16, 1, 19, 17, 74170, tzinfo=UTC), None)
    assert (a.revoked, a.rate_limit, a.is_temporary, a.spending_in_period) == (False, None, True, 0.0)
    assert (b.id, b.prefix, b.created_at) == (
        "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "tmp_",
        datetime(2024, 6, 1, 12, tzinfo=UTC),
    )
    assert (b.rate_limit, b.spending_limit, b.revoked) == (100, 500, None)
    assert a.api_key.reveal() == b.api_key.reveal() == API_KEY
    assert a.extra == b.extra == {}


def test_everything_the_server_is_known_to_send_is_read_or_kept() -> None:
    """Known fields by their names, all others in `extra`."""
    read = decode(json.dumps(FULL).encode(), TemporaryKey)

    assert (read.id, read.status, read.prefix, read.name) == ("key-1", "active", "vcjRcdm8", "tenant-42")
    assert read.expiry_date == datetime(2030, 3, 14, 19, 49, 33, 263343, tzinfo=UTC)
    assert read.last_used == datetime(2025, 3, 17, tzinfo=UTC)
    assert (read.key_usage, read.max_usage, read.rate_limit, read.spending_limit) == (3, -1, 100, 5)
    assert (read.is_test, read.is_temporary, read.revoked, read.spending_in_period) == (True, True, False, 0.5)
    assert read.extra == {
        "suffix": "gV",
        "tags": ["a"],
        "project": None,
        "hashed_key": Secret("pbkdf2_sha256$1$salt$hash"),
        "revoked_at": None,
        "user": {"email": "somebody@example.com"},
    }


def test_a_hash_and_a_key_never_show() -> None:
    """Not even where everything is shown that was not expected."""
    read = decode(json.dumps({**FULL, "api_key": API_KEY}).encode(), TemporaryKey)

    assert "salt" not in f"{read!r} {read.extra} {attrs.asdict(read)}"
    assert "5hSZiXrA" not in f"{read!r} {read.extra} {attrs.asdict(read)}"


@pytest.mark.parametrize(
    "never", ["1970-01-01T00:00:00Z", "1970-01-01T05:30:00+05:30", "1969-12-31T16:00:00-08:00", None]
)
def test_the_year_1970_means_never(never: str | None) -> None:
    """The server says so of a key that was not used."""
    assert key(last_used=never).last_used is None
    assert "last_used" not in key(last_used=never).extra


def test_a_naive_date_is_utc() -> None:
    """Django without time zones would send such."""
    assert key(created="2025-01-01T00:00:00").created_at == datetime(2025, 1, 1, tzinfo=UTC)


NO_TEXT: list[Any] = [5, True, [], {"x": 1}]
NO_FLAG: list[Any] = [0, 1, "true", []]
NO_NUMBER: list[Any] = [
    "three",
    "",
    " 3",
    "3 ",
    "٣",
    "0x3",
    "1_0",
    "NaN",
    "inf",
    "0.1000000000000000001",
    "1e999",
    True,
    [],
]
NO_WHOLE: list[Any] = [*NO_NUMBER, 1.5, "1.5", "9223372036854775808"]
NO_DATE: list[Any] = [5, True, [], {}, "soon", "", "2030-13-01T00:00:00Z"]
NO_DATE += ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"]
ODD = {
    **dict.fromkeys(("name", "prefix", "status"), NO_TEXT),
    **dict.fromkeys(("revoked", "is_test", "is_temporary"), NO_FLAG),
    **dict.fromkeys(("rate_limit", "spending_limit", "spending_in_period"), NO_NUMBER),
    **dict.fromkeys(("key_usage", "max_usage"), NO_WHOLE),
    **dict.fromkeys(("created", "created_at", "expiry_date", "last_used"), NO_DATE),
}


@pytest.mark.parametrize(("field", "odd"), [(field, odd) for field, values in ODD.items() for odd in values])
def test_an_odd_field_does_not_cost_a_key(field: str, odd: Any) -> None:
    """It is None, and its raw value is kept."""
    read = decode(json.dumps({"id": "key-1", "api_key": API_KEY, field: odd}).encode(), CreatedKey)

    assert read.api_key.reveal() == API_KEY
    assert getattr(read, "created_at" if field == "created" else field) is None
    assert read.extra == {field: odd}


@pytest.mark.parametrize(
    "wrong",
    [None, "", 12345, True, [], {"value": API_KEY}, " ", "a b", "a\nb", "\x00"],
    ids=repr,
)
def test_a_key_without_a_real_secret_is_none(wrong: Any) -> None:
    """None is not 'None': nothing is made up."""
    with pytest.raises(DecodeError, match="api_key"):
        decode(json.dumps({"id": "key-1", "api_key": wrong}).encode(), CreatedKey)
    with pytest.raises(DecodeError, match="api_key"):
        decode(json.dumps({"id": "key-1"}).encode(), CreatedKey)


@pytest.mark.parametrize("wrong", [None, "", 5.5, True, [], {}], ids=repr)
@pytest.mark.parametrize("model", [CreatedKey, TemporaryKey])
def test_a_key_without_a_real_id_is_none(wrong: Any, model: type[TemporaryKey]) -> None:
    """It could never be revoked."""
    with pytest.raises(DecodeError, match="id"):
        decode(json.dumps({"id": wrong, "api_key": API_KEY}).encode(), model)


@pytest.mark.parametrize(
    "odd",
    ["a\0b", "a\nb", "x" * 513, " ", ".", "a/../b", "..\\a", "a\ufffdb"],
    ids=["NUL", "newline", "long", "blank", "dot", "dots", "backslash", "no character"],
)
def test_a_new_key_with_an_id_that_no_ledger_could_keep_or_path_carry_is_none(odd: str) -> None:
    """In a list it is read all the same: it is not ours."""
    with pytest.raises(DecodeError, match="expected 1 to 512 printable characters as id"):
        decode(json.dumps({"id": odd, "api_key": API_KEY}).encode(), CreatedKey)
    assert decode(json.dumps({"id": odd}).encode(), TemporaryKey).id == odd


@pytest.mark.parametrize("model", [CreatedKey, TemporaryKey])
@pytest.mark.parametrize("number", [0, 5, -7, 2**63])
def test_a_whole_number_as_an_id_is_taken_as_text(number: int, model: type[TemporaryKey]) -> None:
    """As most databases have it: nothing of it is lost, and the key can be revoked by it."""
    assert decode(json.dumps({"id": number, "api_key": API_KEY}).encode(), model).id == str(number)


@pytest.mark.parametrize("model", [CreatedKey, TemporaryKey])
@pytest.mark.parametrize("spoilt", [b"", b', "x": NaN', b', "x": 1e400'])
@pytest.mark.parametrize(
    "number", ["1234567890123456789", "18446744073709551616", "98765432109876543210", "9" * 39, "-" + "9" * 25]
)
def test_a_long_whole_number_as_an_id_keeps_its_digits(number: str, spoilt: bytes, model: type[TemporaryKey]) -> None:
    """128 bits, as a UUID has, whichever reader it takes; on a page, too. As a count such a number is none."""
    text = b'{"id": %s, "api_key": "k", "max_usage": 98765432109876543210%s}' % (number.encode(), spoilt)

    read = decode(text, model)

    assert (read.id, read.max_usage) == (number, None)
    assert isinstance(read.extra["max_usage"], float)
    assert decode(b'{"results": [%s]}' % text, KeyPage).results[0].id == number
    assert decode(b"[%s]" % text, KeyPage).results[0].id == number
    assert decode(encode_key(read).encode(), TemporaryKey).id == number


def test_a_whole_number_that_is_written_as_a_float_is_an_id() -> None:
    """As long as a float holds it exactly; of a longer one the digits are not known."""
    assert decode(b'{"id": 17.0, "api_key": "k"}', CreatedKey).id == "17"
    for unknown in (b"17.5", b"98765432109876543210.0", b"1e30", b"9" * 61):
        with pytest.raises(DecodeError, match="as id"):
            decode(b'{"id": %s, "api_key": "k"}' % unknown, CreatedKey)


@pytest.mark.parametrize(
    "more", [b'{"id": "j", "api_key": "l"}', b'{"detail": "Internal server error"}', b'{"id": "i"}']
)
def test_of_two_objects_none_is_the_answer(more: bytes) -> None:
    """Nobody knows which of them is meant, unless both say the same."""
    with pytest.raises(DecodeError, match="expected JSON"):
        decode(b'{"id": "i", "api_key": "k"}' + more, CreatedKey)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("60", 60),
        ("5.00", 5),
        ("0.1", 0.1),
        ("-1", -1),
        ("1E+3", 1000),
        ("12.50", 12.5),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_a_number_that_was_written_as_text_is_read(text: str, number: float) -> None:
    """As Django REST Framework writes decimals: a limit must not look like none."""
    read = key(rate_limit=text, spending_limit=text, spending_in_period=text)

    assert (read.rate_limit, read.spending_limit, read.spending_in_period) == (number,) * 3
    assert read.extra == {}
    assert decode(encode_key(read).encode(), TemporaryKey) == read


@pytest.mark.parametrize(("text", "number"), [("60", 60), ("60.00", 60), ("-1", -1), ("1e3", 1000)])
def test_a_count_that_was_written_as_text_is_read(text: str, number: int) -> None:
    """And is a whole number, as any count is."""
    read = key(key_usage=text, max_usage=text)

    assert (read.key_usage, read.max_usage) == (number, number)
    assert isinstance(read.max_usage, int)


@pytest.mark.parametrize(
    ("text", "charset", "name"),
    [
        (b'{"id": "i", "api_key": "k", "x": NaN}', None, None),
        (b'{"id": "i", "api_key": "k", "x": [-Infinity, 1e999]}', None, None),
        (b'{"id": "i", "api_key": "k", "rate_limit": NaN}', None, None),
        (b'{"id": "i", "api_key": "k", "x": ' + b"9" * 5000 + b"}", None, None),
        (b'{"id": "i", "api_key": "k", "x": {"\\ud800": ["\\udc00"]}}', None, None),
        (b'{"id": "i", "api_key": "k", "name": "a\\ud800b"}', None, "a\ufffdb"),
        (b'{"id": "i", "api_key": "k", "name": "a\nb"}', None, "a\nb"),
        (b'\xef\xbb\xbf{"id": "i", "api_key": "k", "name": "\xc3\xa4"}', None, "ä"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("utf-16"), None, "ä"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), "ISO-8859-1", "ä"),
        ('{"id": "i", "api_key": "k", "name": "€"}'.encode("cp1252"), "windows-1252", "€"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), None, "\ufffd"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), "utf-16", "\ufffd"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), "utf-32-le", "\ufffd"),
        (b'{"id": "i", "api_key": "k"}\0\0', None, None),
        (b'\0\0{"id": "i", "api_key": "k"}', None, None),
        (b'{"id": "i", "api_key": "k"}<!-- of a cache -->', None, None),
        (b'{"id": "i", "api_key": "k"}\n<script>{}</script>', None, None),
        (b'{"id": "i", "api_key": "k"}\xff\xfe', None, None),
        (b'{"id": "i", "api_key": "k"} {"api_key": "k", "id": "i"}', None, None),
        ('{"id": "i", "api_key": "k"}'.encode("utf-16-be"), None, None),
        ('{"id": "i", "api_key": "k"}'.encode("utf-32-be"), None, None),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), "punycode", "\ufffd"),
        ('{"id": "i", "api_key": "k", "name": "ä"}'.encode("latin-1"), "no\0thing", "\ufffd"),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_a_field_that_nobody_needs_does_not_cost_a_key(text: bytes, charset: str | None, name: str | None) -> None:
    """What the strict reader refuses, the lenient one reads; a ledger can write down all that comes of it."""
    read = decode(text, CreatedKey, charset)

    assert (read.id, read.api_key.reveal(), read.name) == ("i", "k", name)
    assert read.rate_limit is None
    assert decode(encode_key(read).encode(), TemporaryKey).name == name


@pytest.mark.parametrize(
    "text",
    [
        b'{"id": "i", "api_key": "k\xff"}',
        b'{"id": "i", "api_key": "k\\ud800"}',
        b'{"id": "\xff\xfe", "api_key": "k"}',
        b'{"id": "\\ud800", "api_key": "k"}',
    ],
)
def test_half_a_character_in_what_matters_makes_no_key(text: bytes) -> None:
    """A guess at a secret, or at the id by which it is revoked, is none."""
    with pytest.raises(DecodeError, match=r"as (id|api_key)"):
        decode(text, CreatedKey)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"5",
        b'"text"',
        b"true",
        b"{",
        b"{}{}",
        b"<html></html>",
        b'{"id": NaN, "api_key": "k"}',
        b'{"api_key": "k", "x": Infinity}',
        b'{"id": "i", "api_key": "k", "x": Inf}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 5000 + b"]" * 5000,
    ],
    ids=lambda text: repr(text[:30]),
)
@pytest.mark.parametrize("model", [CreatedKey, TemporaryKey, KeyPage])
def test_what_is_no_answer_is_told_as_such(text: bytes, model: type[Any]) -> None:
    """With our own error, and never with a part of the text, which may hold a secret."""
    with pytest.raises(DecodeError, match=r"^expected ") as caught:
        decode(text, model)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_deep_nesting_that_can_be_read_is_kept() -> None:
    """In a field that nobody knows."""
    deep: Any = 1
    for _ in range(500):
        deep = [deep]

    assert key(deep=deep).extra == {"deep": deep}


def test_a_key_of_one_letter_does_not_hide_every_text_that_has_it() -> None:
    """Nothing so short is a secret, and what is unknown is kept as it came."""
    made = decode(b'{"id": "key-1", "api_key": "k", "ticket": "ticket", "user": {"kind": 1}}', CreatedKey)

    assert made.extra == {"ticket": "ticket", "user": {"kind": 1}}


def test_deep_nesting_does_not_cost_a_new_key() -> None:
    """Though orjson does not write what it has read, to look for the key's secret in it: that is not shown."""
    text = b'{"id": "key-1", "api_key": "%s", "deep": %s, "flat": [1]}'

    made = decode(text % (API_KEY.encode(), b"[" * 500 + b"]" * 500), CreatedKey)

    assert made.api_key.reveal() == API_KEY
    assert made.extra == {"deep": None, "flat": [1]}


@pytest.mark.parametrize("huge", [2**63, 2**64 - 1, 2**64, 2**80, 1e300, -1e30])
def test_a_huge_number_does_not_cost_a_key(huge: float) -> None:
    """What JSON libraries cannot write again is kept as it came, and a ledger can record the key all the same."""
    read = key(max_usage=huge, rate_limit=huge)

    assert read.rate_limit == huge
    assert (read.max_usage or read.extra["max_usage"]) == huge
    assert decode(encode_key(read).encode(), TemporaryKey).rate_limit == huge


def test_an_instant_stays_the_same_through_a_ledger() -> None:
    """Also one whose offset has seconds, as those of the nineteenth century do."""
    read = key(expiry_date="2030-01-01T00:00:00+05:30:15")

    assert decode(encode_key(read).encode(), TemporaryKey).expiry_date == datetime(2029, 12, 31, 18, 29, 45, tzinfo=UTC)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(st.sampled_from([*FULL, "created_at", "api_key"]) | st.text(max_size=5), json_values)


@given(json_objects)
def test_any_object_is_a_key_or_is_not(data: dict[str, Any]) -> None:
    """A key if it has an id and a secret; then nothing it said is lost. Else a DecodeError."""
    assume("\ud800" not in json.dumps(data))
    try:
        text = orjson.dumps(data)
    except TypeError:
        return
    secret = data.get("api_key")
    key_id = data.get("id")
    if isinstance(key_id, int) and not isinstance(key_id, bool):
        key_id = str(key_id)
    is_key = (
        isinstance(key_id, str)
        and "\ufffd" not in key_id
        and 0 < len(key_id) <= 512
        and key_id.isprintable()
        and isinstance(secret, str)
    )
    is_key = is_key and bool(secret) and str(secret).isprintable() and not {" ", "\ufffd"} & set(str(secret))
    is_key = is_key and bool(str(key_id).strip()) and not {".", ".."} & set(re.split(r"[/\\]", str(key_id)))

    try:
        read = decode(text, CreatedKey)
    except DecodeError:
        assert not is_key
        return
    assert is_key
    assert (read.id, read.api_key.reveal()) == (key_id, secret)
    known = {field.name for field in attrs.fields(TemporaryKey)} | {"created", "api_key"}
    assert set(data) - known <= set(read.extra)


@given(st.binary(max_size=50) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_are_not(text: bytes) -> None:
    """No foreign exception gets out, for any model."""
    for model in (CreatedKey, TemporaryKey, KeyPage):
        with contextlib.suppress(DecodeError):
            decode(text, model)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=512),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1),
    st.none() | st.text(),
    st.none() | st.integers(-1, 2**53),
    st.none() | st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.none() | st.floats(0, 1e300),
)
def test_a_key_survives_the_wire(
    key_id: str, secret: str, name: str | None, usage: int | None, at: datetime | None, limit: float | None
) -> None:
    """What a server writes in its own way is read as it was meant."""
    told = {"id": key_id, "api_key": secret, "name": name, "max_usage": usage, "rate_limit": limit}
    told["created"] = told["expiry_date"] = told["last_used"] = at.isoformat() if at else None

    read = decode(json.dumps(told).encode(), CreatedKey)

    assert read == CreatedKey(
        id=key_id,
        api_key=Secret(secret),
        name=name,
        max_usage=usage,
        rate_limit=limit,
        created_at=at,
        expiry_date=at,
        last_used=at,
    )
    assert read.extra == {}


# --------------------------------------------------------------------- pages


def page(**fields: Any) -> KeyPage:
    """Read a page of which only some fields are told."""
    return decode(json.dumps({"results": [], **fields}).encode(), KeyPage)


def test_both_shapes_of_a_list_are_read() -> None:
    """The documented page, and the bare array from before."""
    sample = decode((SAMPLES / "list-response.json").read_bytes(), KeyPage)
    array = decode(json.dumps([{"id": "a"}, {"id": "b"}]).encode(), KeyPage)

    assert [shown.name for shown in sample.results] == ["Respan temporary key"] * 2
    assert (sample.count, sample.next_page) == (0, None)
    assert [shown.id for shown in array.results] == ["a", "b"]
    assert (array.count, array.next_page) == (2, None)


@pytest.mark.parametrize(
    ("link", "number"),
    [
        (None, None),
        ("", None),
        ("https://api.respan.ai/api/temporary-keys/?page=2", 2),
        ("https://elsewhere.example/?page=3&page_size=10", 3),
        ("?page=4", 4),
        ("http://internal:8000/api/temporary-keys/?page_size=5&page=2#x", 2),
    ],
)
def test_only_the_number_of_the_next_page_is_taken(link: str | None, number: int | None) -> None:
    """Where the link points is nobody's business."""
    assert page(next=link).next_page == number


@pytest.mark.parametrize(
    "link", [" ", "https://x/", "?page=", "?page=two", "?page=-1", "?page=٣", "?cursor=x", "http://[", 5, True, [], {}]
)
def test_a_next_page_without_a_number_is_told(link: Any) -> None:
    """To stop there in silence would be to leave keys out."""
    with pytest.raises(DecodeError, match="page number"):
        page(next=link)


@pytest.mark.parametrize(
    "data", [{}, {"results": None}, {"results": {}}, {"results": [5]}, {"results": [{}]}, [5], [None]]
)
def test_a_page_without_keys_in_it_is_told(data: Any) -> None:
    """A page is a list of keys, and a key has an id."""
    with pytest.raises(DecodeError):
        decode(json.dumps(data).encode(), KeyPage)


@pytest.mark.parametrize("count", [None, "2", True, 1.5, []])
def test_an_odd_count_is_counted_instead(count: Any) -> None:
    """It is of no importance."""
    assert page(count=count, results=[{"id": "a"}]).count == 1


@pytest.mark.parametrize("text", [b"[" + b"{}," * 100_000 + b"{}]", b'{"results":[' + b"[]," * 99_999 + b"[]]}"])
def test_too_many_objects_are_not_read(text: bytes) -> None:
    """A few MiB could mean millions of them: seconds of work, and hundreds of MiB."""
    with pytest.raises(DecodeError, match="at most 100000 objects"):
        decode(text, KeyPage)


def test_ten_thousand_keys_are_not_too_many() -> None:
    """On one page, with lists and objects in each."""
    shown = {"id": "key-1", "tags": [], "user": {"id": 1}, "project": {"id": 2}, "limit_policies": [{"metric": "cost"}]}
    text = b",".join([json.dumps(shown).encode()] * 10_000)

    page = decode(b'{"results": [%s], "next": null}' % text, KeyPage)

    assert len(page.results) == 10_000


@pytest.mark.parametrize("link", ["?page=2&" + "x" * 5000, "?page=" + "0" * 5000 + "2", 5, [], {}, True])
def test_a_link_that_is_none_leads_nowhere(link: object) -> None:
    """What takes URLs apart would keep a long one in its cache, and take its time."""
    with pytest.raises(DecodeError, match="page number"):
        decode(json.dumps({"results": [], "next": link}).encode(), KeyPage)


@pytest.mark.parametrize("offset", ["+00:00:30", "-00:00:00.5", "+23:59:59"])
def test_an_offset_of_seconds_is_the_same_instant_when_it_is_kept(offset: str) -> None:
    """Python reads such offsets, and JSON has no way to write them."""
    read = key(created_at=f"2026-01-01T12:00:00{offset}")

    assert decode(encode_key(read).encode(), TemporaryKey).created_at == read.created_at


@pytest.mark.parametrize("number", [1e300, -1e300, 2.0**63, 2.0**64, 2**64 - 1])
def test_a_number_of_many_digits_can_be_kept(number: float) -> None:
    """A ledger writes what the server said of a key, or the key would be lost."""
    read = key(max_usage=number, key_usage=number)

    assert decode(encode_key(read).encode(), TemporaryKey) == read


NEVER = {"key_usage": 0, "last_used": None}


@pytest.mark.parametrize(
    ("said", "used"),
    [
        (NEVER, False),
        ({"key_usage": 0, "last_used": "1970-01-01T00:00:00Z"}, False),
        (NEVER | {"spending_in_period": 0.0}, False),
        ({}, None),
        ({"key_usage": 0}, None),
        ({"last_used": None}, None),
        ({"key_usage": None, "last_used": None}, None),
        ({"key_usage": "0", "last_used": None}, False),
        ({"key_usage": "none", "last_used": None}, None),
        ({"key_usage": 0, "last_used": "never"}, None),
        ({"key_usage": 0, "last_used": 0}, None),
        ({"key_usage": 1}, True),
        ({"key_usage": 1, "last_used": None}, True),
        ({"last_used": "2026-01-31T12:00:00Z"}, True),
        ({"key_usage": 0, "last_used": "2026-01-31T12:00:00Z"}, True),
        (NEVER | {"spending_in_period": 0.01}, True),
    ],
    ids=str,
)
def test_a_key_was_never_used_only_where_the_answer_states_it(said: dict[str, object], used: bool | None) -> None:
    """What an answer lacks, or holds in a form that cannot be read, leaves it open."""
    assert decode(json.dumps({"id": "key-1", **said}).encode(), TemporaryKey).used is used


def test_a_text_that_the_lenient_reader_cannot_follow_is_what_the_strict_one_has_read() -> None:
    """It was read a second time for its id's sake, and is nested more deeply than that one goes."""
    deep = b"[" * 1000 + b"]" * 1000

    assert json_text.parse(b'{"id": 17.0, "x": ' + deep + b"}")["id"] == 17.0
