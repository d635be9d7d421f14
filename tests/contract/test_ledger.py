"""What an `Issuer` relies on, of every ledger there is."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from respan_async import ClientStateError, CreatedKey, CreateKeyRequest, Effect
from respan_async.issuing import (
    AESGCMCipher,
    AttemptState,
    Ledger,
    LedgerError,
    PostgresLedger,
    SQLiteLedger,
    Ticket,
    TicketConflictError,
    TicketState,
)
from respan_async.issuing.ledger import Intent
from respan_async.issuing.sqlite._session import Session
from respan_async.issuing.states import ATTEMPT_TRANSITIONS, TICKET_TRANSITIONS
from respan_async.secret import Secret

ACCOUNT = "https://api.respan.ai abc"
TICKET = Ticket("tenant-1", CreateKeyRequest(name="tenant 1", max_usage=5))
_numbers = itertools.count(1)

Make = Callable[..., Ledger]


@attrs.define
class Store:
    """Where ledgers of one kind keep their things.

    Attributes:
        make: Gives another ledger of the same store, as another process would have it; takes `lease`.
        opened: What is to be closed in the end.
    """

    make: Make
    opened: list[Ledger] = attrs.field(factory=list)

    async def open(self, account: str = ACCOUNT, *, force: bool = False, **settings: Any) -> Ledger:
        """Give an open ledger."""
        ledger = self.make(**settings)
        self.opened.append(ledger)
        await ledger.open(account, force=force)
        return ledger

    async def close(self) -> None:
        """Close every ledger that was opened."""
        for ledger in self.opened:
            await ledger.aclose()


async def in_file(request: pytest.FixtureRequest) -> Store:
    """Give a file of its own."""
    return Store(partial(SQLiteLedger, request.getfixturevalue("tmp_path") / "keys.db"))


async def in_memory(_: pytest.FixtureRequest) -> Store:
    """Give what no other process can see."""
    return Store(partial(SQLiteLedger, ":memory:"))


async def in_postgres(request: pytest.FixtureRequest) -> Store:
    """Give a schema of its own."""
    server = request.getfixturevalue("postgres_server")
    make = partial(PostgresLedger, server.dsn(), schema=f"ledger_{next(_numbers)}")
    await make().create_schema()
    return Store(make)


SHARED = {"file": in_file, "postgres": in_postgres}
"""Stores that several processes can use."""
ALL = {**SHARED, "memory": in_memory}


@pytest.fixture(params=ALL)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Give a store of each kind."""
    kept = await ALL[request.param](request)
    yield kept
    await kept.close()


@pytest.fixture(params=SHARED)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Give a store of each kind that two processes can share."""
    kept = await SHARED[request.param](request)
    yield kept
    await kept.close()


@pytest.fixture
async def ledger(store: Store) -> Ledger:
    """Give an open ledger of each kind."""
    return await store.open()


def intent(tag: str = "", sent_at: float | None = None) -> Intent:
    """Give an intent with a fresh tag."""
    tag = tag or f"tag{next(_numbers):09}"
    sent = {"name": f"tenant 1 ~{tag}", "max_usage": 5}
    now = datetime.now(UTC).timestamp()
    return Intent(tag=tag, name=sent["name"], sent=sent, sent_at=now if sent_at is None else sent_at)  # type: ignore[arg-type]  # the name is text


def key(key_id: str = "key-1", secret: str = "prefix12.0123456789abcdef0123456789abcdef") -> CreatedKey:
    """Give a key as the server told it."""
    return CreatedKey(
        id=key_id,
        api_key=Secret(secret),
        name="tenant 1 ~tag",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        expiry_date=datetime.now(UTC) + timedelta(days=1),
        max_usage=5,
        spending_limit=0.1,
        is_test=False,
    )


async def issued(ledger: Ledger, ticket: Ticket = TICKET, key_id: str = "key-1") -> str:
    """Bring a ticket to its key; return the attempt's tag."""
    attempt = intent()
    epoch = await ledger.claim_attempt(ticket, attempt)
    assert await ledger.record(ticket.id, epoch, attempt.tag, key(key_id))
    return attempt.tag


async def ticket_states(ledger: Ledger) -> dict[TicketState, int]:
    """Count tickets, leaving out what there is none of."""
    return {state: number for state, number in (await ledger.counts()).tickets.items() if number}


async def attempt_states(ledger: Ledger) -> dict[AttemptState, int]:
    """Count attempts, leaving out what there is none of."""
    return {state: number for state, number in (await ledger.counts()).attempts.items() if number}


