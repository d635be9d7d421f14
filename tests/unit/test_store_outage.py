"""The time during which a shared log cannot be reached: when it is tried again, and what is told."""

import math

from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.store_outage import StoreOutage

MINUTE = RateLimit(60, per=60)


def is_over(outage: StoreOutage, now: float = 101.0) -> bool:
    """Reach the log; tell whether that ends a trouble that was worth a warning."""
    outage.reached()
    return outage.over(now)


def test_only_an_absence_that_was_told_is_told_to_be_over() -> None:
    """One failed try is nobody's business; of more, the second is told, and the end."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)

    for _ in range(2):  # each one is as if it were the first
        assert not is_over(outage)
        assert not outage.failed(100.0, 101.0)
        assert not is_over(outage)
        assert [outage.failed(100.0, 101.0) for _ in range(3)] == [False, True, False]
        assert is_over(outage)
        assert [outage.failed(100.0, 101.0) for _ in range(2)] == [False, True]
        assert is_over(outage)


def test_tries_come_at_longer_and_longer_pauses_up_to_a_bound() -> None:
    """And begin anew when it was reached."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    pauses = list[float]()
    for _ in range(7):
        outage.failed(100.0, 100.0)
        pauses.append(round(outage.retry_at - 100.0, 6))
    outage.reached()
    outage.failed(100.0, 100.0)

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert outage.retry_at == 100.1


def test_an_absence_is_long_when_the_others_may_have_gone_on_without_the_log() -> None:
    """Counted from the first try: longer than two tries and the longest pause between them."""
    outage = StoreOutage(MINUTE, 0.5, timeout=3.0)
    assert not outage.is_long(1e9)
    outage.failed(100.0, 101.0)
    outage.failed(102.0, 103.0)

    assert outage.within == 8.0
    assert not outage.is_long(108.0)
    assert outage.is_long(108.001)


def test_it_falls_back_when_nothing_the_others_had_counts_any_more() -> None:
    """One period after the first failed try, and as long as a slot is held; without a share never."""
    outage, patient = StoreOutage(MINUTE, 0.5, timeout=1.0), StoreOutage(MINUTE, 0.0, timeout=1.0)
    assert outage.falls_back_at() == math.inf
    for each in (outage, patient):
        each.failed(100.0, 101.0)

    assert outage.falls_back_at() == 162.0
    assert patient.falls_back_at() == math.inf


def test_what_is_due_next_is_a_try_or_the_fall() -> None:
    """Whichever comes first; once it has fallen back, only tries are left."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    outage.failed(100.0, 101.0)
    assert outage.due(101.0) == outage.retry_at == 101.1
    outage.failed(161.9, 161.95)

    assert outage.due(161.95) == 162.0
    assert outage.due(162.0) == outage.retry_at == 161.95 + 0.2


def test_the_share_is_a_limit_of_its_own() -> None:
    """Less than one request is one in a longer time."""
    assert StoreOutage(MINUTE, 0.5, timeout=1.0).fallback == RateLimit(30, per=60)
    assert StoreOutage(MINUTE, 0.99 / 60, timeout=1.0).fallback == RateLimit(1, per=60 / (60 * (0.99 / 60)))
    assert StoreOutage(MINUTE, 1 / 60, timeout=1.0).fallback == RateLimit(1, per=60)
    assert StoreOutage(MINUTE, 0.0, timeout=1.0).fallback is None


def test_a_share_of_more_than_one_and_less_than_two_is_one() -> None:
    """Parts of a request are nobody's; only less than one is one in a longer time."""
    shares = {share: StoreOutage(MINUTE, share, timeout=1.0).fallback for share in (0.5 / 60, 1 / 60, 1.5 / 60)}

    assert list(shares.values()) == [RateLimit(1, per=120), RateLimit(1, per=60), RateLimit(1, per=60)]


# ------------------------------------------------------------------------------------------------------- lost logs


def test_one_loss_is_no_outage() -> None:
    """The new log is full for a period, and asked for slots all the same; there is one warning, and no fall."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)

    assert outage.lost(100.0, full=60.0)

    assert not outage.untrusted
    assert outage.falls_back_at() == math.inf
    assert outage.trusted_at == 160.0


def test_a_second_loss_within_three_periods_makes_the_log_untrusted() -> None:
    """Until it has stayed for three; the share begins a period after the last slot that may have been granted."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    outage.lost(100.0, full=60.0)

    assert not outage.lost(130.0, full=58.0)  # the warning was given; another process has met it two seconds before

    assert outage.untrusted
    assert outage.falls_back_at() == 162.0  # nothing was granted since the first loss
    assert outage.trusted_at == 128.0 + 180.0
    assert not is_over(outage, 307.9)
    assert is_over(outage, 308.0)
    assert not outage.untrusted
    assert outage.trusted_at == -math.inf


def test_slots_that_were_granted_between_two_losses_are_waited_for() -> None:
    """The log was open for 20 seconds."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    outage.lost(100.0, full=60.0)

    outage.lost(180.0, full=60.0)

    assert outage.falls_back_at() == 242.0
    outage.lost(230.0, full=60.0)
    outage.lost(300.0, full=60.0)
    assert outage.falls_back_at() == 242.0  # it is not put off again


def test_a_loss_after_three_quiet_periods_is_a_first_one() -> None:
    """With a warning of its own."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    outage.lost(100.0, full=60.0)
    assert is_over(outage, 280.0)

    assert outage.lost(281.0, full=60.0)

    assert not outage.untrusted


def test_an_outage_of_a_log_that_is_lost_again_and_again_warns_once_too() -> None:
    """It ends with the losses, not when the log is reached."""
    outage = StoreOutage(MINUTE, 0.5, timeout=1.0)
    assert [outage.failed(100.0, 101.0) for _ in range(2)] == [False, True]
    outage.reached()
    assert outage.lost(102.0, full=60.0)
    assert not outage.over(102.0)

    assert [outage.failed(110.0, 111.0) for _ in range(2)] == [False, False]
    assert not is_over(outage, 281.9)
    assert is_over(outage, 282.0)


def test_without_a_share_no_log_is_untrusted() -> None:
    """There is nothing else to go on with."""
    outage = StoreOutage(MINUTE, 0.0, timeout=1.0)

    for time in (100.0, 110.0, 120.0):
        outage.lost(time, full=60.0)

    assert not outage.untrusted
    assert outage.falls_back_at() == math.inf
