"""Describes the end of an attempt: the outcome of its slot, and its failure in words."""

from typing import Final

from respan_async._http import failure_table
from respan_async._http.response import Response, TransportFailure
from respan_async._pacing.slots import SlotOutcome
from respan_async.errors import InvalidResponseError, RespanError

_SERVED: Final = range(200, 500)


def outcome_of(result: Response | TransportFailure, answer: object, refusals: frozenset[int]) -> SlotOutcome:
    """Return the slot's outcome for a result.

    Args:
        result: The result of the request.
        answer: The value or error that was read from the result.
        refusals: The statuses, besides 429, with which a proxy refuses a request that exceeds the limit.
    """
    if failure_table.is_over_limit(result, refusals):
        return SlotOutcome.REFUSED
    if isinstance(result, Response):
        return SlotOutcome.ANSWERED if result.status in _SERVED and result.status != 408 else SlotOutcome.FAILED
    if result.status is not None:
        return SlotOutcome.FAILED if isinstance(answer, RespanError) else SlotOutcome.ANSWERED
    return SlotOutcome.LOST if result.left else SlotOutcome.UNREACHED


def reason_of(error: RespanError) -> str:
    """Say, for the suspect, why the effect of an attempt is not known."""
    if error.status is None:
        return type(error).__name__
    broken = " without a usable key" if isinstance(error, InvalidResponseError) else ""
    return f"{type(error).__name__} after status {error.status}{broken}"


def problem_of(error: RespanError) -> str:
    """Describe a failure, so that the pacer can show it as the last problem."""
    return f"{type(error).__name__}: {error!s:.300}"
