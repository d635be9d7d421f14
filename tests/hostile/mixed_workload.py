"""Everybody who may share one client, each in a way of their own, and how much there is of what must not grow."""

import asyncio
import gc
import itertools
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import attrs

from respan_async import AsyncRespan, CreateKeyRequest, Issued, RespanError, TemporaryKey
from respan_async.batch import Batch
from respan_async.issuing import Issuer, Ticket

T = TypeVar("T")

TROUBLE = {
    "lose_answer_after_create": 0.01,
    "disconnect_after_create": 0.01,
    "html_502_after": 0.005,
    "html_502": 0.01,
    "truncate": 0.005,
    "no_api_key": 0.005,
    "stall": 0.002,
    "unprocessable_422": 0.005,
    "too_early_425": 0.002,
}
"""What creates meet by chance."""

_AS_MANY_AS_THE_WORK = ("respan_async.errors.Suspect", "respan_async.models.TemporaryKey")
"""One for each lost answer, and one for each that a sweep has found: neither is left behind by a call that ended."""


@attrs.frozen
class Size:
    """How much there is of what must not grow.

    Attributes:
        tasks: Tasks of the event loop.
        files: Open files of the process.
        objects: Instances of the classes of the library, of aiohttp and of asyncio.
        blocks: Blocks of memory that Python has handed out.
        suspects: Attempts that are remembered, because they may have left a key: what may grow.
    """

    tasks: int
    files: int
    objects: int
    blocks: int
    suspects: int

    @classmethod
    def now(cls) -> "Size":
        """Look around."""
        gc.collect()
        names = Counter(f"{type(thing).__module__}.{type(thing).__name__}" for thing in gc.get_objects())
        objects = sum(
            count
            for name, count in names.items()
            if name.startswith(("respan_async.", "aiohttp.", "asyncio.", "_asyncio."))
            and not name.startswith(("respan_async.testing.", *_AS_MANY_AS_THE_WORK))
        )
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        suspects = names["respan_async.errors.Suspect"]
        return cls(len(asyncio.all_tasks()), files, objects, sys.getallocatedblocks(), suspects)


