"""An account that others use: the process before this one, or other programs all the time."""

from collections.abc import Iterable

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async.testing import SlidingLog
from tests.pace.servers import Server, steadily, used_up
from tests.pace.world import CLOSE, JITTER, KNOWN, LIMITS, World, pacer, play

pytestmark = CLOSE

USED = [pytest.param(used, id=f"{used} of 60") for used in (0, 30, 55, 58, 60)]
MINUTE, SIX, FIVE = LIMITS


def account(limit: RateLimit, known: bool, others: Iterable[float]) -> World:
    """Make a world with such a limit, which the pacer is given or has to learn."""
    server = Server(SlidingLog(limit.limit, per=limit.per), others=others)
    return World(server, pacer(limit if known else None))


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("used", USED)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_batch_in_an_account_that_was_just_used_loses_one_period(limit: RateLimit, used: int, known: bool) -> None:
    """To whatever degree it was used up; a limit that is learned costs four refusals in a hundred instead of three."""
    count = 5 * limit.limit

    world = play(account(limit, known, used_up(used * limit.limit // 60)), lambda world: world.batch(count))

    assert world.took <= 1.05 * (5 * limit.per + limit.per)
    assert world.server.refused <= (0.03 if known else 0.04) * count
    assert world.limit == limit


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("used", USED)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_single_calls_in_an_account_that_was_just_used_wait_for_one_period(
    limit: RateLimit, used: int, known: bool
) -> None:
    """Fifty at once are refused once each at most, and each goes when its slot is back, but for the client's jitter."""
    count = 50 * limit.limit // 60

    world = play(account(limit, known, used_up(used * limit.limit // 60)), lambda world: world.singles(count))

    assert world.took <= 1.03 * limit.per + JITTER
    assert world.server.refused <= count


@pytest.mark.parametrize(
    ("limit", "share", "known", "least", "ours", "theirs"),
    [
        (MINUTE, 0.25, True, 0.9, 0.03, 0.06),
        (MINUTE, 0.5, True, 0.9, 0.03, 0.06),
        (MINUTE, 0.8, True, 0.83, 0.03, 0.06),
        (SIX, 0.25, True, 0.9, 0.03, 0.06),
        (SIX, 0.5, True, 0.9, 0.03, 0.06),
        (SIX, 0.8, True, 0.86, 0.04, 0.06),
        (FIVE, 0.25, True, 0.9, 0.03, 0.06),
        (FIVE, 0.5, True, 0.9, 0.03, 0.06),
        (FIVE, 0.8, True, 0.9, 0.03, 0.06),
        (MINUTE, 0.25, False, 0.9, 0.03, 0.12),
        (MINUTE, 0.5, False, 0.9, 0.04, 0.12),
        (MINUTE, 0.8, False, 0.82, 0.045, 0.08),
        (SIX, 0.25, False, 0.9, 0.06, 0.15),
        (SIX, 0.5, False, 0.9, 0.06, 0.13),
        (SIX, 0.8, False, 0.86, 0.085, 0.07),
        (FIVE, 0.25, False, 0.9, 0.03, 0.09),
        (FIVE, 0.5, False, 0.9, 0.03, 0.08),
        (FIVE, 0.8, False, 0.8, 0.05, 0.08),
    ],
)
def test_others_who_take_a_share_steadily_keep_nearly_all_of_it(
    limit: RateLimit, share: float, known: bool, least: float, ours: float, theirs: float
) -> None:
    """A batch takes what they leave, hardly less and hardly more, in a time of 0.9 to 1.07 of what that needs.

    Where they take four fifths, the batch takes a fifth more than its part at most, and where the limit has to be
    learned as well, it costs up to eight refusals in a hundred. Of theirs, one in seven is refused at most; a program
    that does not repeat such a request loses it.
    """
    count = 10 * limit.limit
    others = steadily(share * limit.limit / limit.per)

    world = play(account(limit, known, others), lambda world: world.batch(count))

    server = world.server
    assert least <= world.took / (10 * limit.per / (1 - share)) <= 1.07
    assert server.refused <= ours * count
    assert server.others_refused <= theirs * (server.others_let_in + server.others_refused)
