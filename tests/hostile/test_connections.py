"""Servers that do not listen, let nobody stay, or break within an answer."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from respan_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncRespan,
    Effect,
    PermissionDeniedError,
    RespanError,
)
from respan_async.keys import TemporaryKeys
from tests.hostile.misbehaviours import ANSWERS, Means, pieces
from tests.hostile.scenarios import AGAIN, ONCE, OPERATIONS, Watch
from tests.integration.raw_server import (
    API_KEY,
    FIN,
    FIN_AT_ONCE,
    NOBODY,
    RST,
    RST_AT_ONCE,
    Act,
    Connection,
    RawServer,
    Seen,
    answer,
    key,
    message,
)

virtual = pytest.mark.virtual

VERBS = ("create", "update", "delete", "retrieve", "list")


@virtual
@pytest.mark.parametrize("verb", ["create", "update", "retrieve", "list"])
async def test_garbage_within_a_body_ends_it_at_once(verb: str) -> None:
    """Also where only silence would be timed: aiohttp closes the connection then, and wakes nobody."""
    status, body = ANSWERS[verb]
    head = b"HTTP/1.1 %d Whatever\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    act = pieces("garbage in chunks", Means.BROKEN, head, b"5\r\n%s\r\n" % body[:5], b"what?\r\n", then="keep").act
    timeout = aiohttp.ClientTimeout(total=None, sock_read=5.0)
    async with RawServer(act) as server, AsyncRespan("t", base_url=server.url, retry=ONCE, timeout=timeout) as respan:
        began = asyncio.get_running_loop().time()
        with pytest.raises(APIConnectionError, match=f"broke off after the status {status}") as caught:
            await OPERATIONS[verb].run(respan.temporary_keys)

    assert asyncio.get_running_loop().time() - began < 2
    assert caught.value.effect is Means.BROKEN.effect(verb)


@virtual
@pytest.mark.parametrize(
    ("status", "expected", "effect"),
    [(201, APIConnectionError, Effect.LOST), (403, PermissionDeniedError, Effect.NONE)],
)
async def test_garbage_within_a_body_before_anybody_reads_it(
    status: int, expected: type[RespanError], effect: Effect
) -> None:
    """The connection is gone by then, and nobody would tell: here a trace of the caller's own takes its time."""

    async def wait(*_: object) -> None:
        await asyncio.sleep(2)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(wait)
    head = f"HTTP/1.1 {status} Whatever\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    act = pieces("garbage in chunks", Means.BROKEN, head, b"what?\r\n", then="keep").act
    timeout = aiohttp.ClientTimeout(total=None, sock_read=5.0)
    async with (
        RawServer(act) as server,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        AsyncRespan("token", base_url=server.url, session=session, retry=ONCE, timeout=timeout) as respan,
    ):
        with pytest.raises(expected) as caught:
            await asyncio.wait_for(respan.temporary_keys.create(), 100)

    assert caught.value.status == status
    assert caught.value.effect is effect


