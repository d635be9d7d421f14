"""One limit for many processes, against a real Redis and what the server counts."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster

from respan_async import (
    AsyncRespan,
    ConfigurationError,
    CreateKeyRequest,
    DeadlineExceededError,
    RateLimit,
)
from respan_async.redis import RedisWindow
from respan_async.testing import FakeRespan, SlidingLog
from tests.integration.fleet import batches, fleet, made
from tests.servers.certificate import certify
from tests.servers.redis import RedisServer
from tests.servers.tcp_proxy import Wire

Make = Callable[..., Awaitable[AsyncRespan]]


@pytest.fixture
async def replica(fake_respan: FakeRespan) -> AsyncIterator[Make]:
    """Give clients that share a pace, as replicas do; they are closed in the end."""
    clients = list[AsyncRespan]()

    async def make(where: Any, limit: RateLimit, **settings: Any) -> AsyncRespan:
        window = RedisWindow(where, limit, **settings)
        clients.append(AsyncRespan(fake_respan.api_key, base_url=fake_respan.url, pace=window))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


async def calls(url: str) -> int:
    """Count how often the script was run."""
    async with redis.asyncio.Redis.from_url(url) as client:
        statistics = await client.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def members(url: str) -> list[str]:
    """Name what is in the log."""
    async with redis.asyncio.Redis.from_url(url) as client:
        names: list[Any] = await client.zrange("respan_async:pace", 0, -1)
    return [name.decode() for name in names]


async def flights(url: str) -> list[str]:
    """Name the slots that are held or in the air."""
    return [name for name in await members(url) if name.startswith("flight")]


async def answered_slots(url: str) -> list[str]:
    """Name the slots that were answered and still count."""
    return [name for name in await members(url) if name.startswith("answered")]


async def paused(url: str) -> bool:
    """Tell whether the server has asked everybody to wait."""
    return "pause" in await members(url)


async def until(true: Callable[[], Awaitable[object]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- the fleet


async def test_four_processes_never_go_beyond_the_limit_as_the_server_counts(redis_url: str) -> None:
    """4 processes of 64 coroutines each: nothing is refused, no period has more than N, and everybody is served."""
    limit = RateLimit(100, per=0.5)
    before = await calls(redis_url)
    async with FakeRespan(limit=SlidingLog(100, per=0.5), latency=(0.001, 0.01)) as fake:
        async with fleet(4, fake, redis_url, limit) as replicas:
            await made(fake, 600)
            shares = await replicas.stop()

        assert fake.counts.refused == 0
        assert fake.max_in_window(0.5) <= 100
        assert sum(shares) == fake.counts.created
        assert min(shares) > fake.counts.created / 20
        assert await calls(redis_url) - before < 1.5 * fake.counts.created


async def test_a_killed_process_takes_its_slots_with_it_only_for_a_while(redis_url: str) -> None:
    """SIGKILL of two of four: the others go on, within the limit."""
    limit = RateLimit(100, per=0.5)
    async with FakeRespan(limit=SlidingLog(100, per=0.5), latency=(0.001, 0.01)) as fake:
        async with fleet(4, fake, redis_url, limit) as replicas:
            await made(fake, 100)
            for process in replicas.processes[:2]:
                process.kill()
                await process.wait()
            del replicas.processes[:2]
            await made(fake, 300)
            await replicas.stop()

        assert fake.counts.refused == 0
        assert fake.max_in_window(0.5) <= 100


@pytest.mark.parametrize(("goes", "comes"), [("stop", "start"), ("freeze", "thaw")])
async def test_redis_goes_for_longer_than_a_period_and_comes_back(
    redis_server: RedisServer, goes: str, comes: str
) -> None:
    """The replicas go on with their shares and come back by themselves; a log still there counts as full."""
    limit = RateLimit(40, per=0.5)
    async with FakeRespan(limit=SlidingLog(40, per=0.5), latency=(0.001, 0.01)) as fake:
        async with batches(2, fake, redis_server.url, limit, fallback_share=0.5):
            await made(fake, 60)
            getattr(redis_server, goes)()
            await made(fake, 60)
            getattr(redis_server, comes)()
            await until(lambda: flights(redis_server.url))
            await made(fake, 100)

        assert fake.counts.refused == 0
        assert fake.max_in_window(0.5) <= 40


async def test_a_flushed_log_counts_as_full(redis_url: str) -> None:
    """FLUSHALL in the middle of the work does not let one request too many through."""
    limit = RateLimit(40, per=0.5)
    async with FakeRespan(limit=SlidingLog(40, per=0.5), latency=(0.001, 0.01)) as fake:
        async with batches(2, fake, redis_url, limit), redis.asyncio.Redis.from_url(redis_url) as client:
            for _ in range(3):
                await made(fake, 30)
                await client.flushall()
            await made(fake, 30)

        assert fake.counts.refused == 0
        assert fake.max_in_window(0.5) <= 40


# -------------------------------------------------------------------------------------------------- one and the other


async def test_what_one_has_used_the_other_cannot(redis_url: str, fake_respan: FakeRespan, replica: Make) -> None:
    """The second replica finds the log as full as the first has left it."""
    limit = RateLimit(5, per=30)
    first, second = await replica(redis_url, limit), await replica(redis_url, limit)
    await asyncio.gather(*(first.temporary_keys.create() for _ in range(5)))

    with pytest.raises(DeadlineExceededError) as caught:
        await second.with_options(deadline=1.0).temporary_keys.create()

    assert fake_respan.counts.requests == 5
    assert caught.value.effect.name == "NONE"


async def test_another_key_is_another_account(redis_url: str, fake_respan: FakeRespan, replica: Make) -> None:
    """Logs under different keys know nothing of each other."""
    limit = RateLimit(1, per=30)
    for key in ("one", "two"):
        await (await replica(redis_url, limit, key=key)).temporary_keys.create()

    assert fake_respan.counts.created == 2


async def test_a_refusal_seen_by_one_is_everybodys(redis_url: str, replica: Make, fake_respan: FakeRespan) -> None:
    """Once the server has asked one to wait, the other does not even try."""
    first, second = [await replica(redis_url, RateLimit(100, per=10)) for _ in range(2)]
    fake_respan.script("refuse:5")

    with pytest.raises(DeadlineExceededError):
        await first.with_options(deadline=0.5).temporary_keys.create()
    await until(lambda: paused(redis_url))
    with pytest.raises(DeadlineExceededError):
        await second.with_options(deadline=0.5).temporary_keys.create()

    assert fake_respan.counts.requests == 1


@pytest.mark.parametrize("retry_after", ["both", "none"])
async def test_a_limit_that_is_set_too_high_costs_few_refusals(redis_url: str, retry_after: Any) -> None:
    """The server allows half of what was configured: everything is made all the same, and the server rules."""
    async with FakeRespan(limit=SlidingLog(20, per=0.5), retry_after=retry_after, retry_after_digits=2) as fake:
        async with batches(2, fake, redis_url, RateLimit(40, per=0.5)):
            await made(fake, 120)

        assert fake.max_in_window(0.5) <= 20
        assert fake.counts.refused < fake.counts.created / 3


async def test_an_interactive_call_anywhere_goes_before_batches_everywhere(
    redis_url: str, fake_respan: FakeRespan, replica: Make
) -> None:
    """Ten web requests in one replica are served before another one's batch has got more than a few slots."""
    limit = RateLimit(10, per=0.5)
    batching, serving = await replica(redis_url, limit), await replica(redis_url, limit)
    async with batching.temporary_keys.create_many(CreateKeyRequest(name="batch") for _ in range(1000)) as batch:
        assert len([await anext(batch) for _ in range(15)]) == 15

        before = fake_respan.counts.created
        await asyncio.gather(*(serving.temporary_keys.create(name="web") for _ in range(10)))
        between = fake_respan.counts.created - before - 10

    assert between <= 5


