"""The outcomes and the progress of a batch."""

from typing import Generic, TypeVar

import attrs

from respan_async.errors import RespanError
from respan_async.models import CreatedKey

Item = TypeVar("Item")


@attrs.frozen
class Issued(Generic[Item]):
    """An item has its key.

    Attributes:
        item: The item.
        index: Its place in the input, from 0.
        key: The key.
        replayed: Whether the key was made earlier, so that nothing was sent for it now.
        delivered: Whether an issuer's `deliver` has delivered its secret, now or earlier. False while delivery is being
            tried again, and without a `deliver`.
    """

    item: Item
    index: int
    key: CreatedKey
    replayed: bool = False
    delivered: bool = False


@attrs.frozen
class Failed(Generic[Item]):
    """An item has no key.

    Attributes:
        item: The item.
        index: Its place in the input, from 0.
        error: The failure; its `effect` says what it may have left.
    """

    item: Item
    index: int
    error: RespanError


@attrs.frozen(kw_only=True)
class Progress:
    """The progress of a batch.

    Attributes:
        done: Items with an outcome, failed ones included.
        failed: Items without a key.
        replayed: Items whose key was made earlier.
        in_flight: Items being worked on, including those that wait for their turn.
        refused: Requests that the limit turned away, of the whole client, since the batch began.
        total: The number of items, or None if the input does not tell.
        elapsed: Seconds since the batch began.
        rate: Outcomes a second.
        eta: Seconds to the end, or None if unknown.
    """

    done: int
    failed: int
    replayed: int
    in_flight: int
    refused: int
    total: int | None
    elapsed: float
    rate: float
    eta: float | None
