"""Converts between models and JSON: one cattrs converter, over orjson.

Requests are written strictly: only what the caller gave. Answers are read leniently, because a key that was made must
not be lost to an odd field, and strictly where it matters: without a real `id` and `api_key` it is not a key. A number
that comes as text is read as a number, if that loses nothing.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import cattrs.gen
import orjson
from cattrs.preconf.orjson import make_converter

from respan_async._http import lenient_json
from respan_async._http.redaction import WINDOW, redacted
from respan_async.models import CreatedKey, CreateKeyRequest, KeyPage, LimitPolicy, TemporaryKey, UpdateKeyRequest
from respan_async.secret import Secret

MAX_ID: Final = 512
"""The longest id of a key, in characters; real ids have about 40."""
MAX_OBJECTS: Final = 100_000
"""The most objects and arrays in one text. A page of ten thousand real keys has about as many; the same number of bytes
could hold millions, which would take seconds and some hundred MiB."""
_LONGEST_LINK: Final = 4096
"""The longest link to the next page, in characters, because URL parsers would keep longer ones in their caches."""

# The pattern begins with a rare character, so that the search is fast: it runs over every new key's id.
_DOTS: Final = re.compile(r"\.(?<![^/\\]\.)\.?(?![^/\\;])").search
_DECIMAL: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?").fullmatch
_BITS_64: Final = 2**63
_NO_CHARACTER: Final = "\ufffd"
"""The character by which the lenient reader replaces undecodable bytes."""
_UNREADABLE: Final = object()
_NEARLY_A_SECOND: Final = timedelta(microseconds=999_999)

T = TypeVar("T")


class DecodeError(ValueError):
    """The text is not what was expected; the message holds no part of it."""


def _text(raw: Any) -> Any:
    return raw if isinstance(raw, str) else _UNREADABLE


def _flag(raw: Any) -> Any:
    return raw if isinstance(raw, bool) else _UNREADABLE


def _id(raw: Any) -> Any:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    return _text(raw)


def _number(raw: Any) -> Any:
    if isinstance(raw, str):
        raw = _number_in(raw)
    if isinstance(raw, float) and not math.isfinite(raw):
        return _UNREADABLE
    return raw if isinstance(raw, int | float) and not isinstance(raw, bool) else _UNREADABLE


def _number_in(text: str) -> Any:
    """Read a number that was written as text, unless that would lose precision."""
    if not _DECIMAL(text):
        return _UNREADABLE
    exact = Decimal(text)
    # Compared with what Python prints for the float, so that "0.1" is read as 0.1.
    number = int(exact) if exact == int(exact) and abs(exact) < _BITS_64 else float(exact)
    return number if Decimal(repr(number)) == exact else _UNREADABLE


def _whole(raw: Any) -> Any:
    # The server answers some integers as floats (rate_limit: 100.0).
    number = _number(raw)
    if isinstance(number, float):
        # An integer of more than 64 bits is not a count, and could not be written again, e.g. in a ledger.
        return int(number) if number.is_integer() and abs(number) < _BITS_64 else _UNREADABLE
    return number


def _instant(raw: Any) -> Any:
    try:
        instant = datetime.fromisoformat(raw)
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        if instant.tzinfo is not UTC:
            instant.astimezone(UTC)  # the last evening of the year 9999, west of Greenwich, has no date in UTC
    except (TypeError, ValueError, OverflowError):
        return _UNREADABLE
    return instant


def _last_used(raw: Any) -> Any:
    instant = _instant(raw)
    # The server writes "never" as 1970-01-01T00:00:00Z.
    return None if isinstance(instant, datetime) and instant.year <= 1970 else instant


_TEXT: Final = ((str,), _text)
_FLAG: Final = ((bool,), _flag)
_WHOLE: Final = ((int,), _whole)
_NUMBER: Final = ((int,), _number)
_INSTANT: Final = ((), _instant)

_FIELDS: Final[dict[str, tuple[str, tuple[type, ...], Callable[[Any], Any]]]] = {
    name: (attribute, kind[0], kind[1])
    for name, attribute, kind in (
        ("id", "id", ((str,), _id)),
        ("name", "name", _TEXT),
        ("prefix", "prefix", _TEXT),
        ("status", "status", _TEXT),
        ("created", "created_at", _INSTANT),
        ("created_at", "created_at", _INSTANT),
        ("expiry_date", "expiry_date", _INSTANT),
        ("revoked", "revoked", _FLAG),
        ("key_usage", "key_usage", _WHOLE),
        ("max_usage", "max_usage", _WHOLE),
        ("last_used", "last_used", ((), _last_used)),
        ("rate_limit", "rate_limit", _NUMBER),
        ("spending_limit", "spending_limit", _NUMBER),
        ("spending_in_period", "spending_in_period", _NUMBER),
        ("is_test", "is_test", _FLAG),
        ("is_temporary", "is_temporary", _FLAG),
    )
}
"""By the server's name of a field: our name, the types to be taken as they are, and the reader of all other values."""
_SECRETS: Final = frozenset({"api_key", "hashed_key"})
_SHOWN: Final = tuple(dict.fromkeys(attribute for attribute, *_ in _FIELDS.values()))


