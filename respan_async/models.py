"""The requests and answers of the API, as frozen values."""

import enum
import math
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, TypeGuard, TypeVar

import attrs

from respan_async._arguments import is_whole, plain_value, shown
from respan_async.errors import InvalidRequestError
from respan_async.secret import Secret

MAX_NAME: Final = 50
"""The longest name of a key that the server accepts, in characters (read in the official SDK)."""

LONGEST_LIFE: Final = timedelta(days=365_000)
PERIODS: Final = ("minute", "hour", "day", "week", "month")
METRICS: Final = ("cost", "request_count", "token_count")


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = enum.auto()

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not given, and so not sent. It differs from None, which is sent as null."""

T = TypeVar("T")
Maybe: TypeAlias = T | Literal[Unset.UNSET]


def _fail(field: str, expected: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: expected {expected}, got {shown(value)}")


def _is_number(value: Any) -> TypeGuard[float]:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _check_name(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET:
        return
    if not isinstance(value, str):
        raise _fail(attribute.name, "a string", value)
    if len(value) > MAX_NAME:
        raise InvalidRequestError(f"{attribute.name}: expected at most {MAX_NAME} characters, got {len(value)}")
    # Neither Django nor Postgres takes a NUL; the other control characters make no sense in a name.
    if any(unicodedata.category(letter) == "Cc" and letter not in "\t\r\n" for letter in value):
        raise _fail(attribute.name, "no control characters", value)
    _check_encodable(attribute.name, value)


def _check_encodable(field: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _fail(field, "text that UTF-8 can carry", value) from None


def _check_max_usage(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET:
        return
    if not is_whole(value) or (value < 1 and value != -1):
        raise _fail(attribute.name, "a positive whole number, or -1 for no limit", value)


def _check_rate_limit(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET or value is None:
        return
    if not is_whole(value) or value < 0:
        raise _fail(attribute.name, "a whole number of requests a minute, 0 or more, or None", value)


def _check_spending_limit(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET or value is None:
        return
    if not _is_number(value) or value < 0:
        raise _fail(attribute.name, "a number of US dollars, 0 or more, or None", value)


def _check_flag(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not UNSET and not isinstance(value, bool):
        raise _fail(attribute.name, "True or False", value)


def _check_text(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET:
        return
    if not isinstance(value, str):
        raise _fail(attribute.name, "a string", value)
    _check_encodable(attribute.name, value)


def _check_amount(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET and attribute.default is UNSET:
        return
    if not _is_number(value) or value < 0:
        raise _fail(attribute.name, "a number, 0 or more", value)


def _check_period(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, str) or not (value in PERIODS or (value.isascii() and value.isdigit())):
        raise _fail(attribute.name, f"one of {', '.join(PERIODS)}, or seconds as digits", value)


def _check_metric(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not UNSET and not (isinstance(value, str) and value in METRICS):
        raise _fail(attribute.name, f"one of {', '.join(METRICS)}", value)


def _check_lifetime(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is UNSET:
        return
    if not isinstance(value, timedelta) or not timedelta(0) < value <= LONGEST_LIFE:
        raise _fail(attribute.name, "a timedelta above 0 and up to a thousand years", value)


def _to_instant(value: Any) -> Any:
    """Turn ISO 8601 text into a datetime; refuse text without an offset."""
    if value is UNSET:
        return value
    instant = value
    if isinstance(value, str):
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            raise _fail("expiry_date", "an ISO 8601 date and time such as 2030-01-31T12:00:00Z", value) from None
    if not isinstance(instant, datetime):
        raise _fail("expiry_date", "an aware datetime or an ISO 8601 string", value)
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise _fail("expiry_date", "a date and time with a time zone", value)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise _fail("expiry_date", "an instant between the years 1 and 9999 in UTC", value) from None


def _to_policies(value: Any) -> Any:
    """Turn an iterable of policies, or of mappings with their fields, into a tuple of `LimitPolicy`."""
    if value is UNSET:
        return value
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise _fail("limit_policies", "a list of LimitPolicy", value)
    policies: list[LimitPolicy] = []
    for number, item in enumerate(value):
        if isinstance(item, LimitPolicy):
            policies.append(item)
            continue
        if not isinstance(item, Mapping):
            raise _fail(f"limit_policies[{number}]", "a LimitPolicy", item)
        try:
            policies.append(LimitPolicy(**item))
        except TypeError:
            known = ", ".join(field.name for field in attrs.fields(LimitPolicy))
            raise InvalidRequestError(f"limit_policies[{number}]: expected the fields {known}") from None
    return tuple(policies)


@attrs.frozen(kw_only=True)
class LimitPolicy:
    """One limit on a key's use, for `limit_policies`.

    Args:
        max_value: The most use in one period, in the metric's unit.
        period: `"minute"`, `"hour"`, `"day"`, `"week"`, `"month"`, or a number of seconds as digits.
        metric: `"cost"` (US dollars), `"request_count"` or `"token_count"`.
        warning_threshold: The use at which a warning is sent.
        name: A name for people.
        notification_method_id: Where the warning goes.

    Raises:
        InvalidRequestError: A field is invalid; the message names it.
    """

    max_value: float = attrs.field(converter=plain_value, validator=_check_amount)
    period: str = attrs.field(converter=plain_value, validator=_check_period)
    metric: Maybe[str] = attrs.field(default=UNSET, converter=plain_value, validator=_check_metric)
    warning_threshold: Maybe[float] = attrs.field(default=UNSET, converter=plain_value, validator=_check_amount)
    name: Maybe[str] = attrs.field(default=UNSET, converter=plain_value, validator=_check_text)
    notification_method_id: Maybe[str] = attrs.field(default=UNSET, converter=plain_value, validator=_check_text)


@attrs.frozen(kw_only=True)
class CreateKeyRequest:
    """The fields of a new temporary key. Every field is optional, and only given fields are sent.

    Args:
        name: At most 50 characters; need not be unique.
        expiry_date: When the key dies: an aware datetime, or ISO 8601 text with an offset.
        expires_in: How long the key lives from the moment it is requested; becomes `expiry_date` afresh for each
            attempt, so that waiting for the rate limit costs none of it. Not together with `expiry_date`.
        max_usage: How often the key can be used; -1 for no limit.
        rate_limit: Requests a minute, or None for the organisation's own.
        spending_limit: US dollars through the gateway, or None.
        is_test: A test key rather than a production one.
        limit_policies: `LimitPolicy` objects, or mappings with their fields.

    Raises:
        InvalidRequestError: A field is invalid; the message names it.
    """

    name: Maybe[str] = attrs.field(default=UNSET, converter=plain_value, validator=_check_name)
    expiry_date: Maybe[datetime] = attrs.field(default=UNSET, converter=_to_instant)
    expires_in: Maybe[timedelta] = attrs.field(default=UNSET, validator=_check_lifetime)
    max_usage: Maybe[int] = attrs.field(default=UNSET, converter=plain_value, validator=_check_max_usage)
    rate_limit: Maybe[int | None] = attrs.field(default=UNSET, converter=plain_value, validator=_check_rate_limit)
    spending_limit: Maybe[float | None] = attrs.field(
        default=UNSET, converter=plain_value, validator=_check_spending_limit
    )
    is_test: Maybe[bool] = attrs.field(default=UNSET, validator=_check_flag)
    limit_policies: Maybe[tuple[LimitPolicy, ...]] = attrs.field(default=UNSET, converter=_to_policies)

    def __attrs_post_init__(self) -> None:
        if self.expires_in is not UNSET and self.expiry_date is not UNSET:
            raise InvalidRequestError("expires_in: expected either expires_in or expiry_date, got both")


@attrs.frozen(kw_only=True)
class UpdateKeyRequest:
    """The changes to a key. Only given fields are sent; None clears a limit.

    The server may refuse changed limits with a 403 unless the API key has that right (read in the official SDK).

    Args:
        name: At most 50 characters.
        expiry_date: When the key dies: an aware datetime, or ISO 8601 text with an offset.
        max_usage: How often the key can be used; -1 for no limit.
        rate_limit: Requests a minute, or None for the organisation's own.
        spending_limit: US dollars through the gateway, or None for no limit.

    Raises:
        InvalidRequestError: A field is invalid; the message names it.
    """

    name: Maybe[str] = attrs.field(default=UNSET, converter=plain_value, validator=_check_name)
    expiry_date: Maybe[datetime] = attrs.field(default=UNSET, converter=_to_instant)
    max_usage: Maybe[int] = attrs.field(default=UNSET, converter=plain_value, validator=_check_max_usage)
    rate_limit: Maybe[int | None] = attrs.field(default=UNSET, converter=plain_value, validator=_check_rate_limit)
    spending_limit: Maybe[float | None] = attrs.field(
        default=UNSET, converter=plain_value, validator=_check_spending_limit
    )


@attrs.frozen(kw_only=True)
class TemporaryKey:
    """A temporary key as the server describes it, without its secret.

    Only `id` is certain; a field that an answer lacks, or that cannot be read, is None (its raw value is then in
    `extra`).

    Attributes:
        id: Opaque; may hold `. $ + = /`.
        created_at: From `created` or `created_at`, aware.
        last_used: None when it was never used (the server says 1970 then).
        rate_limit: Requests a minute.
        spending_limit, spending_in_period: US dollars.
        used: Whether it was ever used. None if the answer leaves that open, e.g. without `key_usage` or `last_used`;
            outside repr and equality.
        request_id: The server's id of the request whose answer this is, if it sent one, for questions to its support;
            for a key on a page, the page's. None for a key from a ledger. Outside repr and equality.
        extra: Every field that this class does not name, as it came; outside repr and equality.
    """

    id: str
    name: str | None = None
    prefix: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    expiry_date: datetime | None = None
    revoked: bool | None = None
    key_usage: int | None = None
    max_usage: int | None = None
    last_used: datetime | None = None
    rate_limit: float | None = None
    spending_limit: float | None = None
    spending_in_period: float | None = None
    is_test: bool | None = None
    is_temporary: bool | None = None
    used: bool | None = attrs.field(default=None, repr=False, eq=False)
    request_id: str | None = attrs.field(default=None, repr=False, eq=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

    @property
    def expired(self) -> bool:
        """Whether `expiry_date` has passed, by the local clock."""
        return self.expiry_date is not None and self.expiry_date <= datetime.now(UTC)


@attrs.frozen(kw_only=True)
class CreatedKey(TemporaryKey):
    """A new key with its secret, which the server shows only this time."""

    api_key: Secret


@attrs.frozen(kw_only=True)
class KeyPage:
    """One page of keys.

    Attributes:
        results: The keys on this page.
        count: The number of keys on this page, according to the server.
        next_page: The number of the next page, or None after the last.
        request_id: The server's id of the request, if it sent one; outside repr and equality.
    """

    results: tuple[TemporaryKey, ...] = ()
    count: int = 0
    next_page: int | None = None
    request_id: str | None = attrs.field(default=None, repr=False, eq=False)
