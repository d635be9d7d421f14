"""What others hold of the account's slots, as far as refusals reveal it."""

import pytest

from respan_async._pacing.others import Others


def sharing(share: int = 30, at: float = 200.0) -> Others:
    """Give others who were found to take so many of 60 a minute in every period."""
    others = Others()
    others.found(at - 60.0, 60 - share, 60, 60.0, 30.0)
    others.found(at, 60 - share, 60, 60.0, 30.0)
    assert others.share == share
    return others


def test_nobody_else_is_there_before_a_refusal() -> None:
    """All slots are ours, and nothing is to be tried."""
    others = Others()

    assert others.used(100.0) == others.share == 0
    assert others.expiries(5) == []
    assert others.relaxes_at(60.0) is None
    others.relax(100.0, 60.0)
    assert others.share == 0


def test_the_slots_of_a_first_refusal_pass_within_one_period() -> None:
    """The first comes back when the server says, and the others evenly until the period is over."""
    others = Others()

    others.found(100.0, 56, 60, 60.0, 20.0)

    assert others.expiries(9) == [120.0, 130.0, 140.0, 150.0]
    assert others.expiries(2) == [120.0, 130.0]
    assert [others.used(now) for now in (100.0, 119.9, 120.0, 149.9, 150.0)] == [4, 4, 3, 1, 0]
    assert others.share == 0


@pytest.mark.parametrize(("retry_after", "first"), [(None, 100.0), (0.0, 100.0), (60.0, 160.0), (500.0, 160.0)])
def test_a_wait_longer_than_the_period_or_none_is_no_riddle(retry_after: float | None, first: float) -> None:
    """Nothing passes later than one period from now, and nothing earlier than now."""
    others = Others()

    others.found(100.0, 56, 60, 60.0, retry_after)

    assert others.expiries(1) == [first]
    assert others.used(160.0) == 0


def test_a_refusal_soon_after_another_finds_a_share() -> None:
    """What is missing is left to them from then on, in every period; it passes no more."""
    others = Others()
    others.found(100.0, 40, 60, 60.0, 30.0)

    others.found(219.9, 40, 60, 60.0, 30.0)

    assert others.share == 20
    assert others.used(1000.0) == 20
    assert others.expiries(5) == []


def test_a_refusal_two_periods_after_another_finds_slots_that_pass() -> None:
    """The one before says nothing about it any more."""
    others = Others()
    others.found(100.0, 40, 60, 60.0, 30.0)

    others.found(220.0, 40, 60, 60.0, 30.0)

    assert others.share == 0
    assert others.used(220.0) == 20


def test_a_share_grows_by_a_twentieth_at_least_and_leaves_one_slot() -> None:
    """So that few refusals find the whole of it, and something is always tried."""
    others = sharing(20)

    others.found(210.0, 59, 60, 60.0, 30.0)
    assert others.share == 23
    others.found(220.0, 10, 60, 60.0, 30.0)
    assert others.share == 50
    for nth in range(9):
        others.found(230.0 + nth, 0, 60, 60.0, 30.0)
    assert others.share == 59

    few = Others()
    for nth in range(2):
        few.found(100.0 + nth, 4, 5, 1.0, None)
    assert few.share == 1


def test_after_a_clean_period_half_of_a_share_is_tried() -> None:
    """And half of that after the next, until nothing is left to others."""
    others = sharing(30, at=200.0)
    assert others.relaxes_at(60.0) == 260.0

    shares = list[int]()
    for now in (259.9, 260.0, 320.0, 380.0, 440.0, 500.0):
        others.relax(now, 60.0)
        shares.append(others.share)

    assert shares == [30, 15, 7, 3, 1, 0]
    assert others.relaxes_at(60.0) is None


def test_a_try_that_is_refused_is_taken_back_and_waits_for_longer() -> None:
    """The share is as before, not larger, and the next try comes after two clean periods."""
    others = sharing(30, at=200.0)
    others.relax(260.0, 60.0)
    assert others.is_trying(261.0, 60.0)

    others.found(300.0, 45, 60, 60.0, 30.0)

    assert others.share == 30
    assert not others.is_trying(301.0, 60.0)
    assert others.relaxes_at(60.0) == 420.0


def test_a_refusal_long_after_a_try_does_not_answer_it() -> None:
    """Two periods later the try came through."""
    others = sharing(30, at=200.0)
    others.relax(260.0, 60.0)

    assert not others.is_trying(380.0, 60.0)
    others.found(380.0, 45, 60, 60.0, 30.0)

    assert others.share == 15
    assert others.used(380.0) == 30  # of which half pass


def test_what_the_server_itself_says_of_others_holds_until_it_says() -> None:
    """It replaces what refusals had shown of slots that pass."""
    others = Others()
    others.found(100.0, 40, 60, 60.0, 30.0)

    others.told(5, 130.0)
    assert [others.used(now) for now in (101.0, 129.9, 130.0)] == [5, 5, 0]

    others.told(0, 140.0)
    assert others.used(101.0) == 0