@attrs.define
class Town:
    """Everybody who uses one client.

    Attributes:
        respan: The client.
        visit_every: Seconds from one web request to the next, on average.
        sweep_every: Seconds from one sweep that is asked for to the next.
        down: Lets the server go away, and come back.
        down_every: Seconds from one outage to the next.
        down_for: Seconds that one takes.
        issuer: Issues tickets too, if there is one.
        keep: How many keys are held at most; the oldest are deleted. None for all.
        still: Seconds without a task that begins or ends, after which the town is at rest.
        held: The ids of the keys that somebody holds, oldest first.
        failures: What calls and items ended with, by the class of the error.
        waits: Seconds that each of the last calls took that were awaited to their end.
        given_up: How many callers went away before their answer came.
    """

    respan: AsyncRespan
    visit_every: float
    sweep_every: float
    down: Callable[[bool], Awaitable[None]]
    down_every: float
    down_for: float
    issuer: Issuer | None = None
    keep: int | None = None
    still: float = 1.0
    held: dict[str, None] = attrs.field(factory=dict, init=False)
    failures: Counter[str] = attrs.field(factory=Counter, init=False)
    waits: deque[float] = attrs.field(factory=lambda: deque(maxlen=1_000), init=False)
    given_up: int = attrs.field(default=0, init=False)
    _random: Random = attrs.field(factory=lambda: Random(6), init=False)
    _open: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)

    async def live(self, seconds: float, samples: int) -> AsyncIterator[Size]:
        """Let them all go on for some time, and rest in between: what has grown is seen when nothing is in the air."""
        ways = [self._issue_batches(), self._visit(), self._sweep(), self._break_down()]
        if self.issuer is not None:
            ways.append(self._issue_tickets(self.issuer))
        lives = [asyncio.create_task(way) for way in ways]
        try:
            for _ in range(samples):
                self._open.set()
                await asyncio.wait(lives, timeout=seconds / samples, return_when=asyncio.FIRST_COMPLETED)
                self._open.clear()
                await self._rest()
                yield Size.now()
        finally:
            for life in lives:
                life.cancel()
            ends = await asyncio.gather(*lives, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
            await self.down(False)

    async def _rest(self) -> None:
        """Wait until what was begun is over, but not for ever: a task that stays is what the sample is to show."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 10 * self.still
        tasks = asyncio.all_tasks()
        since = loop.time()
        while loop.time() < min(since + self.still, until):
            await asyncio.sleep(self.still / 20)
            if (now := asyncio.all_tasks()) != tasks:
                tasks, since = now, loop.time()

    async def _issue_batches(self) -> None:
        """Issue for tenants, a batch after the other; each third is left early."""
        for number in itertools.count():
            requests = self._while_open(self._request("tenant") for _ in range(400))
            async with self.respan.temporary_keys.create_many(requests, max_in_flight=16) as batch:
                await self._take(batch, leave_after=100 if number % 3 == 2 else None)

    async def _issue_tickets(self, issuer: Issuer) -> None:
        """Issue for tickets, a batch after the other; a few of each are asked for again."""
        for number in itertools.count():
            names = (f"{number}-{ticket % 190}" for ticket in range(200))
            tickets = self._while_open(Ticket(name, CreateKeyRequest(name=name)) for name in names)
            async with issuer.issue_many(tickets, max_in_flight=16) as batch:
                await self._take(batch)

    async def _while_open(self, items: Iterable[T]) -> AsyncIterator[T]:
        for item in items:
            await self._open.wait()
            yield item

    async def _take(self, batch: Batch[Any], leave_after: int | None = None) -> None:
        async for outcome in batch:
            match outcome:
                case Issued(key=key, replayed=False):
                    await self._hold(key.id)
                case Issued():
                    pass
                case failed:
                    self.failures[type(failed.error).__name__] += 1
            if outcome.index == leave_after:
                break

    async def _visit(self) -> None:
        """Ask for one thing every now and then, and sometimes for ten at once."""
        async with asyncio.TaskGroup() as visitors:
            while True:
                await asyncio.sleep(self._random.expovariate(1 / self.visit_every))
                await self._open.wait()
                for _ in range(10 if self._random.random() < 0.03 else 1):
                    visitors.create_task(self._ask())

    async def _ask(self) -> None:
        """Await one operation as a web request would; every fifth is given up by whoever waited."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._random.uniform(0.0, 2.0) if self._random.random() < 0.2 else None):
                await self._one_operation()
        except TimeoutError:
            self.given_up += 1
        except RespanError as error:
            self.failures[type(error).__name__] += 1
        else:
            self.waits.append(loop.time() - began)

    async def _one_operation(self) -> None:
        keys = self.respan.temporary_keys
        match self._random.choice(["create", "create", "create", "list", "retrieve", "update", "delete"]):
            case "create":
                key = await keys.create(self._request("visitor"))
                await self._hold(key.id)
            case "list":
                page = await keys.list()
                assert all(type(key) is TemporaryKey for key in page.results)
            case _ if not self.held:
                pass
            case "retrieve":
                await keys.retrieve(self._anybodys())
            case "update":
                await keys.update(self._anybodys(), max_usage=7)
            case "delete":
                await self._let_go(self._anybodys())

    def _request(self, who: str) -> CreateKeyRequest:
        return CreateKeyRequest(name=f"{who}-{next(self._numbers)}", expires_in=timedelta(days=1))

    def _anybodys(self) -> str:
        return next(itertools.islice(self.held, self._random.randrange(min(len(self.held), 50)), None))

    async def _hold(self, key_id: str) -> None:
        self.held[key_id] = None
        while self.keep is not None and len(self.held) > self.keep:
            await self._let_go(next(iter(self.held)))

    async def _let_go(self, key_id: str) -> None:
        # It stays held until the server has said that it is gone: a DELETE may fail.
        await self.respan.temporary_keys.delete(key_id, missing_ok=True)
        self.held.pop(key_id, None)

    async def _sweep(self) -> None:
        """Look for the keys of lost answers, old or new."""
        while True:
            await asyncio.sleep(self.sweep_every)
            await self._open.wait()
            try:
                await self.respan.temporary_keys.sweep(grace=0.0)
                if self.issuer is not None:
                    await self.issuer.sweep(grace=0.0, taken_over=True)
            except RespanError as error:
                self.failures[type(error).__name__] += 1

    async def _break_down(self) -> None:
        """Let the server go away now and then."""
        while True:
            await asyncio.sleep(self.down_every - self.down_for)
            await self._open.wait()
            await self.down(True)
            await asyncio.sleep(self.down_for)
            await self.down(False)
