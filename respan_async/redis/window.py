"""Keeps the shared log in Redis; the only file that imports redis-py.

Rules:

1. A request to the log is one run of `reserve.lua`, under one key, on the clock of the Redis server.
2. A broken connection is tried again at once, because a server closes idle connections. The second try does not repeat
   what the first has done.
3. Any other error of Redis or redis-py becomes `Unreachable`, within `timeout`.
4. A read-only server is a replica that was, or will be, the primary. A client made here then connects anew, because its
   address may lead to another server by now.
5. A client that the user gave is never closed, and belongs to the event loop that it is used on. A client made here is
   made anew on the next loop, after the previous one was closed.
"""

import asyncio
import contextlib
import hashlib
from importlib import resources
from typing import Any, Final

from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.shared.log_protocol import ReserveReply, ReserveRequest, Unreachable
from respan_async._pacing.shared.settings_validation import check_settings
from respan_async._pacing.shared.window import SharedWindow
from respan_async.errors import ClientStateError, ConfigurationError
from respan_async.secret import Secret, as_secret

try:
    import redis.asyncio as _redis
    from redis.exceptions import ConnectionError as _BrokenError
    from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
except ModuleNotFoundError:
    raise ImportError(
        "respan_async.redis needs redis-py, which is not installed: pip install 'respan-async[redis]'"
    ) from None

_SCRIPT: Final = resources.files("respan_async.redis").joinpath("reserve.lua").read_text(encoding="utf-8")
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_MICROSECONDS: Final = 1_000_000
_ENDLESS: Final = 1 << 53
"""The largest count that the script can represent."""


class RedisWindow(SharedWindow):
    """One account's limit for all replicas, to be given to a client as its `pace`. One window belongs to one client.

    Every process that uses the account should have the same `limit` and `key`. The log lives under that one key, on the
    clock of the Redis server, and expires by itself. While Redis cannot be reached, the process waits for one period,
    and then uses its share of the limit, until Redis is back. A log that has vanished counts as full for one period; if
    it vanishes again within three periods, it counts as away. So `maxmemory-policy` should be `noeviction`.

    Args:
        redis: A URL (`redis://`, `rediss://` for TLS, `unix://`), with the user and the password in it if there are
            any; or your own client, `redis.asyncio.Redis` or `RedisCluster`, which is never closed here.
        limit: The account's limit, such as `DOCUMENTED_LIMIT`.
        key: The key of the log: one for each account.
        fallback_share: The part of the limit, 0 to 1, that this process uses while Redis cannot be reached: one divided
            by the number of processes. 0: wait until Redis is back.
        timeout: Seconds for one request to Redis, more than 0.

    Raises:
        ConfigurationError: An argument is invalid.
    """

    def __init__(
        self,
        redis: Any,
        limit: RateLimit,
        *,
        key: str = "respan_async:pace",
        fallback_share: float = 0.25,
        timeout: float = 1.0,
    ) -> None:
        redis = as_secret(redis)
        check_settings(limit, key, fallback_share, timeout)
        super().__init__(_RedisLog(redis, key, timeout), limit, fallback_share, timeout)


class _RedisLog:
    """The log under one key."""

    loss_hint: str = "Redis was restarted without its data, or evicted the key: see its maxmemory-policy"

    def __init__(self, redis: Any, key: str, timeout: float) -> None:
        self._given = not isinstance(redis, Secret)
        self._url = redis
        self._redis = redis if self._given else _connected(redis, timeout)
        if not isinstance(self._redis, _redis.Redis | _redis.RedisCluster):
            raise ConfigurationError(f"redis: expected a URL or a client of redis.asyncio, got {type(redis).__name__}")
        self._key = key
        self._timeout = timeout

    async def exchange(self, request: ReserveRequest) -> ReserveReply:
        """Report and ask, in one step."""
        arguments: list[str | int] = [
            request.limit.limit,
            _microseconds(request.limit.per),
            _microseconds(request.lease),
            *(request.owner, request.epoch, request.fresh, request.urgent, request.patient, request.waiting),
            _ENDLESS if request.left > _ENDLESS else int(request.left),
            request.first,
            _microseconds(request.away),
            _microseconds(request.heard),
        ]
        for report in request.reports:
            arguments += [report.status.value, report.slot, _microseconds(report.seconds)]
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    reply = await self._run(arguments)
                except _BrokenError:  # the server closes idle connections; a repeated request is not executed twice
                    reply = await self._run(arguments)
        except TimeoutError:
            raise Unreachable(f"no answer within {self._timeout:g} s") from None
        except Exception as error:  # noqa: BLE001  redis-py raises other exceptions, too, as may the user's client
            # For a script, Redis 6 reports it only in the text; Redis 7 and Valkey raise the exception.
            if (isinstance(error, ReadOnlyError) or "READONLY" in str(error)) and not self._given:
                with contextlib.suppress(RedisError, OSError):
                    await self._redis.connection_pool.disconnect()
            raise Unreachable(f"{type(error).__name__}: {error!s:.200}") from None
        epoch, used, held, *times = reply
        at, soonest, again, full, *begins = (int(value) / _MICROSECONDS for value in times)
        return ReserveReply(
            epoch=epoch.decode() if isinstance(epoch, bytes) else epoch,
            used=int(used),
            held=int(held),
            at=at,
            soonest=soonest,
            again=again,
            full=full,
            begins=tuple(begins),
        )

    async def _run(self, arguments: list[str | int]) -> list[Any]:
        try:
            reply: list[Any] = await self._redis.evalsha(_SHA, 1, self._key, *arguments)
        except NoScriptError:
            reply = await self._redis.eval(_SCRIPT, 1, self._key, *arguments)
        return reply

    def leave_loop(self) -> None:
        """Make another client, whose connections belong to the running loop.

        Raises:
            ClientStateError: The client belongs to the user.
        """
        if self._given:
            raise ClientStateError(
                "the Redis client that RedisWindow was given belongs to an event loop that is closed; give RedisWindow "
                "a URL, and it goes on on the next loop"
            )
        self._redis = _connected(self._url, self._timeout)

    async def aclose(self) -> None:
        """Close the connection, if this object made the client."""
        if not self._given:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()


def _connected(url: Secret, timeout: float) -> Any:
    # The error does not quote the URL, and is raised outside of the handler, because redis-py's exception would be its
    # context, with frames that hold the password.
    client: Any = None
    expected = "that begins with redis://, rediss:// or unix://"
    with contextlib.suppress(ValueError):
        # Without redis-py's retries, because `exchange` decides, in time, what to do about a lost reply.
        client = _redis.Redis.from_url(url.reveal(), retry=None, socket_timeout=timeout, socket_connect_timeout=timeout)
    if client is not None:
        if _is_complete(client):
            return client
        client = None
        expected = "whose settings, after the ?, redis-py knows"
    raise ConfigurationError(f"redis: expected a URL {expected}")


def _is_complete(client: Any) -> bool:
    """Whether a client understands its settings."""
    try:
        client.connection_pool.make_connection()  # does not connect yet
    except Exception:  # noqa: BLE001  any error means that the settings are wrong
        return False
    return True


def _microseconds(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)
