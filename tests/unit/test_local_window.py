"""One process's own view of the account's limit: what each way of coming back does to it."""

import math

import pytest

from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.loop_clock import LoopClock
from respan_async._pacing.rate_hint import RateHint
from respan_async._pacing.rate_limit import RateLimit

MINUTE = RateLimit(60, per=60)


def let_in(window: LocalWindow, *times: float) -> None:
    """Take a slot and have it answered, at each of these times."""
    for time in times:
        window.take(time)
        window.answered(time, time, 1)


def flying(limit: RateLimit | None, number: int) -> LocalWindow:
    """Give a window of which so many slots are in the air since 100."""
    window = LocalWindow(limit)
    for _ in range(number):
        window.take(100.0)
    return window


def refuse(window: LocalWindow, time: float, retry_after: float | None, number: int = 1) -> None:
    """Have so many requests refused that were sent at a time, and so confirm one another."""
    for _ in range(number):
        window.take(time)
    for _ in range(number):
        window.refused(time, time, retry_after)


def pauses(window: LocalWindow) -> list[float]:
    """Return a list that grows by the seconds of each pause."""
    told = list[float]()
    window.attach(lambda: None, lambda reason, seconds, lower_only: told.append(seconds), LoopClock())
    return told


# -------------------------------------------------------------------------------------------------------------- slots


async def test_a_window_of_its_own_has_nothing_to_ask_for_and_nothing_to_close() -> None:
    """What a shared one needs, it takes without effect."""
    window = LocalWindow(MINUTE)

    window.request_slots(1, 2, 3.0)
    await window.aclose()

    assert not window.shared
    assert not window.learned
    assert window.limit == MINUTE
    assert window.free(100.0) == 60
    assert window.wakes_at(100.0) is None


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
    unused, refused = flying(MINUTE, 3), flying(MINUTE, 3)

    unused.unused(101.0)
    refused.refused(101.0, 100.0, None)

    assert unused.used(101.0) == refused.used(101.0) == 2


def test_a_slot_without_an_answer_is_taken_until_the_grace_is_over() -> None:
    """It is no longer in the air, and still counts; so does each repetition before."""
    window = flying(MINUTE, 3)

    window.lost(101.0)
    window.resent(101.0, 2)

    assert [window.used(now) for now in (101.0, 162.9, 163.1)] == [5, 5, 2]


def test_repetitions_that_were_let_in_count_each() -> None:
    """One is in the air, and as many slots are taken as it was sent."""
    window = flying(MINUTE, 1)

    window.answered(101.0, 100.0, 3)

    assert window.used(101.0) == 3


def test_while_nothing_is_known_nobody_waits() -> None:
    """What is taken is what is in the air."""
    window = flying(None, 3)

    assert window.used(100.0) == 3
    assert window.delay(100.0, ahead=1000) == 0.0
    assert window.room(100.0, 3) == math.inf


def test_a_slot_is_waited_for_until_it_comes_back() -> None:
    """In a moment, or in as many periods as there are others before it."""
    window = LocalWindow(RateLimit(2, per=60))
    let_in(window, 100.0, 110.0)

    assert [window.delay(120.0, ahead) for ahead in range(5)] == [40.0, 50.0, 100.0, 110.0, 160.0]
    assert window.wakes_at(120.0) == 160.0
    assert window.delay(159.75) == 0.25
    assert window.delay(160.0) == 0.0


def test_a_slot_in_the_air_comes_back_one_period_after_its_answer() -> None:
    """Which is yet to come."""
    assert flying(RateLimit(1, per=60), 1).delay(130.0) == 60.0


# ----------------------------------------------------------------------------------------------- a refusal is reviewed


