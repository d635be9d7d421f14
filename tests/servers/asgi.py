"""An app of a Python web framework under uvicorn, and what it answered: a process that prints its port, then counts."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import uvicorn

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
App = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""What ASGI calls an app: of a scope, and of ways to receive and to send."""

_CREATED: Final[dict[str, Any]] = json.loads(
    Path(__file__).parent.with_name("samples").joinpath("create-response-a.json").read_text()
)


def created(number: int) -> dict[str, Any]:
    """Return what the API answers when it has created a key, which is another one for each number."""
    return {**_CREATED, "id": f"key-{number}", "prefix": f"key-{number}", "api_key": f"key-{number}.secret"}


class CountedApp:
    """Passes everything to an app, and counts the statuses of its answers.

    Attributes:
        statuses: How many answers had which status.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.statuses: Counter[int] = Counter()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        async def count(message: _Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
            await send(message)

        await self._app(scope, receive, count)


def serve(app: App) -> None:
    """Serve on loopback until SIGTERM; print the port first, and how many answers had which status last, as JSON."""
    # uvicorn sends itself the signal again when it has ended, which would be the end of this process too.
    signal.signal(signal.SIGTERM, lambda *_: None)
    counted = CountedApp(app)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(listener.getsockname()[1], flush=True)
        # As long as nginx keeps a connection: uvicorn's 5 s end some of them just as a request is sent.
        settings = uvicorn.Config(counted, lifespan="off", log_level="warning", timeout_keep_alive=75)
        uvicorn.Server(settings).run(sockets=[listener])
    print(json.dumps(counted.statuses), flush=True)
