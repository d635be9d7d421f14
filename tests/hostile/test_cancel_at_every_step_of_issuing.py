"""Something happens at every step of issuing: nothing is lost, no key lives that nobody holds, no ticket is stuck."""

import asyncio
import contextlib
from typing import Any, Final

import pytest

from respan_async import InvalidResponseError, RespanError
from respan_async.issuing import LedgerError
from tests.hostile.issuer_faults import (
    Happening,
    cancel,
    cancel_twice,
    close_and_let_go,
    close_at_once,
    close_client,
    close_issuer,
    fail,
    take_over,
    time_out,
)
from tests.hostile.issuing_world import Life, Scenario
from tests.hostile.ledger_steps import all_survived

LOST: Final = "lose_answer_after_create"


async def one(life: Life) -> object:
    """Issue a ticket."""
    return await life.issue()


async def failing(life: Life) -> object:
    """Issue a ticket whose key arrives without its secret."""
    with contextlib.suppress(InvalidResponseError):
        await life.issue()
    return None


async def two_callers(life: Life) -> object:
    """Issue a ticket that somebody else is waiting for, too."""
    life.beside(life.issue())
    return await life.issue()


async def followed(life: Life) -> object:
    """Issue a ticket for which somebody else begins to wait."""
    asyncio.get_running_loop().call_soon(lambda: life.beside(life.issue()))
    return await life.issue()


async def awaited(life: Life) -> object:
    """Issue many, as a list."""
    return life.take(await life.issuer.issue_many(life.tickets(), max_in_flight=2))


async def streamed(life: Life) -> object:
    """Issue many, as they come."""
    outcomes: list[Any] = []
    async with life.issuer.issue_many(life.tickets(), max_in_flight=2) as batch:
        async for outcome in batch:
            life.take(outcome)
            outcomes.append(outcome)
    return outcomes


async def swept(life: Life) -> object:
    """Look for what was left, and count."""
    await life.issuer.sweep(grace=0)
    return await life.issuer.counts()


async def opened_and_closed(life: Life) -> object:
    """Open the issuer and close it."""
    async with life.issuer:
        return await life.issuer.counts()


SCENARIOS: Final = {
    "one ticket": Scenario(does=one),
    "delivered": Scenario(does=one, deliver="slow", cipher=True),
    "not delivered": Scenario(does=one, deliver="late"),
    "delivery that cancels itself": Scenario(does=one, deliver="cancels itself"),
    "answer lost": Scenario(does=one, script=[LOST], deliver="slow"),
    "an id without a secret": Scenario(does=failing, script=["no_api_key"]),
    "refused": Scenario(does=one, script=["refuse:0.002"], client={"deadline": 30.0}),
    "a caller behind another": Scenario(does=two_callers, server={"latency": 0.002}, deliver="slow"),
    "a caller before another": Scenario(does=followed, server={"latency": 0.002}),
    "many, awaited": Scenario(does=awaited, tickets=(1, 2, 3), script=["late_create:0.005", "refuse:0.002"]),
    "many, streamed": Scenario(does=streamed, tickets=(1, 2, 3), script=["ok", "html_502_after"], deliver="slow"),
    "what a run before has left": Scenario(does=one, tickets=(0, 1), before=[LOST], deliver="at once"),
    "swept": Scenario(does=swept, tickets=(0,), before=[LOST, "truncate"]),
    "opened and closed": Scenario(does=opened_and_closed, tickets=(0,), before=[LOST], deliver="at once", closes=True),
}

HAPPENINGS: Final = {
    "cancelled": Happening(act=cancel),
    "cancelled twice": Happening(act=cancel_twice),
    "timed out": Happening(act=time_out, raises=(TimeoutError,)),
    "issuer closed": Happening(act=close_issuer, raises=(RespanError,), goes_on=False),
    "client closed": Happening(act=close_client, raises=(RespanError,), goes_on=False),
    "client closed at once": Happening(act=close_at_once, raises=(RespanError,), goes_on=False),
    "closing cancelled": Happening(act=close_and_let_go, raises=(RespanError,), goes_on=False),
    "store fails": Happening(act=fail, raises=(LedgerError,)),
    "taken over": Happening(act=take_over, raises=(LedgerError,)),
}
OPERATIONS: Final = [name for name in HAPPENINGS if name not in ("cancelled twice", "timed out", "client closed")]
TURNS: Final = ["cancelled twice", "timed out", "client closed at once", "closing cancelled"]
TURNED: Final = [
    "one ticket",
    "answer lost",
    "a caller behind another",
    "a caller before another",
    "many, streamed",
    "swept",
    "opened and closed",
]


@pytest.mark.parametrize(
    ("scenario", "happening"),
    [("answer lost", "cancelled"), ("delivered", "store fails"), ("opened and closed", "client closed at once")],
)
def test_what_happens_at_an_operation_of_the_ledger_costs_nothing(scenario: str, happening: str) -> None:
    """Every key that lives is recorded or looked for, every ticket gets its one key, and nothing runs on."""
    steps = all_survived(SCENARIOS[scenario], HAPPENINGS[happening])

    # What goes on at the same time changes places from run to run, so that not every name is met in every one.
    assert {"before open", "after open", "before recent", "after recent"} <= set(steps)
    assert len(steps) > 12


@pytest.mark.hostile
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_happens_at_any_operation_of_the_ledger_costs_nothing(scenario: str) -> None:
    """Cancelling, closing, a full disk, another process: before and after each operation of each scenario."""
    for happening in OPERATIONS:
        assert len(all_survived(SCENARIOS[scenario], HAPPENINGS[happening])) >= 8, happening


@pytest.mark.hostile
@pytest.mark.parametrize("scenario", TURNED)
def test_whatever_happens_at_any_turn_of_the_event_loop_costs_nothing(scenario: str) -> None:
    """Between any two of its turns, which come as the ledger's thread and the sockets have it."""
    for happening in TURNS:
        assert len(all_survived(SCENARIOS[scenario], HAPPENINGS[happening], turns=True)) > 15, happening