@pytest.mark.parametrize("how", ["unused", "lost", "refused", "answered"])
def test_the_last_of_the_flight_ends_a_review(how: str) -> None:
    """Whatever became of it: until then nothing is sent, and then a probe."""
    window = flying(None, 2)
    window.refused(100.5, 100.0, 30.0)
    assert window.room(100.6, 1) == 0
    assert window.wakes_at(100.6) == 101.5

    match how:
        case "unused":
            window.unused(100.6)
        case "lost":
            window.lost(100.6)
        case "refused":
            window.refused(100.6, 100.0, 30.0)
        case _:
            window.answered(100.6, 100.0, 1)

    closed = 30.0 if how == "refused" else 0.1
    assert window.delay(100.6) == pytest.approx(closed)
    assert window.room(100.6, 0) == 0
    assert window.room(100.6 + closed, 0) == 1
    assert window.room(100.6 + closed, 1) == 0
    assert (window.paused_until(100.6) is not None) is (how == "refused")


def test_after_a_second_what_stalls_is_not_waited_for() -> None:
    """A probe goes beside it."""
    window = flying(None, 3)
    window.refused(100.5, 100.0, 30.0)

    assert window.room(101.5, 2) == 0
    assert window.room(101.6, 2) == 1
    window.lost(102.0)
    assert window.room(102.0, 1) == 1
    window.take(102.0)
    window.answered(102.1, 102.0, 1)
    assert window.room(102.1, 1) == 2


@pytest.mark.parametrize(("limit", "after"), [(None, 0.1), (MINUTE, 1.2), (RateLimit(4, per=2), 0.5)])
def test_a_probe_is_sent_soon(limit: RateLimit | None, after: float) -> None:
    """After as long as two requests are apart, and a fiftieth of the period."""
    window = LocalWindow(limit)
    let_in(window, 99.9)

    refuse(window, 100.0, 45.0 if limit != RateLimit(4, per=2) else 2.9)

    assert window.delay(100.0) == pytest.approx(after)
    assert window.paused_until(100.0) is None


def test_a_probe_waits_no_longer_than_was_said() -> None:
    """Where that is less than a tenth of a second."""
    window = LocalWindow(None)

    refuse(window, 100.0, 0.03)

    assert window.delay(100.0) == pytest.approx(0.03)


def test_a_refusal_that_was_disproved_changes_nothing() -> None:
    """A probe that is let in at once shows that there are slots."""
    window = LocalWindow(MINUTE)
    told = pauses(window)
    let_in(window, 99.0)
    refuse(window, 100.0, 50.0)

    let_in(window, 101.2)

    assert window.others(101.2) == 0
    assert window.room(101.2, 0) == 2
    assert told == []
    assert window.limit == MINUTE


def test_a_believed_refusal_pauses_as_told_within_reason() -> None:
    """No longer than a bound."""
    window = LocalWindow(None, longest_pause=120.0)
    told = pauses(window)

    refuse(window, 100.0, 3000.0, number=2)
    assert window.paused_until(219.9) == 220.0
    assert window.paused_until(220.0) is None
    refuse(window, 300.0, None, number=2)

    assert told == [120.0, 0.5]


# -------------------------------------------------------------------------------------------------- what others hold


def test_a_refusal_under_a_known_limit_says_what_others_hold() -> None:
    """All that is missing, from when the server said until a period is over."""
    window = LocalWindow(MINUTE)
    let_in(window, *(99 + nth / 10 for nth in range(10)))

    refuse(window, 100.0, 30.0, number=2)

    assert window.limit == MINUTE
    assert window.others(100.0) == 50
    assert window.used(100.0) == 10
    assert window.free(100.0) == 0
    assert window.paused_until(100.0) == 130.0
    assert window.others(130.0) == 49
    assert window.wakes_at(130.0) == pytest.approx(130.6)
    assert window.delay(130.0, ahead=3) == pytest.approx(1.8, abs=0.1)


def test_a_full_window_of_our_own_leaves_nothing_to_others() -> None:
    """The server's clock is not ours."""
    window = LocalWindow(RateLimit(10, per=60))
    let_in(window, *(99 + nth / 10 for nth in range(10)))

    refuse(window, 100.0, 57.5, number=2)

    assert window.others(100.0) == 0
    assert window.paused_until(100.0) == 157.5


