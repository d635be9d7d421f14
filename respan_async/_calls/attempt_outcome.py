"""What a failed attempt means for its slot, and in words."""

from typing import Final

from respan_async._http import failure_table
from respan_async._http.response import Response, TransportFailure
from respan_async._pacing.slots import SlotOutcome
from respan_async.errors import InvalidResponseError, RespanError

_SERVED: Final = range(200, 500)


def outcome_of(result: Response | TransportFailure, answer: object, refusals: frozenset[int]) -> SlotOutcome:
    """Say what a result means for the slot.

    Args:
        result: What came back.
        answer: What that was read as.
        refusals: The statuses by which a proxy refuses for the limit, besides 429.
    """
    if failure_table.is_over_limit(result, refusals):
        return SlotOutcome.REFUSED
    if isinstance(result, Response):
        return SlotOutcome.ANSWERED if result.status in _SERVED and result.status != 408 else SlotOutcome.FAILED
    if result.status is not None:
        return SlotOutcome.FAILED if isinstance(answer, RespanError) else SlotOutcome.ANSWERED
    return SlotOutcome.LOST if result.left else SlotOutcome.UNREACHED


def reason_of(error: RespanError) -> str:
    """Say why it is not known what an attempt did, as its suspect shows it."""
    if error.status is None:
        return type(error).__name__
    broken = " without a usable key" if isinstance(error, InvalidResponseError) else ""
    return f"{type(error).__name__} after status {error.status}{broken}"


def problem_of(error: RespanError) -> str:
    """Say what went wrong, as the pace shows it."""
    return f"{type(error).__name__}: {error!s:.300}"