# --------------------------------------------------------------------------------------------------- one ticket's life


async def test_an_unknown_ticket_is_not_found(ledger: Ledger) -> None:
    """A ledger knows what was intended, and nothing else."""
    assert await ledger.find("tenant-1") is None
    assert await ticket_states(ledger) == {}


async def test_an_intent_claims_its_ticket(ledger: Ledger) -> None:
    """From then on the ticket is known with its fields, and has no key yet."""
    await ledger.claim_attempt(TICKET, intent())

    record = await ledger.find("tenant-1")
    assert record is not None
    assert (record.fields, record.state, record.key) == (TICKET.fields, TicketState.CLAIMED, None)
    assert await attempt_states(ledger) == {AttemptState.INTENT: 1}


async def test_a_recorded_key_comes_back_as_it_was(ledger: Ledger) -> None:
    """Every field, to the microsecond, and the secret."""
    await issued(ledger)

    record = await ledger.find("tenant-1")
    assert record is not None
    assert record.key is not None
    assert record.state is TicketState.ISSUED
    assert record.key.api_key == key().api_key
    assert attrs.evolve(record.key, expiry_date=None) == attrs.evolve(key(), expiry_date=None)
    assert await attempt_states(ledger) == {AttemptState.RECORDED: 1}
    assert await ledger.owns_key("key-1")
    assert not await ledger.owns_key("key-2")


async def test_an_erased_secret_is_gone_and_the_key_is_not(ledger: Ledger) -> None:
    """After delivery the ticket still has its key, without the secret."""
    await issued(ledger)

    await ledger.erase("tenant-1")

    record = await ledger.find("tenant-1")
    assert record is not None
    assert record.key is not None
    assert record.state is TicketState.DELIVERED
    assert record.key.id == "key-1"
    assert record.key.api_key.is_erased
    assert await ledger.owns_key("key-1")


async def test_a_released_ticket_can_be_claimed_again(ledger: Ledger) -> None:
    """The claim that was given up is worth nothing any more: its epoch has passed."""
    first = intent()
    epoch = await ledger.claim_attempt(TICKET, first)
    await ledger.release("tenant-1", epoch)
    assert await ticket_states(ledger) == {TicketState.OPEN: 1}

    again = await ledger.claim_attempt(TICKET, intent())

    assert again > epoch
    assert not await ledger.record("tenant-1", epoch, first.tag, key())
    assert await ticket_states(ledger) == {TicketState.CLAIMED: 1}


async def test_a_claim_can_be_released_by_one_who_does_not_know_its_epoch(ledger: Ledger) -> None:
    """A caller that was cancelled while it claimed never learned it."""
    await ledger.claim_attempt(TICKET, intent())

    await ledger.release("tenant-1", None)

    assert await ticket_states(ledger) == {TicketState.OPEN: 1}


async def test_the_same_call_may_intend_again(ledger: Ledger) -> None:
    """The next attempt of a call keeps the claim and its epoch."""
    first = await ledger.claim_attempt(TICKET, intent())

    assert await ledger.claim_attempt(TICKET, intent()) == first


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (CreateKeyRequest(name="tenant 1", max_usage=6), "max_usage"),
        (CreateKeyRequest(name="tenant 1"), "max_usage"),
        (CreateKeyRequest(max_usage=5, is_test=True), "is_test, name"),
        (CreateKeyRequest(name="tenant 1", max_usage=5, rate_limit=None), "rate_limit"),
        (CreateKeyRequest(name="tenant 1", max_usage=5, expires_in=timedelta(days=1)), "expires_in"),
    ],
)
@pytest.mark.parametrize("when", ["claimed", "issued", "delivered", "open"])
async def test_other_fields_are_a_conflict_that_names_them(
    ledger: Ledger, other: CreateKeyRequest, names: str, when: str
) -> None:
    """Whatever state the ticket is in; and nothing is changed by it."""
    epoch = 0
    if when in ("issued", "delivered"):
        await issued(ledger)
    else:
        epoch = await ledger.claim_attempt(TICKET, intent())
    if when == "delivered":
        await ledger.erase("tenant-1")
    if when == "open":
        await ledger.release("tenant-1", epoch)
    before = await ledger.counts()

    with pytest.raises(TicketConflictError, match=rf"another {names};"):
        await ledger.claim_attempt(Ticket("tenant-1", other), intent())

    assert await ledger.counts() == before


