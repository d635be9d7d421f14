"""Gets what an attempt needs before it is sent: a slot of the pacer, and the bearer token."""

from respan_async._calls.attempt_outcome import problem_of
from respan_async._calls.token_provider import CallToken, TokenProvider
from respan_async._pacing.pacer import Pacer
from respan_async._pacing.priority import Priority
from respan_async._pacing.slots import Slot, SlotOutcome
from respan_async.errors import APIConnectionError
from respan_async.secret import Secret


class SlotAndToken:
    """Get both for each attempt of one call; the pacer knows the call by this object.

    The token is asked for after the slot was granted, so that the token is fresh. If that takes long, the slot is given
    back, and the call keeps its place in the queue.

    Args:
        pacer: Grants slots.
        tokens: Gives tokens.
        seconds: The longest wait for a token; None for no limit.

    Attributes:
        held: Whether the call still held the slot when it failed to get a token. If False, all calls waiting for this
            token fail together; count that as one failure, not one per call.
        is_asking: Whether the call is waiting for a token.
    """

    __slots__ = ("_pacer", "_token", "held", "is_asking")

    def __init__(self, pacer: Pacer, tokens: TokenProvider, seconds: float | None) -> None:
        self._pacer = pacer
        self._token = CallToken(tokens, seconds)
        self.held = True
        self.is_asking = False

    async def enter(
        self, priority: Priority, deadline: float | None, since: float, *, again: bool
    ) -> tuple[Slot, Secret]:
        """Return a slot, to be released once, and the token.

        Args:
            priority: The class to wait in.
            deadline: The event loop's time after which the slot is useless.
            since: When the call began.
            again: The call has had a slot before, and so keeps its place.

        Raises:
            DeadlineUnreachable: As of `Pacer.acquire`.
            APIConnectionError: The token could not be had; another attempt may succeed.
            RespanError: The client was closed, or the token is invalid.
        """
        while True:
            slot = await self._pacer.acquire(priority, deadline, since=since if again else None, caller=self)
            if (token := await self._token_for(slot)) is not None:
                return slot, token
            again = True

    async def renew_token(self) -> bool:
        """Ask for another token after the server refused the last one; return whether there is another one now.

        Raises:
            APIConnectionError, ConfigurationError: As of `enter`.
        """
        try:
            return await self._token.renew()
        except APIConnectionError as error:
            self._pacer.unreachable(problem_of(error))
            raise

    def promote(self, priority: Priority) -> None:
        """Move the waiting call to this class."""
        self._pacer.promote(self, priority)

    def accepted(self) -> None:
        """Note that the server took the token."""
        self._token.accepted()

    async def _token_for(self, slot: Slot) -> Secret | None:
        """Return the token; None if it took so long that the slot was given back."""
        self.held = self.is_asking = True

        def give_back() -> None:
            self.held = False
            self._pacer.release(slot, SlotOutcome.UNUSED, caller=self)

        try:
            token = await self._token.get(give_back)
        except APIConnectionError as error:
            if self.held:
                self._pacer.release(slot, SlotOutcome.UNREACHED, caller=self, problem=problem_of(error))
            else:
                self._pacer.unreachable(problem_of(error))
            raise
        except BaseException:
            if self.held:
                self._pacer.release(slot, SlotOutcome.UNUSED, caller=self)
            raise
        finally:
            self.is_asking = False
        return token if self.held else None
