"""Provides the bearer token: a fixed text, or what the user's function returns when it is called before a request.

Rules:

1. The function is called once for all callers that need the token at the same time, and its result is used for them
   alone. It runs in its own task, which ends when no caller waits for it any more.
2. A caller waits no longer than an attempt may take. A call that times out marks the function as hung; later calls
   start a new invocation.
3. An exception of the function counts like a failed connection: another attempt may succeed. A result that is not a
   token is a wrong setting.
4. If the slot was given back while waiting, the token is used by the call's next attempt, if that attempt starts soon
   enough. Otherwise the function is called again, and the slot is kept this time, because slots may be rare.
5. After the server refused a token, the function is called again: the token may have been replaced during the request.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Final

import attrs

from respan_async._calls.lifecycle import Lifecycle
from respan_async.errors import APIConnectionError, APITimeoutError, ConfigurationError
from respan_async.secret import Secret, TokenSource, as_secret, usable_token

_FRESH: Final = 10.0
"""Seconds for which a token is used that was waited for without a slot."""

PROMPT: Final = 0.25
"""Seconds for which a slot is kept while the function runs."""


@attrs.define(eq=False)
class _Question:
    """One invocation of the function.

    Attributes:
        task: Runs the function; ends with the token, with its exception, or with what is wrong with its result.
        waiting: The number of callers that wait for it.
    """

    task: asyncio.Task[Secret | Exception | str]
    waiting: int = 0


class TokenProvider:
    """Give the bearer token for requests.

    Args:
        source: The token, or a function that returns it, or an awaitable of it.
        lifecycle: The lifecycle of the client, which runs the task.

    Attributes:
        fixed: The fixed token; None if there is a function.
    """

    def __init__(self, source: Secret | TokenSource, lifecycle: Lifecycle) -> None:
        self.fixed = source if isinstance(source, Secret) else None
        self._source = source
        self._lifecycle = lifecycle
        self._question: _Question | None = None

    async def ask(
        self, seconds: float | None, on_slow: Callable[[], None] = lambda: None, refused: Secret | None = None
    ) -> Secret:
        """Call the function, or wait for the invocation that another caller has started.

        Args:
            seconds: How long to wait; None for no limit.
            on_slow: Called once, if there is no answer within `PROMPT` seconds.
            refused: A token that the server refused. Callers already waiting may still receive the refused token.

        Raises:
            APIConnectionError: The function raised.
            APITimeoutError: It did not return in time.
            ConfigurationError: Its result is not a token.
        """
        joined = self._question is not None
        answer = await self._answer(seconds, on_slow)
        if joined and answer == refused:
            answer = await self._answer(seconds, on_slow)
        return answer

    async def _answer(self, seconds: float | None, on_slow: Callable[[], None]) -> Secret:
        question = self._question
        if question is None:
            question = self._question = _Question(self._lifecycle.tasks.spawn(self._ask(), awaited=True))
            question.task.add_done_callback(lambda _: self._forget(question))
        task = question.task
        question.waiting += 1
        try:
            await asyncio.wait({task}, timeout=PROMPT if seconds is None else min(PROMPT, seconds))
            if not task.done():
                on_slow()
                await asyncio.wait({task}, timeout=None if seconds is None else max(seconds - PROMPT, 0.0))
            if not task.done():
                self._forget(question)
                raise APITimeoutError(f"api_key: the callable gave no token within {seconds:g} s", retryable=True)
        finally:
            question.waiting -= 1
            if not question.waiting and not task.done():
                self._forget(question)
                task.cancel()
        if task.cancelled():
            # The function itself raised it, or the client was closed, which cancels this call as well.
            raise APIConnectionError("api_key: the callable raised CancelledError", retryable=True)
        return _token_in(task.result())

    async def _ask(self) -> Secret | Exception | str:
        assert not isinstance(self._source, Secret)  # a fixed token is not asked for
        try:
            returned = self._source()
            if asyncio.isfuture(returned):
                returned = asyncio.shield(returned)  # the source may keep the awaitable for other callers
            answer = as_secret(await returned if inspect.isawaitable(returned) else returned)
        except Exception as error:  # noqa: BLE001  the user's function; returned, because each caller raises its own
            return error
        try:
            return usable_token(answer)
        except ConfigurationError as error:
            return str(error)

    def leave_loop(self) -> None:
        """Forget the running invocation, because its event loop is closed."""
        self._question = None

    def _forget(self, question: _Question) -> None:
        """Let the next caller start a new invocation."""
        if self._question is question:
            self._question = None


def _token_in(answer: Secret | Exception | str) -> Secret:
    if isinstance(answer, Secret):
        return answer
    if isinstance(answer, str):
        raise ConfigurationError(answer)
    # Only the class is named, because the text may hold credentials.
    raise APIConnectionError(f"api_key: the callable raised {type(answer).__name__}", retryable=True) from answer


class CallToken:
    """The token of one call's requests, attempt by attempt.

    Args:
        provider: Provides the token.
        seconds: The longest wait for it; None for no limit.
    """

    __slots__ = ("_current", "_got_at", "_is_unused", "_provider", "_seconds", "_was_renewed")

    def __init__(self, provider: TokenProvider, seconds: float | None) -> None:
        self._provider = provider
        self._seconds = seconds
        self._current: Secret | None = None
        self._got_at = 0.0
        self._is_unused = False  # the token came after the slot was given back
        self._was_renewed = False

    async def get(self, on_slow: Callable[[], None]) -> Secret:
        """Return the token for an attempt whose turn it is.

        Args:
            on_slow: Called once, if the token takes long. The attempt then waits for another slot, and asks again.
        """
        if self._provider.fixed is not None:
            return self._provider.fixed
        loop = asyncio.get_running_loop()
        kept, self._is_unused = self._is_unused, False
        if kept and self._current is not None and loop.time() - self._got_at <= _FRESH:
            return self._current
        late = False

        def slow() -> None:
            nonlocal late
            late = True
            on_slow()

        self._current = await (self._provider.ask(self._seconds) if kept else self._provider.ask(self._seconds, slow))
        self._got_at, self._is_unused = loop.time(), late
        return self._current

    async def renew(self) -> bool:
        """Ask again after the server refused the token; return whether there is another one now."""
        if self._provider.fixed is not None or self._was_renewed:
            return False
        refused, self._was_renewed = self._current, True
        self._current = await self._provider.ask(self._seconds, refused=refused)
        self._got_at, self._is_unused = asyncio.get_running_loop().time(), True
        return self._current != refused

    def accepted(self) -> None:
        """Note that the server took the token, so that another one may be refused later."""
        self._was_renewed = False
