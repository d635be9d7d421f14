"""When failures are an outage, and how long it pauses for."""

from respan_async._pacing.circuit_breaker import CircuitBreaker


def test_three_failures_of_two_calls_are_an_outage() -> None:
    """Two are not, and three of one call are not, until another call fails too."""
    breaker, single = CircuitBreaker(), CircuitBreaker()

    assert [breaker.failed(100.0, culprit) for culprit in "aba"] == [None, None, 0.5]
    assert [single.failed(100.0, culprit) for culprit in "aaaaab"] == [None] * 5 + [0.5]


def test_the_failures_of_one_pause_are_one_and_the_next_is_longer() -> None:
    """Who was in the air when it began adds nothing; the probe at its end does."""
    breaker = CircuitBreaker()
    for culprit in "aba":
        breaker.failed(100.0, culprit)

    assert breaker.failed(100.4, "c") is None
    assert breaker.failed(100.5, "c") == 1.0
    assert breaker.closed_until == 101.5


def test_one_success_ends_the_row() -> None:
    """Then it takes three failures of two calls again."""
    breaker = CircuitBreaker()
    breaker.failed(100.0, "a")
    breaker.failed(100.0, "b")

    breaker.served(99.0, 64)

    assert [breaker.failed(100.0, culprit) for culprit in "cdc"] == [None, None, 0.5]


def test_pauses_are_bounded() -> None:
    """Ten seconds at most."""
    breaker = CircuitBreaker()
    pauses = [breaker.failed(100.0 * nth, "ab"[nth % 2]) for nth in range(1, 10)]

    assert pauses == [None, None, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
