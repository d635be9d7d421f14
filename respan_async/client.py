"""The client: validates its settings, builds its parts, and manages its lifecycle. It does no HTTP itself."""

import os
import ssl as tls
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Literal, Self, cast

import aiohttp
import attrs

from respan_async._arguments import is_whole, shown
from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.auto_sweep import AutoSweep
from respan_async._calls.call_service import CallService, ServiceOwner
from respan_async._calls.client_context import ClientContext
from respan_async._calls.clock_skew import ClockSkew
from respan_async._calls.lifecycle import Lifecycle, Move, Stage
from respan_async._calls.revocations_after_close import RevocationsAfterClose
from respan_async._calls.settings_validation import (
    DEFAULT_BASE_URL,
    checked_flag,
    checked_headers,
    checked_hooks,
    checked_network,
    checked_priority,
    checked_url,
    checked_window,
    headers_as_secrets,
    options_of,
    token_source,
)
from respan_async._calls.suspect_store import InMemorySuspectStore
from respan_async._calls.sweep_memory import SweepMemory
from respan_async._calls.sweep_policy import SweepPolicy
from respan_async._calls.token_provider import TokenProvider
from respan_async._calls.wall_clock import WallClock
from respan_async._http.session import check_session, most_in_air
from respan_async._http.transport import Transport
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.window import Window
from respan_async.errors import ConfigurationError, InvalidRequestError, Suspect
from respan_async.events import EventDispatcher, Hook, logger
from respan_async.keys import TemporaryKeys
from respan_async.models import UNSET, Maybe
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret, TokenSource, as_secret


@attrs.frozen(kw_only=True)
class Pace:
    """The pace of a client at one moment.

    Attributes:
        limit: The account's limit; None while it is unknown.
        learned: Whether `limit` comes from the server's refusals rather than from a setting.
        used: The number of our requests that count against the limit now.
        others: The number of requests of other users that are believed to count against it.
        in_flight: The number of requests in flight.
        waiting: The number of waiting calls, by class: `"interactive"`, `"batch"`, `"sweep"`.
        refused: The number of requests that the limit has turned away so far.
        paused_until: Until when all calls are held back, aware; None if none is.
        problem: The last problem, in a sentence; None if there was none.
        outage: Whether batches and sweeps are held back, because one call after the other fails.
    """

    limit: RateLimit | None
    learned: bool
    used: int
    others: int
    in_flight: int
    waiting: Mapping[str, int]
    refused: int
    paused_until: datetime | None
    problem: str | None
    outage: bool


