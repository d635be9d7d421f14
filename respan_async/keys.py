"""The operations on temporary keys."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from respan_async._calls import orphans, sweep
from respan_async._calls.call import Call
from respan_async._calls.context import ClientContext, Options
from respan_async._calls.operation import CREATE, CREATE_TAGGED, DELETE, LIST, RETRIEVE, UPDATE, AttemptLog, Operation
from respan_async._calls.pagination import Listing
from respan_async._calls.shielding import Timed, run_shielded
from respan_async._calls.suspects import MAX_TAGGED_NAME, SuspectStore
from respan_async._calls.sweep import SweepReport
from respan_async._http import codec, protocol
from respan_async._pacing.slots import Priority
from respan_async.batch import Batch
from respan_async.errors import ClientStateError, Effect, InvalidRequestError, NotFoundError
from respan_async.models import (
    MAX_NAME,
    UNSET,
    CreatedKey,
    CreateKeyRequest,
    KeyPage,
    LimitPolicy,
    Maybe,
    TemporaryKey,
    UpdateKeyRequest,
)
from respan_async.outcomes import Work

T = TypeVar("T")
Item = TypeVar("Item")


class TemporaryKeys:
    """Create, read, change and revoke temporary API keys.

    Every method raises a `RespanError` when it does not succeed; its class says what was seen, its `effect` what that
    means, and `ClientStateError` that the client is closed or used in the wrong place.
    """

    def __init__(self, context: ClientContext, options: Options) -> None:
        self._context = context
        self._options = options

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

        When the caller is cancelled, or the deadline passes, while the request is in the air, it is finished, and the
        key that arrives is revoked: nobody would hold it.

        Args:
            request: The fields as one value; else by keyword. See `CreateKeyRequest` for what each means.
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
            RespanError: No key was made, or none that can be used; see `effect` and `suspects`.
        """
        given = _given(locals())
        if request is not None and given:
            raise InvalidRequestError(f"request: expected either a request or keywords, got also {', '.join(given)}")
        self._context.lifecycle.check()
        call = self._creation(CreateKeyRequest(**given) if request is None else request, Priority.INTERACTIVE)
        return await run_shielded(call, self._options.deadline, self._context.lifecycle, self._discard)

    def create_many(
        self,
        items: Iterable[CreateKeyRequest] | AsyncIterable[CreateKeyRequest],
        *,
        max_in_flight: int | None = None,
        ordered: bool = False,
    ) -> Batch[CreateKeyRequest]:
        """Create a key for each request, with bounded parallelism, as fast as the account's limit lets anyone.

        Args:
            items: Any iterable, also an async one, also an endless one; taken from only as fast as it is worked on.
            max_in_flight: Items in the air or waiting to be taken, 1 or more; as many as the client has by default.
            ordered: Yield outcomes in the order of the input rather than as they come.

        Returns:
            A `Batch`: await it for a list, or enter it with `async with` and iterate over the outcomes.

        Raises:
            InvalidRequestError: `items` cannot be iterated over, or `max_in_flight` is not such a number.
        """
        return self._batch(items, self._work, self._discard, max_in_flight, ordered)

    def list(self, *, page: int = 1, page_size: int | None = None) -> Listing:
        """List keys: `await` it for one page, or iterate with `async for` over every key on every page.

        Args:
            page: The (first) page, from 1.
            page_size: Keys on a page; the server's default when left out.

        Raises:
            InvalidRequestError: One of them is not a positive whole number.
        """
        for field, value in (("page", page), ("page_size", 1 if page_size is None else page_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidRequestError(f"{field}: expected a whole number, 1 or more, got {value!r:.100}")
        return Listing(self._page, page, page_size)

    async def retrieve(self, id: str) -> TemporaryKey:  # noqa: A002  the API's own name for it
        """Read one key; its secret is not shown.

        Raises:
            NotFoundError: There is no such key.
        """
        return await self._simple(RETRIEVE, protocol.retrieve(id))

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
        """Change what is given about one key, and leave the rest as it is; None clears a limit.

        Args:
            id: The key's.
            request: The changes as one value; else by keyword. See `UpdateKeyRequest`.
            name: At most 50 characters.
            expiry_date: An aware datetime, or ISO 8601 text with an offset.
            max_usage: How often it can be used; -1 for no limit.
            rate_limit: Requests a minute, or None.
            spending_limit: US dollars, or None.

        Raises:
            InvalidRequestError: A field is wrong, or nothing is to be changed; nothing was sent.
            NotFoundError: There is no such key.
        """
        given = _given(locals())
        if request is not None and given:
            raise InvalidRequestError(f"request: expected either a request or keywords, got also {', '.join(given)}")
        changes = UpdateKeyRequest(**given) if request is None else request
        if not isinstance(changes, UpdateKeyRequest):
            raise InvalidRequestError(f"request: expected an UpdateKeyRequest, got {type(changes).__name__}")
        fields = codec.fields_of(changes, self._context.clock())
        if not fields:
            raise InvalidRequestError("update: expected at least one field to change")
        return await self._simple(UPDATE, protocol.update(id, fields))

    async def delete(self, id: str, *, missing_ok: bool = False) -> None:  # noqa: A002  the API's own name for it
        """Revoke one key. It cannot be undone.

        Args:
            id: The key's.
            missing_ok: Do not mind a key that is not there.

        Raises:
            NotFoundError: There is no such key, and `missing_ok` is False.
        """
        try:
            await self._simple(DELETE, protocol.delete(id))
        except NotFoundError as error:
            # After a lost answer, "not found" is what success looks like.
            if not missing_ok and error.effect is Effect.NONE:
                raise

    async def sweep(self, *, grace: float = sweep.GRACE) -> SweepReport:
        """Revoke the keys that lost answers left behind, as far as they are proven to be ours.

        Only keys that carry a tag of this client (`tag_names=True`), or whose id the server told us, are touched.

        Args:
            grace: Seconds to let pass after the last lost answer before looking: the server may make the key late.

        Returns:
            What was revoked, and which suspects are left.
        """
        return await self._sweep(self._context.suspects, grace)

    # ----------------------------------------------------------------- inside

    async def _sweep(self, store: SuspectStore, grace: float) -> SweepReport:
        """Sweep over these suspects, until the client is closed."""
        context, lifecycle = self._context, self._context.lifecycle
        lifecycle.check()
        task = lifecycle.spawn(sweep.sweep(SweepKeys(self._lowest()), store, context.dispatcher, context.clock, grace))
        # Its grace may be longer than that of a client which is being closed.
        lifecycle.closers.add(task.cancel)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            lifecycle.closers.discard(task.cancel)
        if task.cancelled():
            raise ClientStateError("the client was closed during the sweep")
        return task.result()

    def _batch(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        start: Callable[[Item], Work],
        discard: Callable[[CreatedKey], None],
        max_in_flight: int | None,
        ordered: bool,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> Batch[Item]:
        if not isinstance(items, Iterable | AsyncIterable) or isinstance(items, str | bytes | Mapping):
            raise InvalidRequestError(f"items: expected an iterable of requests, got {type(items).__name__}")
        pacer = self._context.pacer
        if max_in_flight is None:
            max_in_flight = pacer.max_in_flight
        if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
            raise InvalidRequestError(f"max_in_flight: expected a whole number, 1 or more, got {max_in_flight!r:.100}")
        return Batch(
            items,
            start,
            discard,
            pacer=pacer,
            lifecycle=self._context.lifecycle,
            max_in_flight=max_in_flight,
            ordered=ordered,
            prepare=prepare,
        )

    def _lowest(self) -> "TemporaryKeys":
        return TemporaryKeys(self._context, attrs.evolve(self._options, priority=Priority.SWEEP, deadline=None))

    async def _page(self, page: int, page_size: int | None) -> KeyPage:
        return await self._simple(LIST, protocol.list_page(page, page_size))

    async def _simple(self, operation: Operation[T], request: protocol.Request) -> T:
        """Make a call that may be repeated without harm."""
        self._context.lifecycle.check()
        call = Call(self._context, operation, request, self._options)
        return await run_shielded(
            call, self._options.deadline, self._context.lifecycle, lambda _: None, needed=operation.changes
        )

    def _work(self, request: CreateKeyRequest) -> Work:
        call = self._creation(request, Priority.BATCH)
        deadline = self._options.deadline
        return call if deadline is None else Timed(call, deadline, self._context.lifecycle, self._discard)

    def _creation(
        self, request: CreateKeyRequest, priority: Priority, attempt_log: AttemptLog | None = None
    ) -> Call[CreatedKey]:
        if not isinstance(request, CreateKeyRequest):
            raise InvalidRequestError(f"request: expected a CreateKeyRequest, got {type(request).__name__}")
        tag_names = self._context.tag_names or attempt_log is not None
        if tag_names and request.name and len(request.name) > MAX_TAGGED_NAME:
            raise InvalidRequestError(
                f"name: expected at most {MAX_TAGGED_NAME} characters beside the tag's {MAX_NAME - MAX_TAGGED_NAME}, "
                f"got {len(request.name)}"
            )
        operation = CREATE_TAGGED if tag_names else CREATE
        return Call(self._context, operation, request, self._options, priority, attempt_log)

    def _discard(self, key: CreatedKey) -> None:
        orphans.revoke(self._context, self._options, key)


class SweepKeys:
    """The operations of a sweep."""

    def __init__(self, keys: TemporaryKeys) -> None:
        self._keys = keys

    def every(self) -> AsyncIterator[TemporaryKey]:
        return aiter(self._keys.list(page_size=100))

    async def retrieve(self, key_id: str) -> TemporaryKey:
        return await self._keys.retrieve(key_id)

    async def revoke(self, key_id: str) -> None:
        await self._keys.delete(key_id, missing_ok=True)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords that were given, out of a method's `locals()`."""
    return {
        name: value for name, value in arguments.items() if name not in ("self", "request", "id") and value is not UNSET
    }
