"""Issuing through a ledger, against a server that misbehaves: nothing is lost, and nothing is handed out twice."""

import asyncio
from collections.abc import Iterable

import pytest

from respan_async import AsyncRespan, Effect, RespanError
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.issuing.states import AttemptState, TicketState
from respan_async.models import CreateKeyRequest
from tests.hostile.framings import cuts
from tests.hostile.misbehaviours import Means, Misbehaviour, everything, slow
from tests.hostile.scenarios import ONCE, Watch, gone
from tests.integration.raw_server import API_KEY, RawServer, key

AT_ONCE = 25
"""Worlds at the same time."""
TICKET = Ticket("tenant-42/2026-11", CreateKeyRequest(name="tenant-42"))


async def meet(misbehaviour: Misbehaviour, timeout: float, complaints: list[str]) -> None:
    """Issue a ticket twice: the first time its request meets a misbehaviour."""
    watch = Watch(complaints, f"issue, where the server {misbehaviour}")
    effect = misbehaviour.means.effect("create")
    async with RawServer(misbehaviour.act, key(id="key-2")) as server:
        async with (
            AsyncRespan("token", base_url=server.url, retry=ONCE, timeout=timeout) as respan,
            Issuer(respan, SQLiteLedger(":memory:"), auto_sweep=False) as issuer,
        ):
            try:
                first = await issuer.issue(TICKET)
                watch.check(effect is None, f"no error, but {first!r}")
                watch.check(first.key.api_key.reveal() == API_KEY, "another key than the server's")
            except RespanError as error:
                watch.check(error.effect is effect, f"{error.effect}, where {effect} is true: {error!r}")
            except Exception as error:  # noqa: BLE001  a foreign one is what is looked for
                watch.check(False, f"a foreign exception: {error!r}")
            second = await issuer.issue(TICKET)
            watch.check(second.replayed == (effect is None), f"replayed={second.replayed}")
            watch.check(second.key.id == ("key-1" if effect is None else "key-2"), f"it has {second.key.id}")
            left = {AttemptState.RECORDED: 1}
            if effect is not None and str(misbehaviour) != "answers 429":  # of a refusal nothing is kept
                left[AttemptState.VOID if effect is Effect.NONE else AttemptState.SUSPECT] = 1
            counts = await issuer.counts()
            for _ in range(200):
                if not counts.attempts.get(AttemptState.INTENT):
                    break
                await asyncio.sleep(0.01)
                counts = await issuer.counts()
            attempts = {state: number for state, number in counts.attempts.items() if number}
            tickets = {state: number for state, number in counts.tickets.items() if number}
            watch.check(attempts == left, f"attempts {attempts}, where {left} is true")
            watch.check(tickets == {TicketState.ISSUED: 1}, f"tickets {tickets}")
        await gone(watch, server)


async def meet_all(misbehaviours: Iterable[Misbehaviour], timeout: float) -> None:
    """Let a ticket meet each of them, many at the same time."""
    watch = Watch(case="issue, all together")
    asyncio.get_running_loop().set_exception_handler(watch.unhandled)
    left = list(misbehaviours)
    while left:
        batch, left = left[:AT_ONCE], left[AT_ONCE:]
        await asyncio.gather(*(meet(one, timeout, watch.complaints) for one in batch))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        watch.check(not tasks, f"tasks are left: {tasks}")
    watch.verdict()


async def test_a_ticket_keeps_its_key_or_its_suspect() -> None:
    """At some cuts of a good answer: a recorded key, or an attempt that is remembered as what it is."""
    await meet_all([*cuts("create", "length", "fin", every=41), *cuts("create", "length", "rst", every=83)], 30.0)


@pytest.mark.hostile
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_ticket_and_an_answer_that_ends_at_every_byte(framing: str) -> None:
    """By an end of the stream or a reset."""
    await meet_all([*cuts("create", framing, "fin"), *cuts("create", framing, "rst", every=3)], 30.0)


@pytest.mark.hostile
async def test_a_ticket_and_a_server_that_misbehaves() -> None:
    """In every other way."""
    names = {str(one) for one in slow("create")}
    await meet_all([one for one in everything("create") if str(one) not in names], 30.0)


@pytest.mark.hostile
async def test_a_ticket_and_an_answer_that_never_ends() -> None:
    """The time for an attempt ends it."""
    stalls = [one for one in cuts("create", "length", "stall", every=11) if one.means is not Means.DONE]
    await meet_all([*slow("create"), *stalls], 1.0)
