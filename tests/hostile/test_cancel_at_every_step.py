"""Every operation struck in every turn of the event loop: nothing is lost, nothing is left, and the client goes on."""

from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.hostile.interruptions import AllCancelled, Cancelled, Closed, TimedOut
from tests.hostile.steps import OPERATIONS, Blow, game
from tests.stepped import Place, run, turns_until

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

TROUBLE: Final = ("reset", "refuse:2", "late_create:3", "ok", "unavailable_503", "lose_answer_after_create")
"""What may come together: an answer lost with nothing done, with it done later, with it done; a refusal; a failure."""

BLOWS: Final[dict[str, Callable[[], Blow]]] = {
    "cancelled": Cancelled,
    "cancelled twice": lambda: Cancelled(again=2),
    "cancelled in every turn from then on": lambda: Cancelled(again=-1),
    "timed out": lambda: TimedOut("inner"),
    "timed out around": lambda: TimedOut("outer"),
    "timed out twice": lambda: TimedOut("both"),
    "all tasks cancelled": AllCancelled,
    "closed": Closed,
    "closed without grace": lambda: Closed(grace=0.0),
    "closed with little grace": lambda: Closed(grace=0.3),
    "closed and cancelled": lambda: Closed(grace=0.0, cancels=0),
    "closed, then cancelled": lambda: Closed(grace=0.2, cancels=2),
    "closing cut short": lambda: Closed(grace=5.0, cut=2),
    "closing cut short again and again": lambda: Closed(grace=5.0, cut=-1),
}


def strike_in_every_turn(operation: str, blow: str, place: Place, script: Sequence[str] = ()) -> int:
    """Play an operation, struck in one turn after the other; give the number of turns it has."""
    return turns_until(lambda turn: run(game(OPERATIONS[operation], BLOWS[blow](), turn, place, script)))


@pytest.mark.parametrize(
    ("operation", "blow"),
    [
        ("update", "cancelled"),
        ("sweep", "cancelled"),
        ("batch_left", "cancelled in every turn from then on"),
        ("create", "timed out twice"),
        ("group", "closed and cancelled"),
        ("batch_awaited", "closing cut short again and again"),
    ],
)
def test_a_blow_in_every_turn_leaves_nothing_behind(operation: str, blow: str) -> None:
    """No key that nobody knows of, no slot, no task, no connection; and the caller ends as it should."""
    assert strike_in_every_turn(operation, blow, "before") > 5


@pytest.mark.hostile
@pytest.mark.parametrize("blow", [blow for blow in BLOWS if blow not in ("cancelled", "timed out", "timed out around")])
def test_every_operation_survives_a_blow_in_every_turn(blow: str) -> None:
    """The same for all operations, where all goes well otherwise."""
    for operation in OPERATIONS:
        assert strike_in_every_turn(operation, blow, "after") > 10, operation


@pytest.mark.hostile
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("blow", ["cancelled", "timed out", "closed without grace"])
def test_every_operation_in_trouble_survives_a_blow_in_every_turn(operation: str, blow: str) -> None:
    """The same in the midst of lost answers, refusals, failures, and keys that come late."""
    assert strike_in_every_turn(operation, blow, "before", TROUBLE) > 15


def test_a_cancellation_in_the_turn_in_which_an_attempt_s_time_is_up_is_not_lost() -> None:
    """aiohttp would take it for its own timeout, and the call would go on with the next attempt, and return."""
    assert strike_in_every_turn("list_page", "cancelled", "before", ("stall",)) > 15


def test_asyncio_s_debug_mode_has_nothing_to_say() -> None:
    """It finds no call from a wrong thread, no coroutine that nobody awaits, and changes nothing."""
    for blow in ("cancelled", "closed without grace"):
        for turn in (3, 15):
            run(game(OPERATIONS["batch_streamed"], BLOWS[blow](), turn, "before"), debug=True)


@pytest.mark.long
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("blow", BLOWS)
def test_every_blow_with_every_fault(operation: str, blow: str) -> None:
    """All of that together, and each fault by itself."""
    for script in (TROUBLE, *((name,) for name in ("lose_answer_after_create", "stall", "truncate", "late_create:3"))):
        for place in ("before", "after"):
            assert strike_in_every_turn(operation, blow, place, script) > 5
