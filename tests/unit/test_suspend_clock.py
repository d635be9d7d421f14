"""The clock that runs on while the machine is asleep."""

import time

import pytest

from respan_async._suspend_clock import elapsed


def test_it_goes_on_with_the_others() -> None:
    """In seconds, and never back."""
    first, began = elapsed(), time.monotonic()
    time.sleep(0.01)

    assert abs((elapsed() - first) - (time.monotonic() - began)) < 0.005


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux alone has this clock")
def test_on_linux_it_is_the_one_that_counts_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the one that stands still."""
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 5.0}.__getitem__)

    assert elapsed() == 5.0
