"""The states of tickets and attempts, and every transition between them.

The theory. A ticket is one issuance; an attempt is one POST for it, known by its tag. Before a byte of an attempt
leaves, its *intent* is durable. It ends in one of four ways: it is proven to have left nothing; it used no slot of the
limit either, and is forgotten; its key is recorded; or its result is unknown, and it is a suspect until its key is
revoked or has died.

Rules:

1. For each attempt, in this order: slot, tag, durable intent, bytes.
2. A key is durable before any caller gets it.
3. An intent without an answer, after a crash or a takeover, is a suspect with its tag.
4. A commit that failed proves nothing: read before revoking; until the row is known not to be ours, the key is a
   suspect.
5. A suspect is *taken over* when its owner is gone. This ledger then cannot know whether an answer came: another copy
   of it (the original of a backup, say) may have recorded the key since. Such a suspect bears the time of its takeover,
   until the process that made the attempt states that no answer came.

A store applies a transition by compare-and-set: it changes a row only if it is in one of the states the transition
comes from, and, where a ticket is claimed, only for the owner and epoch that claimed it. A transition that changes no
row did not happen.
"""

import enum
from typing import Final

import attrs


class TicketState(enum.StrEnum):
    """The state of a ticket."""

    OPEN = "open"
    """It has no key, and no process is working on it."""
    CLAIMED = "claimed"
    """An owner is working on it, as long as its lease lasts."""
    ISSUED = "issued"
    """Its key is recorded, with its secret."""
    DELIVERED = "delivered"
    """Its secret was delivered, and is erased here."""


class AttemptState(enum.StrEnum):
    """The state of an attempt."""

    INTENT = "intent"
    """It may be sent, or is in flight."""
    VOID = "void"
    """It was answered, and is proven to have left nothing."""
    RECORDED = "recorded"
    """Its key is recorded for its ticket."""
    SUSPECT = "suspect"
    """It may have left an orphaned key."""
    REVOKED = "revoked"
    """Its key was found, and revoked."""
    EXPIRED = "expired"
    """Its key has expired, if there was one."""


@attrs.frozen
class Transition:
    """A transition from any of these states to that one; to None, where the attempt is forgotten."""

    come_from: tuple[enum.StrEnum, ...]
    to: enum.StrEnum | None


TICKET_TRANSITIONS: Final = {
    "claim": Transition((TicketState.OPEN, TicketState.CLAIMED), TicketState.CLAIMED),
    "release": Transition((TicketState.CLAIMED,), TicketState.OPEN),
    "record": Transition((TicketState.CLAIMED,), TicketState.ISSUED),
    "deliver": Transition((TicketState.ISSUED,), TicketState.DELIVERED),
}
"""A claimed ticket is claimed anew by the same owner for its next attempt, or by another after the lease has ended."""

ATTEMPT_TRANSITIONS: Final = {
    "mark_void": Transition((AttemptState.INTENT,), AttemptState.VOID),
    "forget": Transition((AttemptState.INTENT,), None),
    "record": Transition((AttemptState.INTENT,), AttemptState.RECORDED),
    "mark_suspect": Transition((AttemptState.INTENT, AttemptState.SUSPECT), AttemptState.SUSPECT),
    "revoke": Transition((AttemptState.SUSPECT,), AttemptState.REVOKED),
    "expire": Transition((AttemptState.SUSPECT,), AttemptState.EXPIRED),
}
"""Marking a suspect twice adds later information, such as the key's id."""
