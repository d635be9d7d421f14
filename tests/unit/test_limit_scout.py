"""Whether a limit that was learned is higher than believed."""

import pytest

from respan_async._pacing.limit_scout import LimitScout
from respan_async._pacing.rate_limit import RateLimit

MINUTE = RateLimit(64, per=60)


def waiting(limit: RateLimit = MINUTE) -> LimitScout:
    """Give a scout that began at 100 with a limit that is used up."""
    scout = LimitScout()
    scout.restart(100.0)
    scout.taken(101.0, limit.limit, limit)
    return scout


def beyond(limit: RateLimit = MINUTE) -> LimitScout:
    """Give a scout of which one request went beyond the limit at 160."""
    scout = waiting(limit)
    scout.allowance(160.0, limit)
    scout.taken(160.0, limit.limit + 1, limit)
    return scout


def test_nothing_goes_beyond_a_limit_before_a_clean_period_is_over() -> None:
    """A sixteenth of it then, again and again until something did."""
    scout = waiting()

    assert [scout.allowance(now, MINUTE) for now in (159.9, 160.0, 300.0)] == [0, 4, 4]


@pytest.mark.parametrize(("limit", "step"), [(1, 1), (15, 1), (16, 1), (32, 2), (1000, 62)])
def test_at_least_one_goes_beyond(limit: int, step: int) -> None:
    """However small the limit."""
    assert waiting(RateLimit(limit, per=60)).allowance(160.0, RateLimit(limit, per=60)) == step


def test_a_limit_that_is_not_used_up_is_no_reason_to_go_beyond() -> None:
    """There is nothing to be had."""
    scout = LimitScout()
    scout.restart(100.0)
    scout.taken(101.0, 63, MINUTE)
    assert scout.allowance(1000.0, MINUTE) == 0

    scout.taken(1000.0, 64, MINUTE)
    assert scout.allowance(1000.0, MINUTE) == 4


def test_only_what_exceeds_the_limit_goes_beyond() -> None:
    """A refusal is expected from then on."""
    scout = waiting()
    scout.allowance(160.0, MINUTE)

    scout.taken(160.0, 64, MINUTE)
    assert not scout.is_beyond
    scout.taken(161.0, 65, MINUTE)
    assert scout.is_beyond


def test_what_is_not_refused_for_a_period_is_confirmed() -> None:
    """From the first one that went beyond."""
    scout = beyond()
    scout.taken(170.0, 66, MINUTE)

    assert scout.confirmed(219.9, MINUTE) == 0
    assert scout.confirmed(220.0, MINUTE) == 4
    assert not scout.is_beyond
    assert scout.confirmed(300.0, MINUTE) == 0


def test_each_success_doubles_the_step_up_to_the_limit() -> None:
    """The next try follows at once."""
    scout, now, limit = waiting(RateLimit(16, per=1)), 101.0, RateLimit(16, per=1)
    limits = list[int]()
    for _ in range(7):
        scout.allowance(now, limit)
        scout.taken(now, limit.limit + 1, limit)
        now += 1.0
        limit = RateLimit(limit.limit + scout.confirmed(now, limit), per=1)
        limits.append(limit.limit)

    assert limits == [17, 19, 23, 31, 47, 79, 143]
    few = waiting(RateLimit(1, per=1))
    few.allowance(101.0, RateLimit(1, per=1))
    few.taken(101.0, 2, RateLimit(1, per=1))
    few.confirmed(102.0, RateLimit(1, per=1))
    assert few.allowance(102.0, RateLimit(1, per=1)) == 1


def test_a_try_that_is_refused_waits_for_twice_as_long_and_begins_small() -> None:
    """The limit has to be used up once more before the next one."""
    scout = beyond()
    scout.refused(170.0)
    assert not scout.is_beyond
    assert scout.allowance(400.0, MINUTE) == 0

    scout.taken(171.0, 64, MINUTE)

    assert [scout.allowance(now, MINUTE) for now in (289.9, 290.0)] == [0, 4]


def test_a_limit_just_learned_begins_anew() -> None:
    """With one clean period, and a small step."""
    scout = beyond()
    scout.refused(170.0)
    scout.restart(200.0)
    scout.taken(201.0, 64, MINUTE)

    assert [scout.allowance(now, MINUTE) for now in (259.9, 260.0)] == [0, 4]


def test_where_the_server_states_its_limit_nothing_is_tried() -> None:
    """However long it is used up."""
    scout = waiting()

    scout.rest()

    scout.taken(1000.0, 64, MINUTE)
    assert scout.allowance(1e9, MINUTE) == 0
