"""Servers that come as packages, and what becomes of the tests where one is missing."""

import importlib.util
import os
from pathlib import Path

import pytest


def folder_of(package: str, brings: str) -> Path:
    """Return where a package is installed; skip the test where it has no wheel, but fail it in CI."""
    return _folder(package, f"{package}, which brings {brings}, has no wheel for this platform")


def require(package: str) -> None:
    """Skip the test where a package is not installed, but fail it in CI."""
    _folder(package, f"{package} is not installed (extra: test)")


def _folder(package: str, reason: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is not None and found.origin is not None:
        return Path(found.origin).parent
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
