"""The command line `respan-keys`."""

from respan_async.cli.main import main

__all__ = ["main"]
