"""Converts between models and JSON: one cattrs converter, over orjson.

Requests are written strictly: only what the caller gave. Answers are read leniently, and strictly where it matters:
without a real `id` and `api_key` it is not a key.
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
"""The longest link to the next page, in characters, because URL parsers would keep longer ones in their caches."""

_NEARLY_A_SECOND: Final = timedelta(microseconds=999_999)

_SHOWN: Final = tuple(dict.fromkeys(attribute for attribute, *_ in key_fields.FIELDS.values()))


@attrs.frozen
class _Answer:
    """The input from which a model is read.

    Attributes:
        data: The body, in JSON types.
        request_id: The server's id of the request, without secrets; None if it sent none.
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
    return text.isprintable() and " " not in text and NO_CHARACTER not in text


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


def instant_text(instant: datetime) -> str:
    """Return a time in UTC, as the server writes it."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


converter = make_converter()

converter.register_unstructure_hook(datetime, instant_text)

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


def canonical(request: CreateKeyRequest) -> str:
    """Return a request as text that is equal for equal requests; a relative lifetime stays relative, in seconds."""
    fields: dict[str, Any] = _by_value(converter.unstructure(request))
    if request.expires_in:
        fields["expires_in"] = request.expires_in.total_seconds()
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


def _by_value(value: Any) -> Any:
    """Normalise numbers: 1 and 1.0 are the same limit."""
    match value:
        case dict():
            return {name: _by_value(one) for name, one in value.items()}
        case list() | tuple():
            return [_by_value(one) for one in value]
        case float() if value.is_integer() and abs(value) < key_fields.EXACT:
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
    read: T = converter.get_structure_hook(model)(_Answer(json_text.parse(text, charset), request_id), model)
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
    data = json_text.parse(text, charset) if text.strip() else None
    if data is None or (type(data) is dict and id_in(data) is None):
        data = {**sent, **(data or {}), "id": sent["id"]}
    return _key(data, request_id)


def id_in(data: object) -> str | None:
    """Return the id in a JSON object that is otherwise unusable, if the key can be revoked by it."""
    key_id = key_fields.read_id(data.get("id")) if isinstance(data, dict) else None
    return key_id if isinstance(key_id, str) and is_usable_id(key_id) else None
