"""Quiet: what the library logs of ten thousand misbehaviours is not looked at here, but by a witness."""

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator

import pytest

from tests.hostile.canaries import BEARER, HEADER, KEYS, OTHER_BEARER, PROXY, Witness


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the log of a failed test short."""
    caplog.set_level(logging.CRITICAL, "respan_async")


@pytest.fixture
async def witness(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Witness]:
    """Listen to every logger, and to an event loop in debug mode, which tells of every callback what it was about."""
    for name in ("", "respan_async"):
        caplog.set_level(logging.DEBUG, name)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    witness = Witness()
    logging.getLogger().addHandler(witness)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield witness
    loop.set_debug(False)
    logging.getLogger().removeHandler(witness)
    for warning in warned:
        witness.note("a warning", str(warning.message))
    witness.check(BEARER, OTHER_BEARER, HEADER, PROXY, *KEYS)