@attrs.frozen
class _Answer:
    """The input from which a model is read.

    Attributes:
        data: The body, in JSON types.
        request_id: The server's id of the request, without secrets; None if it sent none.
    """

    data: Any
    request_id: str | None


def _key_fields(data: Any, request_id: str | None) -> dict[str, Any]:
    """Sort a JSON object into the fields of `TemporaryKey`; all other fields go to `extra`."""
    if type(data) is not dict:
        raise DecodeError("expected a JSON object")
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, raw in data.items():
        if raw is None:
            if name not in _FIELDS:
                extra[name] = None
            continue
        field = _FIELDS.get(name)
        if field is None:
            extra[name] = Secret(raw) if name in _SECRETS and isinstance(raw, str) and raw else raw
            continue
        attribute, as_it_is, read = field
        if type(raw) in as_it_is:
            values[attribute] = raw
        elif (value := read(raw)) is _UNREADABLE:
            extra[name] = raw
        else:
            values[attribute] = value
    if not values.get("id"):
        raise DecodeError("expected a non-empty string as id")
    values["used"] = _used(data)
    values["request_id"] = request_id
    values["extra"] = extra
    return values


def _used(data: Mapping[str, Any]) -> bool | None:
    """Tell whether a key was ever used; None if the answer leaves it open, because a missing field says nothing."""
    last = data.get("last_used", _UNREADABLE)
    last = last if last is None else _last_used(last)
    usage, spent = _whole(data.get("key_usage")), _number(data.get("spending_in_period"))
    if isinstance(last, datetime) or any(amount is not _UNREADABLE and amount != 0 for amount in (usage, spent)):
        return True
    return False if last is None and usage == 0 else None


def _structure_key(answer: _Answer, _: Any = None) -> TemporaryKey:
    return _key(answer.data, answer.request_id)


def _key(data: Any, request_id: str | None) -> TemporaryKey:
    return TemporaryKey(**_key_fields(data, request_id))


def is_usable_id(key_id: str) -> bool:
    """Whether a key's id can be kept, shown and sent back as part of a path."""
    return (
        key_id.isprintable()
        and 0 < len(key_id) <= MAX_ID
        and not key_id.isspace()
        and not has_dots(key_id)
        and _NO_CHARACTER not in key_id
    )


def has_dots(key_id: str) -> bool:
    """Whether an id has a `.` or `..` as a path segment.

    Some proxies decode percent-encoding before they resolve dots, even twice; and some ignore what follows a semicolon
    in a segment.
    """
    return _DOTS(unquote(key_id)) is not None


