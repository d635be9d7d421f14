"""The fake server: its lifetime, its settings, and the order in which it handles a request.

In the order of Django and Django REST Framework: the path (301 without its slash, an HTML 404), the bearer token
(401, 403), the limit (429), the method (405), the fields (400), the operation. A fault comes after the limit. All times
are those of a clock that follows the running event loop's, so that the server works on a loop with virtual time as
well, and that `advance` moves.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from random import Random
from typing import Any, Final, Self, TypeVar, cast

from aiohttp import web

from respan_async.testing.faults import Exchange, FaultPlan, Planned
from respan_async.testing.limits import Limit, busiest_window
from respan_async.testing.listener import Connection, Listener
from respan_async.testing.operations import ListShape, Operations, ParsedRequest
from respan_async.testing.received_request import ReceivedRequest
from respan_async.testing.responses import NO_RESPONSE, RetryAfter, ServerResponse, detail, refusal, rounded_up
from respan_async.testing.server_thread import ServerThread
from respan_async.testing.store import Counts, KeyRecord, Keyring, Shape
from respan_async.testing.url_resolver import find_target

__all__ = ["FakeRespan"]

_T = TypeVar("_T")

_KEPT: Final = 10_000
"""The most requests that are remembered."""

_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_NO_TOKEN = detail(401, "Authentication credentials were not provided.", _CHALLENGE)
_BAD_TOKEN = detail(401, "Your API key is invalid or expired, please check your API key.", _CHALLENGE)
_FORBIDDEN = detail(403, "You do not have permission to perform this action.")


class FakeRespan:
    """Serve the five temporary-keys endpoints on loopback, as documented by Respan, with the behaviour of DRF.

    Use it with `async with`; or, if there is no event loop, or a blocking test holds it up, with
    `with FakeRespan.in_thread() as fake:`. Everything random comes from `seed`.

    Args:
        limit: The account's limit, which all five operations share; None for no limit.
        latency: Seconds a request takes, or `(low, high)` to draw them from; half passes before the work, half after.
        retry_after: Where a 429 states the wait: "body" as documented, "header" as stock DRF, "both" or "none".
        retry_after_digits: Decimal places to which the wait is rounded up; DRF uses whole seconds.
        shape: The documented create response to give, of two.
        list_shape: "page" for pages, "array" for all keys in one bare array.
        page_size: Keys on a page if the request does not say.
        api_keys: The accepted bearer tokens; any other gets 401.
        forbidden_keys: Bearer tokens that get 403.
        seed: The seed of latency, faults by chance, ids and secrets.
        host: A literal address to listen on.
        port: A port; 0 for a free one.

    Attributes:
        limit: The limit; it may be replaced at any time, and then begins empty.
        api_key: The first accepted bearer token.
        admissions: When each request was let in, in seconds of the server's clock, ascending; that is the event
            loop's, until `advance` moves it.
        followers: Functions, each called with the seconds by which `advance` moves the clock.
    """

    _thread: ServerThread | None = None

    def __init__(
        self,
        *,
        limit: Limit | None = None,
        latency: float | tuple[float, float] = 0.0,
        retry_after: RetryAfter = "body",
        retry_after_digits: int = 0,
        shape: Shape = "a",
        list_shape: ListShape = "page",
        page_size: int = 100,
        api_keys: Sequence[str] = ("test-key",),
        forbidden_keys: Iterable[str] = (),
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.limit = limit
        self.api_key = api_keys[0]
        self.admissions: list[float] = []
        self.followers: list[Callable[[float], object]] = []
        self._latency = latency if isinstance(latency, tuple) else (latency, latency)
        self._retry_after: RetryAfter = retry_after
        self._digits = retry_after_digits
        self._accepted = frozenset(api_keys)
        self._forbidden = frozenset(forbidden_keys)
        self._host, self._port = host, port
        # One generator for each, so that drawing one more latency does not move a fault to another request.
        seeds = Random(seed)
        self._lag_rng, plan_rng, key_rng = (Random(seeds.getrandbits(64)) for _ in range(3))
        self._plan = FaultPlan(plan_rng)
        self._keyring = Keyring(shape, key_rng)
        self._operations = Operations(self._keyring, list_shape, page_size)
        self._received: deque[ReceivedRequest] = deque(maxlen=_KEPT)
        self._requests = self._refused = self._in_flight = self._max_in_flight = 0
        self._by_operation: Counter[str] = Counter()
        self._by_status: Counter[int] = Counter()
        self._handling: set[asyncio.Task[Any]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None
        self._epoch = datetime.now(UTC)
        self._started_at = 0.0

    @classmethod
    @contextmanager
    def in_thread(cls, **settings: Any) -> Iterator[Self]:
        """Serve from a separate thread during a `with`.

        For blocking tests: those of a synchronous program, or with the test client of a framework that runs its own
        event loop. The server's methods may be called from any thread; `settle` must still be awaited.

        Args:
            **settings: As of the class.

        Raises:
            OSError: The port is not available.
        """
        fake = cls(**settings)
        fake._thread = ServerThread(fake)
        with fake._thread:
            yield fake

    async def __aenter__(self) -> Self:
        """Start listening."""
        listener = self._listener = Listener(self._handle, self._host, self._port)
        self._epoch, self._started_at = datetime.now(UTC), listener.clock.time()
        await listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset every connection, drop late creates, and leave no task behind."""
        listener = self._running
        listener.shut()
        while listener.server.connections or self._late:
            for task in (*self._handling, *self._late):
                task.cancel()
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._running.port}"

    @property
    def down(self) -> bool:
        """Whether there is an outage: connections are refused, and open ones have been reset.

        Operations that were under way when it began are still executed, and their answers lost.
        """
        return not self._running.is_listening

    @down.setter
    def down(self, value: bool) -> None:
        self._on_loop(self._running.shut if value else self._running.reopen)

    @property
    def counts(self) -> Counts:
        """The current counts; takes time in proportion to the keys."""
        return self._on_loop(self._count)

    @property
    def keys(self) -> dict[str, KeyRecord]:
        """Every key ever made, including revoked ones, by id, oldest first."""
        # A copy for another thread, because it could not iterate while one more key is made.
        return self._keyring.keys if self._thread is None else self._on_loop(self._keyring.keys.copy)

    @property
    def requests(self) -> Sequence[ReceivedRequest]:
        """The last 10,000 requests whose body came completely, including refused ones, oldest first.

        `fake.requests[-1].json` is the body of the last one.
        """
        return self._on_loop(lambda: tuple(self._received))

    def now(self) -> datetime:
        """Return the server's time, in UTC: the wall clock at the start, advanced by the server's own clock."""
        return self._epoch + timedelta(seconds=self._running.clock.time() - self._started_at)

    def advance(self, seconds: float) -> None:
        """Let time pass at once: advance the server's clock, and the clocks that follow it.

        A limit then has room again, keys expire, a late create happens, and the latency of a request ends. It does not
        move the event loop's clock, so that no client's timeout expires in the middle of an exchange.

        Args:
            seconds: How far to advance; 0 or more.

        Raises:
            ValueError: `seconds` is invalid.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"expected a number of seconds, 0 or more, got {seconds!r}")
        self._on_loop(partial(self._running.clock.advance, seconds))
        for follow in self.followers:
            follow(seconds)

    def alive(self) -> list[KeyRecord]:
        """Return the working keys: neither revoked nor expired."""
        return self._on_loop(lambda: list(self._keyring.alive(self.now())))

    def unheld(self, held_ids: Iterable[str]) -> list[KeyRecord]:
        """Return the orphans: working keys that are not held.

        Args:
            held_ids: The ids of the held keys.
        """
        held = set(held_ids)
        return [record for record in self.alive() if record.id not in held]

    def max_in_window(self, per: float) -> int:
        """Count the most requests that were let in during any half-open window of `per` seconds."""
        return busiest_window(self._on_loop(self.admissions.copy), per)

    def script(self, *names: str, operation: str = "create") -> None:
        """Plan faults for the next requests of an operation, one each, in this order.

        A request that the limit refuses meets no fault, and leaves it to the next request.

        Args:
            *names: Keys of `FAULTS`, with an argument if it takes one, as in "refuse:2.5"; "ok" for no fault.
            operation: "create", "list", "retrieve", "update", "delete", or "any".
        """
        self._on_loop(partial(self._plan.script, names, operation))

    def chance(self, name: str, probability: float, operation: str = "create") -> None:
        """Plan a fault by chance for requests without a script.

        Args:
            name: A key of `FAULTS`, as for `script`.
            probability: From 0, which removes the fault, to 1.
            operation: As for `script`.
        """
        self._on_loop(partial(self._plan.chance, name, probability, operation))

    async def settle(self) -> None:
        """Wait until every late create has happened."""
        if self._thread is None:
            await self._late_creates()
        else:
            await self._thread.run(self._late_creates())

    @property
    def _running(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the fake server is not running: use it with `async with`")
        return self._listener

    def _on_loop(self, work: Callable[[], _T]) -> _T:
        """Run a function while no request is being handled."""
        return work() if self._thread is None else self._thread.call(work)

    async def _late_creates(self) -> None:
        while self._late:
            await asyncio.gather(*self._late)

    def _count(self) -> Counts:
        return Counts(
            requests=self._requests,
            refused=self._refused,
            created=len(self._keyring.keys),
            revoked=self._keyring.revoked,
            alive=len(self.alive()),
            by_operation=dict(self._by_operation),
            by_status=dict(self._by_status),
            max_in_flight=self._max_in_flight,
            connections=self._running.connections,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        connection = cast("Connection", request.protocol)
        self._handling.add(task)
        self._requests += 1
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        reply: ServerResponse | web.StreamResponse = NO_RESPONSE
        try:
            reply = await self._reply(request, connection)
        except (ConnectionError, web.RequestPayloadError):
            # The client went away during its request, or during a long answer.
            connection.reset()
        finally:
            self._in_flight -= 1
            self._handling.discard(task)
            self._by_status[reply.status] += 1
        if not isinstance(reply, ServerResponse):
            return reply
        response = reply.response()
        # By the clock that keys expire by, because a real server has only one.
        response.headers.setdefault("Date", format_datetime(self.now(), usegmt=True))
        return response

    async def _reply(self, request: web.BaseRequest, connection: Connection) -> ServerResponse | web.StreamResponse:
        target = find_target(request.method, request.raw_path)
        self._by_operation[target.operation] += 1
        body = await request.read()
        self._received.append(
            ReceivedRequest(target.operation, target.key_id, request.method, request.raw_path, request.headers, body)
        )
        low, high = self._latency
        lag = self._lag_rng.uniform(low, high) if high > low else low
        if lag > 0:
            await self._running.clock.sleep(lag / 2)
        planned: Planned | None = None
        record: KeyRecord | None = None
        answer = target.no_route or self._check_token(request)
        if answer is None:
            planned, answer = self._admit(target.operation)
        if answer is None:
            call = ParsedRequest(
                target, request.query, body, request.content_type if body else "", self._origin(request)
            )
            if planned is None or planned.fault.work == "done":
                answer, record = self._operations.run(call, self.now())
            else:
                answer = NO_RESPONSE
                if planned.fault.work == "later":
                    self._postpone(call, planned.argument)
        if lag > 0:
            await self._running.clock.sleep(lag / 2)
        reply: ServerResponse | web.StreamResponse = answer
        if planned is not None:
            refuse = partial(refusal, where=self._retry_after)
            reply = await planned.fault.act(Exchange(request, connection, answer, planned.argument, refuse))
        if not connection.is_open:
            return NO_RESPONSE
        if record is not None:
            record.answered = reply is answer
        return reply

    def _check_token(self, request: web.BaseRequest) -> ServerResponse | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _NO_TOKEN
        if token in self._accepted:
            return None
        return _FORBIDDEN if token in self._forbidden else _BAD_TOKEN

    def _admit(self, operation: str) -> tuple[Planned | None, ServerResponse | None]:
        """Ask the limit, unless a fault refuses instead; return the fault to meet, or the refusal."""
        planned = self._plan.draw(operation)
        if planned is not None and planned.fault.refuses:
            self._refused += 1
            return planned, None
        now = self._running.clock.time()
        wait = None if self.limit is None else self.limit.admit(now)
        if wait is None:
            self.admissions.append(now)
            return planned, None
        if planned is not None:
            planned.give_back()
        self._refused += 1
        return None, refusal(rounded_up(wait, self._digits), self._retry_after)

    def _postpone(self, call: ParsedRequest, seconds: float) -> None:
        async def work() -> None:
            await self._running.clock.sleep(seconds)
            self._operations.run(call, self.now(), late=True)

        task = asyncio.create_task(work())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _origin(self, request: web.BaseRequest) -> str:
        return f"{request.scheme}://{request.host}"
