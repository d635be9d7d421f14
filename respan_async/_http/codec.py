"""Between models and JSON: one cattrs converter, over orjson.

Requests are written strictly: what was given, and nothing else. Answers are read leniently, and strictly where it
matters: without a real `id` and `api_key` it is no key.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import attrs
import cattrs.gen
import orjson
from cattrs.preconf.orjson import make_converter

from respan_async._http import json_text, key_fields
from respan_async._http.json_text import DecodeError
from respan_async._http.key_ids import MAX_ID, is_usable_id
from respan_async._http.lenient_json import NO_CHARACTER
from respan_async._http.redaction import WINDOW, redacted
from respan_async.models import CreatedKey, CreateKeyRequest, KeyPage, LimitPolicy, TemporaryKey, UpdateKeyRequest
from respan_async.secret import Secret

T = TypeVar("T")

_LONGEST_LINK: Final = 4096
"""Characters of a link to the next page; what takes URLs apart would keep longer ones in its cache."""

_NEARLY_A_SECOND: Final = timedelta(microseconds=999_999)

_SHOWN: Final = tuple(dict.fromkeys(attribute for attribute, *_ in key_fields.FIELDS.values()))


@attrs.frozen
class _Answer:
    """What a model is read from.

    Attributes:
        data: The body, in JSON types.
        request_id: The server's id of the request, without secrets; None where there is none.
    """

    data: Any
    request_id: str | None


def _structure_key(answer: _Answer, _: Any = None) -> TemporaryKey:
    return _key(answer.data, answer.request_id)


def _key(data: Any, request_id: str | None) -> TemporaryKey:
    return TemporaryKey(**key_fields.read_fields(data, request_id))


def _structure_created(answer: _Answer, _: Any = None) -> CreatedKey:
    values = key_fields.read_fields(answer.data, answer.request_id)
    if not is_usable_id(values["id"]):
        raise DecodeError(f"expected 1 to {MAX_ID} printable characters as id, and no '.' or '..' as a path segment")
    api_key = values["extra"].pop("api_key", None)
    # White space or control characters could not travel in an Authorization header: no key anybody can use.
    if not isinstance(api_key, Secret) or not _is_usable_secret(api_key.reveal()):
        raise DecodeError("expected a non-empty string as api_key")
    extra, secret = values["extra"], api_key.reveal()
    for name, raw in extra.items():
        if type(raw) in (str, list, dict) and len(secret) >= WINDOW:  # what is shorter stands in any text by chance
            extra[name] = _without(secret, raw)
    if answer.request_id is not None:
        values["request_id"] = redacted(answer.request_id, [api_key])
    return CreatedKey(api_key=api_key, **values)


def _is_usable_secret(text: str) -> bool:
    return text.isprintable() and " " not in text and NO_CHARACTER not in text


def _without(secret: str, raw: Any) -> Any:
    """Hide what says a secret again, under a name that this client does not know."""
    try:
        text = raw if type(raw) is str else orjson.dumps(raw).decode()
    except TypeError:
        return None  # orjson writes no such depth, though it reads it: not looked through, and so not shown
    return Secret(text) if secret in text else raw


def _page_number(url: Any) -> int | None:
    """Take the page number out of a `next` link, and nothing else of it."""
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
    if isinstance(data, list):  # the older shape: everything, in a bare array
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

# An omitted default is how UNSET stays off the wire.
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
        expires_in=cattrs.gen.override(omit=True),  # a lifetime goes out as the date it ends: see fields_of
    ),
)

converter.register_structure_hook(TemporaryKey, _structure_key)

converter.register_structure_hook(CreatedKey, _structure_created)

converter.register_structure_hook(KeyPage, _structure_page)


def fields_of(request: CreateKeyRequest | UpdateKeyRequest, now: datetime) -> dict[str, Any]:
    """Return what the caller gave, as JSON types; a relative lifetime is counted from `now` (aware)."""
    fields: dict[str, Any] = converter.unstructure(request)
    if isinstance(request, CreateKeyRequest) and request.expires_in:
        # Rounded up to the second: never shorter than asked, and comparable with what a server stores.
        ends = (now + request.expires_in + _NEARLY_A_SECOND).astimezone(UTC)
        fields["expiry_date"] = f"{ends.isoformat(timespec='seconds')[:19]}Z"
    return fields


_EXACT: Final = 2**53
"""Below it every whole number is a float of its own."""


def canonical(request: CreateKeyRequest) -> str:
    """Return a request as text that is equal for equal requests; a relative lifetime stays relative, in seconds."""
    fields: dict[str, Any] = _by_value(converter.unstructure(request))
    if request.expires_in:
        fields["expires_in"] = request.expires_in.total_seconds()
    return orjson.dumps(fields, default=json_text.plain, option=orjson.OPT_SORT_KEYS).decode()


def _by_value(value: Any) -> Any:
    """Write numbers in one way: 1 and 1.0 are the same limit."""
    match value:
        case dict():
            return {name: _by_value(one) for name, one in value.items()}
        case list() | tuple():
            return [_by_value(one) for one in value]
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
    return value


def encode_key(key: TemporaryKey) -> str:
    """Return what is known of a key as JSON text, without its secret and without `extra`."""
    # In UTC: orjson drops the seconds of an offset that has some, and so makes another instant of it.
    known = {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name in _SHOWN
        if (value := getattr(key, name)) is not None
    }
    return orjson.dumps(known, option=orjson.OPT_UTC_Z).decode()


def decode(text: bytes, model: type[T], charset: str | None = None, request_id: str | None = None) -> T:
    """Read a JSON answer as `model`.

    Args:
        text: As of `parse`.
        model: What it is.
        charset: As of `parse`.
        request_id: The server's id of the request, for the result; a new key's secret is taken out of it.

    Raises:
        DecodeError: It is no JSON, or lacks what makes it a `model`.
    """
    # The hook itself: `structure` would look it up through more layers for each answer.
    read: T = converter.get_structure_hook(model)(_Answer(json_text.parse(text, charset), request_id), model)
    return read


def decode_changed(
    text: bytes, sent: Mapping[str, Any], charset: str | None = None, request_id: str | None = None
) -> TemporaryKey:
    """Read the answer to a change that was made; what it does not say is as it was sent.

    Args:
        text: JSON, or nothing at all.
        sent: The key's id and the fields that were changed, in JSON types.
        charset: As of `parse`.
        request_id: As of `decode`.

    Raises:
        DecodeError: It is neither a JSON object nor nothing.
    """
    data = json_text.parse(text, charset) if text.strip() else None
    if data is None or (type(data) is dict and id_in(data) is None):
        data = {**sent, **(data or {}), "id": sent["id"]}
    return _key(data, request_id)


def id_in(data: object) -> str | None:
    """Return the id in a JSON object that is otherwise of no use, if the key can be revoked by it."""
    key_id = key_fields.read_id(data.get("id")) if isinstance(data, dict) else None
    return key_id if isinstance(key_id, str) and is_usable_id(key_id) else None