def _structure_created(answer: _Answer, _: Any = None) -> CreatedKey:
    values = _key_fields(answer.data, answer.request_id)
    if not is_usable_id(values["id"]):
        raise DecodeError(f"expected 1 to {MAX_ID} printable characters as id, and no '.' or '..' as a path segment")
    api_key = values["extra"].pop("api_key", None)
    # White space or control characters cannot travel in an Authorization header, so such a key cannot be used.
    if not isinstance(api_key, Secret) or not _is_usable_secret(api_key.reveal()):
        raise DecodeError("expected a non-empty string as api_key")
    extra, secret = values["extra"], api_key.reveal()
    for name, raw in extra.items():
        if type(raw) in (str, list, dict) and len(secret) >= WINDOW:  # a shorter secret may occur in any text by chance
            extra[name] = _without(secret, raw)
    if answer.request_id is not None:
        values["request_id"] = redacted(answer.request_id, [api_key])
    return CreatedKey(api_key=api_key, **values)


def _is_usable_secret(text: str) -> bool:
    return text.isprintable() and " " not in text and _NO_CHARACTER not in text


def _without(secret: str, raw: Any) -> Any:
    """Mask repetitions of a secret in a field that this client does not know."""
    try:
        text = raw if type(raw) is str else orjson.dumps(raw).decode()
    except TypeError:
        return None  # orjson reads such a depth but does not write it, so the field cannot be checked and is not shown
    return Secret(text) if secret in text else raw


def _page_number(url: Any) -> int | None:
    """Return the page number in a `next` link, and nothing else of it."""
    if url is None or url == "":
        return None
    try:
        if isinstance(url, str) and len(url) <= _LONGEST_LINK:
            number = parse_qs(urlsplit(url).query)["page"][-1]
            if number.isascii() and number.isdigit():
                return int(number[:10])
    except (KeyError, ValueError):
        pass
    raise DecodeError("expected a page number in the link to the next page")


def _structure_page(answer: _Answer, _: Any = None) -> KeyPage:
    data, request_id = answer.data, answer.request_id
    if isinstance(data, list):  # the older shape: all keys, in a bare array
        return KeyPage(results=_keys(data, request_id), count=len(data), request_id=request_id)
    if not isinstance(data, Mapping) or not isinstance(data.get("results"), list):
        raise DecodeError("expected a page of results")
    results = _keys(data["results"], request_id)
    count = data.get("count")
    return KeyPage(
        results=results,
        count=count if isinstance(count, int) and not isinstance(count, bool) else len(results),
        next_page=_page_number(data.get("next")),
        request_id=request_id,
    )


def _keys(rows: list[Any], request_id: str | None) -> tuple[TemporaryKey, ...]:
    return tuple(_key(row, request_id) for row in rows)


def _unstructure_instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


converter = make_converter()
converter.register_unstructure_hook(datetime, _unstructure_instant)
# An omitted default keeps UNSET out of the JSON.
for _model in (LimitPolicy, UpdateKeyRequest):
    converter.register_unstructure_hook(
        _model, cattrs.gen.make_dict_unstructure_fn(_model, converter, _cattrs_omit_if_default=True)
    )
converter.register_unstructure_hook(
    CreateKeyRequest,
    cattrs.gen.make_dict_unstructure_fn(
        CreateKeyRequest,
        converter,
        _cattrs_omit_if_default=True,
        expires_in=cattrs.gen.override(omit=True),  # a lifetime is sent as the date it ends: see fields_of
    ),
)
converter.register_structure_hook(TemporaryKey, _structure_key)
converter.register_structure_hook(CreatedKey, _structure_created)
converter.register_structure_hook(KeyPage, _structure_page)


def fields_of(request: CreateKeyRequest | UpdateKeyRequest, now: datetime) -> dict[str, Any]:
    """Return the caller's fields in JSON types; a relative lifetime is counted from `now` (aware)."""
    fields: dict[str, Any] = converter.unstructure(request)
    if isinstance(request, CreateKeyRequest) and request.expires_in:
        # Rounded up to the second: never shorter than asked for, and comparable with what a server stores.
        ends = (now + request.expires_in + _NEARLY_A_SECOND).astimezone(UTC)
        fields["expiry_date"] = f"{ends.isoformat(timespec='seconds')[:19]}Z"
    return fields