@pytest.mark.parametrize("attempts", ["void", "forgotten", "revoked"])
async def test_a_ticket_of_which_nothing_was_made_may_be_asked_for_with_other_fields(
    ledger: Ledger, attempts: str
) -> None:
    """As where the server found a field wrong, which is corrected then."""
    first, other = intent(), Ticket("tenant-1", CreateKeyRequest(name="corrected"))
    epoch = await ledger.claim_attempt(TICKET, first)
    match attempts:
        case "void":
            await ledger.mark_void(first.tag)
        case "forgotten":
            await ledger.forget_attempt(first.tag)
        case _:
            await ledger.mark_suspect(first.tag, Effect.UNKNOWN, "lost", None)
            await ledger.close_suspect(first.tag, AttemptState.REVOKED)
    await ledger.release("tenant-1", epoch)

    again = intent()
    epoch = await ledger.claim_attempt(other, again)
    assert await ledger.record("tenant-1", epoch, again.tag, key()) is True

    record = await ledger.find("tenant-1")
    assert record is not None
    assert record.fields == other.fields
    with pytest.raises(TicketConflictError):
        await ledger.claim_attempt(TICKET, intent())


@pytest.mark.parametrize("attempts", ["forgotten", "void", "revoked", "in the air", "suspect"])
async def test_a_ticket_that_is_left_by_an_owner_that_is_gone_is_as_good_as_open(shared: Store, attempts: str) -> None:
    """After a kill in the wait of a 429 its fields may be corrected; not while it may have left a key."""
    other = await shared.open()
    first = await stopped(shared)
    match attempts:
        case "forgotten":
            await first.ledger.forget_attempt(first.attempt.tag)
        case "void":
            await first.ledger.mark_void(first.attempt.tag)
        case "revoked" | "suspect":
            await first.ledger.mark_suspect(first.attempt.tag, Effect.UNKNOWN, "lost", None)
    if attempts == "revoked":
        await other.close_suspect(first.attempt.tag, AttemptState.REVOKED)
    corrected = Ticket("tenant-1", CreateKeyRequest(name="corrected"))

    found, again = await other.find("tenant-1"), intent()

    assert found is not None
    assert (found.state, found.fields) == (TicketState.OPEN, TICKET.fields)
    if attempts in ("in the air", "suspect"):
        with pytest.raises(TicketConflictError, match="another"):
            await other.claim_attempt(corrected, again)
        assert await other.claim_attempt(TICKET, again) == first.epoch + 1
        return
    epoch = await other.claim_attempt(corrected, again)
    assert epoch == first.epoch + 1
    assert await other.record("tenant-1", epoch, again.tag, key()) is True
    assert await first.ledger.record("tenant-1", first.epoch, first.attempt.tag, key("key-2")) is False


async def test_a_ticket_that_may_have_left_a_key_keeps_its_fields(ledger: Ledger) -> None:
    """Or two keys that differ could live for it."""
    first = intent()
    epoch = await ledger.claim_attempt(TICKET, first)
    await ledger.mark_suspect(first.tag, Effect.UNKNOWN, "lost", None)
    await ledger.release("tenant-1", epoch)

    with pytest.raises(TicketConflictError, match="another"):
        await ledger.claim_attempt(Ticket("tenant-1", CreateKeyRequest(name="corrected")), intent())


async def test_without_a_cipher_there_is_nothing_to_rotate(ledger: SQLiteLedger | PostgresLedger) -> None:
    """And it says so, rather than that all is well."""
    with pytest.raises(LedgerError, match="without a cipher has nothing to rotate"):
        await ledger.rotate()


@pytest.mark.parametrize("erased", [False, True])
async def test_a_ticket_with_a_key_is_not_claimed_again(ledger: Ledger, erased: bool) -> None:
    """The error is no conflict; whoever gets it finds the key."""
    await issued(ledger)
    if erased:
        await ledger.erase("tenant-1")

    with pytest.raises(LedgerError, match="has its key already") as caught:
        await ledger.claim_attempt(TICKET, intent())

    assert not isinstance(caught.value, TicketConflictError)
    assert await attempt_states(ledger) == {AttemptState.RECORDED: 1}


# ------------------------------------------------------------------------------------------------------- illegal moves


