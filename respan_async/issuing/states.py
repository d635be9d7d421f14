"""The states of tickets and attempts, and every transition between them.

The theory. A ticket is one issuance; an attempt is one POST for it, known by its tag. Before a byte of an attempt
leaves, its *intent* is durable. What becomes of it is one of four things: it is proven to have left nothing; it used no
slot of the limit either, and is forgotten; its key is recorded; or nobody can say, and it is a suspect, for good, until
its key is revoked or has died.

Rules:

1. For each attempt, in this order: slot, tag, durable intent, bytes.
2. A key is durable before anybody is given it.
3. An intent without an answer, after a crash or a takeover, is a suspect with its tag.
4. A commit that failed proves nothing: read before revoking; until the row is known not to be ours, the key is a
   suspect.
5. A suspect is *taken over* when its owner is gone. Then nobody here knows whether an answer came: in a copy of a
   ledger, restored or cut off, the key may have been recorded since, elsewhere. Such a suspect bears the time of its
   takeover, until the process that made the attempt says itself that no answer came.

A store applies a transition by compare-and-set: it changes a row only if it is in one of the states the transition
comes from, and, where a ticket is claimed, only for the owner and epoch that claimed it. A transition that changes no
row did not happen.
"""

import enum
from typing import Final

import attrs


class TicketState(enum.StrEnum):
    """Where a ticket is."""

    OPEN = "open"
    """It has no key, and no process is at work on it."""
    CLAIMED = "claimed"
    """An owner is at work on it, as long as its lease lasts."""
    ISSUED = "issued"
    """Its key is recorded, with its secret."""
    DELIVERED = "delivered"
    """Its secret was delivered, and is erased here."""


class AttemptState(enum.StrEnum):
    """Where an attempt is."""

    INTENT = "intent"
    """It may be sent, or is in the air."""
    VOID = "void"
    """It was answered, and is proven to have left nothing."""
    RECORDED = "recorded"
    """Its key is its ticket's."""
    SUSPECT = "suspect"
    """It may have left a key that nobody holds."""
    REVOKED = "revoked"
    """Its key was found, and revoked."""
    EXPIRED = "expired"
    """Its key, if there was one, has died by itself."""


@attrs.frozen
class Transition:
    """From any of these states to that one; to None, where it is forgotten."""

    come_from: tuple[enum.StrEnum, ...]
    to: enum.StrEnum | None


TICKET_TRANSITIONS: Final = {
    "claim": Transition((TicketState.OPEN, TicketState.CLAIMED), TicketState.CLAIMED),
    "release": Transition((TicketState.CLAIMED,), TicketState.OPEN),
    "record": Transition((TicketState.CLAIMED,), TicketState.ISSUED),
    "deliver": Transition((TicketState.ISSUED,), TicketState.DELIVERED),
}
"""A claimed ticket is claimed anew by the same owner for its next attempt, or by another when the lease is over."""

ATTEMPT_TRANSITIONS: Final = {
    "mark_void": Transition((AttemptState.INTENT,), AttemptState.VOID),
    "forget": Transition((AttemptState.INTENT,), None),
    "record": Transition((AttemptState.INTENT,), AttemptState.RECORDED),
    "mark_suspect": Transition((AttemptState.INTENT, AttemptState.SUSPECT), AttemptState.SUSPECT),
    "revoke": Transition((AttemptState.SUSPECT,), AttemptState.REVOKED),
    "expire": Transition((AttemptState.SUSPECT,), AttemptState.EXPIRED),
}
"""Marking a suspect twice adds what was learned meanwhile, such as the key's id."""
