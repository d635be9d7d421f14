"""Draws the progress bar with rich; the only module that imports rich.progress."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from respan_async.cli.console import printable
from respan_async.cli.progress_display import ProgressState, clock


def drawable() -> bool:
    """Whether standard error is a terminal on which a bar can be drawn in place."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


class Bar:
    """A live bar at the foot of the terminal; other lines go above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.completed:.0f}/{task.total:.0f} issued"),
            # Not to the edge, because the terminal's own ^C would break the line, and the bar would be drawn twice.
            BarColumn(bar_width=20),
            TextColumn("{task.fields[facts]}", style="default"),
            console=self._console,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def show(self, status: ProgressState) -> None:
        """Show this status."""
        facts = status.held or f"{status.rate:.1f}/s"
        if status.eta and not status.held:
            facts += f"  {clock(status.eta)} left"
        facts += f"  {status.refused} refused  {status.failed} failed"
        if self._task is None:
            self._task = self._progress.add_task("", total=status.total, facts=facts)
            self._progress.start()
        self._progress.update(self._task, completed=status.issued, facts=facts)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._console.print(Text(printable(text)), soft_wrap=True)

    def close(self, status: ProgressState) -> None:
        """Show the last status, and leave the bar as it is."""
        self.show(status)
        self._progress.stop()
