"""When failures are an outage, how long it pauses for, and what a server that asks to wait is granted."""

import pytest

from respan_async._pacing.circuit_breaker import CircuitBreaker


def breaker(longest_asked: float = 120.0) -> CircuitBreaker:
    """Make one."""
    return CircuitBreaker(longest_asked)


def test_three_failures_of_two_calls_are_an_outage() -> None:
    """Two are not, and three of one call are not, until another call fails too."""
    several, single = breaker(), breaker()

    assert [several.failed(100.0, culprit) for culprit in "aba"] == [None, None, 0.5]
    assert [single.failed(100.0, culprit) for culprit in "aaaaab"] == [None] * 5 + [0.5]


def test_the_failures_of_one_pause_are_one_and_the_next_is_longer() -> None:
    """Who was in the air when it began adds nothing; the probe at its end does."""
    failing = breaker()
    for culprit in "aba":
        failing.failed(100.0, culprit)

    assert failing.failed(100.4, "c") is None
    assert failing.failed(100.5, "c") == 1.0
    assert failing.closed_until == 101.5
    assert failing.admits_anything(100.5, 10)


def test_one_success_ends_the_row() -> None:
    """Then it takes three failures of two calls again."""
    failing = breaker()
    failing.failed(100.0, "a")
    failing.failed(100.0, "b")

    failing.served(99.0)

    assert [failing.failed(100.0, culprit) for culprit in "cdc"] == [None, None, 0.5]


def test_pauses_are_bounded() -> None:
    """Ten seconds at most."""
    failing = breaker()
    pauses = [failing.failed(100.0 * nth, "ab"[nth % 2]) for nth in range(1, 10)]

    assert pauses == [None, None, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_server_that_asks_to_wait_is_left_alone_by_all_for_so_long() -> None:
    """Then one request goes first, and more as they are served."""
    asked = breaker()
    assert asked.admits_anything(0.0, 10_000)

    assert asked.asked_to_wait(100.0, 20.0) == 20.0

    assert asked.asked_until == 120.0
    assert not asked.admits_anything(119.9, 0)
    assert asked.admits_anything(120.0, 0)
    assert not asked.admits_anything(120.0, 1)
    asked.served(120.0)
    assert asked.admits_anything(121.0, 1)
    assert not asked.admits_anything(121.0, 2)


def test_what_is_asked_for_does_not_hold_the_lower_classes_back_for_longer() -> None:
    """It is no failure in a row."""
    asked = breaker()
    for _ in range(5):
        asked.asked_to_wait(100.0, 20.0)

    assert not asked.troubled
    assert asked.admits(100.0, 10)


@pytest.mark.parametrize(("asks", "waits"), [(3600.0, 120.0), (120.0, 120.0), (0.0, 0.0)])
def test_a_server_that_asks_for_very_long_is_asked_again_after_a_bound(asks: float, waits: float) -> None:
    """It may be back long before."""
    asked = breaker(120.0)

    assert asked.asked_to_wait(100.0, asks) == waits
    assert asked.asked_until == 100.0 + waits


def test_one_pause_is_told_once_and_never_shortened() -> None:
    """Others of the same flight ask as well; after its end a new one begins."""
    asked = breaker()
    told = [asked.asked_to_wait(now, seconds) for now, seconds in ((100.0, 20.0), (101.0, 5.0), (119.9, 20.0))]

    assert told == [20.0, None, None]
    assert asked.asked_until == 139.9
    assert asked.asked_to_wait(139.9, 20.0) == 20.0
