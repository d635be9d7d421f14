"""Targets: what a program or a person may give. Refused in a sentence of ours, or used as it is."""

import ipaddress
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from yarl import URL

from respan_async._calls.settings_validation import DEFAULT_BASE_URL, checked_url
from respan_async._http import codec, json_text, operations
from respan_async._pacing.rate_limit import RateLimit
from respan_async.cli.fields import READERS, rate_limit
from respan_async.errors import ConfigurationError, InvalidRequestError, LedgerError, TicketConflictError
from respan_async.issuing import AESGCMCipher, Ticket
from respan_async.issuing._rows import conflict
from respan_async.models import UNSET, CreateKeyRequest, UpdateKeyRequest
from respan_async.secret import Secret, usable_token
from tests.fuzz.answers import NOW
from tests.fuzz.promises import told

_KEY: Final = bytes(range(32))


def base_url(data: bytes) -> None:
    """A base URL: https, or http to this very machine; scheme, host and port, and the host that everybody reads."""
    text = text_of(data)
    try:
        url = checked_url(text, allow_http=False)
    except ConfigurationError as error:
        told(error)
        return
    assert not urlsplit(text).username
    assert url.isascii()
    assert url.isprintable()
    parts = urlsplit(url)
    assert (parts.path, parts.query, parts.fragment, parts.username, parts.password) == ("", "", "", None, None)
    assert parts.hostname
    if parts.scheme != "https":
        assert parts.scheme == "http"
        assert parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    assert checked_url(url, allow_http=False) == url
    # What is sent goes to that host and port.
    sent = URL(url + operations.PATH, encoded=True)
    assert (sent.scheme, sent.raw_host, sent.explicit_port) == (parts.scheme, parts.hostname, parts.port)
    assert sent.raw_path == operations.PATH


def key_id(data: bytes) -> None:
    """A key's id: one segment of the path, from which it can be read back."""
    text = text_of(data)
    try:
        path = operations.retrieve(text).path
    except InvalidRequestError as error:
        told(error)
        return
    assert path.startswith(operations.PATH)
    assert path.endswith("/")
    segment = path[len(operations.PATH) : -1]
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", segment)
    assert segment not in (".", "..")
    assert unquote(segment, errors="strict") == text
    sent = URL(DEFAULT_BASE_URL + path, encoded=True)
    assert (str(sent.origin()), sent.raw_path_qs, sent.raw_fragment) == (DEFAULT_BASE_URL, path, "")


def bearer(data: bytes) -> None:
    """A bearer token: what one header line can carry, and shown in no message."""
    text = text_of(data)
    try:
        token = usable_token(text)
    except ConfigurationError as error:
        told(error, hides=text)
        return
    assert token.reveal() == text
    assert re.fullmatch(r"[!-~]+", text)
    assert len(text) < 12 or text not in f"{token!r}{token}{token:>9}"


def cell(data: bytes) -> None:
    """A field's name and its value as people write it, `=` between: a request that can be sent, or a sentence."""
    name, _, text = text_of(data).partition("=")
    if name == "rate":
        try:
            assert isinstance(rate_limit(text), RateLimit)
        except ValueError as error:
            told(error)
        return
    if name not in READERS:
        return
    try:
        request = CreateKeyRequest(**{name: READERS[name](text)})
    except InvalidRequestError as error:
        told(error)
        return
    _check_request(request)


def request(data: bytes) -> None:
    """Fields out of JSON, as a program may pass them on: a request that can be sent and told from others."""
    try:
        fields = json_text.parse(data)
    except json_text.DecodeError:
        return
    known = {name: value for name, value in fields.items() if name in READERS} if isinstance(fields, dict) else {}
    try:
        made = CreateKeyRequest(**known)
    except InvalidRequestError as error:
        told(error, most=700)
        return
    _check_request(made)


def _check_request(request: CreateKeyRequest) -> None:
    fields = codec.fields_of(request, NOW)
    sent = json_text.parse(json_text.encode(fields))
    # A sum of money may have more digits than a float; what is sent is what is given, up to that.
    assert sent == fields
    again = {name: value for name, value in sent.items() if value is not UNSET}
    if request.expires_in is UNSET:
        assert CreateKeyRequest(**again) == request
    if not {"is_test", "limit_policies"} & set(again):
        assert codec.fields_of(UpdateKeyRequest(**again), NOW) == sent
    ticket = Ticket("tenant-42", request)
    assert ticket.fields == Ticket("tenant-43", request).fields
    other = Ticket("tenant-42", CreateKeyRequest(name="another", max_usage=7)).fields
    if other != ticket.fields:
        error = conflict("tenant-42", ticket.fields, other)
        assert isinstance(error, TicketConflictError)
        assert "another" in str(error)


def cipher(data: bytes) -> None:
    """A secret as a ledger keeps it encrypted: what was changed, cut or made up is a `LedgerError`.

    But for what only names the key, in the first bytes: the right key opens it whatever is there.
    """
    keeper, kept = AESGCMCipher(_KEY), Secret("vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Z")
    sealed = keeper.encrypt(kept, "tenant-42")
    changed = bytes(a ^ b for a, b in zip(sealed, data.ljust(len(sealed), b"\0"), strict=False))
    for token in (data, sealed[:5] + data, changed, sealed + data):
        if token == sealed:
            continue
        try:
            secret = keeper.decrypt(token, "tenant-42")
        except LedgerError:
            continue
        assert (token[5:], secret) == (sealed[5:], kept), f"decrypted to {secret}"
    text = text_of(data)
    if text and text.isprintable():
        assert keeper.decrypt(keeper.encrypt(Secret(text), text), text).reveal() == text
    try:
        AESGCMCipher(text or "no key")
    except ConfigurationError as error:
        told(error, hides=text)


def text_of(data: bytes) -> str:
    """Read bytes as text; those that are none become what Python makes of a file's odd name."""
    return data.decode(errors="surrogateescape")
