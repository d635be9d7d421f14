"""A server that answers every POST with the same documented 201, and costs as little as asyncio lets it.

It runs in a process of its own, so that its work is not counted as a client's; it prints its port when it listens, and
how many answers it gave when it is ended.
"""

import asyncio
import json
import re
import signal
from typing import Final

_KEY: Final = {
    "id": "vcjRcdm8",
    "api_key": "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
    "prefix": "vcjRcdm8",
    "created": "2025-03-16T01:19:17.074170Z",
    "name": "Respan temporary key",
    "revoked": False,
    "expiry_date": "2035-03-15T01:19:33.263343Z",
    "key_usage": 0,
    "max_usage": -1,
    "last_used": "1970-01-01T00:00:00Z",
    "rate_limit": None,
    "spending_limit": None,
    "spending_in_period": 0.0,
    "is_test": False,
    "is_temporary": True,
}
_BODY: Final = json.dumps(_KEY).encode()
ANSWER: Final = (
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Vary: Accept\r\nX-Request-ID: 3f0c9a7e\r\n\r\n%b"
) % (len(_BODY), _BODY)
"""The answer, byte for byte."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Canned(asyncio.Protocol):
    """One connection: an answer for each whole request."""

    answered = 0  # on all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        unread = self._unread + data
        answers = 0
        while (head := unread.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(unread, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(unread) < end:
                break
            unread = unread[end:]
            answers += 1
        self._unread = unread
        if answers:
            _Canned.answered += answers
            self._transport.write(ANSWER * answers)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(_Canned, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    server.close()
    print(_Canned.answered, flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
