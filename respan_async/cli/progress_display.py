"""Shows the progress of a run: a bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from respan_async.cli import console

_EVERY: Final = 2.0
"""The least seconds between two plain lines."""


@attrs.frozen(kw_only=True)
class ProgressState:
    """The progress of a run.

    Attributes:
        total: The number of tenants.
        issued: Tenants with a key on record, also from earlier runs.
        failed: Tenants that failed.
        refused: Requests that the limit turned away.
        rate: Outcomes a second.
        eta: Seconds to the end, or None.
        held: Why nothing is sent at the moment, in a word or two; empty while requests are sent.
    """

    total: int
    issued: int
    failed: int
    refused: int
    rate: float
    eta: float | None
    held: str = ""


class Display(Protocol):
    """A display of the progress."""

    def show(self, status: ProgressState) -> None:
        """Show this status, now or a little later."""

    def say(self, text: str) -> None:
        """Write a line that stays."""

    def close(self, status: ProgressState) -> None:
        """Show the final status."""


class PlainProgress:
    """Writes a line every two seconds, if there is news, and one at the end.

    Args:
        clock: Seconds on a clock that does not go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + _EVERY
        self._said: tuple[object, ...] = ()

    def show(self, status: ProgressState) -> None:
        """Show this status, if it is time for it."""
        if self._clock() >= self._next:
            self._tell(status)

    def say(self, text: str) -> None:
        """Write a line."""
        console.say(text)

    def close(self, status: ProgressState) -> None:
        """Show the last status."""
        self._tell(status)

    def _tell(self, status: ProgressState) -> None:
        news = (status.issued, status.failed, status.refused, status.held)
        if news != self._said:
            self._said = news
            self._next = self._clock() + _EVERY
            self.say(line(status))


class CheckProgress:
    """Writes a line every two seconds while a file is checked, because a million lines take a while.

    Args:
        name: The name of the file.
        clock: Seconds on a clock that does not go back.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._next = clock() + _EVERY

    def __call__(self, lines: int) -> None:
        """Say how many lines were checked, if it is time for it."""
        if self._clock() >= self._next:
            self._next = self._clock() + _EVERY
            console.say(f"{self._name}: {lines:,} lines checked")


def line(status: ProgressState) -> str:
    """Describe a status in one line."""
    left = f", {clock(status.eta)} left" if status.eta else ""
    held = f"; {status.held}" if status.held else ""
    return (
        f"{status.issued}/{status.total} issued, {status.rate:.1f}/s{left}, "
        f"{status.refused} refused, {status.failed} failed{held}"
    )


def clock(seconds: float) -> str:
    """Return seconds as `0:07` or `2:46:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def display(*, keys_on_terminal: bool) -> Display:
    """Choose the bar if it can be drawn: on a terminal, with rich installed.

    Args:
        keys_on_terminal: Whether the keys themselves go to a terminal, where they would run through the bar.
    """
    if sys.stderr.isatty() and not keys_on_terminal:
        try:
            from respan_async.cli.progress_bar import Bar, drawable
        except ImportError:
            return PlainProgress()
        if drawable():
            return Bar()
    return PlainProgress()