async def test_interactive_calls_without_an_end_leave_every_twentieth_slot_to_a_batch(
    redis_url: str, replica: Make, fake_respan: FakeRespan
) -> None:
    """Web requests in one replica take all there is; another one's batch gets on all the same."""
    limit = RateLimit(20, per=0.25)
    serving, batching = await replica(redis_url, limit), await replica(redis_url, limit)

    async def serve() -> None:
        while True:
            await serving.temporary_keys.create(name="web")

    requests = [asyncio.create_task(serve()) for _ in range(30)]
    await made(fake_respan, 20)
    async with batching.temporary_keys.create_many(CreateKeyRequest(name="batch") for _ in range(100)) as batch:
        before = fake_respan.counts.created
        async with asyncio.timeout(10):
            await anext(batch)
        passed = fake_respan.counts.created - before
        for request in requests:
            request.cancel()
        await asyncio.wait(requests)

    assert passed >= 15


async def test_batches_leave_one_slot_free_where_interactive_calls_come(redis_url: str) -> None:
    """In whichever process: the next such call then does not wait for one to come back."""
    limit = RateLimit(50, per=0.5)
    window = RedisWindow(redis_url, limit)
    async with (
        FakeRespan(limit=SlidingLog(50, per=0.5), latency=(0.001, 0.01)) as fake,
        AsyncRespan(fake.api_key, base_url=fake.url, pace=window) as serving,
        batches(1, fake, redis_url, limit),
        redis.asyncio.Redis.from_url(redis_url) as connection,
    ):
        await made(fake, 60)
        await serving.temporary_keys.create()
        await made(fake, 75)
        taken = list[int]()
        for _ in range(20):
            seconds, microseconds = await connection.time()
            taken.append(await connection.zcount("respan_async:pace", seconds * 1_000_000 + microseconds, "+inf"))
            await made(fake, 1)

    assert max(taken) == 49


