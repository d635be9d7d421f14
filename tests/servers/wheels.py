"""Servers that come as wheels, and what becomes of the tests where there is none."""

import importlib.util
import os
from pathlib import Path

import pytest


def folder_of(package: str, brings: str) -> Path:
    """Return where a package is installed; skip the test where it has no wheel, but fail it in CI."""
    found = importlib.util.find_spec(package)
    if found is not None and found.origin is not None:
        return Path(found.origin).parent
    reason = f"{package}, which brings {brings}, has no wheel for this platform"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
