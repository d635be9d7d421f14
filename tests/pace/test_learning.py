"""A limit that was not given: what refusals teach, and what that costs."""

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import FixedWindow, Limit, SlidingLog
from tests.pace.servers import Said, Server
from tests.pace.world import CLOSE, World, pacer, play

pytestmark = CLOSE

LIMITS = [RateLimit(60, per=60), RateLimit(150, per=60), RateLimit(60, per=6), RateLimit(100, per=5)]


def server(limit: RateLimit, offset: float | None, said: Said) -> Server:
    """Make a server with fixed windows that begin after this part of a period, or with a sliding log."""
    kept: Limit = SlidingLog(limit.limit, per=limit.per)
    if offset is not None:
        kept = FixedWindow(limit.limit, per=limit.per, offset=offset * limit.per)
    return Server(kept, said=said)


def learned(limit: RateLimit, offset: float | None, said: Said) -> tuple[World, float, float]:
    """Let a batch of ten periods meet a limit; return the time as a multiple of the ten, and the part refused."""
    count = 10 * limit.limit
    world = play(World(server(limit, offset, said), pacer(None)), lambda world: world.batch(count))
    return world, world.took / (10 * limit.per), world.server.refused / count


@pytest.mark.parametrize(
    ("offset", "said"),
    [(None, "whole"), (0.0, "whole"), (0.37, "whole"), (0.95, "whole"), (None, "exact"), (0.37, "exact")],
)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_is_learned_from_what_refusals_say(limit: RateLimit, offset: float | None, said: Said) -> None:
    """Ten periods' worth take hardly longer than they must, with at most one refusal in twenty."""
    world, ratio, refused = learned(limit, offset, said)

    assert ratio <= 1.05
    assert refused <= 0.051
    assert world.pacer.window.learned
    if offset is None:
        assert world.limit == limit


@pytest.mark.parametrize("offset", [None, 0.0])
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_limit_is_learned_from_refusals_that_say_nothing(limit: RateLimit, offset: float | None) -> None:
    """The first answer after a refusal tells how long the period is, if the windows begin when the batch does."""
    world, ratio, refused = learned(limit, offset, "nothing")

    assert ratio <= 1.15
    assert refused <= 0.05
    assert world.pacer.window.learned


@pytest.mark.parametrize(
    ("limit", "most", "most_refused"),
    [
        (RateLimit(60, per=60), 1.05, 0.06),
        (RateLimit(150, per=60), 1.45, 0.15),
        (RateLimit(100, per=5), 1.15, 0.1),
    ],
)
def test_windows_that_are_half_over_mislead_where_nothing_is_said(
    limit: RateLimit, most: float, most_refused: float
) -> None:
    """The rest of the first window is taken for a period, so that of 150 a minute one in seven is refused."""
    for offset in (0.1, 0.37):
        _, ratio, refused = learned(limit, offset, "nothing")

        assert ratio <= most
        assert refused <= most_refused


@pytest.mark.parametrize("said", ["whole", "exact", "nothing"])
@pytest.mark.parametrize("offset", [None, 0.0, 0.37])
@pytest.mark.parametrize(("number", "most"), [(20, 0.17), (30, 0.11)])
def test_fewer_a_minute_than_documented_is_taken_for_others(
    number: int, most: float, offset: float | None, said: Said
) -> None:
    """The documented limit stays, and what is missing is left to others: no time is lost.

    Tries to have it back cost up to one refusal in ten, and one in six where the server does not say how long to wait.
    """
    world, ratio, refused = learned(RateLimit(number, per=60), offset, said)

    assert ratio <= 1.05
    assert refused <= (most if said == "nothing" else 0.1)
    assert world.limit == RateLimit(60, per=60)


@pytest.mark.parametrize(("said", "most"), [("whole", 0.25), ("exact", 0.21), ("nothing", 0.25)])
def test_a_limit_of_a_few_a_second_costs_one_refusal_in_five(said: Said, most: float) -> None:
    """Each try to go beyond it is one of five."""
    world, ratio, refused = learned(RateLimit(5, per=1), None, said)

    assert ratio <= 1.2
    assert refused <= most
    assert world.limit == RateLimit(5, per=1)