async def to_intent(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    await ledger.claim_attempt(TICKET, attempt)


async def to_void(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    await to_intent(ledger, attempt)
    await ledger.mark_void(attempt.tag)


async def to_recorded(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    assert await ledger.record("tenant-1", await ledger.claim_attempt(TICKET, attempt), attempt.tag, key())


async def to_suspect(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    await to_intent(ledger, attempt)
    await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)


async def to_revoked(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    await to_suspect(ledger, attempt)
    await ledger.close_suspect(attempt.tag, AttemptState.REVOKED)


async def to_expired(ledger: Ledger, attempt: Intent) -> None:
    """Bring an attempt there."""
    await to_suspect(ledger, attempt)
    await ledger.close_suspect(attempt.tag, AttemptState.EXPIRED)


ATTEMPTS: dict[AttemptState, Callable[[Ledger, Intent], Awaitable[None]]] = {
    AttemptState.INTENT: to_intent,
    AttemptState.VOID: to_void,
    AttemptState.RECORDED: to_recorded,
    AttemptState.SUSPECT: to_suspect,
    AttemptState.REVOKED: to_revoked,
    AttemptState.EXPIRED: to_expired,
}
MOVES: dict[str, tuple[Callable[[Ledger, str], Awaitable[Any]], AttemptState | None, set[AttemptState]]] = {
    "mark_void": (lambda ledger, tag: ledger.mark_void(tag), AttemptState.VOID, {AttemptState.INTENT}),
    "forget": (lambda ledger, tag: ledger.forget_attempt(tag), None, {AttemptState.INTENT}),
    "mark_suspect": (
        lambda ledger, tag: ledger.mark_suspect(tag, Effect.LOST, "again", "key-9"),
        AttemptState.SUSPECT,
        {AttemptState.INTENT, AttemptState.SUSPECT},
    ),
    "record": (
        lambda ledger, tag: ledger.record("tenant-1", 1, tag, key("key-9")),
        AttemptState.RECORDED,
        {AttemptState.INTENT},
    ),
    "revoke": (
        lambda ledger, tag: ledger.close_suspect(tag, AttemptState.REVOKED),
        AttemptState.REVOKED,
        {AttemptState.SUSPECT},
    ),
    "expire": (
        lambda ledger, tag: ledger.close_suspect(tag, AttemptState.EXPIRED),
        AttemptState.EXPIRED,
        {AttemptState.SUSPECT},
    ),
}
"""Each move, where it leads, and from where."""


@pytest.mark.parametrize("state", ATTEMPTS)
@pytest.mark.parametrize("move", MOVES)
async def test_an_attempt_moves_only_where_the_table_lets_it(ledger: Ledger, state: AttemptState, move: str) -> None:
    """Every state by every move: a legal one arrives, an illegal one changes nothing at all."""
    attempt = intent()
    await ATTEMPTS[state](ledger, attempt)
    held = await ledger.owns_key("key-9")
    tickets = await ticket_states(ledger)
    act, leads_to, legal_from = MOVES[move]

    result = await act(ledger, attempt.tag)

    legal = state in legal_from
    arrived = leads_to if legal else state
    assert await attempt_states(ledger) == ({} if arrived is None else {arrived: 1})
    assert await ledger.owns_key("key-9") == (held or (legal and move == "record"))
    if move == "record":
        assert result is legal
    if not legal:
        assert await ticket_states(ledger) == tickets


TICKETS: dict[str, dict[TicketState, TicketState]] = {
    "claim": {TicketState.OPEN: TicketState.CLAIMED, TicketState.CLAIMED: TicketState.CLAIMED},
    "release": {TicketState.CLAIMED: TicketState.OPEN},
    "record": {TicketState.CLAIMED: TicketState.ISSUED},
    "deliver": {TicketState.ISSUED: TicketState.DELIVERED},
}
"""Each move of a ticket, from where to where."""


@pytest.mark.parametrize("step", TicketState)
@pytest.mark.parametrize("move", TICKETS)
async def test_a_ticket_moves_only_where_the_table_lets_it(ledger: Ledger, step: TicketState, move: str) -> None:
    """Releasing and recording need a claim, delivering needs a key; anything else changes nothing."""
    attempt = intent()
    epoch = await ledger.claim_attempt(TICKET, attempt)
    if step == "open":
        await ledger.release("tenant-1", epoch)
    elif step != "claimed":
        assert await ledger.record("tenant-1", epoch, attempt.tag, key())
    if step == "delivered":
        await ledger.erase("tenant-1")
    if move == "record" and step != "claimed":
        attempt = intent()  # that of this attempt is used up

    match move:
        case "release":
            await ledger.release("tenant-1", epoch)
        case "record":
            assert await ledger.record("tenant-1", epoch, attempt.tag, key()) is (step == "claimed")
        case "claim" if step in TICKETS["claim"]:
            await ledger.claim_attempt(TICKET, intent())
        case "claim":
            with pytest.raises(LedgerError, match="has its key already"):
                await ledger.claim_attempt(TICKET, intent())
        case _:
            await ledger.erase("tenant-1")

    assert await ticket_states(ledger) == {TICKETS[move].get(step, step): 1}


def test_the_table_of_states_says_what_the_ledgers_do() -> None:
    """The table that is read, and that some statements are made of, is the one that every ledger was held to above."""
    attempts = {name: (leads_to, legal_from) for name, (_, leads_to, legal_from) in MOVES.items()}
    tickets = {name: (set(moves.values()), set(moves)) for name, moves in TICKETS.items()}

    assert {name: (move.to, set(move.come_from)) for name, move in ATTEMPT_TRANSITIONS.items()} == attempts
    assert {name: ({move.to}, set(move.come_from)) for name, move in TICKET_TRANSITIONS.items()} == tickets


@pytest.mark.parametrize(("ticket_id", "epoch"), [("tenant-1", 7), ("tenant-1", 0), ("tenant-2", 1)])
async def test_a_key_is_recorded_only_for_its_own_claim(ledger: Ledger, ticket_id: str, epoch: int) -> None:
    """Another epoch or another ticket gets nothing."""
    attempt = intent()
    assert await ledger.claim_attempt(TICKET, attempt) == 1

    assert await ledger.record(ticket_id, epoch, attempt.tag, key()) is False

    assert await ticket_states(ledger) == {TicketState.CLAIMED: 1}
    assert await attempt_states(ledger) == {AttemptState.INTENT: 1}
    assert not await ledger.owns_key("key-1")


# ------------------------------------------------------------------------------------------------------------- reading


async def test_suspects_tell_all_that_a_sweep_needs(ledger: Ledger) -> None:
    """What was sent, as it was sent, when, and what is known since; a second doubt adds to the first."""
    attempt = intent(sent_at=1_700_000_000.25)
    await ledger.claim_attempt(TICKET, attempt)
    await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "the connection broke", None)
    await ledger.mark_suspect(attempt.tag, Effect.LOST, "found since", "key-7")
    await ledger.mark_suspect(attempt.tag, Effect.LOST, "and again", None)

    (suspect,) = await ledger.suspects()

    assert (suspect.tag, suspect.name, suspect.sent) == (attempt.tag, attempt.name, attempt.sent)
    assert abs(suspect.sent_at - datetime.fromtimestamp(1_700_000_000.25, UTC)) < timedelta(milliseconds=1)
    assert (suspect.effect, suspect.reason, suspect.id) == (Effect.LOST, "and again", "key-7")


async def test_an_attempt_that_used_no_slot_leaves_no_row_behind(ledger: Ledger) -> None:
    """A hundred refusals for one ticket are nothing that a ledger would keep, nor that the next run's pace counts."""
    for _ in range(100):
        attempt = intent()
        await ledger.claim_attempt(TICKET, attempt)
        await ledger.forget_attempt(attempt.tag)

    assert await attempt_states(ledger) == {}
    assert list(await ledger.recent(60.0)) == []
    assert await ticket_states(ledger) == {TicketState.CLAIMED: 1}


async def test_what_a_process_says_of_its_own_attempt_is_taken_over_from_nobody(ledger: Ledger) -> None:
    """It knows that no answer came."""
    attempt = intent()
    await ledger.claim_attempt(TICKET, attempt)
    await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)

    (suspect,) = await ledger.suspects()
    assert suspect.taken_over_at is None


async def test_undelivered_tickets_come_page_by_page_in_order(ledger: Ledger) -> None:
    """Only those whose secret is still kept, with it."""
    names = [f"tenant-{number:02}" for number in range(7)]
    for number, name in enumerate(reversed(names)):
        await issued(ledger, Ticket(name), f"key-{number}")
    await ledger.erase("tenant-03")
    await ledger.claim_attempt(Ticket("tenant-99"), intent())

    pages = []
    after = ""
    while page := await ledger.undelivered(after, 2):
        pages.append([name for name, _ in page])
        assert all(isinstance(found, CreatedKey) and not found.api_key.is_erased for _, found in page)
        after = page[-1][0]

    assert pages == [["tenant-00", "tenant-01"], ["tenant-02", "tenant-04"], ["tenant-05", "tenant-06"]]


async def test_a_secret_that_cannot_be_read_is_told_by_itself(store: Store) -> None:
    """The others of its page can be delivered."""
    older, newer = AESGCMCipher(b"o" * 32), AESGCMCipher(b"n" * 32)
    ledger = await store.open(cipher=older)
    await issued(ledger, Ticket("old-1"), "key-old")
    ledger._cipher = newer  # type: ignore[attr-defined]  # as another process has it, of which a store in memory has none
    await issued(ledger, Ticket("tenant-1"), "key-new")

    (name, unread), (other_name, read) = await ledger.undelivered("", 2)

    assert (name, other_name) == ("old-1", "tenant-1")
    assert isinstance(unread, LedgerError)
    assert "encrypted with another key" in str(unread)
    assert isinstance(read, CreatedKey)
    assert read.api_key == key().api_key


async def test_what_a_living_owner_has_just_recorded_can_be_left_to_it(shared: Store) -> None:
    """For so many seconds, and no longer than it lives."""
    one, other = await shared.open(), await shared.open()
    await issued(one)

    at_first = await other.undelivered("", 10, left_for=600.0)
    await asyncio.sleep(0.02)
    later = await other.undelivered("", 10, left_for=0.01)
    await one.aclose()
    afterwards = await other.undelivered("", 10, left_for=600.0)

    assert [len(found) for found in (at_first, later, afterwards)] == [0, 1, 1]


async def test_recent_attempts_come_with_their_ages_oldest_first(ledger: Ledger) -> None:
    """Those of the last so many seconds, whatever became of them."""
    now = datetime.now(UTC).timestamp()
    for age in (5.0, 70.0, 30.0, 0.0):
        attempt = intent(sent_at=now - age)
        await ledger.claim_attempt(TICKET, attempt)
        await ledger.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)

    ages = await ledger.recent(60.0)

    assert ages == pytest.approx([30.0, 5.0, 0.0], abs=1.0)
    assert list(ages) == sorted(ages, reverse=True)


async def test_counts_name_every_state(ledger: Ledger) -> None:
    """Also those that nothing is in."""
    await issued(ledger)

    counts = await ledger.counts()

    assert set(counts.tickets) == set(TicketState)
    assert set(counts.attempts) == set(AttemptState)
    assert sum(counts.tickets.values()) == sum(counts.attempts.values()) == 1


async def test_operations_at_once_do_not_disturb_each_other(ledger: Ledger) -> None:
    """A conflict in the middle of many intents is that caller's alone."""
    await ledger.claim_attempt(TICKET, intent())
    wrong = Ticket("tenant-1", CreateKeyRequest(name="another"))

    outcomes = await asyncio.gather(
        *(ledger.claim_attempt(wrong if number % 10 == 5 else Ticket(f"t-{number}"), intent()) for number in range(50)),
        return_exceptions=True,
    )

    assert [number for number, o in enumerate(outcomes) if isinstance(o, BaseException)] == [5, 15, 25, 35, 45]
    assert all(isinstance(o, TicketConflictError | int) for o in outcomes)
    assert await ticket_states(ledger) == {TicketState.CLAIMED: 46}


@pytest.mark.parametrize("ticket_id", ["x" * 500, "a'b\"c;--", "Zürich/2026 🗝", " ", "%"])
async def test_any_ticket_id_is_a_ticket_id(ledger: Ledger, ticket_id: str) -> None:
    """Text is text."""
    await issued(ledger, Ticket(ticket_id))

    assert await ledger.find(ticket_id) is not None
    assert [name for name, _ in await ledger.undelivered("", 10)] == [ticket_id]


# ---------------------------------------------------------------------------------------------------------- two owners


async def test_another_owner_at_work_is_not_disturbed(shared: Store) -> None:
    """Its ticket cannot be claimed, released or recorded by anybody else, and its intents are no suspects."""
    one, other = await shared.open(), await shared.open()
    attempt = intent()
    epoch = await one.claim_attempt(TICKET, attempt)

    with pytest.raises(LedgerError, match="another process is at work on it") as caught:
        await other.claim_attempt(TICKET, intent())
    await other.release("tenant-1", epoch)
    assert await other.record("tenant-1", epoch, attempt.tag, key("key-2")) is False

    assert caught.value.retryable
    assert await other.suspects() == []
    assert await one.record("tenant-1", epoch, attempt.tag, key()) is True


async def test_what_one_owner_writes_another_reads(shared: Store) -> None:
    """At once, the key and the erasure alike."""
    one, other = await shared.open(), await shared.open()
    await issued(one)
    found = await other.find("tenant-1")
    await other.erase("tenant-1")
    again = await one.find("tenant-1")

    assert found is not None
    assert found.key is not None
    assert found.key.api_key == key().api_key
    assert again is not None
    assert again.key is not None
    assert again.key.api_key.is_erased


@attrs.define
class Stopped:
    """A ledger whose process has stopped: it lives, and prolongs its lease no more."""

    ledger: Ledger
    attempt: Intent
    epoch: int


async def stopped(shared: Store, lease: float = 0.2) -> Stopped:
    """Open a ledger, claim the ticket, and keep its lease from being prolonged until its lease is over."""
    ledger = await shared.open(lease=lease)
    attempt = intent()
    epoch = await ledger.claim_attempt(TICKET, attempt)
    assert isinstance(ledger, SQLiteLedger | PostgresLedger)
    session = ledger._session
    keeper = (session.owner if isinstance(session, Session) else session).lease_keeper
    keeper.cancel()
    await asyncio.sleep(1.5 * lease)
    return Stopped(ledger, attempt, epoch)


async def test_a_ticket_whose_lease_is_over_is_taken_over(shared: Store) -> None:
    """The first owner's record has no effect, and what it had in the air is a suspect."""
    other = await shared.open()
    first = await stopped(shared)

    epoch = await other.claim_attempt(TICKET, attempt := intent())
    recorded_late = await first.ledger.record("tenant-1", first.epoch, first.attempt.tag, key("late"))
    recorded = await other.record("tenant-1", epoch, attempt.tag, key())

    assert (recorded_late, recorded) == (False, True)
    assert epoch > first.epoch
    assert [suspect.tag for suspect in await other.suspects()] == [first.attempt.tag]
    assert is_now((await other.suspects())[0].taken_over_at)
    assert not await other.owns_key("late")


async def test_an_owner_that_opens_takes_over_what_lapsed_leases_left(shared: Store) -> None:
    """Its intents are suspects from then on, and its late record has no effect: a sweep may be revoking that key."""
    first = await stopped(shared)

    other = await shared.open()
    suspects = await other.suspects()

    assert [suspect.tag for suspect in suspects] == [first.attempt.tag]
    assert is_now(suspects[0].taken_over_at)
    assert await first.ledger.record("tenant-1", first.epoch, first.attempt.tag, key("late")) is False
    assert await other.claim_attempt(TICKET, intent()) > first.epoch


async def test_a_lapsed_lease_that_nobody_has_touched_still_records(shared: Store) -> None:
    """A key that was made is not thrown away because a clock went on."""
    first = await stopped(shared)

    assert await first.ledger.record("tenant-1", first.epoch, first.attempt.tag, key()) is True


async def test_a_lease_ends_by_itself_and_covers_only_what_it_saw_begin(shared: Store) -> None:
    """Whether the first byte may leave is known without asking the store."""
    ledger = await shared.open(lease=0.3)
    begun = time.monotonic()
    assert ledger.lease_held_since(begun)

    first = await stopped(shared)

    assert not first.ledger.lease_held_since(begun)
    assert not first.ledger.lease_held_since(time.monotonic())
    await asyncio.sleep(0.2)
    assert ledger.lease_held_since(begun), "a lease that is prolonged is kept"


async def test_a_closed_ledger_leaves_suspects_for_what_was_in_the_air(shared: Store) -> None:
    """And its tickets are free at once."""
    one = await shared.open()
    attempt = intent()
    await one.claim_attempt(TICKET, attempt)
    await one.aclose()

    other = await shared.open()

    (suspect,) = await other.suspects()
    assert suspect.tag == attempt.tag
    assert is_now(suspect.taken_over_at)
    assert await other.claim_attempt(TICKET, intent()) == 2


async def test_a_takeover_counts_from_its_first_day(shared: Store) -> None:
    """Whoever opens the ledger after it finds the same time; the one who made the attempt may still say more."""
    first = await stopped(shared)
    other = await shared.open()
    (taken_over,) = await other.suspects()
    await other.aclose()
    await asyncio.sleep(0.1)

    third = await shared.open()
    (found,) = await third.suspects()
    await first.ledger.mark_suspect(first.attempt.tag, Effect.UNKNOWN, "it timed out, after all", None)
    (known,) = await third.suspects()

    assert taken_over.taken_over_at is not None
    assert found.taken_over_at is not None
    assert abs(found.taken_over_at - taken_over.taken_over_at) < timedelta(milliseconds=50)
    assert known.taken_over_at is None


def is_now(time_: datetime | None) -> bool:
    """Tell whether something has happened in the last seconds."""
    return time_ is not None and abs(datetime.now(UTC) - time_) < timedelta(seconds=10)


async def test_of_two_that_settle_a_suspect_one_is_told_that_it_did(shared: Store) -> None:
    """So that what both of them found is counted once."""
    one, other = await shared.open(), await shared.open()
    attempt = intent()
    await one.claim_attempt(TICKET, attempt)
    await one.mark_suspect(attempt.tag, Effect.UNKNOWN, "lost", None)

    settled = [await ledger.close_suspect(attempt.tag, AttemptState.REVOKED) for ledger in (one, other)]

    assert settled == [True, False]
    assert await one.close_suspect("no such", AttemptState.EXPIRED) is False


async def test_one_of_many_owners_has_its_turn_to_sweep(shared: Store) -> None:
    """The one that had it may go on; another has to wait, until the time is up or the first is gone."""
    one, other = await shared.open(), await shared.open()

    turns = await asyncio.gather(*(ledger.acquire_sweep_turn(600.0) for ledger in (one, other)))
    first, second = (one, other) if turns[0] else (other, one)

    assert sorted(turns) == [False, True]
    assert await first.acquire_sweep_turn(600.0)
    assert not await second.acquire_sweep_turn(600.0)
    await asyncio.sleep(0.02)
    assert await second.acquire_sweep_turn(0.01)
    await second.aclose()
    assert await first.acquire_sweep_turn(600.0)


# ------------------------------------------------------------------------------------------------ opening and closing


async def test_what_was_written_is_there_when_it_is_opened_again(shared: Store) -> None:
    """Tickets, keys and suspects outlive their process."""
    one = await shared.open()
    await issued(one)
    lost = intent()
    await one.claim_attempt(Ticket("tenant-2"), lost)
    await one.mark_suspect(lost.tag, Effect.UNKNOWN, "lost", None)
    await one.aclose()

    other = await shared.open()

    assert await other.owns_key("key-1")
    assert [suspect.reason for suspect in await other.suspects()] == ["lost"]


async def test_another_account_is_refused_unless_forced(shared: Store) -> None:
    """By host or by key; forcing makes the ledger the other account's from then on."""
    await (await shared.open()).aclose()

    with pytest.raises(LedgerError, match="another account or base URL"):
        await shared.open("https://elsewhere.example abc")
    await (await shared.open("https://elsewhere.example abc", force=True)).aclose()
    await (await shared.open("https://elsewhere.example abc")).aclose()
    with pytest.raises(LedgerError, match="another account or base URL"):
        await shared.open(ACCOUNT)


async def test_a_ledger_is_opened_once_until_it_is_closed(store: Store) -> None:
    """A second issuer, or another event loop, would have it closed under the first; what that does goes on."""
    ledger = await store.open()
    await ledger.claim_attempt(TICKET, intent())

    with pytest.raises(ClientStateError, match="the ledger is open already"):
        await ledger.open("https://elsewhere.example abc")

    assert await attempt_states(ledger) == {AttemptState.INTENT: 1}
    await ledger.aclose()
    await ledger.open(ACCOUNT)


async def test_closing_twice_is_closing_once(store: Store) -> None:
    """Also at the same time, and before it was ever opened."""
    ledger = await store.open()

    await asyncio.gather(ledger.aclose(), ledger.aclose())
    await ledger.aclose()
    await store.make().aclose()


@pytest.mark.parametrize("closed", [False, True])
async def test_nothing_works_unless_it_is_open(store: Store, closed: bool) -> None:
    """Before it was opened, and after it was closed: a clear error from every method."""
    ledger = store.make()
    if closed:
        await ledger.open(ACCOUNT)
        await ledger.aclose()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: ledger.find("tenant-1"),
        lambda: ledger.claim_attempt(TICKET, intent()),
        lambda: ledger.record("tenant-1", 1, "tag", key()),
        lambda: ledger.release("tenant-1", 1),
        lambda: ledger.mark_void("tag"),
        lambda: ledger.forget_attempt("tag"),
        lambda: ledger.mark_suspect("tag", Effect.LOST, "", None),
        lambda: ledger.erase("tenant-1"),
        lambda: ledger.undelivered("", 1),
        lambda: ledger.suspects(),
        lambda: ledger.close_suspect("tag", AttemptState.REVOKED),
        lambda: ledger.acquire_sweep_turn(1.0),
        lambda: ledger.owns_key("key-1"),
        lambda: ledger.recent(1.0),
        lambda: ledger.counts(),
    ]

    for call in calls:
        with pytest.raises(LedgerError, match=r"not open|closed"):
            await call()


async def test_an_unknown_api_key_does_not_loosen_the_binding(shared: Store) -> None:
    """A run whose API key comes from a callable leaves the ledger bound to the key it was bound to."""
    for account in ("https://host aaaa", "https://host ?"):
        await (await shared.open(account)).aclose()

    with pytest.raises(LedgerError, match="another account"):
        await shared.open("https://host bbbb")