_EXACT: Final = 2**53
"""Below it, every integer is exactly a float."""


def canonical(request: CreateKeyRequest) -> str:
    """Return a request as text that is equal for equal requests; a relative lifetime stays relative, in seconds."""
    fields: dict[str, Any] = _by_value(converter.unstructure(request))
    if request.expires_in:
        fields["expires_in"] = request.expires_in.total_seconds()
    return orjson.dumps(fields, default=_plain, option=orjson.OPT_SORT_KEYS).decode()


def _by_value(value: Any) -> Any:
    """Normalise numbers: 1 and 1.0 are the same limit."""
    match value:
        case dict():
            return {name: _by_value(one) for name, one in value.items()}
        case list() | tuple():
            return [_by_value(one) for one in value]
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
    return value


def encode_key(key: TemporaryKey) -> str:
    """Return a key as JSON text, without its secret and without `extra`."""
    # In UTC, because orjson drops the seconds of an offset, and so would write another instant.
    known = {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name in _SHOWN
        if (value := getattr(key, name)) is not None
    }
    return orjson.dumps(known, option=orjson.OPT_UTC_Z).decode()


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return JSON text."""
    return orjson.dumps(fields, default=_plain)


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """Return JSON text as one line of printable ASCII.

    All other characters, e.g. in a key's name, are escaped: a terminal would obey control characters, and some readers
    take U+0085 and U+2028 for the end of a line.
    """
    text = encode(fields).decode()
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return f"{text}\n".encode()


def _plain(value: float) -> float:
    # E.g. numpy's numbers, which are floats to Python and unknown to orjson. The model has refused all other types.
    return float(value)


def parse(text: bytes, charset: str | None = None) -> Any:
    """Read JSON: strictly, or else leniently; never more than `MAX_OBJECTS` objects.

    Args:
        text: The text.
        charset: Its character set, as declared, or None.

    Raises:
        DecodeError: The text is not JSON, or has too many objects.
    """
    if len(text) > MAX_OBJECTS and text.count(b"{") + text.count(b"[") > MAX_OBJECTS:
        raise DecodeError(f"expected at most {MAX_OBJECTS} objects")
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return lenient_json.loads(text, charset)
    except ValueError:
        raise DecodeError("expected JSON") from None


def decode(text: bytes, model: type[T], charset: str | None = None, request_id: str | None = None) -> T:
    """Read a JSON answer as `model`.

    Args:
        text: As of `parse`.
        model: The model to read.
        charset: As of `parse`.
        request_id: The server's id of the request, for the result; a new key's secret is taken out of it.

    Raises:
        DecodeError: The text is not JSON, or lacks a required field of `model`.
    """
    # The hook is called directly, because `structure` would look it up through more layers for each answer.
    read: T = converter.get_structure_hook(model)(_Answer(parse(text, charset), request_id), model)
    return read


def decode_changed(
    text: bytes, sent: Mapping[str, Any], charset: str | None = None, request_id: str | None = None
) -> TemporaryKey:
    """Read the answer to a change that was made; fields that it lacks are as they were sent.

    Args:
        text: JSON, or an empty text.
        sent: The key's id and the fields that were changed, in JSON types.
        charset: As of `parse`.
        request_id: As of `decode`.

    Raises:
        DecodeError: The text is neither a JSON object nor empty.
    """
    data = parse(text, charset) if text.strip() else None
    if data is None or (type(data) is dict and id_in(data) is None):
        data = {**sent, **(data or {}), "id": sent["id"]}
    return _key(data, request_id)


def id_in(data: object) -> str | None:
    """Return the id in a JSON object that is otherwise unusable, if the key can be revoked by it."""
    key_id = _id(data.get("id")) if isinstance(data, dict) else None
    return key_id if isinstance(key_id, str) and is_usable_id(key_id) else None