async def test_a_process_holds_one_slot_ahead_and_no_more(redis_url: str, replica: Make) -> None:
    """However many calls wait: those of the others may have use for the next ones."""
    limit = RateLimit(5, per=5)
    first, second = await replica(redis_url, limit), await replica(redis_url, limit)
    await asyncio.gather(*(first.temporary_keys.create() for _ in range(5)))
    await asyncio.wait({asyncio.create_task(first.aclose())})  # which tells what was answered

    waiting = [asyncio.create_task(second.temporary_keys.create()) for _ in range(10)]
    await until(lambda: flights(redis_url))
    await asyncio.wait(waiting, timeout=0.5)

    assert len(await flights(redis_url)) == 1
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


# ------------------------------------------------------------------------------------------------------ what is left


async def test_nothing_is_left_in_the_log_but_what_counts(
    redis_url: str, fake_respan: FakeRespan, replica: Make
) -> None:
    """A closed client has told of every slot, and given back what it held."""
    client = await replica(redis_url, RateLimit(100, per=5))
    waiting = [asyncio.create_task(client.temporary_keys.create()) for _ in range(30)]
    await made(fake_respan, 10)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await client.aclose()

    names = await members(redis_url)
    assert len([name for name in names if name.startswith("answered")]) == fake_respan.counts.requests
    assert not [name for name in names if name.startswith(("flight", "urgent"))]


async def test_the_log_expires_by_itself(redis_url: str, replica: Make) -> None:
    """When nobody has said a word for so long that nothing in it counts, Redis drops it."""
    await (await replica(redis_url, RateLimit(5, per=3))).temporary_keys.create()

    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        assert 0 < await connection.pttl("respan_async:pace") <= (2 * (3 + 10) + 60) * 1000 + 1


async def test_a_client_of_ones_own_is_not_closed(redis_url: str, replica: Make) -> None:
    """Who made the connection closes it."""
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as own:
        client = await replica(own, RateLimit(5, per=1))
        await client.temporary_keys.create()
        await client.aclose()

        assert await own.ping()


async def test_a_script_that_redis_has_forgotten_is_sent_again(redis_url: str, replica: Make) -> None:
    """SCRIPT FLUSH, or a restart, costs one more word."""
    client = await replica(redis_url, RateLimit(100, per=1))
    await client.temporary_keys.create()
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        await connection.script_flush()

    assert (await client.temporary_keys.create()).id


# ------------------------------------------------------------------------------------------------------ without Redis


async def test_a_redis_that_hangs_lets_no_call_hang(
    redis_server: RedisServer, replica: Make, fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture
) -> None:
    """A deadline holds while Redis accepts words and answers none; there is one warning; it comes back by itself."""
    client = await replica(redis_server.url, RateLimit(100, per=60), timeout=0.3)
    await client.temporary_keys.create()
    redis_server.freeze()

    with caplog.at_level(logging.INFO, "respan_async"):
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                await client.with_options(deadline=0.7).temporary_keys.create()
        redis_server.thaw()
        assert (await client.temporary_keys.create()).id

    assert fake_respan.counts.requests == 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no answer within 0.3 s" in warnings[0]
    assert "25/60s" in warnings[0]
    assert any("is back" in record.getMessage() for record in caplog.records)


