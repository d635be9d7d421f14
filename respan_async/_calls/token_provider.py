"""The bearer token: a text, or what the user's function returns when it is asked before a request.

Rules:

1. A function is asked once for all who need the token at the same time, and what it returns is used for them alone. It
   runs in a task of its own, which ends when nobody waits for it any more.
2. Each of them waits no longer than an attempt may take. Who has waited so long takes the function for hung, and those
   who come later ask it anew.
3. Whatever it raises is a failure like that of a connection: another attempt may mend it. What it returns is a token,
   or else the setting is wrong.
4. A token that was waited for without a slot is for the attempt that comes next, if that comes soon. If it does not,
   the function is asked once more, and the slot is kept this time: a rare one must not be spent on asking.
5. A token that the server refused is asked for once more: it may have been replaced while the request was in the air.
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
"""Seconds for which a token that was waited for without a slot is good."""

PROMPT: Final = 0.25
"""Seconds for which a slot is kept while the function is asked."""


@attrs.define(eq=False)
class _Question:
    """One time that the function is asked.

    Attributes:
        task: Asks it; ends with the token, with what the function raised, or with what is wrong with what it returned.
        waiting: How many wait for the answer.
    """

    task: asyncio.Task[Secret | Exception | str]
    waiting: int = 0


class TokenProvider:
    """Give the bearer token for requests.

    Args:
        source: The token, or a function that returns it, or an awaitable of it.
        lifecycle: Where the task belongs in which the function is asked.

    Attributes:
        fixed: The token that never changes; None where a function is asked.
    """

    def __init__(self, source: Secret | TokenSource, lifecycle: Lifecycle) -> None:
        self.fixed = source if isinstance(source, Secret) else None
        self._source = source
        self._lifecycle = lifecycle
        self._question: _Question | None = None

    async def ask(
        self, seconds: float | None, on_slow: Callable[[], None] = lambda: None, refused: Secret | None = None
    ) -> Secret:
        """Ask the function, or wait for the answer that another caller is waiting for.

        Args:
            seconds: How long to wait; None for as long as it takes.
            on_slow: Called once, if there is no answer within `PROMPT` seconds.
            refused: A token that is of no use any more. Who was asking already may be told that one.

        Raises:
            APIConnectionError: The function raised.
            APITimeoutError: It did not return in time.
            ConfigurationError: It returned no token.
        """
        joined = self._question is not None
        answer = await self._answer(seconds, on_slow)
        if joined and answer == refused:
            answer = await self._answer(seconds, on_slow)
        return answer

    async def _answer(self, seconds: float | None, on_slow: Callable[[], None]) -> Secret:
        question = self._question
        if question is None:
            question = self._question = _Question(self._lifecycle.spawn(self._ask(), awaited=True))
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
            # By the function itself, or by the closing of the client, which cuts this call as well.
            raise APIConnectionError("api_key: the callable raised CancelledError", retryable=True)
        return _token_in(task.result())

    async def _ask(self) -> Secret | Exception | str:
        assert not isinstance(self._source, Secret)  # a fixed one is not asked for
        try:
            returned = self._source()
            if asyncio.isfuture(returned):
                returned = asyncio.shield(returned)  # the source keeps it, for others and for later
            answer = as_secret(await returned if inspect.isawaitable(returned) else returned)
        except Exception as error:  # noqa: BLE001  the user's function; returned, because each caller raises its own
            return error
        try:
            return usable_token(answer)
        except ConfigurationError as error:
            return str(error)

    def leave_loop(self) -> None:
        """Ask anew: the task that was asking ran on an event loop that is closed."""
        self._question = None

    def _forget(self, question: _Question) -> None:
        """Ask anew from now on."""
        if self._question is question:
            self._question = None


def _token_in(answer: Secret | Exception | str) -> Secret:
    if isinstance(answer, Secret):
        return answer
    if isinstance(answer, str):
        raise ConfigurationError(answer)
    # By its class alone: its text may hold what it asked with.
    raise APIConnectionError(f"api_key: the callable raised {type(answer).__name__}", retryable=True) from answer


class CallToken:
    """The token of one call's requests, attempt by attempt.

    Args:
        provider: Gives it.
        seconds: How long it may be waited for; None for as long as it takes.
    """

    __slots__ = ("_current", "_got_at", "_is_unused", "_provider", "_seconds", "_was_renewed")

    def __init__(self, provider: TokenProvider, seconds: float | None) -> None:
        self._provider = provider
        self._seconds = seconds
        self._current: Secret | None = None
        self._got_at = 0.0
        self._is_unused = False  # it was got without a slot
        self._was_renewed = False

    async def get(self, on_slow: Callable[[], None]) -> Secret:
        """Return the token for an attempt whose turn it is.

        Args:
            on_slow: Called once, if there is none soon. The attempt then waits for another turn, and asks again.
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
        """Ask once more, because the server refused the token; return whether there is another one now."""
        if self._provider.fixed is not None or self._was_renewed:
            return False
        refused, self._was_renewed = self._current, True
        self._current = await self._provider.ask(self._seconds, refused=refused)
        self._got_at, self._is_unused = asyncio.get_running_loop().time(), True
        return self._current != refused

    def accepted(self) -> None:
        """Note that the server took the token, so that another one may be refused later."""
        self._was_renewed = False
