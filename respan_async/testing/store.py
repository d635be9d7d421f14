"""The state of the fake server: its keys, as it sees them, and its counts."""

import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any, Literal

import attrs

__all__ = ["Counts", "KeyRecord", "Keyring", "Shape", "as_text"]

Shape = Literal["a", "b"]

DEFAULT_NAMES: Mapping[Shape, str] = {"a": "Respan temporary key", "b": "Temporary Access Key"}
NEVER_USED = "1970-01-01T00:00:00Z"
_LETTERS = bytes.maketrans(b"+/", b"xY")


@attrs.frozen
class Counts:
    """The counts of the server since it started; a snapshot.

    Attributes:
        requests: Requests whose head arrived, including refused ones.
        refused: Answers 429, by the limit or by a fault.
        created: Keys that were really made, whether or not a client learned of them.
        revoked: Keys that were deleted.
        alive: Keys neither revoked nor expired at the moment of the snapshot.
        by_operation: Requests for "create", "list", "retrieve", "update", "delete", and "other" if none matches.
        by_status: Requests by the status of their answer; 0 for those that got no complete HTTP answer.
        max_in_flight: The most requests that were being handled at one time.
        connections: Connections accepted.
    """

    requests: int
    refused: int
    created: int
    revoked: int
    alive: int
    by_operation: dict[str, int]
    by_status: dict[int, int]
    max_in_flight: int
    connections: int


@attrs.define
class KeyRecord:
    """A key as the server knows it.

    Attributes:
        id: The id; in shape "a" it may hold `.`, `+` and `/`, as real ones may.
        api_key: The secret, which only the answer to the create has.
        created: When it was made, on the server's clock (`FakeRespan.now`).
        expiry_date: When it expires, in UTC; None for never.
        revoked: Whether it was deleted.
        body: The fields of the create as sent, including unknown ones.
        answered: Whether the answer with the secret was written, whole, to a connection that was still open.
        late: Whether it was made after its request had been dropped.
        key_usage: How often it was used; the server never uses a key, so a test sets it.
    """

    id: str
    api_key: str
    prefix: str
    name: str
    created: datetime
    body: dict[str, Any]
    expiry_date: datetime | None = None
    max_usage: int = -1
    rate_limit: int | None = None
    spending_limit: float | None = None
    is_test: bool = False
    limit_policies: list[dict[str, Any]] | None = None
    revoked: bool = False
    answered: bool = False
    late: bool = False
    key_usage: int = 0


class Keyring:
    """Every key the server ever made.

    Args:
        shape: The documented answer, and with it the kind of ids.
        rng: The source of ids and secrets.
    """

    def __init__(self, shape: Shape, rng: Random) -> None:
        self.keys: dict[str, KeyRecord] = {}
        self.revoked = 0
        self._valid: dict[str, KeyRecord] = {}
        self._shape: Shape = shape
        self._rng = rng

    def __len__(self) -> int:
        """Return the number of keys that were not revoked."""
        return len(self._valid)

    def create(self, fields: Mapping[str, Any], body: dict[str, Any], *, now: datetime, late: bool) -> KeyRecord:
        """Make a key.

        Args:
            fields: The checked fields, by their names in `KeyRecord`.
            body: The fields as sent.
            now: The time.
            late: Whether the client no longer waits for it.
        """
        text = b64encode(self._rng.randbytes(48))
        plain = text.translate(_LETTERS).decode()
        prefix = plain[:8]
        if self._shape == "a":
            key_id = f"{prefix}.{text[40:].decode()}"
        else:
            key_id = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        record = KeyRecord(
            id=key_id,
            api_key=f"{prefix}.{plain[8:40]}",
            prefix=prefix if self._shape == "a" else "tmp_",
            name=fields.get("name", DEFAULT_NAMES[self._shape]),
            created=now,
            body=body,
            late=late,
        )
        self._change(record, fields)
        self.keys[key_id] = self._valid[key_id] = record
        return record

    def find(self, key_id: str) -> KeyRecord | None:
        """Return a key that was not revoked."""
        return self._valid.get(key_id)

    def update(self, record: KeyRecord, fields: Mapping[str, Any]) -> None:
        """Change fields of a key, which were checked."""
        self._change(record, fields)

    def revoke(self, record: KeyRecord) -> None:
        """Revoke a key, for good."""
        record.revoked = True
        del self._valid[record.id]
        self.revoked += 1

    def newest(self, start: int, stop: int | None) -> list[KeyRecord]:
        """Return the keys that were not revoked, from the `start`-th newest up to, not including, the `stop`-th."""
        return list(islice(reversed(self._valid.values()), start, stop))

    def alive(self, now: datetime) -> Iterator[KeyRecord]:
        """Iterate over the working keys: neither revoked nor expired."""
        return (r for r in self._valid.values() if r.expiry_date is None or r.expiry_date > now)

    def public(self, record: KeyRecord) -> dict[str, Any]:
        """Return a key as the list, GET and PATCH show it: without its secret."""
        shown = self.created(record)
        del shown["api_key"]
        return shown

    def created(self, record: KeyRecord) -> dict[str, Any]:
        """Return a key as the answer to its create shows it, with the documented fields and order of the shape."""
        if self._shape == "b":
            return {
                "id": record.id,
                "name": record.name,
                "prefix": record.prefix,
                "is_test": record.is_test,
                "expiry_date": as_text(record.expiry_date),
                "max_usage": record.max_usage,
                "rate_limit": record.rate_limit,
                "spending_limit": record.spending_limit,
                "created_at": as_text(record.created),
                "api_key": record.api_key,
                "key_usage": record.key_usage,
            }
        return {
            "id": record.id,
            "api_key": record.api_key,
            "prefix": record.prefix,
            "created": as_text(record.created),
            "name": record.name,
            "revoked": record.revoked,
            "expiry_date": as_text(record.expiry_date),
            "key_usage": record.key_usage,
            "max_usage": record.max_usage,
            "last_used": NEVER_USED if record.key_usage == 0 else as_text(record.created),
            "rate_limit": record.rate_limit,
            "spending_limit": record.spending_limit,
            "spending_in_period": 0.0,
            "is_test": record.is_test,
            "is_temporary": True,
        }

    def _change(self, record: KeyRecord, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            setattr(record, name, value)


def as_text(moment: datetime | None) -> str | None:
    """Write a time as Django REST Framework does: ISO 8601 in UTC, with a Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
