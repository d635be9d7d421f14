"""The pictures: bars with their values, and axes without a frame. matplotlib is imported when one is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

OURS: Final = "tab:blue"
OTHERS: Final = "tab:gray"


@contextmanager
def drawing(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[Any]:
    """Give the axes of a picture, one or an array of them, and write it."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=size, layout="constrained")
    axes = picture.subplots(rows, columns)
    yield axes
    for each in picture.axes:
        each.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=150)


def bars(path: Path, values: Mapping[str, float], label: str, ours: Sequence[str], *, log: bool = False) -> None:
    """Draw one bar for each value, the first at the top, ours in another colour."""
    with drawing(path, (8, 0.7 + 0.36 * len(values))) as axes:
        names = list(values)[::-1]
        drawn = axes.barh(
            names, [values[name] for name in names], color=[OURS if name in ours else OTHERS for name in names]
        )
        axes.bar_label(drawn, fmt="{:,.3g}" if max(values.values()) < 100 else "{:,.0f}", padding=3)
        if log:
            axes.set_xscale("log")
        axes.margins(x=0.12, y=0.02)
        axes.set_xlabel(label)


def pairs(path: Path, series: Mapping[str, Mapping[str, float]], label: str) -> None:
    """Draw two bars for each name, the first name at the top, and what each series of bars is."""
    names = list(next(iter(series.values())))[::-1]
    with drawing(path, (9, 0.9 + 0.4 * len(names))) as axes:
        for row, (title, values) in enumerate(series.items()):
            places = [place + 0.2 - 0.4 * row for place in range(len(names))]
            drawn = axes.barh(places, [values[name] for name in names], height=0.38, label=title)
            axes.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.margins(x=0.12, y=0.02)
        axes.set_xlabel(label)
        axes.legend(frameon=False)
