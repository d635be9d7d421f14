"""The keys that somebody wanted to revoke when the client was closed already, told in the log."""

import asyncio

from respan_async._calls.lifecycle import Lifecycle, Stage
from respan_async._http.redaction import printable
from respan_async.events import logger


class UnrevokedKeys:
    """Remember which keys were not revoked because the client was closed, and say so once, with their ids.

    Work that was cancelled and not awaited comes to its `finally` when the client is being closed, or later.

    Args:
        lifecycle: The client's.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._ids: dict[str, None] = {}
        self._closed = self._is_to_be_told = False
        lifecycle.register(Stage.RESOURCES, self._last_word)

    def add(self, key_id: str) -> None:
        """Note that a key was not revoked, if that is because the client is closed."""
        if not self._lifecycle.closing:
            return
        self._ids[key_id] = None
        if self._closed and not self._is_to_be_told:
            self._is_to_be_told = True
            asyncio.get_running_loop().call_soon(self._tell)  # with those that come in the same turn

    async def _last_word(self) -> None:
        await asyncio.sleep(0)  # who was cancelled right before has a turn to say what it wanted to revoke
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        self._is_to_be_told = False
        if self._ids:
            logger.warning(
                "%d keys were not revoked, because the client was closed, and may be alive: %s",
                len(self._ids),
                ", ".join(map(printable, self._ids)),
            )
            self._ids.clear()
