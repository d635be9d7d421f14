"""Makes the calls of one client: the operations, the sweep and the issuer all go through it."""

from collections.abc import Callable
from typing import TypeVar

import attrs

from respan_async._calls import orphan_revocation
from respan_async._calls.attempt_log import AttemptLog
from respan_async._calls.call import Call
from respan_async._calls.client_context import ClientContext, Options
from respan_async._calls.name_tags import MAX_TAGGED_NAME
from respan_async._calls.shielding import run_shielded
from respan_async._http import operations
from respan_async._pacing.priority import Priority
from respan_async.errors import InvalidRequestError
from respan_async.models import MAX_NAME, CreatedKey, CreateKeyRequest

T = TypeVar("T")


@attrs.frozen
class CallService:
    """Make calls with certain options.

    Attributes:
        context: The state that all calls of the client share.
        options: The options of these calls.
    """

    context: ClientContext
    options: Options

    def lowest(self) -> "CallService":
        """Return a service whose calls have the lowest priority and no deadline."""
        return attrs.evolve(self, options=attrs.evolve(self.options, priority=Priority.SWEEP, deadline=None))

    async def send(self, request: operations.Request[T], priority: Priority = Priority.INTERACTIVE) -> T:
        """Make a call that may be repeated without harm.

        Args:
            request: The request.
            priority: The class in which the call waits, unless the options name another.

        Raises:
            RespanError: The call failed.
        """
        self.context.lifecycle.check()
        call = Call(self.context, request, self.options, priority)
        return await run_shielded(call, self.context.lifecycle, lambda _: None, needed=request.operation.changes)

    async def create(self, request: CreateKeyRequest) -> CreatedKey:
        """Make a key now; revoke it if the caller was cancelled meanwhile.

        Raises:
            RespanError: No key was made, or the key cannot be used.
        """
        return await run_shielded(self.creation(request), self.context.lifecycle, self.discard)

    def creation(
        self,
        request: CreateKeyRequest,
        priority: Priority = Priority.INTERACTIVE,
        attempt_log: AttemptLog | None = None,
    ) -> Call[CreatedKey]:
        """Return the call that makes a key.

        Args:
            request: The fields of the key.
            priority: The class in which the call waits, unless the options name another.
            attempt_log: The log of its attempts; None for the client's own.

        Raises:
            InvalidRequestError: `request` is not a `CreateKeyRequest`, or its name leaves no room for the tag.
        """
        if not isinstance(request, CreateKeyRequest):
            raise InvalidRequestError(f"request: expected a CreateKeyRequest, got {type(request).__name__}")
        log = self.context.attempt_log if attempt_log is None else attempt_log
        if log.tag_names and request.name and len(request.name) > MAX_TAGGED_NAME:
            raise InvalidRequestError(
                f"name: expected at most {MAX_TAGGED_NAME} characters beside the tag's {MAX_NAME - MAX_TAGGED_NAME}, "
                f"got {len(request.name)}"
            )
        return Call(self.context, request, self.options, priority, log)

    def discard(self, key: CreatedKey, revoked: Callable[[], object] | None = None) -> None:
        """Revoke an orphaned key in the background; then call `revoked`."""
        orphan_revocation.revoke(self.context, self.options, key, revoked)


class ServiceOwner:
    """The base class of the client, by which the rest of this package gets the client's service."""

    _service: CallService


def service_of(owner: ServiceOwner) -> CallService:
    """Return the service of a client, or of a view of one."""
    return owner._service
