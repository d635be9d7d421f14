"""The asyncio client for Respan's temporary API keys.

async with AsyncRespan() as respan:
    key = await respan.temporary_keys.create(name="tenant-42", expires_in=timedelta(hours=1))
"""

from respan_async._calls.pagination import Listing
from respan_async._calls.sweep_policy import SweepReport
from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async.batch import Batch
from respan_async.client import AsyncRespan, Pace
from respan_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    Effect,
    InternalServerError,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RespanError,
    Suspect,
    UnprocessableEntityError,
)
from respan_async.keys import TemporaryKeys
from respan_async.models import (
    UNSET,
    CreatedKey,
    CreateKeyRequest,
    KeyPage,
    LimitPolicy,
    TemporaryKey,
    UpdateKeyRequest,
)
from respan_async.outcomes import Failed, Issued, Progress
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret

__all__ = [
    "DOCUMENTED_LIMIT",
    "UNSET",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncRespan",
    "AuthenticationError",
    "BadRequestError",
    "Batch",
    "ClientStateError",
    "ConfigurationError",
    "ConflictError",
    "CreateKeyRequest",
    "CreatedKey",
    "DeadlineExceededError",
    "Effect",
    "Failed",
    "InternalServerError",
    "InvalidRequestError",
    "InvalidResponseError",
    "Issued",
    "KeyPage",
    "LimitPolicy",
    "Listing",
    "NotFoundError",
    "Pace",
    "PermissionDeniedError",
    "Progress",
    "RateLimit",
    "RateLimitError",
    "RespanError",
    "RetryPolicy",
    "Secret",
    "Suspect",
    "SweepReport",
    "TemporaryKey",
    "TemporaryKeys",
    "UnprocessableEntityError",
    "UpdateKeyRequest",
]
