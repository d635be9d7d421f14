"""What came in: one request as the server read it, for a test to look at."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["ReceivedRequest"]


@attrs.frozen
class ReceivedRequest:
    """A request whose body came whole.

    Attributes:
        operation: "create", "list", "retrieve", "update" or "delete"; "other" for what is none.
        key_id: The key it is for; empty for all of them.
        method: In capitals.
        path: Path and query as they were sent.
        headers: As they were sent, the bearer token among them; without regard to case.
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
        """The body as JSON; None where there is none.

        Raises:
            ValueError: It is no JSON.
        """
        return json.loads(self.body) if self.body else None
