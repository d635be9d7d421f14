"""When failures are an outage, and how long it pauses for."""

from respan_async._pacing.circuit_breaker import Outage


def test_three_failures_of_two_calls_are_an_outage() -> None:
    """Two are not, and three of one call are not, until another call fails too."""
    outage, single = Outage(), Outage()

    assert [outage.failed(100.0, culprit) for culprit in "aba"] == [None, None, 0.5]
    assert [single.failed(100.0, culprit) for culprit in "aaaaab"] == [None] * 5 + [0.5]


def test_the_failures_of_one_pause_are_one_and_the_next_is_longer() -> None:
    """Who was in the air when it began adds nothing; the probe at its end does."""
    outage = Outage()
    for culprit in "aba":
        outage.failed(100.0, culprit)

    assert outage.failed(100.4, "c") is None
    assert outage.failed(100.5, "c") == 1.0
    assert outage.closed_until == 101.5


def test_one_success_ends_the_row() -> None:
    """Then it takes three failures of two calls again."""
    outage = Outage()
    outage.failed(100.0, "a")
    outage.failed(100.0, "b")

    outage.served(99.0, 64)

    assert [outage.failed(100.0, culprit) for culprit in "cdc"] == [None, None, 0.5]


def test_pauses_are_bounded() -> None:
    """Ten seconds at most."""
    outage = Outage()
    pauses = [outage.failed(100.0 * nth, "ab"[nth % 2]) for nth in range(1, 10)]

    assert pauses == [None, None, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
