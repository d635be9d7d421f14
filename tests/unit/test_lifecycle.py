"""What goes on in the background does not fail in silence."""

import asyncio
import logging

import pytest

from respan_async._calls.lifecycle import Lifecycle

pytestmark = pytest.mark.virtual


async def test_what_fails_unexpectedly_in_the_background_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By its kind, where nobody awaits it: somebody who does sees it himself."""
    lifecycle = Lifecycle()
    lifecycle.check()

    async def catch_up() -> None:
        raise OverflowError("a secret")

    for awaited in (True, False, False):
        lifecycle.tasks.spawn(catch_up(), awaited=awaited)
        await asyncio.sleep(1)
    await lifecycle.aclose(0)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith("catch_up has failed unexpectedly in the background: OverflowError")
