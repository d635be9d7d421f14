"""A batch at a server that does something else wrong at every request: every key that came whole is somebody's."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterable

import attrs
import pytest

from respan_async import APIStatusError, AsyncRespan, CreateKeyRequest, Effect, Failed, Issued, RespanError
from tests.hostile.framings import cuts
from tests.hostile.misbehaviours import ANSWERS, Means, Misbehaviour, bodies, heads, slow, statuses
from tests.hostile.scenarios import OPERATIONS, Watch
from tests.integration.raw_server import Act, Connection, RawServer, Seen, message, raw

pytestmark = pytest.mark.virtual

GOOD = Misbehaviour(raw("serves", message(*ANSWERS["create"])), Means.DONE)


class Named(Connection):
    """A connection on which each key has an id of its own, as long as that in all answers."""

    def __init__(self, connection: Connection, key_id: bytes) -> None:
        super().__init__(connection.reader, connection.writer)
        self._key_id = key_id

    async def send(self, data: bytes) -> None:
        """Write the answer with this key's id."""
        for encoding in ("ascii", "utf-16-le", "utf-32-le"):
            data = data.replace("key-1".encode(encoding), self._key_id.decode().encode(encoding))
        await super().send(data)


@attrs.define
class Chaos:
    """A server that draws lots.

    Attributes:
        lots: What it may do.
        chance: Draws.
        whole: The ids of the keys that were sent whole.
        doubts: What else it did, in order.
    """

    lots: list[Misbehaviour]
    chance: random.Random
    whole: list[str] = attrs.field(factory=list)
    doubts: list[Effect] = attrs.field(factory=list)

    async def do(self, connection: Connection, seen: Seen) -> None:
        """Do one of them to a create; the client's own tries to revoke what it lost come to nothing."""
        if seen.method != "POST":
            await raw("fails", message(503, b"")).do(connection, seen)
            return
        lot = self.chance.choice(self.lots)
        number = len(self.whole) + len(self.doubts)
        effect = lot.means.effect("create")
        if effect is None:
            self.whole.append(f"k{number:04}")
        else:
            self.doubts.append(effect)
        await lot.act.do(Named(connection, b"k%04d" % number), seen)


def lots() -> list[Misbehaviour]:
    """Give what a server may do to a create, half of it good; not that it refuses the API key, which ends a batch."""
    wrong = [
        *cuts("create", "length", "fin", every=17),
        *cuts("create", "length", "stall", every=17),
        *cuts("create", "chunked", "fin", every=17),
        *heads("create"),
        *bodies("create"),
        *slow("create"),
        *(one for one in statuses() if str(one) not in ("answers 401", "answers 403")),
    ]
    # In a compressed body `Named` could not write the key's id.
    small = [
        one for one in wrong if not any(part in str(one) for part in ("million", "000", "body of gzip", "nested gzip"))
    ]
    return [*small, *[GOOD] * len(small)]


async def batch_through(chaos: Chaos, items: int) -> list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]]:
    """Run a batch with everything as it is by default, to its end or to several answers that may be every item's."""
    watch = Watch(case="chaos")
    outcomes = list[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]]()
    asyncio.get_running_loop().set_exception_handler(watch.unhandled)
    async with RawServer(Act("chaos", chaos.do)) as server:
        async with AsyncRespan("token", base_url=server.url) as respan:
            requests = (CreateKeyRequest(name=f"tenant-{number}") for number in range(items))
            with contextlib.suppress(RespanError):
                async with respan.temporary_keys.create_many(requests, max_in_flight=16, ordered=True) as batch:
                    async for outcome in batch:
                        outcomes.append(outcome)
            suspects = respan.suspects
            in_flight = respan.pace.in_flight
        await asyncio.sleep(5)
        assert server.open == 0
    assert in_flight <= 1  # what the client tries to revoke by itself
    assert asyncio.all_tasks() == {asyncio.current_task()}
    watch.verdict()
    assert sorted(one.effect.value for one in suspects) == sorted(
        effect.value for effect in chaos.doubts if effect is not Effect.NONE
    )
    return outcomes


def check(chaos: Chaos, outcomes: Iterable[Issued[CreateKeyRequest] | Failed[CreateKeyRequest]]) -> None:
    """Compare what was handed out with what the server sent whole."""
    issued = [outcome.key.id for outcome in outcomes if isinstance(outcome, Issued)]
    failed = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]

    assert sorted(issued) == sorted(chaos.whole)
    assert all(isinstance(error, RespanError) for error in failed)
    assert sum(len(error.suspects) for error in failed) <= len(chaos.doubts)