class AsyncRespan(ServiceOwner):
    """The client for Respan's temporary API keys, to be entered with `async with`, or closed with `aclose()`.

    It belongs to one process, and to one event loop at a time. When that loop is closed, the client moves to the loop
    on which it is used next, with its pace and its suspects; requests that were in flight become suspects.

    Args:
        api_key: The organisation's API key: text, a `Secret`, or a function without arguments, async or not, that is
            called before each request, once for all simultaneous requests, within `timeout`; a plain function blocks
            the event loop while it runs. An exception of the function is retried like a failed connection. If the
            server refuses a token, the function is called once more, and another token is tried. Default:
            `RESPAN_API_KEY`, or the file that `RESPAN_API_KEY_FILE` names, read once.
        base_url: `https://` and a host, with or without `/api` at its end. Default: `RESPAN_BASE_URL`, else Respan's
            own.
        timeout: Seconds for one attempt, or an `aiohttp.ClientTimeout`.
        deadline: Seconds for a whole call, including all waiting and all attempts; None for no bound.
        retry: When a failed attempt is made again.
        pace: The account's `RateLimit`, if it is known (`DOCUMENTED_LIMIT`); or `"auto"`: no request is held back until
            the server refuses, and its refusals teach the limit; or a window that processes share, such as
            `respan_async.redis.RedisWindow`.
        max_in_flight: The most requests in flight at the same time, of all calls and batches together. It is capped by
            the connections that the connector of your own `session` allows, in all and for one host.
        tag_names: Give every created key's name a random tag (14 characters), the proof by which a key that a lost
            answer left behind can be revoked; the client then does so by itself.
        session: Your own `aiohttp.ClientSession`; it is never closed here, and keeps the client on its event loop.
        proxy: The URL of an HTTP proxy, such as `http://user:password@proxy.example:3128`. None: no proxy, even if the
            environment names one (`HTTPS_PROXY`). Not together with `session`.
        ssl: An `ssl.SSLContext`, or the path of a file of CA certificates in PEM, which are then the only trusted ones;
            for the server, and for a proxy that is `https://`. Not together with `session`.
        hooks: Callables, each called with every event; see `respan_async.events`.
        allow_http: Send the API key unencrypted to hosts other than this machine.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """

    def __init__(
        self,
        api_key: str | Secret | TokenSource | None = None,
        *,
        base_url: str | None = None,
        timeout: float | aiohttp.ClientTimeout = 30.0,
        deadline: float | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  a frozen value
        pace: RateLimit | Window | Literal["auto"] = "auto",
        max_in_flight: int = 64,
        tag_names: bool = False,
        session: aiohttp.ClientSession | None = None,
        proxy: str | Secret | None = None,
        ssl: tls.SSLContext | str | os.PathLike[str] | None = None,
        hooks: Iterable[Hook] = (),
        allow_http: bool = False,
    ) -> None:
        proxy = cast("Secret | None", as_secret(proxy))
        source = token_source(api_key := cast("Secret | TokenSource | None", as_secret(api_key)))
        if session is not None:
            check_session(session)
        if not is_whole(max_in_flight) or max_in_flight < 1:
            raise ConfigurationError(f"max_in_flight: expected a whole number, 1 or more, got {shown(max_in_flight)}")
        tag_names, allow_http = checked_flag("tag_names", tag_names), checked_flag("allow_http", allow_http)
        options = options_of(timeout=timeout, deadline=deadline, retry=retry)
        window = checked_window(pace, retry.max_retry_after)
        if base_url is None or (isinstance(base_url, str) and not base_url):
            base_url = os.environ.get("RESPAN_BASE_URL") or DEFAULT_BASE_URL
        origin = checked_url(base_url, allow_http)
        network = checked_network(
            proxy,
            ssl,
            origin=origin,
            allow_http=allow_http,
            has_session=session is not None,
            trusts_environment=session is not None and session.trust_env,
        )
        self._is_view = False
        suspects = InMemorySuspectStore()
        lifecycle = Lifecycle()
        clock = WallClock()
        dispatcher = EventDispatcher(checked_hooks(hooks), clock)
        pacer = Pacer(window, most_in_air(session, max_in_flight), longest_pause=retry.max_retry_after)
        context = ClientContext(
            transport=Transport(origin, session, network),
            pacer=pacer,
            dispatcher=dispatcher,
            tokens=TokenProvider(source, lifecycle),
            suspects=suspects,
            attempt_log=AttemptLog(suspects, tag_names=tag_names),
            clock=clock,
            skew=ClockSkew(),
            lifecycle=lifecycle,
            revocations_after_close=RevocationsAfterClose(lifecycle),
            sweep_memory=SweepMemory(),
            base_url=origin,
        )
        pacer.on_pause = context.paused
        for traveller in (context.transport, pacer, context.tokens):
            lifecycle.register(Move.LEAVE, traveller.leave_loop)  # the first two refuse before anything is changed
        lifecycle.register(Move.ARRIVE, pacer.arrive)
        lifecycle.register(Move.PARK, window.park)
        lifecycle.register(Move.PARK, context.transport.park)
        self._service = CallService(context, options)
        self.temporary_keys = TemporaryKeys(self._service)
        self._auto_sweep = AutoSweep(
            lambda _: self.temporary_keys.sweep(), suspects, SweepPolicy(), lifecycle, clock, pacer.clock
        )
        suspects.added = self._auto_sweep.added
        # The lowest class stays open to the end of the grace, because orphaned keys are revoked in it.
        lifecycle.register(Stage.REFUSE, partial(pacer.close, below=Priority.SWEEP))
        lifecycle.register(Stage.CUT, pacer.close)
        lifecycle.register(Stage.RESOURCES, window.aclose)
        lifecycle.register(Stage.RESOURCES, context.transport.aclose)
        lifecycle.register(Stage.RESOURCES, self._last_word)

    def with_options(
        self,
        *,
        timeout: Maybe[float | aiohttp.ClientTimeout] = UNSET,
        deadline: Maybe[float | None] = UNSET,
        retry: Maybe[RetryPolicy] = UNSET,
        priority: Maybe[Literal["interactive", "batch", "sweep"]] = UNSET,
        extra_headers: Maybe[Mapping[str, str]] = UNSET,
    ) -> "AsyncRespan":
        """Return a view of this client with other settings, which shares its session and its pace.

        Args:
            timeout: Seconds for one attempt.
            deadline: Seconds for a whole call, or None.
            retry: When a failed attempt is made again.
            priority: `"interactive"`, `"batch"` or `"sweep"`: the class in which calls wait.
            extra_headers: Additional headers; they cannot replace those that this library sends.

        Raises:
            ConfigurationError: A setting is wrong; the message names it.
        """
        extra_headers = cast("Maybe[Mapping[str, str]]", headers_as_secrets(extra_headers))
        view = object.__new__(AsyncRespan)
        view.__dict__.update(self.__dict__)
        old = self._service.options
        options = options_of(
            timeout=old.timeout if timeout is UNSET else timeout,
            deadline=old.deadline if deadline is UNSET else deadline,
            retry=old.retry if retry is UNSET else retry,
            priority=old.priority if priority is UNSET else checked_priority(priority),
            extra_headers=old.extra_headers if extra_headers is UNSET else checked_headers(extra_headers),
        )
        view._is_view = True
        view._service = CallService(self._service.context, options)
        view.temporary_keys = TemporaryKeys(view._service)
        return view

    @property
    def pace(self) -> Pace:
        """The current pace.

        Raises:
            ClientStateError: It was read on another event loop, or where no loop runs.
        """
        self._service.context.lifecycle.check_same_place()
        pacer = self._service.context.pacer
        now = pacer.clock.time()
        paused = pacer.paused_until(now)
        return Pace(
            limit=pacer.window.limit,
            learned=pacer.window.learned,
            used=pacer.window.used(now),
            others=pacer.window.others(now),
            in_flight=pacer.in_air,
            waiting={priority.name.lower(): pacer.waiting(priority) for priority in Priority},
            refused=pacer.refused,
            paused_until=None if paused is None else self._service.context.clock() + timedelta(seconds=paused - now),
            problem=pacer.last_problem,
            outage=pacer.outage,
        )

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The attempts that may have left an orphaned key."""
        return tuple(self._service.context.suspects)

    def dismiss(self, suspect: Suspect) -> bool:
        """Forget a suspect: it is no longer reported, nor looked for.

        Args:
            suspect: One of `suspects`.

        Returns:
            Whether it still was a suspect.

        Raises:
            InvalidRequestError: `suspect` is not a `Suspect`.
        """
        if not isinstance(suspect, Suspect):
            raise InvalidRequestError(f"suspect: expected one of `suspects`, got {type(suspect).__name__}")
        return self._service.context.suspects.dismiss(suspect)

    async def aclose(self, grace: float = 10.0) -> None:
        """Close the client: refuse new calls, fail waiting calls, finish requests in flight, close the session.

        May be called more than once. Closing a view closes nothing. A session that was given is left open.

        Args:
            grace: Seconds for requests in flight, and for revoking orphaned keys.

        Raises:
            InvalidRequestError: `grace` is not a number of seconds, 0 or more; nothing was closed.
            ClientStateError: It was called in a forked process, or on another event loop while the client's own loop is
                open; nothing was closed.
        """
        if not self._is_view:
            await self._service.context.lifecycle.aclose(grace)

    def _last_word(self) -> None:
        if self.suspects:
            logger.warning("closed with %d suspects left, which may be live keys nobody holds", len(self.suspects))

    async def __aenter__(self) -> Self:
        self._service.context.lifecycle.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if "_service" not in self.__dict__:  # missing in a traceback with locals, if a setting was wrong
            return "<AsyncRespan not made>"
        context = self._service.context
        state = "closed" if context.lifecycle.closing else "open"
        return f"<AsyncRespan {context.base_url} {state}, {context.pacer.in_air} in flight>"
