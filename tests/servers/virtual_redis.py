"""Redis as far as the script of the shared pace needs it, in this process and on the event loop's clock.

The script is the real one, run by the Lua that Redis has. So a minute's limit, a restart or a clock that is set back
take no time in a test. What Redis itself does with the script is tested on a real server.
"""

import asyncio
import bisect
from collections.abc import Callable
from typing import Any

import redis.asyncio
from lupa.lua51 import LuaRuntime
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import NoScriptError, ReadOnlyError

from tests.waiting import now


class VirtualRedis(redis.asyncio.Redis):
    """A client that is its own server.

    Attributes:
        calls: How often the script was run.
        away: Whether no connection can be made.
        read_only: Whether it is a replica that may not be written to.
        clock: Seconds by which its clock is ahead of the loop's.
        trip: Seconds that a call takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.away = self.read_only = False
        self.clock = 1_000_000_000.0
        self.trip = 0.001
        self._commands = _SortedSets()
        self._scripts: dict[str, Callable[..., Any]] = {}
        lua: Any = LuaRuntime(unpack_returned_tuples=False)
        self._table = lua.table_from
        self._compile = lua.eval("function(text, call) redis = {call = call}; return loadstring(text) end")
        self._run = lua.eval("function(script, keys, argv) KEYS, ARGV = keys, argv; return script() end")

    def vanish(self) -> None:
        """Lose everything, as a restart without a disk does, or an eviction."""
        self._commands.sets.clear()

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Say that the script is not known, so that it is sent."""
        raise NoScriptError(sha)

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run the script in one step, half a trip from now."""
        await asyncio.sleep(self.trip / 2)
        if self.away:
            raise BrokenError("Connection refused")
        if self.read_only:
            raise ReadOnlyError("You can't write against a read only replica.")
        self.calls += 1
        if script not in self._scripts:
            self._scripts[script] = self._compile(script, self._call)
        words = [str(word) for word in keys_and_args]
        keys, arguments = self._table(words[:numkeys]), self._table(words[numkeys:])
        reply = self._run(self._scripts[script], keys, arguments)
        await asyncio.sleep(self.trip / 2)
        return [value.encode() if isinstance(value, str) else value for value in reply.values()]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close nothing: nothing is open."""

    def _call(self, command: str, *words: Any) -> Any:
        if command == "TIME":
            microseconds = round((now() + self.clock) * 1e6)
            return self._table([str(microseconds // 1_000_000), str(microseconds % 1_000_000)])
        found = getattr(self._commands, command.lower())(*(str(word) for word in words))
        return self._table(found) if isinstance(found, list) else found


class _SortedSets:
    """The commands of sorted sets that the script uses, with words for arguments as Redis has them."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[str, float]] = {}

    def _ordered(self, key: str) -> list[tuple[float, str]]:
        return sorted((score, member) for member, score in self.sets.get(key, {}).items())

    def zadd(self, key: str, score: str, member: str) -> int:
        self.sets.setdefault(key, {})[member] = float(score)
        return 1

    def zincrby(self, key: str, by: str, member: str) -> str:
        members = self.sets.setdefault(key, {})
        members[member] = members.get(member, 0.0) + float(by)
        return f"{members[member]:.17g}"

    def zrem(self, key: str, member: str) -> int:
        return int(self.sets.get(key, {}).pop(member, None) is not None)

    def zscore(self, key: str, member: str) -> str | bool:
        score = self.sets.get(key, {}).get(member)
        return False if score is None else f"{score:.17g}"

    def zcount(self, key: str, least: str, most: str) -> int:
        return len(self._range(key, least, most))

    def zrangebyscore(self, key: str, least: str, most: str, *options: str) -> list[str]:
        found = self._range(key, least, most)
        if "LIMIT" in options:
            offset, count = (int(float(word)) for word in options[options.index("LIMIT") + 1 :][:2])
            found = found[offset : offset + count]
        return self._flat(found, "WITHSCORES" in options)

    def zremrangebyscore(self, key: str, least: str, most: str) -> int:
        found = self._range(key, least, most)
        for _, member in found:
            del self.sets[key][member]
        return len(found)

    def zrange(self, key: str, first: str, last: str, *options: str) -> list[str]:
        ordered = self._ordered(key)
        return self._flat(ordered[int(first) : len(ordered) + int(last) + 1], "WITHSCORES" in options)

    def pexpire(self, key: str, milliseconds: str) -> int:
        assert float(milliseconds) > 0
        return int(key in self.sets)

    def _range(self, key: str, least: str, most: str) -> list[tuple[float, str]]:
        ordered = self._ordered(key)
        scores = [score for score, _ in ordered]
        begin = (bisect.bisect_right if least.startswith("(") else bisect.bisect_left)(scores, _bound(least))
        end = (bisect.bisect_left if most.startswith("(") else bisect.bisect_right)(scores, _bound(most))
        return ordered[begin:end]

    @staticmethod
    def _flat(found: list[tuple[float, str]], scores: bool) -> list[str]:
        if not scores:
            return [member for _, member in found]
        return [word for score, member in found for word in (member, f"{score:.17g}")]


def _bound(text: str) -> float:
    return float(text.removeprefix("("))
