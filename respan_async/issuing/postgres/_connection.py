"""Makes a connection to Postgres, converts what it reads, and breaks it."""

import contextlib
import os
import socket
import struct
import traceback
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from respan_async.issuing import _rows
from respan_async.issuing.postgres._dsn import Settings

Row: TypeAlias = tuple[Any, ...]
Connection: TypeAlias = psycopg.AsyncConnection[Row]


async def connect(settings: Settings) -> Connection:
    """Make a connection."""
    try:
        # Prepare no statements, so that the connection works behind a pooler such as PgBouncer.
        connection = await psycopg.AsyncConnection.connect(
            autocommit=True, prepare_threshold=None, row_factory=_row_factory, **settings
        )
    except BaseException as error:
        # The half-made connection is held by psycopg's frames, and would stay open for as long as the error is kept.
        traceback.clear_frames(error.__traceback__)
        raise
    connection.adapters.register_loader("text", _TextLoader)
    return connection


class _TextLoader(Loader):
    """Reads a text, even if its row is damaged."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        return _rows.text(bytes(data))


def _row_factory(_: object) -> Callable[[Iterable[Any]], Row]:
    return _rows.mask_bytes


def abort(connection: Connection) -> None:
    """Break a connection: its operation fails at once, and bytes that it has not sent yet are never sent."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        twin.shutdown(socket.SHUT_RDWR)
