"""The pause after trouble, and the return from it."""

import math

from respan_async._pacing.slow_start import SlowStart


def test_nothing_is_held_back_before_there_was_any_trouble() -> None:
    """However many are in the air."""
    slow_start = SlowStart(first=0.5, longest=30)

    assert slow_start.admits(0.0, 10_000)
    assert not slow_start.troubled


def test_a_pause_lasts_as_long_as_was_said_and_ends_for_one() -> None:
    """After it one request may go, and no second beside it."""
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
    slow_start.succeeded(1000.0)
    assert slow_start.close(1001.0) == 0.5


def test_pauses_that_were_said_make_the_others_no_longer() -> None:
    """Thirty short ones in a row are no reason to wait for half a minute when nothing is said for once."""
    slow_start = SlowStart(first=0.5, longest=30)
    for n in range(30):
        slow_start.close(100.0 + n, 0.1)

    assert slow_start.close(200.0) == 0.5
    slow_start.close(201.0, 0.1)
    assert slow_start.close(202.0) == 1.0


def test_a_very_long_outage_overflows_nothing() -> None:
    """The hundred-thousandth failure is like the tenth."""
    slow_start = SlowStart(first=0.5, longest=30)

    for n in range(100_000):
        assert slow_start.close(float(n)) <= 30


def test_each_success_lets_one_more_go_until_width_counts_no_more() -> None:
    """The width grows by one a success, up to a thousand."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(0.0, 1.0)

    widths = list[float]()
    for n in range(1025):
        widths.append(slow_start.width)
        slow_start.succeeded(2.0 + n)

    assert widths[:4] == [1, 2, 3, 4]
    assert widths[1023] == 1024
    assert widths[1024] == math.inf
    assert slow_start.admits(2000.0, 10_000)
    assert not slow_start.troubled


def test_a_success_from_before_the_trouble_says_nothing_about_it() -> None:
    """What was sent earlier and comes back later opens nothing; what was sent in the same moment does."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(100.0, 5.0)

    slow_start.succeeded(99.9)
    assert slow_start.width == 1
    assert slow_start.troubled

    slow_start.succeeded(100.0)
    assert slow_start.width == 2
    assert not slow_start.troubled


def test_a_second_pause_does_not_shorten_the_first() -> None:
    """The longest one asked for holds."""
    slow_start = SlowStart(first=0.5, longest=30)
    slow_start.close(100.0, 50.0)

    slow_start.close(101.0, 2.0)

    assert slow_start.closed_until == 150.0
