"""Every operation against one misbehaving server, and what must be true afterwards, whatever it did."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from respan_async import (
    AsyncRespan,
    CreatedKey,
    CreateKeyRequest,
    Effect,
    Failed,
    RespanError,
    RetryPolicy,
    Suspect,
)
from respan_async.keys import TemporaryKeys
from tests.hostile.misbehaviours import NAME, Means, Misbehaviour
from tests.integration.raw_server import API_KEY, Act, RawServer, key

ONCE: Final = RetryPolicy(max_attempts=1, max_refusals=0)
AGAIN: Final = RetryPolicy(max_attempts=3, max_refusals=3, initial=0.001, maximum=0.001)


async def _iterated(keys: TemporaryKeys) -> list[Any]:
    return [key async for key in keys.list()]


async def _created_in_a_batch(keys: TemporaryKeys) -> CreatedKey:
    (outcome,) = await keys.create_many([CreateKeyRequest(name="tenant")])
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.key


@attrs.frozen
class Operation:
    """One operation.

    Attributes:
        asks: What the misbehaving server is asked.
        run: Does it.
        before: How many requests of it are answered well before.
    """

    asks: str
    run: Callable[[TemporaryKeys], Awaitable[Any]]
    before: int = 0


def _swept(keys: TemporaryKeys) -> Awaitable[Any]:
    return keys.sweep(grace=0.0)


OPERATIONS: Final = {
    "create": Operation("create", lambda keys: keys.create(name="tenant")),
    "create_many": Operation("create", _created_in_a_batch),
    "update": Operation("update", lambda keys: keys.update("key-1", name="other")),
    "delete": Operation("delete", lambda keys: keys.delete("key-1")),
    "retrieve": Operation("retrieve", lambda keys: keys.retrieve("key-1")),
    "list": Operation("list", lambda keys: keys.list()),
    "list, iterated": Operation("list", _iterated),
    "sweep, reading the list": Operation("list", _swept),
    "sweep, asking again": Operation("retrieve", _swept, before=1),
    "sweep, revoking": Operation("delete", _swept, before=2),
}


@attrs.define
class Watch:
    """What must not be there after an operation, and what was there."""

    complaints: list[str] = attrs.field(factory=list)
    case: str = ""

    def check(self, right: object, what: str) -> None:
        """Note what is wrong, with the operation and what the server did."""
        if not right:
            self.complaints.append(f"{self.case}: {what}")

    def unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note what nobody caught."""
        self.complaints.append(f"{self.case}: unhandled: {context}")

    def verdict(self) -> None:
        """Fail with everything that was wrong."""
        assert not self.complaints, "\n".join(self.complaints)


def suspect() -> Suspect:
    """Give one whose key is in the good list."""
    return Suspect(
        name=NAME, tag=NAME[-12:], effect=Effect.UNKNOWN, sent_at=datetime(2026, 1, 1, tzinfo=UTC), sent={}, reason=""
    )


async def play(
    watch: Watch,
    operation: str,
    misbehaviour: Misbehaviour,
    *then: Act,
    retry: RetryPolicy = ONCE,
    timeout: float = 30.0,
) -> object:
    """Let one operation meet a misbehaviour, check all that must hold, and return what came of it."""
    watch.case = f"{operation}, where the server {misbehaviour}"
    doing = OPERATIONS[operation]
    sweeps = operation.startswith("sweep")
    good = key(id="key-1", name=NAME)
    if sweeps and misbehaviour.means is Means.DONE:
        then = (*then, good)  # or it would say to one request what answers another
    asyncio.get_running_loop().set_exception_handler(watch.unhandled)
    result: object
    async with RawServer(*[good] * doing.before, misbehaviour.act, *then) as server:
        async with AsyncRespan("token", base_url=server.url, retry=retry, timeout=timeout) as respan:
            if sweeps:
                respan._service.context.suspects.add(suspect())
            began = asyncio.get_running_loop().time()
            try:
                result = await doing.run(respan.temporary_keys)
            except RespanError as error:
                result = error
            except Exception as error:  # noqa: BLE001  a foreign one is what is looked for
                result = error
                watch.check(False, f"a foreign exception: {error!r}")
            took = asyncio.get_running_loop().time() - began
            # aiohttp rounds a time of more than five seconds up to the next whole one.
            watch.check(took <= (timeout + 1.001) * retry.max_attempts, f"took {took} s")
            watch.check(respan.pace.in_flight == 0, "a slot was not given back")
            _check_suspects(watch, operation, misbehaviour, result, respan)
        await gone(watch, server)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    watch.check(not tasks, f"tasks are left: {tasks}")
    return result


def _check_suspects(
    watch: Watch, operation: str, misbehaviour: Misbehaviour, result: object, respan: AsyncRespan
) -> None:
    """An error tells its suspects; nothing but a create leaves any."""
    known = respan.suspects
    if operation.startswith("sweep"):
        other = misbehaviour.means in (Means.ABSENT, Means.ENOUGH)
        stays = isinstance(result, BaseException) or (other and "asking" in operation)
        watch.check(len(known) == stays, f"{result!r}, and suspects {known}")
        return
    if isinstance(result, RespanError):
        watch.check(result.suspects == known, f"suspects {result.suspects}, and the client knows {known}")
    if OPERATIONS[operation].asks != "create":
        watch.check(not known, f"suspects of no create: {known}")


async def gone(watch: Watch, server: RawServer) -> None:
    """Wait until the server has noticed that the client is gone."""
    for _ in range(1000):  # a server that trickles notices only at its next word
        if not server.open:
            return
        await asyncio.sleep(0.02)
    watch.check(False, f"{server.open} connections are left")


def check_once(watch: Watch, operation: str, misbehaviour: Misbehaviour, result: object) -> None:
    """Compare what one attempt said with what the server did."""
    kind = OPERATIONS[operation].asks
    effect = misbehaviour.means.effect(kind)
    if misbehaviour.means is Means.ABSENT and operation in ("sweep, asking again", "sweep, revoking"):
        effect = None
    if effect is None:
        watch.check(not isinstance(result, BaseException), f"an error of a good answer: {result!r}")
        if kind == "create" and isinstance(result, CreatedKey):
            watch.check((result.id, result.api_key.reveal()) == ("key-1", API_KEY), "another key than the server's")
        return
    watch.check(isinstance(result, RespanError), f"no error, but {result!r}")
    if not isinstance(result, RespanError):
        return
    watch.check(result.effect is effect, f"{result.effect}, where {effect} is true: {result!r}")
    if misbehaviour.means in (Means.REDIRECTED, Means.REFUSED):
        watch.check(result.status is not None, f"it went on elsewhere: {result!r}")
    if kind == "create":
        doubts = [one.effect for one in result.suspects]
        watch.check(doubts == [effect] * (effect is not Effect.NONE), f"{effect} with suspects {doubts}")
    if misbehaviour.means in (Means.USELESS, Means.PAGE, Means.TOO_LARGE) and kind == "create":
        watch.check(not result.retryable, "a changed server would cost a key for each attempt")


async def meet(watch: Watch, operation: str, misbehaviours: Iterable[Misbehaviour]) -> int:
    """Let an operation meet misbehaviours, one attempt each; return how many."""
    number = 0
    for number, misbehaviour in enumerate(misbehaviours, 1):  # noqa: B007  the count is returned
        if misbehaviour.means is Means.ENDLESS and operation.startswith("sweep"):
            continue  # the requests that follow would meet the same, which says nothing of this one
        check_once(watch, operation, misbehaviour, await play(watch, operation, misbehaviour))
    return number
