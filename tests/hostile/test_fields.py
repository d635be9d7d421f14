"""Wrong types in every field of an answer: a key that came whole is not lost to an odd field, and no field gets through
as what it is not."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Effect, InvalidResponseError, Secret, TemporaryKey
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from tests.hostile.scenarios import ONCE, OPERATIONS, Watch
from tests.integration.raw_server import API_KEY, RawServer, answer

FIELDS = (
    "id", "api_key", "name", "prefix", "status", "created", "created_at", "expiry_date", "revoked", "key_usage",
    "max_usage", "last_used", "rate_limit", "spending_limit", "spending_in_period", "is_test", "is_temporary",
    "hashed_key", "suffix", "tags", "user", "limit_policies", "extra", "self", "__class__", "",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2.5, 1e300, -1e300, 5e-324, 2**63, 2**64 - 1, -(2**63),
    "", " ", "x", "0", "None", "NaN", "\0", "a\nb", "a b", "\x7f", "\u200b", "\u202e", "\U0001f600", "e\u0301",
    "..", "../..", "a/b?c#d", "%2e%2e", "x" * 513, "x" * 100_000,
    "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2026-13-01", "24:00",
    "2026-01-01", "2026-W01-1", "20260101T000000Z", "2026-01-01T00:00:00+00:00:30", "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:60Z", [], [None], ["x"], [[]], {}, {"id": "y"}, {"": None},
)  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    attribute.name: {
        "id": (str,), "name": (str,), "prefix": (str,), "status": (str,), "created_at": (datetime,),
        "expiry_date": (datetime,), "revoked": (bool,), "key_usage": (int,), "max_usage": (int,),
        "last_used": (datetime,), "rate_limit": (int, float), "spending_limit": (int, float),
        "spending_in_period": (int, float), "is_test": (bool,), "is_temporary": (bool,), "used": (bool,),
        "extra": (dict,), "request_id": (str,),
    }[attribute.name]
    for attribute in attrs.fields(TemporaryKey)
}  # fmt: skip


def odd_keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every value in every field."""
    for field in FIELDS:
        for value in VALUES:
            yield f"says {field}={value!r:.60}", {"id": "key-1", "api_key": API_KEY, "name": "tenant", field: value}


def id_of(shown: dict[str, Any]) -> str:
    """Give the id that an answer shows, as text; empty where it shows none."""
    key_id = shown["id"]
    return str(key_id) if isinstance(key_id, str | int) and not isinstance(key_id, bool) else ""


def can_be_sent_back(key_id: str) -> bool:
    """Whether a key can be changed or revoked by this id."""
    return (
        0 < len(key_id.strip()) <= len(key_id) <= 512
        and key_id.isprintable()
        and key_id not in ("..", "../..", "%2e%2e")
    )


def can_be_a_key(shown: dict[str, Any]) -> bool:
    """Whether it has what makes it one, as the README says: an id that can be sent back, and a secret."""
    secret = shown["api_key"]
    real = isinstance(secret, str) and bool(secret) and secret.isprintable() and " " not in secret
    return real and can_be_sent_back(id_of(shown))


def check_types(watch: Watch, key: TemporaryKey) -> None:
    """Every attribute is of its type, or None."""
    for name, kinds in TYPES.items():
        value = getattr(key, name)
        right = type(value) in kinds or (value is None and name != "id")
        watch.check(right, f"{name} is {value!r:.100}")
        watch.check(not isinstance(value, datetime) or value.tzinfo, f"{name} is naive")


