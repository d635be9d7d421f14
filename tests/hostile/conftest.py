"""Quiet: what the library logs of ten thousand misbehaviours is not looked at here."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the log of a failed test short."""
    caplog.set_level(logging.CRITICAL, "respan_async")
