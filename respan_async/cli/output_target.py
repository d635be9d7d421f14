"""Where the keys of one run go: the file or standard output, and what is known of those that could not get there."""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.standard_streams import check_output
from respan_async.cli.stdout_sink import StdoutSink
from respan_async.errors import LedgerError
from respan_async.issuing import JSONLinesSink
from respan_async.models import CreatedKey


class OutputTarget:
    """Deliver until the place fails, and nothing after that: whatever is left over is then known for good.

    Args:
        name: What the place is called.
        place: Delivers.
        sink: The place, if it is a file; None for standard output.

    Attributes:
        broken: Why the place failed; None while it has not.
        on_broken: Told when it fails.
        kept_back: The ids of the keys that it did not take, by their ticket.
        refused: Why it does not want a ticket's key, though it works.
        writing: How many deliveries are under way.
    """

    def __init__(
        self, name: str, place: Callable[[str, CreatedKey], Awaitable[None]], sink: JSONLinesSink | None
    ) -> None:
        self.name = name
        self.sink = sink
        self.broken: OSError | None = None
        self.on_broken: Callable[[OSError], None] = lambda _: None
        self.kept_back: dict[str, str] = {}
        self.refused: dict[str, LedgerError] = {}
        self.writing = 0
        self._place = place

    async def __call__(self, ticket_id: str, key: CreatedKey) -> None:
        """Deliver a ticket's key."""
        self.kept_back[ticket_id] = key.id
        if self.broken is not None:
            raise OSError(self.broken.errno, self.broken.strerror, self.name)
        self.writing += 1
        try:
            await self._place(ticket_id, key)
        except LedgerError as error:
            self.refused[ticket_id] = error
            raise
        except OSError as error:
            if self.broken is None:
                self.broken = OSError(error.errno, error.strerror, self.name)
                self.on_broken(self.broken)
            raise
        finally:
            self.writing -= 1
        self.kept_back.pop(ticket_id, None)  # twice at once: what was left is delivered by others as well


@contextlib.contextmanager
def open_output(path: str, *, sandbox: bool) -> Iterator[OutputTarget]:
    """Open where keys go.

    Args:
        path: As it was given; `-` is standard output.
        sandbox: The keys are make-believe, and so must be those that are there already.

    Raises:
        WrongUse: It is not a place for secrets, or holds something else, or another run has it.
    """
    if path == "-":
        check_output()
        yield OutputTarget("standard output", StdoutSink(sandbox=sandbox), None)
        return
    made = not os.path.lexists(path)
    try:
        sink = JSONLinesSink(path, sandbox=sandbox)
    except LedgerError as error:
        raise WrongUse(str(error)) from None
    with sink:
        try:
            yield OutputTarget(path, sink, sink)
        except WrongUse:
            if made:
                _remove_empty(Path(path))
            raise


def _remove_empty(path: Path) -> None:
    """Remove a file that this run has made, and still has the lock of, if nothing was written to it."""
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()
