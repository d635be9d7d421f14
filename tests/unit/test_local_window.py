"""One process's own view of the account's limit: what each way of coming back does to it."""

import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.rate_limit import RateLimit


def let_in(window: LocalWindow, *times: float) -> None:
    """Take a slot and have it answered, at each of these times."""
    for time in times:
        window.take(time)
        window.answered(time, 1)


def flying(limit: RateLimit | None, number: int) -> LocalWindow:
    """Give a window of which so many slots are in the air."""
    window = LocalWindow(limit)
    for _ in range(number):
        window.take(100.0)
    return window


def test_what_was_let_in_before_this_process_was_there_counts() -> None:
    """By its age; beside what was let in since."""
    window = LocalWindow(RateLimit(3, per=60))
    let_in(window, 98.0)

    window.preload(100.0, [50.0, 10.0])

    assert window.used(100.0) == 3
    assert window.delay(100.0) == 10.0
    assert window.delay(100.0, ahead=1) == 50.0
    assert window.delay(100.0, ahead=2) == 58.0


def test_each_slot_comes_back_once() -> None:
    """Not sent, or turned away."""
    unused, refused = flying(RateLimit(10, per=60), 3), flying(RateLimit(10, per=60), 3)

    unused.unused(101.0)
    refused.refused(101.0, 100.0, None)

    assert unused.used(101.0) == refused.used(101.0) == 2


def test_a_slot_without_an_answer_is_taken_until_the_grace_is_over() -> None:
    """It is no longer in the air, and still counts."""
    window = flying(RateLimit(10, per=60), 3)

    window.lost(101.0)

    assert window.used(101.0) == 3
    assert window.used(162.9) == 3
    assert window.used(163.1) == 2


@pytest.mark.parametrize("how", ["unused", "lost", "refused", "answered"])
def test_the_last_of_the_flight_ends_the_counting(how: str) -> None:
    """Whatever became of it: then the first burst is all there, and the limit is known."""
    window = flying(None, 10)
    for _ in range(8):
        window.answered(100.2, 1)
    window.refused(100.5, 100.0, 59.5)
    assert window.limit is None
    assert window.is_frozen(100.6)

    match how:
        case "unused":
            window.unused(100.6)
        case "lost":
            window.lost(100.6)
        case "refused":
            window.refused(100.6, 100.0, 59.4)
        case _:
            window.answered(100.6, 1)

    assert window.limit == RateLimit(9 if how == "answered" else 8, per=60)
    assert not window.is_frozen(100.6)


def test_a_refusal_that_does_not_fit_is_believed_when_there_are_many() -> None:
    """Four of them may be somebody else's affair; the fifth among forty answers is not."""
    window = LocalWindow(RateLimit(600, per=60))
    let_in(window, *(100 + nth / 10 for nth in range(9)))
    limits = list[RateLimit | None]()

    for nth in range(5):
        window.take(101.0 + nth)
        assert window.refused(101.5 + nth, 101.0 + nth, 1.0) is False
        limits.append(window.limit)

    assert limits[:4] == [RateLimit(600, per=60)] * 4
    assert limits[4] == RateLimit(9, per=60)


def test_a_refusal_that_fits_is_believed_at_once() -> None:
    """By what it says, and by when its request was sent."""
    window = LocalWindow(RateLimit(60, per=60))
    let_in(window, *(100 + nth / 10 for nth in range(30)))

    window.take(103.0)
    window.take(103.0)
    window.refused(103.5, 103.0, 56.5)
    assert window.limit == RateLimit(30, per=60)

    window.refused(103.6, 103.0, 5.0)
    assert window.limit == RateLimit(30, per=60)  # of the same flight: it says nothing new


def test_a_scout_that_is_refused_was_to_be_expected() -> None:
    """It is the one that went beyond the limit to see whether it is too small."""
    window = LocalWindow(None)
    let_in(window, *(100 + nth / 10 for nth in range(10)))
    window.take(101.0)
    assert window.refused(101.0, 100.99, 59.0) is False
    assert window.limit == RateLimit(10, per=60)
    let_in(window, *(161 + nth / 10 for nth in range(10)))
    now = 222.0
    let_in(window, *(now + nth / 10 for nth in range(10)))
    assert window.delay(now + 1) == 0.0

    window.take(now + 1)

    assert window.refused(now + 1.1, now + 1, 59.0) is True
    assert window.delay(now + 2) > 0


def test_while_nothing_is_known_nobody_waits() -> None:
    """What is taken is what is in the air."""
    window = flying(None, 3)

    assert window.used(100.0) == 3
    assert window.delay(100.0, ahead=1000) == 0.0


def test_a_slot_that_comes_back_in_a_moment_is_waited_for_so_long() -> None:
    """Not for a second."""
    window = LocalWindow(RateLimit(1, per=60))
    let_in(window, 100.0)

    assert window.delay(159.75) == 0.25
    assert window.delay(160.0) == 0.0


def test_the_first_answer_after_a_refusal_that_said_nothing_tells_the_period() -> None:
    """It is as long as the oldest of the burst is old by then, at most."""
    window = LocalWindow(None)
    let_in(window, *(100 + nth / 10 for nth in range(10)))
    window.take(101.0)
    window.refused(101.0, 100.9, None)
    window.take(108.0)
    window.refused(108.0, 107.9, None)
    assert window.limit is None

    let_in(window, 110.5)

    assert window.limit == RateLimit(10, per=10)
