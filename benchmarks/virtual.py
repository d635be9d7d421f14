"""A clock that jumps to the next event, under clients that were written for a real one."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from importlib import import_module
from typing import Any, Final, TypeVar
from unittest import mock

import async_solipsism

from tests.virtual import VirtualLoop

T = TypeVar("T")

_HTTPX: Final = ("httpcore._backends.anyio", "httpcore2._backends.anyio")
"""Modules of the peers that ask the operating system about a socket by its number, which one in memory has not."""


class CountingLoop(VirtualLoop):
    """A loop with virtual time that counts the connections that were refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    async def create_connection(self, *args: Any, **settings: Any) -> Any:
        """Connect, as httpx does."""
        try:
            return await super().create_connection(*args, **settings)
        except ConnectionRefusedError:
            self.refused += 1
            raise

    async def aiohappyeyeballs_start_connection(self, *args: Any, **settings: Any) -> Any:
        """Connect, as aiohttp does."""
        try:
            return await super().aiohappyeyeballs_start_connection(*args, **settings)
        except ConnectionRefusedError:
            self.refused += 1
            raise


def refused_connections() -> int:
    """Count the connections that were refused on the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop.refused


def virtually(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time, with sockets in memory: exact, and free of this machine's noise."""
    with ExitStack() as patches, asyncio.Runner(loop_factory=CountingLoop) as runner:
        connect = async_solipsism.aiohappyeyeballs_start_connection
        patches.enter_context(mock.patch("aiohttp.connector.aiohappyeyeballs.start_connection", connect))
        for name in _HTTPX:
            try:
                module = import_module(name)
            except ImportError:
                continue
            patches.enter_context(mock.patch.object(module, "is_socket_readable", _readable))
        return runner.run(work())


def _readable(sock: Any) -> bool:
    # asyncio hands out a wrapper; the number of such a socket knows the socket itself.
    return sock is None or bool(sock.fileno().socket.read_ready())
