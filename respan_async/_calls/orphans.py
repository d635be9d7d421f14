"""Keys that were made, and that nobody is left to hold: revoked by their ids, or else remembered."""

import asyncio
import contextlib
from functools import partial

import attrs

from respan_async._calls.call import Call
from respan_async._calls.context import ClientContext, Options
from respan_async._http import protocol
from respan_async._pacing.slots import Priority
from respan_async.errors import Effect, NotFoundError, Suspect
from respan_async.events import RevokedEvent, SuspectEvent, logger
from respan_async.models import CreatedKey


def revoke(context: ClientContext, options: Options, key: CreatedKey) -> None:
    """Revoke a key in the background, behind everything else.

    Args:
        context: The client's.
        options: Those of the call that made it.
        key: The key.
    """
    options = attrs.evolve(options, priority=Priority.SWEEP, deadline=None)
    revoking = context.lifecycle.spawn(_revoke(context, options, key))
    # Told here, because a task that is cancelled before its first step has no chance to.
    revoking.add_done_callback(partial(_tell, context, key))


async def _revoke(context: ClientContext, options: Options, key: CreatedKey) -> None:
    with contextlib.suppress(NotFoundError):
        await Call(context, protocol.delete(key.id), options).run()


def _tell(context: ClientContext, key: CreatedKey, revoking: asyncio.Task[None]) -> None:
    reason = "its caller was gone when it arrived"
    if not revoking.cancelled() and revoking.exception() is None:
        logger.info("revoked key %s: %s", key.id, reason)
        context.dispatcher.emit(RevokedEvent, id=key.id, reason=reason)
        return
    suspect = Suspect(
        name=key.name, tag=None, id=key.id, effect=Effect.LOST, sent_at=context.clock(), sent={}, reason=reason
    )
    context.suspects.add(suspect)
    logger.warning("key %s is alive and nobody holds it: %s", key.id, reason)
    context.dispatcher.emit(SuspectEvent, suspect=suspect)