@pytest.mark.parametrize("last", [FIN, RST], ids=str)
async def test_answers_in_pieces_leave_nothing_on_their_connection(last: Act) -> None:
    """However many there are on one; and how it ends is nobody's complaint."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    whole = message(*ANSWERS["create"])
    acts = [pieces("in two", Means.DONE, whole[:-9], whole[-9:], pause=0.001, then="keep").act] * 8
    async with RawServer(*acts, last) as server, AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
        await respan.temporary_keys.create()
        before = sum(isinstance(each, aiohttp.StreamReader) for each in gc.get_objects())
        for _ in acts[1:]:
            await respan.temporary_keys.create()
        left = sum(isinstance(each, aiohttp.StreamReader) for each in gc.get_objects()) - before
        with pytest.raises(APIConnectionError):
            await respan.temporary_keys.create()
    gc.collect()

    assert server.connections == 1
    assert left < 3
    assert complaints == []


# ------------------------------------------------------------- not listening


LARGE = [{"max_value": 1, "period": "day", "name": "x" * 1000}] * 900
"""Nearly a megabyte of a request, more than a socket holds."""


class Deaf:
    """Acts that do not read what is sent, each on a connection of its own."""

    def __init__(self, *parts: bytes, reads: int = 0, every: float = 0.0) -> None:
        self.parts, self.reads, self.every = parts, reads, every

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        # The stream's own reading ahead would be listening.
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport of both directions
        try:
            await asyncio.sleep(0.05)
            for part in self.parts:
                writer.write(part)
                await writer.drain()
            while self.every:
                await asyncio.sleep(self.every)
                writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
                await reader.read(self.reads)
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
            await asyncio.sleep(1000)
        except ConnectionError:
            pass  # the client went away, as it should
        finally:
            writer.close()


@virtual
@pytest.mark.parametrize(
    ("deaf", "error", "effect"),
    [
        (Deaf(), APITimeoutError, Effect.UNKNOWN),
        (Deaf(reads=1, every=1.0), APITimeoutError, Effect.UNKNOWN),
        (Deaf(message(201, b"{}")[:-2]), APITimeoutError, Effect.LOST),
        (Deaf(message(400, b"{}")), RespanError, Effect.NONE),
        (Deaf(message(503, b"{}")), RespanError, Effect.UNKNOWN),
        (Deaf(message(*ANSWERS["create"])), None, None),
    ],
    ids=["silent", "a byte a second", "half a 201", "400", "503", "201"],
)
async def test_a_server_that_does_not_read_what_is_sent(
    deaf: Deaf, error: type[RespanError] | None, effect: Effect | None
) -> None:
    """The time for an attempt holds for the sending too; what is answered meanwhile counts; nothing goes on after."""
    watch = Watch(case=repr(deaf))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(watch.unhandled)
    server = await asyncio.start_server(deaf, "127.0.0.1", 8000)
    before = asyncio.all_tasks()
    async with AsyncRespan("token", base_url="http://127.0.0.1:8000", retry=ONCE) as respan:
        began = loop.time()
        try:
            made = await respan.temporary_keys.create(limit_policies=LARGE)
            watch.check(error is None and made.api_key.reveal() == API_KEY, "a key out of nowhere")
        except RespanError as problem:
            watch.check(error is not None and isinstance(problem, error) and problem.effect is effect, repr(problem))
        watch.check(loop.time() - began <= 30.1, "it took too long")
        ours = {task for task in asyncio.all_tasks() - before if "Deaf" not in repr(task)}
        watch.check(not ours, f"tasks are left: {ours}")
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()

    watch.verdict()


# --------------------------------------------------------------------- floods


@pytest.mark.parametrize("act", [FIN_AT_ONCE, RST_AT_ONCE], ids=str)
async def test_a_flood_of_calls_at_a_server_that_lets_nobody_stay(act: Act) -> None:
    """Each ends with its error, and nothing is left: no connection, no task, no slot."""
    watch = Watch(case=str(act))
    asyncio.get_running_loop().set_exception_handler(watch.unhandled)
    runs: list[Callable[[TemporaryKeys], Awaitable[Any]]] = [OPERATIONS[verb].run for verb in VERBS]
    async with RawServer(act) as server:
        async with AsyncRespan("token", base_url=server.url, retry=ONCE) as respan:
            results = await asyncio.gather(*(run(respan.temporary_keys) for run in runs * 40), return_exceptions=True)
            watch.check(respan.pace.in_flight == 0, "slots are held")
            for verb, result in zip(VERBS * 40, results, strict=True):
                reads = verb in ("list", "retrieve")
                allowed = (Effect.NONE,) if reads else (Effect.NONE, Effect.UNKNOWN)
                right = isinstance(result, APIConnectionError) and result.effect in allowed
                watch.check(right, f"{verb}: {result!r}")
        for _ in range(50):
            await asyncio.sleep(0.01 if server.open else 0)
        watch.check(not server.open, f"{server.open} connections are open")
    watch.check(asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left")

    assert server.requests == []
    watch.verdict()


@virtual
async def test_a_server_that_closes_after_each_answer() -> None:
    """A hundred keys, each on a connection of its own: none is lost, and one connection is open at a time."""

    async def do(connection: Connection, seen: Seen) -> None:
        await serves.do(connection, seen)
        connection.finish()

    serves = key()
    async with (
        RawServer(Act("closes", do)) as server,
        AsyncRespan("token", base_url=server.url, retry=ONCE) as respan,
    ):
        keys = [(await respan.temporary_keys.create()).id for _ in range(100)]

        assert len(set(keys)) == server.connections == 100
        assert server.open <= 2
        assert respan.suspects == ()


async def test_a_refusal_before_anything_is_read() -> None:
    """It costs no key: it is a refusal, or nothing was sent."""

    async def do(connection: Connection, _: Seen) -> None:
        await answer(429, {"retry_after": 0.001}).do(connection, NOBODY)
        connection.finish()

    async with (
        RawServer(Act("refuses unread", do, unread=True), key()) as server,
        AsyncRespan("token", base_url=server.url, retry=AGAIN) as respan,
    ):
        made = await respan.temporary_keys.create()

    assert made.api_key.reveal() == API_KEY


async def test_a_server_that_never_ends_the_handshake() -> None:
    """It takes the connection and says nothing, or nonsense for ever: no byte of a request, nor the token, has left."""

    async def silent(connection: Connection, _: Seen) -> None:
        await connection.reader.read()

    async def trickles(connection: Connection, _: Seen) -> None:
        while True:
            await connection.send(b"\x16\x03\x03\x40\x00")
            await asyncio.sleep(0.02)

    for name, do in {"is silent": silent, "trickles": trickles}.items():
        async with RawServer(Act(name, do, unread=True)) as server:
            url = server.url.replace("http:", "https:")
            async with AsyncRespan("token", base_url=url, retry=ONCE, timeout=0.2) as respan:
                runs = [OPERATIONS[verb].run(respan.temporary_keys) for verb in VERBS]
                results = await asyncio.gather(*runs, return_exceptions=True)

                for verb, result in zip(VERBS, results, strict=True):
                    assert isinstance(result, APIConnectionError), f"{verb}, where the server {name}: {result!r}"
                    allowed = (Effect.NONE, Effect.UNKNOWN) if verb == "delete" else (Effect.NONE,)
                    assert result.effect in allowed, f"{verb}, where the server {name}: {result.effect}"
                assert respan.suspects == ()
        assert server.requests == []
