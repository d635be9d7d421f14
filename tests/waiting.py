"""Time, and waiting for what nobody tells."""

import asyncio
from collections.abc import Callable


def now() -> float:
    """Tell the event loop's time."""
    return asyncio.get_running_loop().time()


async def until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something to become true; the time is what a machine under load may take."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110  what is waited for may be anything
            await asyncio.sleep(0.002)
