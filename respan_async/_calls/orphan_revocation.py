"""Revokes orphaned keys by their ids; if that fails, records them as suspects."""

import asyncio
from collections.abc import Callable
from functools import partial

import attrs

from respan_async._calls.call import Call
from respan_async._calls.client_context import ClientContext, Options
from respan_async._http import operations
from respan_async._pacing.priority import Priority
from respan_async.errors import Effect, Suspect
from respan_async.events import RevokedEvent, SuspectEvent, logger
from respan_async.models import CreatedKey


def revoke(
    context: ClientContext, options: Options, key: CreatedKey, revoked: Callable[[], object] | None = None
) -> None:
    """Revoke a key in the background, at the lowest priority.

    Args:
        context: The client's context.
        options: The options of the call that made the key.
        key: The key.
        revoked: Called once the key is revoked.
    """
    options = attrs.evolve(options, priority=Priority.SWEEP, deadline=None)
    # A 404 is a failure like any other: of a key that was made just now, it proves that a database lags.
    work = Call(context, operations.delete(key.id), options).run()
    revoking = context.lifecycle.tasks.spawn(work, if_cut=lambda: _tell(context, key, revoked, revoking))
    # Told here, because a task that is cancelled before its first step has no chance to.
    revoking.add_done_callback(partial(_tell, context, key, revoked))


def _tell(
    context: ClientContext, key: CreatedKey, revoked: Callable[[], object] | None, revoking: asyncio.Task[None]
) -> None:
    reason = "its caller was gone when it arrived"
    if revoking.done() and not revoking.cancelled() and revoking.exception() is None:
        logger.info("revoked key %s: %s", key.id, reason)
        context.dispatcher.emit(RevokedEvent, id=key.id, reason=reason)
        if revoked is not None:
            revoked()
        return
    suspect = Suspect(
        name=key.name, tag=None, id=key.id, effect=Effect.LOST, sent_at=context.clock(), sent={}, reason=reason
    )
    context.suspects.add(suspect)
    logger.warning("key %s is alive and nobody holds it: %s", key.id, reason)
    context.dispatcher.emit(SuspectEvent, suspect=suspect)