def shared() -> LocalWindow:
    """Give a window in which others were found to hold 50 of 60 twice in a row, at 100 and at 160."""
    window = LocalWindow(MINUTE)
    let_in(window, *(99 + nth / 10 for nth in range(10)))
    refuse(window, 100.0, 30.0, number=2)
    let_in(window, *(159 + nth / 10 for nth in range(10)))
    refuse(window, 160.0, 30.0)
    return window


def test_a_share_that_was_found_is_left_to_others() -> None:
    """A second refusal needs no probe, and pauses until one of our own slots is back if that is sooner."""
    window = shared()

    assert window.others(500.0) == 50
    assert window.free(500.0) == 10
    assert window.spread_interval() == 6.0
    assert window.paused_until(160.0) == 190.0
    assert window.wakes_at(219.99) == 220.0  # when half of the share is tried


def test_a_refusal_just_after_another_pauses_until_our_next_slot() -> None:
    """What others hold is known by then."""
    window = LocalWindow(MINUTE)
    let_in(window, *(99 + nth / 10 for nth in range(10)))
    refuse(window, 100.0, 57.0, number=2)
    let_in(window, 157.2)

    refuse(window, 157.5, 2.6)  # not longer than what one of ours takes to come back

    assert window.paused_until(157.5) == pytest.approx(159.0)


def test_half_of_a_share_is_tried_after_a_clean_period() -> None:
    """As time goes by, whoever asks."""
    window = shared()

    window.room(220.0, 0)

    assert window.others(220.0) == 25


def test_a_try_that_is_refused_is_taken_back_though_the_wait_is_short() -> None:
    """Others come and go in a full window."""
    window = shared()
    window.room(220.0, 0)
    let_in(window, *(221 + nth / 10 for nth in range(15)))

    refuse(window, 225.0, 1.0)

    assert window.others(225.0) == 50
    assert window.paused_until(225.0) is None


# ----------------------------------------------------------------------------------------------- another one's refusal


def test_a_wait_that_our_own_slots_make_impossible_is_another_limits() -> None:
    """It pauses, and teaches nothing."""
    window = LocalWindow(MINUTE)
    told = pauses(window)
    let_in(window, *(60 + nth / 10 for nth in range(30)))

    refuse(window, 100.0, 50.0, number=2)

    assert window.others(100.0) == 0
    assert told == [50.0]
    assert window.limit == MINUTE


def test_a_wait_longer_than_a_learned_period_shows_that_it_was_wrong() -> None:
    """Everything is learned anew; a limit that was given stays."""
    learned, given = LocalWindow(None), LocalWindow(RateLimit(61, per=10))
    for window in (learned, given):
        let_in(window, *(100 + nth / 100 for nth in range(61)))
        refuse(window, 101.0, 9.0, number=2)
        assert window.limit == RateLimit(61, per=10)
        let_in(window, *(111 + nth / 100 for nth in range(61)))
        refuse(window, 112.0, 108.0, number=2)

    assert learned.limit == RateLimit(122, per=120)
    assert learned.learned
    assert given.limit == RateLimit(61, per=10)


def test_a_refusal_with_nothing_of_ours_in_the_window_teaches_nothing() -> None:
    """It is an outage or an exhausted quota; without a wait it pauses for longer and longer."""
    window = LocalWindow(MINUTE)
    told = pauses(window)

    for nth in range(3):
        refuse(window, 100.0 + nth, None, number=2)
    refuse(window, 110.0, 30.0, number=2)

    assert window.others(110.0) == 0
    assert told == [0.5, 1.0, 2.0, 30.0]


# ------------------------------------------------------------------------------------------------------------- bursts


