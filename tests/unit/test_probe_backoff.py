"""When something looser is tried again after a refusal."""

import math

from respan_async._pacing.probe_backoff import ProbeBackoff


def test_there_is_no_waiting_before_the_first_refusal() -> None:
    """A try may begin at once."""
    patience = ProbeBackoff()

    assert patience.is_over(0.0, 60.0)
    assert patience.clean_since == -math.inf
    assert not patience.is_trying(0.0, 60.0)


def test_a_try_waits_for_clean_periods() -> None:
    """One, or as many as it is told at least."""
    once, four = ProbeBackoff(), ProbeBackoff(4.0)
    for patience in (once, four):
        patience.restart(100.0)

    assert (once.ends_at(60.0), four.ends_at(60.0)) == (160.0, 340.0)
    assert [once.is_over(now, 60.0) for now in (159.9, 160.0)] == [False, True]
    assert once.clean_since == 100.0


def test_a_refusal_within_two_periods_of_a_try_answers_it() -> None:
    """Later it is another matter."""
    patience = ProbeBackoff()
    patience.restart(100.0)
    patience.tried(200.0)

    assert [patience.is_trying(now, 60.0) for now in (200.0, 319.9, 320.0)] == [True, True, False]
    assert patience.ends_at(60.0) == 260.0


def test_each_try_that_was_refused_doubles_the_wait_up_to_a_bound() -> None:
    """To sixty-four periods; a refusal that answers no try changes nothing."""
    patience = ProbeBackoff()
    waits = list[float]()
    for _ in range(8):
        patience.tried(100.0)
        patience.failed(100.0)
        assert not patience.is_trying(100.0, 1.0)
        waits.append(patience.ends_at(1.0) - 100.0)

    assert waits == [2, 4, 8, 16, 32, 64, 64, 64]
    patience.restart(200.0)
    assert patience.ends_at(1.0) == 264.0


def test_a_try_that_came_through_makes_the_next_one_due_at_once() -> None:
    """And the wait after that is as short as at first."""
    patience = ProbeBackoff(4.0)
    patience.tried(100.0)
    patience.failed(100.0)

    patience.succeeded()

    assert patience.is_over(100.0, 60.0)
    assert not patience.is_trying(100.0, 60.0)
    patience.restart(200.0)
    assert patience.ends_at(1.0) == 204.0
