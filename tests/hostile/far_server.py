"""The fake server in a process of its own, which does what it is told, line by line.

async with FarServer(trouble={"truncate": 0.01}) as far:
    ...  # a client with base_url=far.url and api_key=far.api_key
    await far.tell("down")
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any, Self

from respan_async.testing import FakeRespan


class FarServer:
    """Start the server; tell it what to do.

    Args:
        trouble: What creates meet by chance, as for `FakeRespan.chance`.

    Attributes:
        url: The base URL.
        api_key: The bearer token that is accepted.
    """

    url = ""
    api_key = ""

    def __init__(self, trouble: Mapping[str, float]) -> None:
        self._trouble = trouble
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        words = json.dumps(dict(self._trouble))
        # A line that tells of many keys is long.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, words, stdin=PIPE, stdout=PIPE, limit=2**26
        )
        facts = await self._answer()
        self.url, self.api_key = facts["url"], facts["api_key"]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def tell(self, command: str) -> Any:
        """Say "down", "up", "calm", or "alive", which gives the ids of the keys that work."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())


async def _serve(trouble: Mapping[str, float]) -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with FakeRespan() as fake:
        _let_happen(fake, trouble)
        _say({"url": fake.url, "api_key": fake.api_key})
        while line := await commands.readline():
            match line.decode().strip():
                case "down":
                    fake.down = True
                    _say(None)
                case "up":
                    fake.down = False
                    _say(None)
                case "calm":
                    _let_happen(fake, dict.fromkeys(trouble, 0.0))
                    await fake.settle()
                    _say(None)
                case "alive":
                    _say([record.id for record in fake.alive()])


def _let_happen(fake: FakeRespan, trouble: Mapping[str, float]) -> None:
    for fault, probability in trouble.items():
        fake.chance(fault, probability)


def _say(facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
