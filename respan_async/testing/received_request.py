"""A request as the fake server received it, for a test to inspect."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["ReceivedRequest"]


@attrs.frozen
class ReceivedRequest:
    """A request whose body came completely.

    Attributes:
        operation: "create", "list", "retrieve", "update" or "delete"; "other" if none matches.
        key_id: The id of the key; empty for the whole collection.
        method: In capitals.
        path: Path and query as sent.
        headers: As sent, including the bearer token; case-insensitive.
        body: The bytes after the headers.
    """

    operation: str
    key_id: str
    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is empty.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body) if self.body else None
