"""How an estimate corrects itself: which numbers and which periods a refusal makes of what was let in."""

import pytest

from respan_async._pacing.rate_limit import RateLimit
from tests.unit.test_limit_estimator import Story, spread

MINUTE = RateLimit(60, per=60)


def learned(count: int = 10) -> Story:
    """Give a story in which a limit a minute was learned at 1001."""
    story = Story()
    story.let_in(*spread(1000, count, 1))
    story.refuse(1001, 59)
    assert story.limit == RateLimit(count, per=60)
    return story


# ------------------------------------------------------------------------------------------------- the first burst


@pytest.mark.parametrize(
    ("count", "over", "asked", "expected"),
    [
        (50, 0.05, 1.0, RateLimit(50, per=1)),  # a whole second cannot speak of a tenth
        (5, 0.0, 0.095, RateLimit(5, per=0.1)),
        (5, 0.25, 1.05, RateLimit(5, per=1.3)),  # near no round value
        (100, 0.25, 3570.5, RateLimit(100, per=3600)),  # two per cent are no difference
    ],
)
def test_a_period_is_round_within_what_a_wait_leaves_open(
    count: int, over: float, asked: float, expected: RateLimit
) -> None:
    """Whole seconds are rounded up, fractions are as exact as clocks are."""
    story = Story()
    story.let_in(*spread(1000, count, over))

    story.refuse(1000 + over, asked)

    assert story.limit == expected


