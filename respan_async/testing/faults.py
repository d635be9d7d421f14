"""Defines the faults that a request can meet, and plans which request meets which."""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Literal

import attrs
from aiohttp import web

from respan_async.testing.listener import Connection
from respan_async.testing.responses import NO_RESPONSE, ServerResponse, detail, html

__all__ = ["ANY", "FAULTS", "OPERATIONS", "Exchange", "Fault", "FaultPlan", "Planned"]

OPERATIONS = ("create", "list", "retrieve", "update", "delete")
ANY = "any"
"""Stands for all operations."""

HUGE = 50 * 1024 * 1024
"""The size of the body of "huge", in bytes."""


@attrs.frozen
class Exchange:
    """A request that meets a fault.

    Attributes:
        request: The request, read to its end.
        connection: The connection that it came from.
        answer: The answer to the request; `NO_RESPONSE` if the fault came before it.
        argument: The number after the colon in "refuse:2.5", or the fault's default.
        refusal: Makes the 429 that asks to wait some seconds, in the server's form.
    """

    request: web.BaseRequest
    connection: Connection
    answer: ServerResponse
    argument: float
    refusal: Callable[[float], ServerResponse]


Act = Callable[[Exchange], Awaitable[ServerResponse | web.StreamResponse]]


@attrs.frozen
class Fault:
    """A fault of the server, or of the network.

    Attributes:
        name: Its name in a script.
        work: What becomes of the request: "done" before the client notices anything, "none" at all, or done "later".
        act: Produces what the client sees.
        meaning: A description for people.
        refuses: Whether it stands for the rate limit, which then is not consulted.
        default: The argument's default, in seconds; None for a fault without an argument.
    """

    name: str
    work: Literal["done", "none", "later"]
    act: Act
    meaning: str
    refuses: bool = False
    default: float | None = None


def _say(answer: ServerResponse) -> Act:
    async def act(exchange: Exchange) -> ServerResponse:
        return answer

    return act


def _instead(change: Callable[[ServerResponse], ServerResponse]) -> Act:
    """Spoil the answer of a successful request; an error answer stays as it is."""

    async def act(exchange: Exchange) -> ServerResponse:
        return change(exchange.answer) if exchange.answer.status < 300 else exchange.answer

    return act


def _with_api_key(value: object) -> Act:
    def change(answer: ServerResponse) -> ServerResponse:
        return attrs.evolve(answer, payload={**answer.payload, "api_key": value}) if _has_key(answer) else answer

    return _instead(change)


def _without_api_key(answer: ServerResponse) -> ServerResponse:
    if not _has_key(answer):
        return answer
    return attrs.evolve(answer, payload={k: v for k, v in answer.payload.items() if k != "api_key"})


def _has_key(answer: ServerResponse) -> bool:
    return isinstance(answer.payload, dict) and "api_key" in answer.payload


def _page(answer: ServerResponse) -> ServerResponse:
    page = html(200, "Welcome")
    return page if answer.status == 204 else attrs.evolve(page, status=answer.status)


async def _as_it_is(exchange: Exchange) -> ServerResponse:
    return exchange.answer


async def _refuse(exchange: Exchange) -> ServerResponse:
    return exchange.refusal(exchange.argument)


async def _reset(exchange: Exchange) -> ServerResponse:
    exchange.connection.reset()
    return NO_RESPONSE


async def _disconnect(exchange: Exchange) -> ServerResponse:
    exchange.connection.finish()
    return NO_RESPONSE