def test_refusals_that_are_soon_over_are_probed_and_forgiven() -> None:
    """One by chance is no news."""
    window = LocalWindow(MINUTE)
    told = pauses(window)
    let_in(window, *(70 + nth for nth in range(30)))

    refuse(window, 100.0, 2.0)

    assert window.delay(100.0) == 1.0
    assert window.others(100.0) == 0
    assert told == []


def test_probes_that_are_refused_again_and_again_wait_for_longer() -> None:
    """At first as long as two requests are apart, then twice as long each time, up to a twelfth of the period."""
    window = LocalWindow(MINUTE)
    window.preload(100.0, range(60, 0, -1))
    gaps, now = list[float](), 100.0
    for _ in range(9):
        refuse(window, now, 1.0)
        gaps.append(window.delay(now))
        now += 0.1

    assert [round(gap, 1) for gap in gaps] == [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_frequent_refusals_of_bursts_cap_what_goes_at_once() -> None:
    """At what was let in, and what is in the air counts until it has drained."""
    window = LocalWindow(MINUTE)
    for _ in range(14):
        window.take(100.0)
    for _ in range(10):
        window.answered(100.0, 99.9, 1)
    for _ in range(4):
        window.refused(100.0, 100.0, 1.0)

    assert window.others(100.0) == 0
    let_in(window, 101.0)
    assert window.room(103.0, 0) == pytest.approx(2)  # the slow start
    for nth in range(5):
        let_in(window, 110.0 + nth / 10)
    assert window.room(110.5, 2) == pytest.approx(3.0, abs=0.6)
    assert window.wakes_at(110.5) is not None


def test_frequent_refusals_of_single_requests_are_others_who_come_and_go() -> None:
    """Nothing was let in at once, so no burst is to blame."""
    window = LocalWindow(MINUTE)
    let_in(window, *(nth for nth in range(30)))

    for nth in range(4):
        refuse(window, 40.0 + nth, None)

    assert window.others(43.0) == 29  # of 30, of which the first comes back at once
    assert window.room(100.0, 0) == 1


def test_frequent_refusals_under_a_limit_that_we_use_up_ourselves_change_nothing() -> None:
    """Neither a burst nor others can be to blame."""
    window = LocalWindow(RateLimit(10, per=60))
    window.preload(50.0, range(20, 10, -1))

    for nth in range(8):
        refuse(window, 50.0 + nth, None)

    assert window.others(57.0) == 0
    let_in(window, *(100 + nth for nth in range(5)))
    assert window.room(105.0, 0) == 6  # the slow start


def test_frequent_refusals_that_were_disproved_cap_bursts_too() -> None:
    """At the level of the last one."""
    window = LocalWindow(MINUTE)
    for nth in range(4):
        now = 100.0 + 10 * nth
        for _ in range(8):
            window.take(now)
        window.refused(now + 0.1, now, 50.0)
        for _ in range(7):
            window.answered(now + 0.1, now, 1)

    assert window.others(140.0) == 0
    assert window.limit == MINUTE
    assert window.room(140.0, 7) == pytest.approx(0, abs=0.01)


def test_frequent_refusals_at_a_level_of_nothing_cap_nothing_where_the_limit_is_known() -> None:
    """A single request that is refused by chance is no burst."""
    window = LocalWindow(MINUTE)
    let_in(window, 90.0)
    for nth in range(4):
        refuse(window, 100.0 + 10 * nth, 50.0)
        let_in(window, 102.0 + 10 * nth)

    let_in(window, *(140 + nth / 10 for nth in range(10)))

    assert window.limit == MINUTE
    assert window.room(150.0, 0) == 12  # the slow start


def test_where_even_single_requests_are_refused_the_rate_is_taken_from_the_last_second() -> None:
    """While nothing is known otherwise: first one goes at a time, and then as often as they were let in."""
    window = LocalWindow(None)
    limits = list[RateLimit | None]()
    now = 100.0
    for _ in range(8):
        refuse(window, now, None)
        let_in(window, now + 0.1)
        limits.append(window.limit)
        now += 0.25

    assert limits[6] is None
    assert limits[7] == RateLimit(4, per=1)
    assert window.learned


# --------------------------------------------------------------------------------------------------- a limit learned


def test_a_refusal_that_goes_beyond_a_learned_limit_was_to_be_expected() -> None:
    """It pauses nothing, and says nothing of others."""
    window = LocalWindow(None)
    told = pauses(window)
    let_in(window, *(100 + nth / 100 for nth in range(64)))
    refuse(window, 101.0, 59.0, number=2)
    assert window.limit == RateLimit(64, per=60)
    let_in(window, *(161 + nth / 100 for nth in range(64)))
    now = 222.0
    let_in(window, *(now + nth / 100 for nth in range(64)))
    assert window.delay(now + 1) == 0.0
    assert window.spread_interval() == pytest.approx(60 / 68)

    refuse(window, now + 1, 59.0)

    assert window.others(now + 1) == 0
    assert window.delay(now + 2) > 50
    assert window.spread_interval() == pytest.approx(60 / 64)
    assert len(told) == 1


def test_what_goes_beyond_a_learned_limit_and_is_let_in_raises_it() -> None:
    """After a period."""
    window = LocalWindow(None)
    let_in(window, *(100 + nth / 100 for nth in range(64)))
    refuse(window, 101.0, 59.0, number=2)
    let_in(window, *(161 + nth / 100 for nth in range(64)))
    let_in(window, *(222 + nth / 100 for nth in range(64)))
    assert window.delay(223.0) == 0.0
    let_in(window, 223.0, 223.1)

    let_in(window, 283.0)

    assert window.limit == RateLimit(68, per=60)


def test_the_first_answer_after_refusals_that_said_nothing_tells_the_limit() -> None:
    """A refusal that follows them needs no probe."""
    window = LocalWindow(None)
    let_in(window, *(100 + nth / 100 for nth in range(70)))
    refuse(window, 101.0, None, number=2)
    assert window.limit is None

    refuse(window, 108.0, None)
    let_in(window, 110.5)

    assert window.limit == RateLimit(70, per=10)


# --------------------------------------------------------------------------------------------------- what answers state


def test_a_limit_that_answers_state_is_gone_by_and_not_scouted() -> None:
    """Each change of it is followed."""
    window = LocalWindow(None)
    let_in(window, 100.0)

    window.told(100.0, RateHint(limit=20, per=10.0))
    assert window.limit == RateLimit(20, per=10)
    assert window.used(100.0) == 1
    window.told(100.0, RateHint(limit=20, per=10.0))
    let_in(window, *(101 + nth / 100 for nth in range(20)))
    assert window.delay(200.0) == 0
    assert window.spread_interval() == 0.5
    window.told(500.0, RateHint(limit=40, per=10.0))

    assert window.limit == RateLimit(40, per=10)


def test_a_limit_that_was_given_stays_whatever_answers_state() -> None:
    """They still tell what others hold, until the count begins anew."""
    window = LocalWindow(MINUTE)
    let_in(window, 100.0, 101.0)

    window.told(101.0, RateHint(limit=10, per=1.0, remaining=38, reset=30.0))

    assert window.limit == MINUTE
    assert [window.others(now) for now in (101.0, 130.9, 131.0)] == [20, 20, 0]
    window.told(102.0, RateHint(remaining=60, reset=1000.0))
    assert window.others(102.0) == 0
    window.told(102.0, RateHint(remaining=8, reset=1000.0))
    assert [window.others(now) for now in (161.9, 162.0)] == [50, 0]


@pytest.mark.parametrize("hint", [RateHint(), RateHint(remaining=5), RateHint(reset=5.0), RateHint(limit=50)])
def test_answers_that_state_too_little_are_no_news(hint: RateHint) -> None:
    """Whether or not a limit is known."""
    for given in (None, MINUTE):
        window = LocalWindow(given)

        window.told(100.0, hint)

        assert window.limit == given
        assert window.others(100.0) == 0
