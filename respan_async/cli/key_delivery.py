"""Delivers the keys of one run to a file or to standard output, and remembers the keys that it could not deliver."""

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from respan_async.cli.closed_streams import check_output
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.stdout_sink import StdoutSink
from respan_async.errors import LedgerError
from respan_async.issuing import JSONLinesSink
from respan_async.models import CreatedKey


class KeyDelivery:
    """Deliver keys until the output fails; after that, deliver no more, so that `kept_back` is final.

    Args:
        name: The name of the output.
        place: Writes one key to the output.
        sink: The output, if it is a file; None for standard output.

    Attributes:
        broken: Why the output failed; None while it works.
        on_broken: Called when the output fails.
        kept_back: The ids of the keys that the output did not take, by ticket.
        refused: Why a working output refused the key of a ticket.
        writing: The number of deliveries under way.
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
        self.kept_back.pop(ticket_id, None)  # may be gone: two deliveries of one ticket can run at the same time


@contextlib.contextmanager
def open_delivery(path: str, *, sandbox: bool) -> Iterator[KeyDelivery]:
    """Open the output for keys.

    Args:
        path: The path as given; `-` is standard output.
        sandbox: The keys are make-believe, and so must be the keys that the file already holds.

    Raises:
        WrongUse: The path is not a safe place for secrets, the file holds something else, or another run uses it.
    """
    if path == "-":
        check_output()
        yield KeyDelivery("standard output", StdoutSink(sandbox=sandbox), None)
        return
    made = not os.path.lexists(path)
    try:
        sink = JSONLinesSink(path, sandbox=sandbox)
    except LedgerError as error:
        raise WrongUse(str(error)) from None
    with sink:
        try:
            yield KeyDelivery(path, sink, sink)
        except WrongUse:
            if made:
                _remove_empty(Path(path))
            raise


def _remove_empty(path: Path) -> None:
    """Remove a file if it is empty; this run created it and still holds its lock."""
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()
