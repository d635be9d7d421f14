"""Signals that ask a job to end."""

import asyncio
import signal

import pytest

from respan_async.cli.interrupts import interrupts


async def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    """`nohup respan-keys issue ...` goes on after its terminal has hung up, and can still be ended."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told = asyncio.Event()
    try:
        with interrupts(told.set):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0.01)
            assert not told.is_set()

            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(told.wait(), 10)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_loop_without_signal_handlers_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of Windows are; what handled the signal before does so again afterwards."""

    def never(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", never)
    before = signal.getsignal(signal.SIGTERM)
    told = asyncio.Event()
    with interrupts(told.set):
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(told.wait(), 10)

    assert signal.getsignal(signal.SIGTERM) is before