async def test_without_redis_there_is_a_share_after_one_period(
    redis_server: RedisServer, replica: Make, fake_respan: FakeRespan
) -> None:
    """A process that starts without Redis waits for one period, and then goes on with its share."""
    redis_server.stop()
    client = await replica(redis_server.url, RateLimit(40, per=0.3), fallback_share=0.1)
    began = asyncio.get_running_loop().time()

    await asyncio.gather(*(client.temporary_keys.create() for _ in range(8)))

    assert fake_respan.admissions[0] - began >= 0.3
    assert fake_respan.max_in_window(0.29) <= 4
    assert client.pace.limit == RateLimit(4, per=0.3)


async def test_without_a_share_nothing_goes_without_redis(
    redis_server: RedisServer, replica: Make, fake_respan: FakeRespan
) -> None:
    """`fallback_share=0` waits until Redis is back."""
    redis_server.stop()
    client = await replica(redis_server.url, RateLimit(40, per=0.1), fallback_share=0)

    call = asyncio.create_task(client.temporary_keys.create())
    await asyncio.wait({call}, timeout=0.4)
    assert fake_respan.counts.requests == 0
    redis_server.start()

    assert (await call).id


async def test_closing_without_redis_does_not_wait_for_it(redis_server: RedisServer, replica: Make) -> None:
    """What cannot be told any more is not worth a wait."""
    client = await replica(redis_server.url, RateLimit(40, per=60), timeout=0.3)
    await client.temporary_keys.create()
    redis_server.freeze()

    async with asyncio.timeout(5):
        await client.aclose()


async def test_a_connection_that_redis_closed_is_no_outage(redis_url: str, replica: Make) -> None:
    """A service that was idle finds its connection closed; its next call does not wait for a period."""
    client = await replica(redis_url, RateLimit(5, per=30))
    await client.temporary_keys.create()
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        await connection.client_kill_filter(skipme=True)

    async with asyncio.timeout(5):
        await client.temporary_keys.create()


async def test_a_slot_whose_granting_was_not_heard_of_is_granted_again(
    redis_server: RedisServer, replica: Make, fake_respan: FakeRespan
) -> None:
    """The connection breaks after the script has run: asked once more, it gives the same slot, and not another one."""
    async with Wire(redis_server.port) as wire:
        client = await replica(f"redis://127.0.0.1:{wire.port}/0", RateLimit(2, per=30))
        await client.temporary_keys.create()

        wire.lose_answers = 1
        await client.with_options(deadline=10).temporary_keys.create()

        assert wire.lose_answers == 0
        assert fake_respan.counts.requests == 2
        await client.aclose()


async def test_a_cluster_that_is_down_is_an_outage_like_any_other(
    replica: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its client raises: with pauses between the tries, one warning, and in time."""
    cluster = RedisCluster(host="127.0.0.1", port=1)
    client = await replica(cluster, RateLimit(5, per=60))

    with pytest.raises(DeadlineExceededError):
        await client.with_options(deadline=1.0).temporary_keys.create()

    assert caplog.text.count("cannot be reached") == 1
    await cluster.aclose()


def test_processes_that_are_forked_before_the_first_call_share_the_limit(redis_url: str) -> None:
    """A client made at the top of a module, as servers that fork load it, has as many names as there are processes."""
    code = f"""
import asyncio, os
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.slots import SlotOutcome
from respan_async import RateLimit
from respan_async.redis import RedisWindow

pacer = Pacer(RedisWindow({redis_url!r}, RateLimit(4, per=60)), 64)

async def main():
    while True:
        slot = await pacer.acquire(Priority.INTERACTIVE, asyncio.get_running_loop().time() + 1)
        pacer.release(slot, SlotOutcome.ANSWERED)
        os.write(1, b"x")

children = []
for _ in range(3):
    if not (child := os.fork()):
        try:
            asyncio.run(main())
        finally:
            os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)

    assert ended.stdout == b"xxxx"


def test_a_program_that_ends_without_closing_ends_quietly(redis_url: str) -> None:
    """Nothing is left that the event loop has to complain of."""
    code = f"""
import asyncio
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async import RateLimit
from respan_async.redis import RedisWindow

async def main():
    pacer = Pacer(RedisWindow({redis_url!r}, RateLimit(1, per=60)), 64)
    tasks = [asyncio.create_task(pacer.acquire(Priority.INTERACTIVE)) for _ in range(5)]
    await asyncio.sleep(0)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True, text=True)

    assert "Task was destroyed" not in ended.stderr
    assert "RuntimeError" not in ended.stderr


# ------------------------------------------------------------------------------------------------ kinds and settings


async def turned_away(client: AsyncRespan, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Let a client make a key until the log says why its window cannot be reached."""

    async def told() -> bool:
        return reason in caplog.text

    call = asyncio.create_task(client.temporary_keys.create())
    await until(told)
    call.cancel()
    await asyncio.wait({call})


