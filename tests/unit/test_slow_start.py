"""The pause after trouble, and the return from it."""

import math

from respan_async._pacing.slow_start import Gate


def test_a_gate_is_open_at_first() -> None:
    """Nothing is held back before there was any trouble."""
    gate = Gate(first=0.5, longest=30)

    assert gate.admits(0.0, 10_000)
    assert not gate.troubled


def test_a_closed_gate_opens_after_as_long_as_was_said_for_one() -> None:
    """After the pause one request may go, and no second beside it."""
    gate = Gate(first=0.5, longest=30)

    assert gate.close(100.0, 7.0) == 7.0

    assert not gate.admits(106.9, 0)
    assert gate.admits(107.0, 0)
    assert not gate.admits(107.0, 1)
    assert gate.troubled


def test_pauses_of_which_nobody_said_how_long_double_up_to_a_bound() -> None:
    """Each failure in a row makes the next one longer; a success begins anew."""
    gate = Gate(first=0.5, longest=30)

    assert [gate.close(100.0 * n) for n in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    gate.succeeded(1000.0, 64)
    assert gate.close(1001.0) == 0.5


def test_a_very_long_outage_overflows_nothing() -> None:
    """The hundred-thousandth failure is like the tenth."""
    gate = Gate(first=0.5, longest=30)

    for n in range(100_000):
        assert gate.close(float(n)) <= 30


def test_each_success_lets_one_more_go_until_there_are_enough() -> None:
    """The width grows by one a success, and then counts no more."""
    gate = Gate(first=0.5, longest=30)
    gate.close(0.0, 1.0)

    widths = []
    for n in range(5):
        widths.append(gate.width)
        gate.succeeded(2.0 + n, enough=4)

    assert widths == [1, 2, 3, 4, math.inf]
    assert gate.admits(10.0, 10_000)


def test_a_success_from_before_the_trouble_says_nothing_about_it() -> None:
    """What was sent earlier and comes back later opens nothing."""
    gate = Gate(first=0.5, longest=30)
    gate.close(100.0, 5.0)

    gate.succeeded(99.9, enough=4)

    assert gate.width == 1
    assert gate.troubled


def test_a_second_closing_does_not_shorten_the_first() -> None:
    """The longest pause asked for holds."""
    gate = Gate(first=0.5, longest=30)
    gate.close(100.0, 50.0)

    gate.close(101.0, 2.0)

    assert gate.closed_until == 150.0
