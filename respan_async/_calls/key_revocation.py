"""Revoking one key by its id, after another look at it.

A 404 to a DELETE proves that there is no such key only in the API's own JSON, if another look finds none either, and
not for a key that was made just now: a replica of the server's database may lag.
"""

import enum

from respan_async._calls.call_service import CallService
from respan_async._http import operations, response_parsing
from respan_async.errors import Effect, NotFoundError
from respan_async.models import TemporaryKey


class KeyEnd(enum.Enum):
    """What a key's DELETE has shown."""

    REVOKED = enum.auto()
    """The key is revoked."""
    GONE = enum.auto()
    """The key was there a moment ago, and is not there any more: another has revoked it."""
    UNSEEN = enum.auto()
    """The key was not there; but it is so new that it may only not be seen yet."""


async def read(service: CallService, key_id: str) -> TemporaryKey | None:
    """Return a key as the server shows it now; None where it states that there is none.

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
        service: Sends.
        key_id: The key's id.
        just_made: Whether the key is so new that it may only not be seen yet.

    Raises:
        RespanError: The key could not be revoked.
    """
    try:
        await service.send(operations.delete(key_id))
    except NotFoundError as error:
        if not response_parsing.states_absence(error):
            raise
        if error.effect is not Effect.NONE:
            return KeyEnd.REVOKED  # that is what success looks like after a lost answer
        if just_made:
            return KeyEnd.UNSEEN
        if await read(service, key_id) is not None:
            raise  # it still is there: a right that is missing, or a wrong account
        return KeyEnd.GONE
    return KeyEnd.REVOKED
