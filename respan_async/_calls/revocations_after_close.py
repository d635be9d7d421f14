"""Logs the keys whose revocation was requested after the client was closed."""

import asyncio

from respan_async._calls.lifecycle import Lifecycle, Stage
from respan_async._http.redaction import printable
from respan_async.events import logger


class RevocationsAfterClose:
    """Remember which keys were not revoked because the client was closed, and log their ids once.

    A task that was cancelled and not awaited reaches its `finally` while the client is being closed, or later.

    Args:
        lifecycle: The client's lifecycle.
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
            asyncio.get_running_loop().call_soon(self._tell)  # together with others of this turn of the loop

    async def _last_word(self) -> None:
        await asyncio.sleep(0)  # let tasks that were cancelled just now register their keys
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
