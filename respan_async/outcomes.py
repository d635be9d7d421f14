"""What becomes of the items of a batch."""

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
        replayed: The key was made earlier, and nothing was sent for it now.
        delivered: An issuer's `deliver` has put its secret where it belongs, by now or earlier. False while it is being
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
        error: Why; its `effect` says what may have been left.
    """

    item: Item
    index: int
    error: RespanError


@attrs.frozen(kw_only=True)
class Progress:
    """How far a batch has come.

    Attributes:
        done: Items with an outcome, failed ones included.
        failed: Those without a key.
        replayed: Those whose key was made earlier.
        in_flight: Items being worked on, those among them that wait for their turn.
        refused: Requests that the limit turned away, of the whole client, since the batch began.
        total: Items in all, or None when the input does not tell.
        elapsed: Seconds since the batch began.
        rate: Outcomes a second.
        eta: Seconds to the end, or None when nobody can tell.
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