def test_these_periods_are_round() -> None:
    """A wait that is short of one of them by less than two per cent means it; nothing else does."""
    seconds = (0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)
    longer = (120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
    for period in (*seconds, *longer):
        story = Story()
        story.let_in(*[1000.0] * 5)

        story.refuse(1000.0, 0.985 * period)

        assert story.limit == RateLimit(5, per=period)


def test_a_burst_begins_after_a_pause_as_long_as_the_wait() -> None:
    """What was let in before that had come back by then."""
    story = Story()
    story.let_in(*spread(1000, 20, 1), *spread(1030, 10, 1))

    story.refuse(1031, 29)

    assert story.limit == RateLimit(10, per=30)


def test_the_time_in_which_the_flight_came_back_is_no_part_of_the_period() -> None:
    """The burst ended with the refusal, not when it could be counted."""
    story = Story()
    story.let_in(*spread(100, 10, 0.5))
    story.log.in_air = 1
    assert story.estimate.refused(100.5, 100.4, 9.5) is False
    assert story.estimate.refused(100.6, 100.4, 9.4) is False

    assert not story.estimate.counting(101.5)

    assert story.limit == RateLimit(10, per=10)


@pytest.mark.parametrize(
    ("count", "over", "asked", "number"),
    [
        (45, 45, 40.0, 24),  # older together than a minute, and the wait is not
        (10, 5, 60.0, 8),
        (90, 90, None, 63),
    ],
)
def test_what_is_older_than_the_documented_period_is_measured_by_it(
    count: int, over: float, asked: float | None, number: int
) -> None:
    """A steady flow has no start to be counted from; a minute is the likeliest."""
    story = Story()
    story.let_in(*spread(1000, count, over))

    story.refuse(1000 + over, asked)

    assert story.limit is not None
    assert story.limit.per == 60
    assert abs(story.limit.limit - number) <= 1


def test_a_steady_flow_that_is_refused_for_longer_than_a_minute_teaches_nothing_yet() -> None:
    """Neither the start of the flow is known, nor can the period be the documented one."""
    story = Story()
    story.let_in(*spread(0, 600, 300))

    story.refuse(300, 120)

    assert story.limit is None


@pytest.mark.parametrize(("refused", "again", "per"), [(108.0, 109.5, 9.5), (110.0, 113.0, 12), (108.0, 110.0, 10)])
def test_a_period_that_only_a_success_tells_is_round_if_it_can_be(refused: float, again: float, per: float) -> None:
    """It is longer than the last refusal was late, and no longer than the success was."""
    story = Story()
    story.let_in(*spread(100, 20, 0.5))
    story.refuse(100.5, None)
    story.refuse(refused, None)

    story.let_in(again)

    assert story.limit == RateLimit(20, per=per)


def test_a_minute_that_is_not_yet_over_is_no_steady_flow() -> None:
    """Where nothing was said, less than the documented period may still be a burst: a success will tell."""
    story = Story()
    story.let_in(*spread(1000, 60, 59.5))

    story.refuse(1059.5, None)

    assert story.limit is None


# -------------------------------------------------------------------------------------------------------- numbers


def test_a_limit_that_was_met_though_it_was_kept_is_lowered_by_one_once_a_period() -> None:
    """It is too high by what counting cannot see, such as somebody else's single request."""
    story = Story(MINUTE)
    found = list[RateLimit | None]()
    for start in (1000.0, 1061.0):
        story.let_in(*(start + nth / 2 for nth in range(5)), *spread(start + 10, 55, 40))
        for time in (59.9, 60.1):
            assert story.refuse(start + time, 2.5) is False
            found.append(story.limit)

    assert found == [RateLimit(59, per=60), RateLimit(59, per=60), RateLimit(58, per=60), RateLimit(58, per=60)]


def test_a_limit_is_not_lowered_below_what_the_period_proves() -> None:
    """All sixty were let in: whatever refused the next one, sixty is no less."""
    story = Story(MINUTE)
    story.let_in(*spread(1001, 60, 40))

    assert story.refuse(1059, 0.1) is False

    assert story.limit == MINUTE


@pytest.mark.parametrize(("limit", "refused", "asked"), [(1, 1059.8, 2.5), (5, 1040.0, 28.5)])
def test_a_limit_is_never_less_than_one(limit: int, refused: float, asked: float) -> None:
    """However little a refusal leaves."""
    story = Story(RateLimit(limit, per=60))
    story.let_in(1000.0)

    story.refuse(refused, asked)

    assert story.limit == RateLimit(1, per=60)


@pytest.mark.parametrize("asked", [57.5, None])
def test_a_learned_limit_rises_to_what_was_let_in(asked: float | None) -> None:
    """Twelve in a period prove that ten were too few, be it by a refusal."""
    story = learned(10)
    story.let_in(1061.5, *spread(1062, 11, 0.5))

    story.refuse(1063.5 if asked else 1121.0, asked)

    assert story.limit == RateLimit(12, per=60)


def test_what_was_let_in_counts_though_the_limit_has_just_been_met() -> None:
    """Two more than the limit came in between two refusals: then it is two more, and not one less."""
    story = learned(10)
    story.let_in(*spread(1061, 10, 1))
    story.refuse(1063, 57.9)
    assert story.limit == RateLimit(10, per=60)

    story.let_in(1064.0, 1064.1)
    story.refuse(1065, 55.5)

    assert story.limit == RateLimit(12, per=60)


def test_only_what_can_still_count_when_a_slot_comes_back_is_counted() -> None:
    """What is to come back in twenty seconds was let in forty seconds ago; what is older is gone by now."""
    story = Story(MINUTE)
    story.let_in(*spread(1000, 20, 1), *spread(1020, 30, 1))

    story.refuse(1050, 20.5)

    assert story.limit == RateLimit(30, per=60)


def test_a_number_that_was_lowered_stays_so_while_the_period_does() -> None:
    """That more was allowed before is no reason to allow it again."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 40, 10))
    story.refuse(1010, 20.5)
    assert story.limit == RateLimit(40, per=30)

    story.let_in(*spread(1100, 20, 0.5), *spread(1105, 30, 14))
    story.refuse(1120.4, 10.3)

    assert story.limit == RateLimit(39, per=30)


def test_a_longer_period_takes_back_what_had_lowered_the_number() -> None:
    """It explains the refusals that had lowered it."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 40, 10))
    story.refuse(1010, 20.5)
    assert story.limit == RateLimit(40, per=30)

    story.let_in(*spread(1100, 60, 20))
    story.refuse(1120, 40.5)

    assert story.limit is not None
    assert story.limit.per > 50
    assert story.limit.limit == 48  # so many of them came within that period, and sixty were allowed once

    story.let_in(*spread(2000, 60, 30))
    story.refuse(2030, 70.5)

    assert story.limit.per > 90
    assert story.limit.limit == 48  # sixty were allowed in a shorter period, which was wrong


# -------------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize(("count", "per"), [(54, 60.0), (66, 60.0), (53, 30.0), (67, 30.0)])
def test_the_same_number_again_over_a_longer_time_makes_the_period_longer(count: int, per: float) -> None:
    """The same within a tenth."""
    story = Story()
    story.let_in(*spread(0, 60, 1))
    story.refuse(1, 29)
    assert story.limit == RateLimit(60, per=30)

    story.let_in(*spread(1000, count, 45))
    story.refuse(1045, 15)

    assert story.limit is not None
    assert story.limit.per == per


@pytest.mark.parametrize(("count", "per"), [(10, 60.0), (12, 60.0), (9, 30.0), (13, 30.0)])
def test_of_a_small_number_one_more_or_less_is_the_same(count: int, per: float) -> None:
    """And no more than one."""
    story = Story()
    story.let_in(*spread(0, 11, 1))
    story.refuse(1, 29)
    assert story.limit == RateLimit(11, per=30)

    story.let_in(*spread(1000, count, 45))
    story.refuse(1045, 15)

    assert story.limit is not None
    assert story.limit.per == per


def test_less_than_half_for_more_than_half_a_period_cannot_be() -> None:
    """By this period's count; so it is longer."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 100, 44))

    story.refuse(1044, 20.5)

    assert story.limit is not None
    assert story.limit.per == pytest.approx(46.9, abs=0.5)


def test_half_for_more_than_half_a_period_can_be() -> None:
    """Only less than that contradicts it."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 90, 32), *spread(1034, 30, 9.5))

    story.refuse(1044, 20.5)

    assert story.limit is not None
    assert story.limit.per == 30


def test_of_a_limit_of_one_the_newest_alone_tells_the_longer_period() -> None:
    """It is as long as that is old, and the wait."""
    story = Story(RateLimit(1, per=30))
    story.let_in(1000, 1010)

    story.refuse(1045, 40.5)

    assert story.limit == RateLimit(1, per=75.5)


def test_the_same_number_again_over_the_same_time_leaves_the_period() -> None:
    """Less than a tenth longer is no other period."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 60, 17))

    story.refuse(1017, 15)

    assert story.limit is not None
    assert story.limit.per == 30


@pytest.mark.parametrize(
    ("limit", "per_second", "per"),
    [
        (RateLimit(100, per=3), 10, 10.0),
        (RateLimit(100, per=3), 5, 20.0),
        (RateLimit(100, per=4), 11, 10.0),
        (RateLimit(100, per=4), 20, 4.0),  # more than half: the number may well be wrong
    ],
)
def test_whole_seconds_that_hide_a_longer_period_are_seen_through(
    limit: RateLimit, per_second: int, per: float
) -> None:
    """At a steady flow, less than half of what was let in once: only over the longer period it comes to as much."""
    story = Story(limit)
    story.let_in(*spread(1000, 60 * per_second, 60))

    story.refuse(1060, 1)

    assert story.limit is not None
    assert story.limit.per == per
    assert (story.limit == RateLimit(100, per=per)) is (per != limit.per)


@pytest.mark.parametrize(
    ("times", "now", "per"),
    [
        ([*spread(1000, 558, 55.8), *spread(1055.85, 50, 4.1)], 1060, 4.0),  # exactly half is not less than half
        ([*spread(990, 95, 9.5), *spread(1000, 100, 10)], 1010.4, 10.0),  # at most as many as once were let in
        ([*spread(990, 80, 10.9), *spread(1001.05, 100, 8.9)], 1010, 10.0),  # at least as many
    ],
)
def test_a_hidden_period_may_fit_to_the_last_request(times: list[float], now: float, per: float) -> None:
    """As many as were let in once is what has to lie between the least and the most of it."""
    story = Story(RateLimit(100, per=4))
    story.let_in(*times)

    story.refuse(now, 1)

    assert story.limit is not None
    assert story.limit.per == per


@pytest.mark.parametrize(("limit", "asked"), [(RateLimit(100, per=3), 0.9), (RateLimit(600, per=20), 1.0)])
def test_fractions_and_long_periods_hide_nothing(limit: RateLimit, asked: float) -> None:
    """There the number was wrong, and is corrected."""
    story = Story(limit)
    story.let_in(*spread(1000, 945, 90))

    story.refuse(1090, asked)

    assert story.limit is not None
    assert story.limit.per == limit.per
    assert story.limit.limit < limit.limit


def test_what_is_in_the_air_was_most_likely_let_in_by_now() -> None:
    """Fifty and the ten in the air are the sixty of a period: it is as long as the fifty are old, and the wait."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 100, 100))
    story.log.in_air = 10

    story.refuse(1100, 20)

    assert story.limit is not None
    assert story.limit.per == 70


@pytest.mark.parametrize(("asked", "longer"), [(30.5, False), (30.7, True), (31.0, False), (32.0, True)])
def test_a_wait_that_is_hardly_longer_than_the_period_is_the_period(asked: float, longer: bool) -> None:
    """Two per cent are a clock's affair; a whole second may be one less."""
    story = Story(RateLimit(60, per=30))
    story.let_in(*spread(1000, 60, 0.3))

    story.refuse(1000.3, asked)

    assert story.limit is not None
    assert (story.limit.per > 30) is longer


# -------------------------------------------------------------------------------------------------- doubt, scouts


def test_what_cannot_be_doubted_is_not() -> None:
    """A limit that was learned; one beside which nothing was let in; one that the refusal bears out."""
    hypothesis, untouched, full = learned(60), Story(MINUTE), Story(MINUTE)
    hypothesis.let_in(*spread(1070, 9, 1))
    full.let_in(*spread(1000, 60, 1))

    assert not hypothesis.estimate.contradicts_limit(1072, 1.0)
    assert not untouched.estimate.contradicts_limit(1000, 1.0)
    assert not full.estimate.contradicts_limit(1031, 20.5)


def test_a_refusal_is_doubted_by_what_it_says() -> None:
    """Nothing was let in so long ago that it could come back then, although nearly as many as allowed were at all."""
    nearly_full, sparse = Story(MINUTE), Story(RateLimit(600, per=60))
    nearly_full.let_in(*spread(1000, 57, 1))
    sparse.let_in(*spread(1000, 9, 1))

    assert nearly_full.estimate.contradicts_limit(1051, 20.5)
    assert sparse.estimate.contradicts_limit(1041, 30.0)


def test_a_refusal_that_asks_for_the_whole_period_fits_what_was_just_let_in() -> None:
    """What was let in a moment ago comes back then."""
    story = Story(RateLimit(600, per=60))
    story.let_in(*spread(1000.5, 9, 0.3))

    assert not story.estimate.contradicts_limit(1001, 59.5)


def test_a_refused_scout_doubles_the_patience_and_begins_anew_with_one() -> None:
    """Two clean periods instead of one, after a time when scouts had come through by twos."""
    story = learned(10)
    story.let_in(*spread(1061, 10, 1))
    assert story.estimate.scouts(1122) == 1
    story.let_in(*spread(1122, 11, 1))  # that one came through
    story.let_in(*spread(1183, 11, 1))
    assert story.estimate.scouts(1244) == 2
    story.let_in(*spread(1244, 11, 1))

    assert story.refuse(1245, 59) is True

    assert story.limit == RateLimit(11, per=60)
    story.let_in(*spread(1305, 11, 1))
    assert story.estimate.scouts(1364) == 0
    assert story.estimate.scouts(1366) == 1


def test_scouts_go_in_steps_of_a_hundredth() -> None:
    """Whole ones."""
    story = learned(250)
    story.let_in(*spread(1061, 250, 1))

    assert story.estimate.scouts(1122) == 2
    assert isinstance(story.estimate.scouts(1122), int)


def test_a_limit_that_was_given_and_lowered_is_scouted_up_to_what_was_given() -> None:
    """One, and then not two, for two would be one more than was given."""
    story = Story(RateLimit(10, per=60))
    story.let_in(*spread(1000, 8, 1))
    story.refuse(1001, 59)
    assert story.limit == RateLimit(8, per=60)
    found = list[int]()

    now = 1061.0
    for _ in range(3):
        assert story.limit is not None
        story.let_in(*spread(now, story.limit.limit, 1))
        found.append(story.estimate.scouts(now + 61))
        story.let_in(*spread(now + 61, story.limit.limit + found[-1], 1))
        now += 122

    assert found == [1, 1, 0]
    assert story.limit == RateLimit(10, per=60)


def test_scouts_whose_answers_come_late_are_counted_as_they_come_back() -> None:
    """Where the server is far away, fewer than the limit are ever seen within a period: all that flew then tell."""
    story = learned(10)
    story.let_in(*spread(1061, 10, 1))
    assert story.estimate.scouts(1122) == 1
    for _ in range(11):
        story.log.in_air += 1
        story.estimate.taken(1122)
    found = list[int]()

    for nth in range(11):
        story.log.in_air -= 1
        story.log.answered(1130.0 + 10 * nth)
        story.estimate.admitted(1130.0 + 10 * nth)
        assert story.limit is not None
        found.append(story.limit.limit)

    assert found == [10] * 10 + [11]


def test_what_came_through_counts_before_all_scouts_have() -> None:
    """One of two: that many are allowed for certain."""
    story = learned(10)
    for start in (1061, 1183):
        story.let_in(*spread(start, 11, 1))
        assert story.estimate.scouts(start + 61) == (1 if start == 1061 else 2)
        story.let_in(*spread(start + 61, 11 if start == 1061 else 12, 1))

    assert story.limit == RateLimit(12, per=60)


def test_patience_ends_with_the_second_success_in_a_row() -> None:
    """One may have been luck; after two, the limit really is higher."""
    story = learned(10)
    story.let_in(*spread(1061, 10, 1))
    assert story.estimate.scouts(1122) == 1
    story.let_in(*spread(1122, 10, 1))
    assert story.refuse(1123, 59) is True  # from now on it takes two clean periods
    story.let_in(*spread(1183, 10, 1))
    assert story.estimate.scouts(1244) == 1
    story.let_in(*spread(1244, 11, 1))
    story.let_in(*spread(1305, 11, 1))

    assert story.estimate.scouts(1307) == 0
    assert story.estimate.scouts(1366) == 2
    story.let_in(*spread(1366, 13, 1))
    story.let_in(*spread(1428, 13, 1))
    assert story.estimate.scouts(1430) == 4


def test_a_learned_limit_that_nobody_uses_up_is_not_explored() -> None:
    """Nothing says that more is wanted."""
    assert learned(10).estimate.scouts(2000) == 0


def test_a_limit_that_was_given_has_no_scouts_to_expect_a_refusal_of() -> None:
    """It was used up for periods without one; the first is no scout's, and the number is too high by one."""
    story = Story(MINUTE)
    story.let_in(*(1000 + nth / 2 for nth in range(5)), *spread(1010, 55, 40))
    assert story.estimate.scouts(1055) == 0

    assert story.refuse(1059.9, 2.5) is False

    assert story.limit == RateLimit(59, per=60)


def test_what_was_let_in_just_now_proves_nothing_of_a_whole_periods_wait() -> None:
    """All of them may be of the next period."""
    story = learned(10)
    story.let_in(*spread(1061.05, 12, 0.9))

    story.refuse(1062, 60)

    assert story.limit == RateLimit(9, per=60)


def test_patience_has_an_end() -> None:
    """However often scouts were refused, after sixty-four clean periods one goes again."""
    story = learned(10)
    now = 1061.0
    for _ in range(8):
        story.let_in(*spread(now, 10, 1))
        now += 64 * 60 + 1
        assert story.estimate.scouts(now) == 1
        story.let_in(*spread(now, 10, 1))
        story.refuse(now + 1, 59)
        now += 61

    story.let_in(*spread(now, 10, 1))
    assert story.estimate.scouts(now + 62 * 60) == 0


def test_a_refusal_beside_which_nothing_was_let_in_is_no_scouts() -> None:
    """It was not to be expected."""
    assert Story(MINUTE).refuse(100, 1.0) is False


@pytest.mark.parametrize(
    ("limit", "asked", "bound"), [(RateLimit(10, per=10), 20.0, 20.0), (RateLimit(20, per=20), 3.0, 3.0)]
)
def test_long_waits_and_long_periods_bind_as_they_are(limit: RateLimit, asked: float, bound: float) -> None:
    """There a second more does not matter."""
    assert Story(limit).estimate.global_pause(asked) == bound