async def test_every_key_that_came_whole_is_handed_out_once() -> None:
    """Two hundred tenants, of whose requests every second one goes wrong in some way."""
    chaos = Chaos(lots(), random.Random(1))

    outcomes = await batch_through(chaos, 200)

    assert len(outcomes) == 200
    check(chaos, outcomes)
    assert len(chaos.whole) > 100


@pytest.mark.hostile
@pytest.mark.parametrize("seed", range(2, 10))
async def test_every_key_that_came_whole_is_handed_out_once_in_another_order(seed: int) -> None:
    """The same, a thousand tenants and another chance."""
    chaos = Chaos(lots(), random.Random(seed))

    outcomes = await batch_through(chaos, 1000)

    assert len(outcomes) == 1000
    check(chaos, outcomes)


async def test_a_server_that_never_does_anything_right_ends_the_batch() -> None:
    """Every tenant that is tried fails, each with what it may have left, in bounded time and requests."""
    chaos = Chaos([one for one in lots() if one.means.effect("create") is not None], random.Random(1))

    outcomes = await batch_through(chaos, 100)

    assert outcomes
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert len(chaos.doubts) <= 100 * (5 + 21)


# ---------------------------------------------------------------- a deadline


@pytest.mark.parametrize("operation", ["create", "update", "retrieve", "list"])
async def test_a_deadline_holds_at_a_server_that_trickles(operation: str) -> None:
    """The caller is told in time; the attempt ends by its own time, and is what it is then."""
    for misbehaviour in slow(operation):
        watch = Watch(case=f"{operation}, where the server sends {misbehaviour}")
        loop = asyncio.get_running_loop()
        async with RawServer(misbehaviour.act) as server:
            async with AsyncRespan("token", base_url=server.url, timeout=30.0, deadline=2.0) as respan:
                began = loop.time()
                with pytest.raises(RespanError) as caught:
                    await OPERATIONS[operation].run(respan.temporary_keys)
                watch.check(loop.time() - began < 2.1, f"it took {loop.time() - began} s")
                told = caught.value.effect
                watch.check((told is Effect.NONE) == (operation in ("retrieve", "list")), f"{told}")
                await asyncio.sleep(30)
                known = [one.effect for one in respan.suspects]
                watch.check(known == [misbehaviour.means.effect("create")] * (operation == "create"), f"{known}")
                tasks = [task for task in asyncio.all_tasks() if "Call.run" in repr(task)]
                watch.check(not tasks, f"{tasks} go on")
            await asyncio.sleep(2)
            watch.check(server.open == 0, f"{server.open} connections are open")
        watch.verdict()


# ---------------------------------------------------------------- a refusal

ASKED = [
    "-1", "0", "1", "1e3", "1e308", "1e309", "-1e309", "nan", "inf", "9" * 400, "0x10", "1_000", "", " ", "soon",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "Thu, 01 Jan 1970 00:00:00 GMT", "-0",
    "Mon, 99 Foo 2026 99:99:99 XYZ", "Sun, 06 Nov 94 08:49:37 GMT", "٣", "1,2", "120", "121", "86401",
]  # fmt: skip
"""What a refusal may ask for, as a header."""
ASKED_IN_JSON = [
    *ASKED, 0, -1, 1e308, 10**400, 2**64, True, None, [], {}, [1], {"seconds": 1}, "9" * 100_000, "a " * 100_000,
]  # fmt: skip
"""... and in a body."""


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_that_asks_for_nonsense(status: int) -> None:
    """A key in the end, or the refusal: never earlier than asked, never much later, nothing foreign."""
    answers = [message(status, b'{"detail":"no"}', {"Retry-After": value}) for value in ASKED if value.isascii()]
    for value in ASKED_IN_JSON:
        shown = json.dumps(value).encode()
        answers.append(message(status, b'{"retry_after":%s}' % shown))
        answers.append(message(status, b'{"error":{"retry_after":%s}}' % shown))
    watch = Watch()
    for number, data in enumerate(answers):
        watch.case = f"create, where the server says {data[-200:]!r}"
        loop = asyncio.get_running_loop()
        async with (
            RawServer(raw(f"refusal {number}", data), GOOD.act) as server,
            AsyncRespan("token", base_url=server.url) as respan,
        ):
            began = loop.time()
            try:
                await respan.temporary_keys.create()
            except RespanError as error:
                watch.check(error.status == status and isinstance(error, APIStatusError), f"{error!r}")
            except Exception as error:  # noqa: BLE001  a foreign one is what is looked for
                watch.check(False, f"a foreign exception: {error!r}")
            watch.check(loop.time() - began <= 121, f"it took {loop.time() - began} s")
    watch.verdict()
