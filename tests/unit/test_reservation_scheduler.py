"""When a process asks for slots, and for whom."""

import math

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.reservation_scheduler import ReservationScheduler

SECOND = RateLimit(60, per=60)


def wanting(urgent: int = 0, patient: int = 0) -> ReservationScheduler:
    """Give the timing of a process in which so many calls wait."""
    timing = ReservationScheduler(SECOND)
    timing.urgent, timing.patient = urgent, patient
    return timing


def after_batch(timing: ReservationScheduler, taken_at: float, lead: float, held: int, trip: float = 0.01) -> float:
    """Grant a batch's slot and take it; tell how much later the batch asks again."""
    timing.replied(urgently=False, again_at=taken_at - lead)
    timing.granted(lead, held, trip)
    timing.taken(taken_at)
    return timing.due() - taken_at


def test_where_nothing_is_wanted_nothing_is_asked_for() -> None:
    """Neither now nor later, and not after what was wanted has been withdrawn."""
    assert wanting().due() == math.inf

    timing = wanting(1, 1)
    timing.withdraw()

    assert timing.due() == math.inf
    assert timing.amounts(100.0) == (0, 0)


def test_interactive_calls_ask_at_once_and_for_themselves_only() -> None:
    """Unless they were told when to ask again; what a batch was told does not concern them."""
    timing = wanting(2, 3)
    assert timing.due() == -math.inf
    assert timing.amounts(100.0) == (2, 0)

    timing.replied(urgently=False, again_at=130.0)
    assert timing.due() == -math.inf

    timing.replied(urgently=True, again_at=130.0)
    assert timing.due() == 130.0


def test_a_batch_asks_when_it_was_told_to() -> None:
    """Whoever was told; a request that is sent before does not ask for it."""
    timing = wanting(patient=3)

    timing.replied(urgently=True, again_at=130.0)

    assert timing.due() == 130.0
    assert timing.amounts(129.9) == (0, 0)
    assert timing.amounts(130.0) == (0, 3)


@pytest.mark.parametrize(("urgent", "patient", "amounts"), [(250, 0, (100, 0)), (0, 250, (0, 100))])
def test_no_more_than_a_hundred_are_asked_for(urgent: int, patient: int, amounts: tuple[int, int]) -> None:
    """The log does one thing at a time, and others wait."""
    assert wanting(urgent, patient).amounts(100.0) == amounts


def test_a_batch_waits_as_long_as_others_hold_slots_and_not_as_long_as_its_own_lies_ahead() -> None:
    """A gap that a burst has left in the log is nobody's turn."""
    assert after_batch(wanting(patient=1), 100.0, lead=40.0, held=0) == 0
    assert after_batch(wanting(patient=1), 100.0, lead=40.0, held=4) == pytest.approx(5 - 1.5)
    assert after_batch(wanting(patient=1), 100.0, lead=2.0, held=4) == pytest.approx(2 - 1.5)


def test_what_a_batch_waits_is_corrected_by_what_it_finds() -> None:
    """A tenth is taken off each time; a slot that is free at once ends the wait; so does another log."""
    timing = wanting(patient=1)
    assert after_batch(timing, 100.0, lead=9.0, held=9) == pytest.approx(7.5)
    assert after_batch(timing, 110.0, lead=2.5, held=9) == pytest.approx(0.9 * 7.5 + 1.0)
    assert after_batch(timing, 120.0, lead=0.0, held=9) == 0

    assert after_batch(timing, 130.0, lead=9.0, held=9) == pytest.approx(7.5)
    timing.reset()
    assert timing.due() == 130.0


def test_a_slow_answer_is_asked_for_earlier() -> None:
    """By five round trips, if these take longer than a slot and a half."""
    assert after_batch(wanting(patient=1), 100.0, lead=9.0, held=9, trip=1.0) == pytest.approx(9 - 5)


def test_a_slot_that_an_interactive_call_takes_delays_no_batch() -> None:
    """Be it one of its own, or the one that the batch had asked for."""
    timing = wanting(patient=1)
    after_batch(timing, 100.0, lead=9.0, held=9)

    timing.urgent = 1
    timing.taken(105.0)
    timing.urgent = 0
    assert timing.due() == pytest.approx(107.5)

    timing.replied(urgently=True, again_at=106.0)
    timing.taken(106.0)
    assert timing.due() == pytest.approx(107.5)
