"""Defines the protocol of a ledger: the operations that an `Issuer` needs, in any kind of store."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import attrs

from respan_async.errors import Effect, LedgerError, Suspect
from respan_async.issuing.states import AttemptState, TicketState
from respan_async.issuing.tickets import Ticket
from respan_async.models import CreatedKey


@attrs.frozen(kw_only=True)
class TicketRecord:
    """A ticket as the ledger knows it.

    Attributes:
        fields: The ticket's request, as `Ticket.fields`.
        state: The state of the ticket.
        key: The ticket's key, with an erased secret after delivery; None if it has no key.
    """

    fields: str
    state: TicketState
    key: CreatedKey | None


@attrs.frozen(kw_only=True)
class Intent:
    """An attempt that is about to be sent.

    Attributes:
        tag: The tag of the attempt.
        name: The key's name as sent.
        sent: All fields as sent, in JSON types.
        sent_at: Seconds since 1970.
    """

    tag: str
    name: str | None
    sent: dict[str, Any] = attrs.field(repr=False)
    sent_at: float


@attrs.frozen(kw_only=True)
class Counts:
    """The number of tickets and attempts in each state."""

    tickets: dict[TicketState, int]
    attempts: dict[AttemptState, int]


@attrs.frozen
class Undelivered:
    """A ticket whose secret the ledger still keeps.

    Attributes:
        ticket: The id of the ticket.
        key_id: The id of its key.
        issued_at: When the key was recorded, aware; None if that part of the record is damaged.
    """

    ticket: str
    key_id: str
    issued_at: datetime | None


@attrs.frozen(kw_only=True)
class Snapshot:
    """The contents of a ledger at one moment.

    Attributes:
        account: The account to which the ledger is bound.
        counts: The number of tickets and attempts in each state.
        suspects: All suspects, the oldest first.
        undelivered: Tickets whose secret is kept, in the order of their ids.
    """

    account: str
    counts: Counts
    suspects: tuple[Suspect, ...]
    undelivered: tuple[Undelivered, ...]


class DamagedRecord(LedgerError):
    """One record is damaged; the others can still be read."""


class UnreadableSecret(LedgerError):
    """A kept secret cannot be read: this process lacks its key, or the record is damaged.

    Attributes:
        expiry_date: When the ticket's key expires, aware; None if it never does, or if its expiry cannot be read.
        is_damaged: Whether the record is damaged, so that no cipher key would help.
        remedy: A text that says what the ledger does with the secret, and what the user can do.
    """

    def __init__(self, message: str, key: CreatedKey | None, *, is_damaged: bool) -> None:
        super().__init__(message)
        self.expiry_date = None if key is None else key.expiry_date
        self.is_damaged = is_damaged
        self.remedy = "it is left as it is"
        if is_damaged and key is not None:
            self.remedy += f": revoke its key, {key.id}, and issue another ticket in its place"


class Ledger(Protocol):
    """The durable memory of an issuer. Every method raises `LedgerError` if the store fails.

    A method that writes returns only when its changes are durable; only `mark_suspect`, `mark_void` and
    `forget_attempt` may be left running.
    """

    async def open(self, account: str, *, force: bool = False) -> None:
        """Open the store for an account (host and API key's fingerprint), and take over what dead owners left.

        If the event loop on which the ledger was opened is closed, opening it again continues on the running loop, with
        the same owner and claims.

        Raises:
            ClientStateError: The ledger is open already; each issuer needs a separate ledger.
            LedgerError: The ledger belongs to another account and `force` is False, or was written by a newer version,
                or cannot be opened.
        """
        ...

    async def find(self, ticket_id: str) -> TicketRecord | None:
        """Return the record of a ticket; None if it is unknown."""
        ...

    async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
        """Claim a ticket and note an intent, in one step; return the claim's epoch.

        Raises:
            TicketConflictError: The ticket is known with other fields, and a key was made for it, or may have been.
            LedgerError: Another owner is working on the ticket, or the ticket has its key already.
        """
        ...

    def lease_held_since(self, since: float) -> bool:
        """Whether this owner's claims have held without a break since then, as far as it knows without a query.

        Args:
            since: A time of `time.monotonic()`.
        """
        ...

    async def mark_void(self, tag: str) -> None:
        """Note that an attempt is proven to have left no key, although it used a slot of the limit."""
        ...

    async def forget_attempt(self, tag: str) -> None:
        """Forget an attempt that left no key and used no slot, because it was refused for now, or never sent."""
        ...

    async def mark_suspect(self, tag: str, effect: Effect, reason: str, key_id: str | None) -> None:
        """Note that an attempt of this process may have left a key, and that no answer to it came."""
        ...

    async def release(self, ticket_id: str, epoch: int | None) -> None:
        """Release the claim of this epoch, or any claim of this owner, because the call has ended without a key."""
        ...

    async def record(self, ticket_id: str, epoch: int, tag: str, key: CreatedKey) -> bool:
        """Record a ticket's key, if the claim still holds; return whether it holds."""
        ...

    async def erase(self, ticket_id: str) -> None:
        """Erase a secret that was delivered."""
        ...

    async def undelivered(
        self, after: str, limit: int, *, left_for: float = 0.0
    ) -> Sequence[tuple[str, CreatedKey | LedgerError]]:
        """Return tickets whose secret is still kept, with their keys, or with the reason why a secret cannot be read.

        Args:
            after: The id after which to begin; tickets come in the order of their ids.
            limit: The most tickets to return.
            left_for: Leave out keys that a live owner has recorded within so many seconds, because that owner is
                delivering them.
        """
        ...

    async def suspects(self) -> Sequence[Suspect]:
        """Return all suspects; the time of a takeover is by the local clock."""
        ...

    async def close_suspect(self, tag: str, state: AttemptState) -> bool:
        """Note that a suspect's key was revoked, or has expired; return whether it was still a suspect."""
        ...

    async def acquire_sweep_turn(self, seconds: float) -> bool:
        """Take this owner's turn to sweep, unless another live owner took it within so many seconds."""
        ...

    async def owns_key(self, key_id: str) -> bool:
        """Whether a key with this id belongs to a ticket."""
        ...

    async def recent(self, seconds: float) -> Sequence[float]:
        """Return the ages of the attempts of the last `seconds`, the oldest first, in seconds."""
        ...

    async def counts(self) -> Counts:
        """Count tickets and attempts by their states."""
        ...

    async def aclose(self) -> None:
        """Finish the writes, and close the store. May be called more than once."""
        ...
