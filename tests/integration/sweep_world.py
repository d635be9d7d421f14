"""A server, a client whose names are tagged, and everything that goes between them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import attrs

from respan_async import AsyncRespan, RetryPolicy, TemporaryKeys
from respan_async._calls.call_service import CallService
from respan_async._calls.clock_skew import ClockSkew
from respan_async.testing import FakeRespan, KeyRecord

HOUR = 3600.0


@attrs.define
class World:
    """A server, a client with tags, and everything that went between them in its order."""

    fake: FakeRespan
    respan: AsyncRespan
    sent: list[tuple[float, str, str]] = attrs.field(factory=list)
    events: list[Any] = attrs.field(factory=list)

    @property
    def keys(self) -> TemporaryKeys:
        """The operations."""
        return self.respan.temporary_keys

    @property
    def alive(self) -> set[str]:
        """The ids of the keys that work."""
        return {record.id for record in self.fake.alive()}

    def requests(self, operation: str) -> list[tuple[float, str]]:
        """When, and for what, requests of an operation were sent."""
        method = {"list": "GET", "retrieve": "GET", "delete": "DELETE", "create": "POST"}[operation]
        return [
            (at, path)
            for at, sent, path in self.sent
            if sent == method and (operation != "list") == (path.count("/") == 4 or operation == "create")
        ]

    def told(self, kind: type[Any]) -> list[Any]:
        """Give the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def leave(self, fault: str = "lose_answer_after_create", **fields: Any) -> KeyRecord:
        """Make a key whose answer is lost; give the key that is left, and forget the one that replaced it."""
        before = set(self.fake.keys)
        self.fake.script(fault)
        held = await self.keys.create(**fields)
        (left,) = set(self.fake.keys) - before - {held.id}
        return self.fake.keys[left]

    def service_with_clock(self) -> CallService:
        """Give the client with the server's clock, which moves with virtual time, as the wall clock."""
        service = self.respan._service
        return attrs.evolve(service, context=attrs.evolve(service.context, clock=self.fake.now, skew=ClockSkew()))

    def with_clock(self) -> TemporaryKeys:
        """Give the operations with that clock."""
        return TemporaryKeys(self.service_with_clock())


@contextlib.asynccontextmanager
async def make_world(*, latency: float = 0.0, **options: Any) -> AsyncIterator[World]:
    """Open a world."""
    options = {"tag_names": True, "retry": RetryPolicy(initial=0.01), **options}
    world: World
    tracing = aiohttp.TraceConfig()

    async def note(_: object, __: object, started: aiohttp.TraceRequestStartParams) -> None:
        path = urlsplit(str(started.url))
        line = path.path + (f"?{path.query}" if path.query else "")
        world.sent.append((asyncio.get_running_loop().time(), started.method, line))

    tracing.on_request_start.append(note)
    async with (
        FakeRespan(latency=latency) as fake,
        aiohttp.ClientSession(trace_configs=[tracing]) as session,
        AsyncRespan(
            fake.api_key,
            base_url=fake.url,
            session=session,
            hooks=[lambda event: world.events.append(event)],
            **options,
        ) as respan,
    ):
        world = World(fake, respan)
        yield world
