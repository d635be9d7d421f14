"""Reads one key, and revokes it by its id.

A 404 to a DELETE proves that there is no such key only if it comes in the API's own JSON, if another GET does not find
the key either, and if the key was not made just now, because a replica of the server's database may lag.
"""

import enum

from respan_async._calls.call_service import CallService
from respan_async._http import operations, response_parsing
from respan_async.errors import Effect, NotFoundError
from respan_async.models import TemporaryKey


class KeyEnd(enum.Enum):
    """What the answer to a key's DELETE has shown."""

    REVOKED = enum.auto()
    """The key is revoked."""
    GONE = enum.auto()
    """The key existed a moment ago, and does not exist any more, because another program has revoked it."""
    UNSEEN = enum.auto()
    """The server did not find the key, which is so new that a replica may not have it yet."""


async def read(service: CallService, key_id: str) -> TemporaryKey | None:
    """Return a key as the server shows it now; None if the server states that there is no such key.

    Raises:
        RespanError: The key could not be read.
    """
    try:
        return await service.send(operations.retrieve(key_id))
    except NotFoundError as error:
        if response_parsing.states_absence(error):
            return None
        raise


async def revoke(service: CallService, key_id: str, *, just_made: bool) -> KeyEnd:
    """Revoke a key that was seen a moment ago.

    Args:
        service: Sends the requests.
        key_id: The key's id.
        just_made: Whether the key is so new that a replica of the server's database may not have it yet.

    Raises:
        RespanError: The key could not be revoked.
    """
    try:
        await service.send(operations.delete(key_id))
    except NotFoundError as error:
        if not response_parsing.states_absence(error):
            raise
        if error.effect is not Effect.NONE:
            return KeyEnd.REVOKED  # an earlier attempt, whose answer was lost, has revoked the key
        if just_made:
            return KeyEnd.UNSEEN
        if await read(service, key_id) is not None:
            raise  # the key still exists; the API key lacks a permission, or is of another account
        return KeyEnd.GONE
    return KeyEnd.REVOKED
