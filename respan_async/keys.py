"""The operations on temporary keys."""

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from respan_async._arguments import is_whole, shown
from respan_async._calls import sweep
from respan_async._calls.call_service import CallService
from respan_async._calls.pagination import Listing
from respan_async._calls.sweep_policy import GRACE, SweepPolicy, SweepReport
from respan_async._http import codec, operations, response_parsing
from respan_async._pacing.priority import Priority
from respan_async.batch import Batch
from respan_async.errors import ClientStateError, Effect, InvalidRequestError, NotFoundError
from respan_async.models import (
    UNSET,
    CreatedKey,
    CreateKeyRequest,
    LimitPolicy,
    Maybe,
    TemporaryKey,
    UpdateKeyRequest,
)


class TemporaryKeys:
    """Create, read, change and revoke temporary API keys.

    Every method raises a `RespanError` if it fails; its class says what was seen, its `effect` what that means for the
    server; a `ClientStateError` says that the client is closed or used in the wrong place.
    """

    def __init__(self, service: CallService) -> None:
        self._service = service

    async def create(
        self,
        request: CreateKeyRequest | None = None,
        /,
        *,
        name: Maybe[str] = UNSET,
        expiry_date: Maybe[datetime | str] = UNSET,
        expires_in: Maybe[timedelta] = UNSET,
        max_usage: Maybe[int] = UNSET,
        rate_limit: Maybe[int | None] = UNSET,
        spending_limit: Maybe[float | None] = UNSET,
        is_test: Maybe[bool] = UNSET,
        limit_policies: Maybe[Iterable[LimitPolicy | Mapping[str, Any]]] = UNSET,
    ) -> CreatedKey:
        """Create one key. Its secret is shown only now.

        If the caller is cancelled, or the deadline passes, while the request is in flight, the request is finished, and
        the key that arrives is revoked, because its caller is gone.

        Args:
            request: The fields as one value, instead of keywords. See `CreateKeyRequest` for what each means.
            name: At most 50 characters; 36 with `tag_names`.
            expiry_date: When the key dies: an aware datetime, or ISO 8601 text with an offset.
            expires_in: How long the key lives from the moment it is requested.
            max_usage: How often it can be used; -1 for no limit.
            rate_limit: Requests a minute, or None.
            spending_limit: US dollars, or None.
            is_test: A test key.
            limit_policies: `LimitPolicy` objects, or mappings with their fields.

        Returns:
            The key, with its secret as `api_key`.

        Raises:
            InvalidRequestError: A field is wrong; nothing was sent.
            RespanError: No key was made, or the key cannot be used; see `effect` and `suspects`.
        """
        given = _given(locals())
        if request is not None and given:
            raise InvalidRequestError(f"request: expected either a request or keywords, got also {', '.join(given)}")
        self._service.context.lifecycle.check()
        return await self._service.create(CreateKeyRequest(**given) if request is None else request)

    def create_many(
        self,
        items: Iterable[CreateKeyRequest] | AsyncIterable[CreateKeyRequest],
        *,
        max_in_flight: int | None = None,
        ordered: bool = False,
        spread: bool = True,
    ) -> Batch[CreateKeyRequest]:
        """Create a key for each request, with bounded parallelism, as fast as the account's limit allows.

        Args:
            items: Any iterable, also an async one, also an endless one; taken from only as fast as it is worked on. An
                async one runs in a task of its own.
            max_in_flight: Items in the air or waiting to be taken, 1 or more; as many as the client has by default.
            ordered: Yield outcomes in the order of the input rather than as they come.
            spread: Leave room for others: requests are spread evenly over the limit's period, unless all remaining ones
                fit into half of the free slots. False takes all free slots at once, until a single call comes; it suits
                an account that has no other users, and is faster by one period at most.

        Returns:
            A `Batch`: await it for a list, or enter it with `async with` and iterate over the outcomes. What `items`
            itself raises comes out after the outcomes; awaited, in place of the list, and the keys are revoked.

        Raises:
            InvalidRequestError: `items` is not an iterable, or another argument is invalid.
        """
        service = self._service
        return Batch(
            items,
            partial(service.creation, priority=Priority.BATCH),
            service.discard,
            service.context,
            max_in_flight=max_in_flight,
            ordered=ordered,
            spread=spread,
        )

    def list(self, *, page: int = 1, page_size: int | None = None) -> Listing:
        """List keys: `await` it for one page, or iterate with `async for` over every key on every page.

        To revoke the listed keys, take `await keys.list().all()`, which reads to the end first: revoking a key while
        the list is read moves the pages under the reader, and about half of the keys would be left out. A key created
        meanwhile makes keys come twice, but not in `all()`.

        Pages after the first are read in the batch class, so that a long list does not block single calls.

        Args:
            page: The (first) page, from 1.
            page_size: Keys on a page; the server's default when left out.

        Raises:
            InvalidRequestError: `page` or `page_size` is not a positive integer.
        """
        for field, value in (("page", page), ("page_size", 1 if page_size is None else page_size)):
            if not is_whole(value) or value < 1:
                raise InvalidRequestError(f"{field}: expected a whole number, 1 or more, got {shown(value)}")
        return Listing(self._service, page, page_size)

    async def retrieve(self, id: str) -> TemporaryKey:  # noqa: A002  the API's own name for it
        """Read one key; its secret is not shown.

        Raises:
            NotFoundError: There is no such key.
        """
        return await self._service.send(operations.retrieve(id))

    async def update(
        self,
        id: str,  # noqa: A002  the API's own name for it
        request: UpdateKeyRequest | None = None,
        /,
        *,
        name: Maybe[str] = UNSET,
        expiry_date: Maybe[datetime | str] = UNSET,
        max_usage: Maybe[int] = UNSET,
        rate_limit: Maybe[int | None] = UNSET,
        spending_limit: Maybe[float | None] = UNSET,
    ) -> TemporaryKey:
        """Change the given fields of one key; None clears a limit.

        Args:
            id: The id of the key.
            request: The changes as one value, instead of keywords. See `UpdateKeyRequest`.
            name: At most 50 characters.
            expiry_date: An aware datetime, or ISO 8601 text with an offset.
            max_usage: How often it can be used; -1 for no limit.
            rate_limit: Requests a minute, or None.
            spending_limit: US dollars, or None.

        Returns:
            The key as the server shows it. If the answer holds no key (204, or 200 without an id), the change was made
            all the same: then only the id and the sent fields are known, every other attribute is None, and `retrieve`
            reads the rest.

        Raises:
            InvalidRequestError: A field is wrong, or there is no change; nothing was sent.
            NotFoundError: There is no such key.
        """
        given = _given(locals())
        if request is not None and given:
            raise InvalidRequestError(f"request: expected either a request or keywords, got also {', '.join(given)}")
        changes = UpdateKeyRequest(**given) if request is None else request
        if not isinstance(changes, UpdateKeyRequest):
            raise InvalidRequestError(f"request: expected an UpdateKeyRequest, got {type(changes).__name__}")
        fields = codec.fields_of(changes, self._service.context.clock())
        if not fields:
            raise InvalidRequestError("update: expected at least one field to change")
        return await self._service.send(operations.update(id, fields))

    async def delete(self, id: str, *, missing_ok: bool = False) -> None:  # noqa: A002  the API's own name for it
        """Revoke one key. It cannot be undone.

        Args:
            id: The id of the key.
            missing_ok: Whether to accept a key that does not exist.

        Raises:
            NotFoundError: There is no such key, and `missing_ok` is False; or the server has no such route.
        """
        try:
            await self._service.send(operations.delete(id))
        except (ClientStateError, asyncio.CancelledError):
            self._service.context.revocations_after_close.add(id)
            raise
        except NotFoundError as error:
            # After a lost answer, "not found" is what success looks like; a page for a missing route is not.
            if not response_parsing.states_absence(error) or (not missing_ok and error.effect is Effect.NONE):
                raise

    async def sweep(self, *, grace: float = GRACE, dry_run: bool = False) -> SweepReport:
        """Revoke the keys that lost answers left behind, if they are proven to be ours.

        Only keys that carry a tag of this client (`tag_names=True`), or whose id the server told us, are touched.

        Args:
            grace: Seconds to let pass after the last lost answer before looking, because the server may make the key
                late.
            dry_run: Look, but revoke nothing.

        Returns:
            What was revoked, or would have been, and the suspects that are left.
        """
        policy = SweepPolicy(grace=grace, dry_run=dry_run)
        return await sweep.sweep(self._service, self._service.context.suspects, policy)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the given keywords from a method's `locals()`."""
    return {
        name: value for name, value in arguments.items() if name not in ("self", "request", "id") and value is not UNSET
    }
