"""How many requests may come at once."""

import math

import pytest

from respan_async._pacing.burst_cap import BurstCap


def refused(cap: BurstCap, let_in: float, now: float = 100.0, per: float = 60.0) -> BurstCap:
    """Let a burst be refused of which so much was let in."""
    cap.tighten(now, let_in, per)
    return cap


def test_nothing_is_capped_before_a_refusal() -> None:
    """However many are in the air."""
    cap = BurstCap()

    assert cap.cap is None
    assert cap.room(100.0, 10_000, 1.0) == math.inf
    assert cap.opens_at(100.0, 10_000, 1.0) is None
    cap.relax(1e6, 60.0)
    assert cap.cap is None


def test_a_cap_bounds_what_is_in_the_air_and_what_has_not_drained() -> None:
    """An answered request drains at the rate of the limit, from its answer on."""
    cap = refused(BurstCap(), 10.0)
    for _ in range(4):
        cap.answered(100.0, 0.5)

    assert cap.room(100.0, 2, 0.5) == pytest.approx(4)
    assert cap.room(101.0, 2, 0.5) == pytest.approx(6)
    assert cap.room(109.0, 0, 0.5) == pytest.approx(10)


def test_without_a_known_rate_only_what_is_in_the_air_counts() -> None:
    """What was answered has drained."""
    cap = refused(BurstCap(), 10.0)
    cap.answered(100.0, 0.0)

    assert cap.room(100.0, 3, 0.0) == pytest.approx(7)
    assert cap.opens_at(100.0, 3, 0.0) is None


def test_time_opens_what_has_to_drain_and_answers_what_is_in_the_air() -> None:
    """The next goes when the level is one below the cap."""
    cap = refused(BurstCap(), 3.0)
    for _ in range(3):
        cap.answered(100.0, 2.0)

    assert cap.opens_at(100.0, 0, 2.0) == pytest.approx(102.0)
    assert cap.opens_at(101.0, 0, 2.0) == pytest.approx(102.0)
    assert cap.opens_at(100.0, 2, 2.0) == pytest.approx(106.0)
    assert cap.opens_at(100.0, 3, 2.0) is None
    assert cap.opens_at(106.0, 0, 2.0) is None
    assert cap.room(102.0, 0, 2.0) == pytest.approx(1.0, abs=1e-5)


def test_the_level_of_a_refusal_is_what_was_before_it_less_what_was_refused_with_it() -> None:
    """What had not drained counts as let in, and what is in the air until it is refused too."""
    cap = BurstCap()
    for _ in range(5):
        cap.answered(100.0, 1.0)

    cap.begin_refusal(102.0, 7, 1.0)

    assert cap.level_let_in(0) == 10.0
    assert cap.level_let_in(4) == 6.0


@pytest.mark.parametrize(("let_in", "expected"), [(10.0, 10), (9.3, 10), (9.2, 9), (1.0, 1), (0.1, 1)])
def test_a_cap_is_what_was_let_in(let_in: float, expected: int) -> None:
    """Rounded, and one at least."""
    assert refused(BurstCap(), let_in).cap == expected


def test_a_cap_that_is_refused_again_falls_by_one_at_least() -> None:
    """Down to one."""
    cap = refused(BurstCap(), 5.0)

    assert refused(cap, 20.0).cap == 4
    assert refused(cap, 2.0).cap == 2
    assert [refused(cap, 9.0).cap for _ in range(2)] == [1, 1]


def test_after_four_clean_periods_twice_as_much_is_tried() -> None:
    """And refused, it is as before, and waits for eight."""
    cap = refused(BurstCap(), 5.0, now=100.0, per=1.0)
    cap.relax(103.9, 1.0)
    assert cap.cap == 5
    cap.relax(104.0, 1.0)
    assert cap.cap == 10

    refused(cap, 7.0, now=105.0, per=1.0)

    assert cap.cap == 5
    cap.relax(112.9, 1.0)
    assert cap.cap == 5
    cap.relax(113.0, 1.0)
    assert cap.cap == 10


def test_a_refusal_long_after_a_try_caps_anew() -> None:
    """Two periods later it is no answer to it."""
    cap = refused(BurstCap(), 5.0, now=100.0, per=1.0)
    cap.relax(104.0, 1.0)

    refused(cap, 7.0, now=106.0, per=1.0)

    assert cap.cap == 7


def test_a_cap_of_a_thousand_is_none() -> None:
    """Each try doubles it until then."""
    cap, now = refused(BurstCap(), 300.0, now=0.0, per=1.0), 0.0
    caps = list[int | None]()
    for _ in range(2):
        now += 4.0
        cap.relax(now, 1.0)
        caps.append(cap.cap)

    assert caps == [600, None]