async def _garbage(exchange: Exchange) -> ServerResponse:
    exchange.connection.finish(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    return NO_RESPONSE


async def _stall(exchange: Exchange) -> ServerResponse:
    await exchange.connection.lost()
    return NO_RESPONSE


async def _truncate(exchange: Exchange) -> ServerResponse:
    body = exchange.answer.body()
    head = (
        f"HTTP/1.1 {exchange.answer.status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    # A 204 has no body to cut.
    exchange.connection.finish(head + body[: len(body) // 2] if body else head[: len(head) // 2])
    return NO_RESPONSE


async def _huge(exchange: Exchange) -> ServerResponse | web.StreamResponse:
    if exchange.answer.status >= 300:
        return exchange.answer
    status = 200 if exchange.answer.status == 204 else exchange.answer.status
    response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
    spaces = b" " * 2**18
    await response.prepare(exchange.request)
    for _ in range(HUGE // len(spaces)):
        await response.write(spaces)
    await response.write_eof()
    return response


_VALIDATION = {"detail": "Validation error", "errors": {"name": ["This value is not valid."]}}
_CRASH = {"detail": "Internal server error", "error_code": "INTERNAL_ERROR"}
_ELSEWHERE = {"Location": "https://elsewhere.example/api/temporary-keys/"}
_BAD_KEY = "Your API key is invalid or expired, please check your API key."

FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("ok", "done", _as_it_is, "none: the server behaves"),
        Fault("refuse", "none", _refuse, "429 that tells to wait the argument, in seconds", refuses=True, default=1),
        Fault("refuse_bare", "none", _say(ServerResponse(429)), "429 that tells nothing", refuses=True),
        Fault("html_502", "none", _say(html(502, "502 Bad Gateway")), "a proxy's page, nothing done"),
        Fault("html_502_after", "done", _say(html(502, "502 Bad Gateway")), "a proxy's page, all done"),
        Fault("error_500", "none", _say(ServerResponse(500, _CRASH)), "500 in JSON"),
        Fault("unavailable_503", "none", _say(detail(503, "Service temporarily unavailable, try again later.")), "503"),
        Fault("timeout_408", "none", _say(detail(408, "Request timeout.")), "408"),
        Fault("too_early_425", "none", _say(detail(425, "Too early.")), "425"),
        Fault("reset", "none", _reset, "RST after the request was read, nothing done"),
        Fault("lose_answer_after_create", "done", _reset, "all done, then RST and not a byte of an answer"),
        Fault("disconnect_after_create", "done", _disconnect, "all done, then FIN and not a byte of an answer"),
        Fault("late_create", "later", _reset, "RST now, and done the argument, in seconds, later", default=5.0),
        Fault("truncate", "done", _truncate, "all done, and half the body of the answer"),
        Fault("stall", "done", _stall, "all done, and no answer until the client goes away"),
        Fault("stall_before", "none", _stall, "nothing done, and no answer until the client goes away"),
        Fault("not_json", "done", _instead(_page), "all done, and HTML under a 2xx"),
        Fault("no_api_key", "done", _instead(_without_api_key), "a key made, and an answer without `api_key`"),
        Fault("null_api_key", "done", _with_api_key(None), "a key made, and null for its `api_key`"),
        Fault("number_api_key", "done", _with_api_key(12345), "a key made, and a number for its `api_key`"),
        Fault("empty_2xx", "done", _instead(lambda a: ServerResponse(a.status)), "all done, and a 2xx without a body"),
        Fault("huge", "done", _huge, "all done, and a 2xx with 50 MB of spaces"),
        Fault("redirect", "none", _say(ServerResponse(307, headers=_ELSEWHERE)), "307 to another host"),
        Fault("garbage", "done", _garbage, "all done, and an answer that is no HTTP"),
        Fault("unauthorized_401", "none", _say(detail(401, _BAD_KEY, {"WWW-Authenticate": "Bearer"})), "401"),
        Fault("forbidden_403", "none", _say(detail(403, _BAD_KEY)), "403"),
        Fault("conflict_409", "none", _say(ServerResponse(409, {"error": "Conflict."})), "409"),
        Fault("unprocessable_422", "none", _say(ServerResponse(422, _VALIDATION)), "422 in the documented shape"),
    )
}
"""Every fault, by name."""


@attrs.frozen
class Planned:
    """A fault, with its argument, that waits for a request."""

    fault: Fault
    argument: float
    queue: deque["Planned"] | None = attrs.field(default=None, eq=False, repr=False)

    def give_back(self) -> None:
        """Leave the fault to the next request, because this one was refused before it could meet it."""
        if self.queue is not None:
            self.queue.appendleft(self)


class FaultPlan:
    """The plan of faults: which request meets which.

    Args:
        rng: Decides about faults that happen by chance.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._scripts: dict[str, deque[Planned]] = {name: deque() for name in (*OPERATIONS, ANY)}
        self._chances: dict[tuple[str, str], tuple[Planned, float]] = {}

    def script(self, names: tuple[str, ...], operation: str) -> None:
        """See `FakeRespan.script`."""
        queue = self._queue(operation)
        queue.extend([_parse(name, queue) for name in names])

    def chance(self, name: str, probability: float, operation: str) -> None:
        """See `FakeRespan.chance`."""
        self._queue(operation)
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {probability!r}")
        self._chances[name, operation] = (_parse(name, None), probability)

    def draw(self, operation: str) -> Planned | None:
        """Take the fault of the next request: from its own script, the script for any, or by chance; or None."""
        if operation not in OPERATIONS:
            return None
        for key in (operation, ANY):
            if queue := self._scripts[key]:
                return queue.popleft()
        for (_, key), (planned, probability) in self._chances.items():
            if key in (operation, ANY) and self._rng.random() < probability:
                return planned
        return None

    def _queue(self, operation: str) -> deque[Planned]:
        try:
            return self._scripts[operation]
        except KeyError:
            raise ValueError(f"no operation {operation!r}; there are {', '.join(self._scripts)}") from None


def _parse(text: str, queue: deque[Planned] | None) -> Planned:
    name, colon, number = text.partition(":")
    fault = FAULTS.get(name)
    if fault is None:
        raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    if not colon:
        return Planned(fault, fault.default or 0.0, queue)
    if fault.default is None:
        raise ValueError(f"the fault {name!r} takes no argument")
    try:
        # JSON keeps 2 and 2.5 apart, and `retry_after` is written as it was given.
        return Planned(fault, json.loads(number) + 0, queue)
    except (ValueError, TypeError):
        raise ValueError(f"the argument of {name!r} is a number of seconds, not {number!r}") from None