async def test_a_password_goes_into_the_url(tmp_path: Path, replica: Make, caplog: pytest.LogCaptureFixture) -> None:
    """With the right one it works; a wrong one is told without being shown."""
    server = RedisServer(tmp_path, settings=("--requirepass", "secret-password"))
    server.start()
    try:
        with_password = server.url.replace("redis://", "redis://:secret-password@")
        assert (await (await replica(with_password, RateLimit(5, per=1))).temporary_keys.create()).id

        wrong = await replica(server.url.replace("redis://", "redis://:wrong-password@"), RateLimit(5, per=60))
        await turned_away(wrong, "AuthenticationError", caplog)
    finally:
        server.stop()
    assert "wrong-password" not in caplog.text


async def test_rediss_is_tls(
    redis_server: RedisServer, tmp_path: Path, replica: Make, fake_respan: FakeRespan, caplog: pytest.LogCaptureFixture
) -> None:
    """Whom the client trusts goes into the URL as well; a server it does not trust gets nothing."""
    context, trusted = certify(tmp_path)
    async with Wire(redis_server.port, tls=context) as wire:
        url = f"rediss://127.0.0.1:{wire.port}/0"
        client = await replica(f"{url}?ssl_ca_certs={trusted}", RateLimit(5, per=1))
        assert (await client.temporary_keys.create()).id

        stranger = await replica(url, RateLimit(5, per=60))
        await turned_away(stranger, "CERTIFICATE_VERIFY_FAILED", caplog)

        await client.aclose()
        await stranger.aclose()
    assert fake_respan.counts.created == 1


async def test_a_cluster_holds_the_log_in_one_slot(tmp_path: Path, replica: Make) -> None:
    """All is under one key, so a cluster's client finds it."""
    server = RedisServer(tmp_path, settings=("--cluster-enabled", "yes"))
    server.start()
    try:
        async with redis.asyncio.Redis(port=server.port) as node:
            words: Any = node.execute_command
            await words("CLUSTER", "ADDSLOTS", *range(16384))

            async def ready() -> bool:
                return b"cluster_state:ok" in await words("CLUSTER", "INFO")

            await until(ready)
        cluster = RedisCluster.from_url(server.url)
        client = await replica(cluster, RateLimit(5, per=1))

        assert len([await client.temporary_keys.create() for _ in range(3)]) == 3

        await client.aclose()
        await cluster.aclose()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"limit": "60/60s"}, "limit"),
        ({"key": ""}, "key"),
        ({"key": b"x"}, "key"),
        ({"fallback_share": 1.5}, "fallback_share"),
        ({"fallback_share": -0.1}, "fallback_share"),
        ({"fallback_share": True}, "fallback_share"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"redis": "http://user:password@host"}, "redis"),
        ({"redis": "redis://user:pass/word@host:port"}, "redis"),
        ({"redis": 6379}, "redis"),
        ({"redis": redis.Redis()}, "redis"),
        ({"redis": "redis://:password@127.0.0.1:1/0?sokcet_timeout=1"}, "redis"),
        ({"redis": "redis://:password@127.0.0.1:1/0?ssl_ca_certs=x"}, "redis"),
        ({"limit": "redis://:password@127.0.0.1:1/0"}, "limit"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(setting: dict[str, Any], name: str) -> None:
    """At construction, in a sentence, and without what may be a password."""
    given: dict[str, Any] = {"redis": "redis://127.0.0.1:1/0", "limit": RateLimit(1, per=1)} | setting

    with pytest.raises(ConfigurationError, match=f"^{name}: expected") as caught:
        RedisWindow(given.pop("redis"), given.pop("limit"), **given)

    assert "pass" not in str(caught.value)


async def test_a_window_belongs_to_one_client(fake_respan: FakeRespan) -> None:
    """Two clients on one window would not know whose slots are whose."""
    window = RedisWindow("redis://127.0.0.1:1/0", RateLimit(1, per=1))
    async with AsyncRespan("key", pace=window):
        with pytest.raises(ConfigurationError, match="another client"):
            AsyncRespan("key", pace=window)


def test_without_redis_py_the_extra_is_named() -> None:
    """Who has not installed it is told how to."""
    code = "import sys; sys.modules['redis'] = sys.modules['redis.asyncio'] = None; import respan_async.redis"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "pip install 'respan-async[redis]'" in ended.stderr
