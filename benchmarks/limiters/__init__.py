"""The client against rate limiters that nobody here wrote."""

from benchmarks.limiters.report import run

__all__ = ["run"]