@pytest.mark.virtual
@pytest.mark.hostile
@pytest.mark.parametrize("operation", ["create", "create_many", "update", "retrieve", "list", "list, iterated"])
async def test_every_value_in_every_field(operation: str) -> None:
    """A key where there is one, with every attribute of its type; else the error that says what that means."""
    watch = Watch()
    odd = list(odd_keys())
    listed = operation.startswith("list")
    answers = [answer(200, {"results": [shown], "next": None} if listed else shown) for _, shown in odd]
    creates = operation.startswith("create")
    # What the client tries by itself, where an id was told.
    by_itself = {"GET": answer(503), "DELETE": answer(503)} if creates else {"DELETE": answer(503)}
    async with (
        RawServer(*answers, aside=by_itself) as server,
        AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
    ):
        for name, shown in odd:
            watch.case = f"{operation}, where the server {name}"
            key_id = id_of(shown)
            if operation == "update" and not can_be_sent_back(key_id):
                key_id = "key-1"  # the change was made all the same, to this one
            expected = can_be_a_key(shown) if creates else key_id != ""
            try:
                result = await OPERATIONS[operation].run(respan.temporary_keys)
            except InvalidResponseError as error:
                watch.check(not expected, f"{error!r}")
                watch.check(error.effect is (Effect.LOST if creates else Effect.NONE), f"{error.effect}")
                watch.check(not error.retryable, "a changed server would be asked again")
                watch.check(API_KEY not in repr((error, error.body, error.args)), "the error shows a secret")
                continue
            except Exception as error:  # noqa: BLE001  a foreign one is what is looked for
                watch.check(False, f"a foreign exception: {error!r}")
                continue
            watch.check(expected, f"no error, but {result!r:.200}")
            key = result.results[0] if operation == "list" else result[0] if listed else result
            check_types(watch, key)
            watch.check(key.id == key_id, f"id {key.id!r:.100}")
            watch.check(not creates or key.api_key == Secret(shown["api_key"]), "another secret")
            watch.check(API_KEY not in repr(key), "the key shows its secret")
    watch.check(len(server.requests) == len(odd), f"{len(server.requests)} requests")

    watch.verdict()


async def issue_them(odd: list[tuple[str, dict[str, Any]]]) -> Watch:
    """Issue a ticket for each, and ask for each again in the same ledger."""
    watch = Watch()
    answers = [answer(201, shown) for _, shown in odd]
    async with (
        RawServer(*answers) as server,
        AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
        Issuer(respan, SQLiteLedger(":memory:"), auto_sweep=False) as issuer,
    ):
        for number, (name, shown) in enumerate(odd):
            watch.case = f"issue, where the server {name}"
            ticket = Ticket(f"ticket-{number}", CreateKeyRequest())
            try:
                first = await issuer.issue(ticket)
                again = await issuer.issue(ticket)
            except InvalidResponseError as error:
                watch.check(not can_be_a_key(shown), f"{error!r}")
                watch.check(error.effect is Effect.LOST, f"{error.effect}")
                continue
            except Exception as error:  # noqa: BLE001  a foreign one is what is looked for
                watch.check(False, f"a foreign exception: {error!r}")
                continue
            watch.check(isinstance(first.key, CreatedKey) and can_be_a_key(shown), f"no error, but {first!r:.200}")
            watch.check(first.key.api_key == Secret(shown["api_key"]), "another secret")
            watch.check((first.replayed, again.replayed) == (False, True), "it was not in the ledger")
            watch.check(first.key == again.key, f"{first.key!r:.300} was kept as {again.key!r:.300}")
    watch.check(len(server.requests) == len(odd), f"{len(server.requests)} requests")
    return watch


async def test_what_an_answer_says_is_kept_as_it_is() -> None:
    """Numbers, dates and texts at the edge of what a ledger can write: no key is lost to them."""
    edges = {1e300, 2**63, 2**64 - 1, 5e-324, "\0", "\U0001f600", "2026-01-01T00:00:00+00:00:30"}
    edges |= {"0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59", ".."}
    wanted = {(field, value) for field in ("id", "name", "created", "max_usage", "rate_limit") for value in edges}
    odd = [(name, shown) for name, shown in odd_keys() if any(shown.get(f) == v for f, v in wanted)]

    (await issue_them(odd)).verdict()


@pytest.mark.hostile
async def test_every_value_in_every_field_is_kept_as_it_is() -> None:
    """What was handed out and what the ledger gives back are equal, whatever the server says of the key."""
    (await issue_them(list(odd_keys()))).verdict()
