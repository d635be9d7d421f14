"""What a benchmark found: figures with their samples, and what they were to be."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import attrs

TIMES: Final = "\N{MULTIPLICATION SIGN}"
"""The unit of a ratio."""


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


def _figures(values: "Iterable[Figure]") -> "tuple[Figure, ...]":
    return tuple(values)


@attrs.frozen(kw_only=True)
class Figure:
    """One thing that was measured, several times.

    Attributes:
        name: What was measured.
        unit: Of the samples.
        samples: As measured, in the order of measuring.
        at_most: The target for the median, where there is one.
        note: What else is to be said, in a few words.
    """

    name: str
    unit: str
    samples: tuple[float, ...] = attrs.field(converter=_floats)
    at_most: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        return None if self.at_most is None else self.median <= self.at_most

    @property
    def spread(self) -> str:
        """The lowest and the highest sample, as text; empty when there is one sample."""
        return f"{number(min(self.samples))} to {number(max(self.samples))}" if len(self.samples) > 1 else ""

    @property
    def verdict(self) -> str:
        """The target and whether it was met, as text."""
        return "" if self.at_most is None else f"≤ {number(self.at_most)}: {'met' if self.met else 'MISSED'}"


@attrs.frozen(kw_only=True)
class Report:
    """What one benchmark found.

    Attributes:
        name: The benchmark's.
        title: What it answers, as a sentence.
        conditions: Under what conditions, as a sentence.
        figures: Its figures, the most important one first.
        draw: Draws its picture to a file; None where a table says it as fast.
    """

    name: str
    title: str
    conditions: str
    figures: tuple[Figure, ...] = attrs.field(converter=_figures)
    draw: Callable[["Report", Path], None] | None = None

    def median(self, name: str) -> float:
        """Return the median of the figure with this name."""
        return next(figure.median for figure in self.figures if figure.name == name)


def number(value: float) -> str:
    """Write a number with as many digits as mean something."""
    if value == 0 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
