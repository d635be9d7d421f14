"""The table of states, by its own rules: no way back, no way around."""

import enum
import inspect

import pytest

from respan_async.issuing import AttemptState, TicketState
from respan_async.issuing._sql_loader import load
from respan_async.issuing.sqlite import _connection, _inspect, _owner, _session, ledger
from respan_async.issuing.states import ATTEMPT_TRANSITIONS, TICKET_TRANSITIONS, Transition

FINAL = {AttemptState.VOID, AttemptState.RECORDED, AttemptState.REVOKED, AttemptState.EXPIRED, TicketState.DELIVERED}


@pytest.mark.parametrize("moves", [TICKET_TRANSITIONS, ATTEMPT_TRANSITIONS], ids=["tickets", "attempts"])
def test_from_an_end_no_move_leads_anywhere(moves: dict[str, Transition]) -> None:
    """What is delivered, void, recorded, revoked or dead stays so."""
    assert not {state for move in moves.values() for state in move.come_from} & FINAL


@pytest.mark.parametrize(
    ("moves", "first", "states"),
    [(TICKET_TRANSITIONS, TicketState.OPEN, TicketState), (ATTEMPT_TRANSITIONS, AttemptState.INTENT, AttemptState)],
    ids=["tickets", "attempts"],
)
def test_every_state_can_be_reached_and_left_but_the_ends(
    moves: dict[str, Transition], first: TicketState | AttemptState, states: type[TicketState] | type[AttemptState]
) -> None:
    """No state is forgotten by the table."""
    reached: set[enum.StrEnum] = {first}
    for _ in states:
        reached |= {move.to for move in moves.values() if move.to is not None and reached & set(move.come_from)}

    assert reached == set(states)
    assert {state for move in moves.values() for state in move.come_from} == set(states) - FINAL


def test_only_an_intent_can_be_forgotten() -> None:
    """A suspect is one for good."""
    forgetting = {name: move.come_from for name, move in ATTEMPT_TRANSITIONS.items() if move.to is None}

    assert forgetting == {"forget": (AttemptState.INTENT,)}
    assert all(move.to is not None for move in TICKET_TRANSITIONS.values())


def test_a_key_is_recorded_only_from_an_intent() -> None:
    """A suspect's key may be being revoked at this moment: it can no longer become a ticket's."""
    assert ATTEMPT_TRANSITIONS["record"].come_from == (AttemptState.INTENT,)
    assert TICKET_TRANSITIONS["record"].come_from == (TicketState.CLAIMED,)


@pytest.mark.parametrize("state", [*TicketState, *AttemptState], ids=str)
def test_a_state_is_stored_under_its_own_name(state: TicketState | AttemptState) -> None:
    """A ledger outlives the version that wrote it, and its indexes name some states: no text of one may change."""
    assert state == state.name.lower()


def test_every_statement_of_the_sql_file_is_used() -> None:
    """A statement that nobody runs is not tested by anybody."""
    code = "".join(map(inspect.getsource, (_connection, _inspect, _owner, _session, ledger)))

    assert {name for name in load("sqlite/ledger.sql") if f'"{name}"' not in code} == set()
