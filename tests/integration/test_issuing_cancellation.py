"""Cancelling `issue` at every single turn of the event loop, and what is left: the ticket's one key, or nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Issued, RateLimit, RespanError, RetryPolicy
from respan_async.issuing import AttemptState, Issuer, SQLiteLedger, Ticket, TicketState
from respan_async.testing import FakeRespan
from tests.stepped import SteppedRealLoop, run, turns_until

TICKET = Ticket("tenant-1", CreateKeyRequest(name="tenant 1"))


@attrs.frozen(kw_only=True)
class Scenario:
    """How a call goes when nobody touches it.

    Attributes:
        server: The fake's settings.
        client: The client's settings.
        script: The faults its creates meet.
        before: Tickets issued before it.
        delivers: Whether secrets are delivered, which takes a moment.
        ways: How it can end, each of which some turn must bring about.
    """

    server: Mapping[str, Any] = {}
    client: Mapping[str, Any] = {}
    script: Sequence[str] = ()
    before: int = 0
    delivers: bool = False
    ways: frozenset[str] = frozenset({"nothing sent", "recorded"})


SCENARIOS = {
    "plain": Scenario(),
    "on a warm connection": Scenario(before=1),
    "slow answer": Scenario(server={"latency": 0.02}),
    "delivered": Scenario(delivers=True),
    "waiting for the pace": Scenario(client={"pace": RateLimit(1, per=0.03)}, before=1),
    "refused, then let in": Scenario(script=["refuse:0.01"]),
    "answer lost, then well": Scenario(
        script=["lose_answer_after_create"], ways=frozenset({"nothing sent", "revoked", "recorded"})
    ),
    "with a deadline": Scenario(client={"deadline": 30.0}),
    "a whole answer without a key": Scenario(script=["no_api_key"], ways=frozenset({"nothing sent", "failed"})),
}


async def cancelled_at(scenario: Scenario, turn: int) -> str | None:
    """Run a world in which a call is cancelled at some turn; tell how it ended, or None if it had ended before."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedRealLoop)
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        delivered.append(ticket_id)

    async with FakeRespan(**scenario.server) as fake:
        settings: dict[str, Any] = {"retry": RetryPolicy(initial=0.001, maximum=0.002), **scenario.client}
        async with AsyncRespan(fake.api_key, base_url=fake.url, **settings) as respan:
            delivery = deliver if scenario.delivers else None
            async with Issuer(respan, SQLiteLedger(":memory:"), deliver=delivery) as issuer:
                for number in range(scenario.before):
                    await issuer.issue(Ticket(f"before-{number}"))
                fake.script(*scenario.script)
                before = len(fake.keys)

                call = asyncio.create_task(issuer.issue(TICKET))
                loop.interrupt(turn, "before", call.cancel)
                (outcome,) = await asyncio.gather(call, return_exceptions=True)
                if not loop.leave_alone():
                    return None
                sent_at_once = len(fake.keys) - before
                await issuer._active.finished()
                await issuer._background_writes.written()
                between = await issuer.counts()
                try:
                    issued = await issuer.issue(TICKET)
                except RespanError:
                    issued = await issuer.issue(TICKET)  # the fault was still to come
                await issuer.sweep(grace=0)
                counts = await issuer.counts()

                assert isinstance(outcome, Issued | asyncio.CancelledError | RespanError), outcome
                assert issued.key.id in {record.id for record in fake.alive()}
                assert len(fake.alive()) == scenario.before + 1, "a key is alive that nobody holds"
                assert between.tickets[TicketState.CLAIMED] == 0, "a claim was left"
                assert between.attempts[AttemptState.INTENT] == 0, "an intent was left"
                assert counts.attempts[AttemptState.SUSPECT] == 0, "a suspect was left"
                assert not scenario.delivers or set(delivered) == {"tenant-1"}
                made = len(fake.keys) - before
    if isinstance(outcome, Issued):
        assert outcome.key.id == issued.key.id
        return "handed out"
    if issued.replayed:
        return "recorded"
    if isinstance(outcome, RespanError):
        return "failed"
    # Nobody was there to be told: the attempt that had left a key was revoked, or nothing had left.
    return (
        "nothing sent" if sent_at_once == 0 and made == 1 + len(set(scenario.script) - {"refuse:0.01"}) else "revoked"
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cancelled_call_leaves_its_ticket_well(name: str) -> None:
    """Nobody holds a key that the ticket does not have, no claim and no intent is left, and the next call succeeds."""
    scenario = SCENARIOS[name]
    ways: list[str | None] = []

    def is_over(turn: int) -> bool:
        ways.append(run(cancelled_at(scenario, turn), SteppedRealLoop))
        return ways[-1] is None

    assert turns_until(is_over) > 8, "that was not every await"
    assert set(ways) >= scenario.ways
