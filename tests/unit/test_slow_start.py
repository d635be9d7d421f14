"""The pause after trouble, and the return from it."""

import math

from respan_async._pacing.slow_start import SlowStart


def test_a_gate_is_open_at_first() -> None:
    """Nothing is held back before there was any trouble."""
    slow_start = SlowStart(first=0.5, longest=30)

    assert slow_start.admits(0.0, 10_000)
    assert not slow_start.troubled


def test_a_closed_gate_opens_after_as_long_as_was_said_for_one() -> None:
    """After the pause one request may go, and no second beside it."""
    slow_start = SlowStart(first=0.5, longest=30)

    assert slow_start.close(100.0, 7.0) == 7.0

    assert not slow_start.admits(106.9, 0)
    assert slow_start.admits(107.0, 0)
    assert not slow_start.admits(107.0, 1)
    assert slow_start.troubled


def test_pauses_of_which_nobody_said_how_long_double_up_to_a_bound() -> None:
    """Each failure in a row makes the next one longer; a success begins anew."""
    slow_start = SlowStart(first=0.5, longest=30)

    assert [slow_start.close(100.0 * n) for n in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    slow_start.succeeded(1000.0, 64)
    assert slow_start.close(1001.0) == 0.5


def test_a_very_long_outage_overflows_nothing() -> None:
    """The hundred-thousandth failure is like the tenth."""
    slow_start = SlowStart(first=0.5, longest=30)

    for n in range(100_000):
        assert slow_start.close(float(n)) <= 30


def test_each_success_lets_one_more_go_until_there_are_enough() -> None:
    """The width grows by one a success, and then counts no more."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(0.0, 1.0)

    widths = []
    for n in range(5):
        widths.append(slow_start.width)
        slow_start.succeeded(2.0 + n, enough=4)

    assert widths == [1, 2, 3, 4, math.inf]
    assert slow_start.admits(10.0, 10_000)


def test_a_success_from_before_the_trouble_says_nothing_about_it() -> None:
    """What was sent earlier and comes back later opens nothing."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(100.0, 5.0)

    slow_start.succeeded(99.9, enough=4)

    assert slow_start.width == 1
    assert slow_start.troubled


def test_a_second_closing_does_not_shorten_the_first() -> None:
    """The longest pause asked for holds."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(100.0, 50.0)

    slow_start.close(101.0, 2.0)

    assert slow_start.closed_until == 150.0
