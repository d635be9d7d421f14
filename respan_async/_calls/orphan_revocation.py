"""Revokes orphaned keys by their ids; if that fails, records them as suspects.

The DELETE has the lowest priority, and a batch may have kept the key for long before. So the suspect has the time when
the key was made, and not the time when its DELETE failed, because a sweep leaves a key alone that is older than its
attempt.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

import attrs

from respan_async._calls.call import Call
from respan_async._calls.client_context import ClientContext, Options
from respan_async._calls.name_tags import tag_in
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
    # Treat a 404 as a failure: the key was made just now, so the 404 only proves that a database lags.
    work = Call(context, operations.delete(key.id), options).run()
    tell = partial(_tell, context, _suspect(context, key), revoked)
    revoking = context.lifecycle.tasks.spawn(work, if_cut=lambda: tell(revoking))
    # A callback tells it, because a task that is cancelled before its first step never runs.
    revoking.add_done_callback(tell)


def _suspect(context: ClientContext, key: CreatedKey) -> Suspect:
    """Return the suspect to record if a key cannot be revoked."""
    return Suspect(
        name=key.name,
        tag=tag_in(key.name) or None if context.attempt_log.tag_names else None,
        id=key.id,
        effect=Effect.LOST,
        sent_at=_made_at(context, key),
        sent={} if key.expiry_date is None else {"expiry_date": key.expiry_date.isoformat()},  # the suspect ends then
        reason="its caller was gone when it arrived",
    )


def _made_at(context: ClientContext, key: CreatedKey) -> datetime:
    """Return when a key was made, by this machine's clock."""
    made = context.clock()
    if key.created_at is not None:
        with contextlib.suppress(OverflowError):  # the result is outside the years 1 to 9999
            made = min(made, key.created_at - context.skew.ahead)
    return made


def _tell(
    context: ClientContext,
    suspect: Suspect,
    revoked: Callable[[], object] | None,
    revoking: asyncio.Task[None],
) -> None:
    if revoking.done() and not revoking.cancelled() and revoking.exception() is None:
        logger.info("revoked key %s: %s", suspect.id, suspect.reason)
        context.dispatcher.emit(RevokedEvent, id=suspect.id or "", reason=suspect.reason)
        if revoked is not None:
            revoked()
        return
    context.suspects.add(suspect)
    logger.warning("key %s is alive and nobody holds it: %s", suspect.id, suspect.reason)
    context.dispatcher.emit(SuspectEvent, suspect=suspect)
