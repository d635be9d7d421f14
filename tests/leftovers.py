"""What must not be left behind by whatever a test has done."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """See that what is done within leaves no task, and nothing for the event loop to complain about."""
    loop = asyncio.get_running_loop()
    complaints = list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    assert complaints == []
