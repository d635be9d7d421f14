"""Requests are checked when they are made, and the message names the field."""

import enum
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_async import (
    UNSET,
    CreatedKey,
    CreateKeyRequest,
    InvalidRequestError,
    KeyPage,
    LimitPolicy,
    Secret,
    TemporaryKey,
    UpdateKeyRequest,
)

SOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
LONG = 10**5000
"""More digits than Python turns into text."""

NO_NUMBER = ["5", b"5", True, [5], {}, Decimal(5), 5j, math.nan, math.inf, -math.inf, object(), LONG, 2**63]
NO_WHOLE = [*NO_NUMBER, 5.0, 1.5]
WRONG: Mapping[str, list[Any]] = {
    "name": [None, 5, b"tenant", ["tenant"], True, "x" * 51, "a\0b", "\x1b[31m", "\x7f", "\ud800", object(), LONG],
    "expiry_date": [
        *(None, 5, 1.5, True, b"2030-01-31T12:00:00Z", [], SOON.date(), timedelta(1), LONG),
        *("soon", "", "2030-13-01T00:00:00Z", "2030-01-31", "2030-01-31T12:00:00", "1738324800"),
        datetime(2030, 1, 31),  # noqa: DTZ001
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    ],
    "max_usage": [None, 0, -2, -1.0, *NO_WHOLE],
    "rate_limit": [-1, *NO_WHOLE],
    "spending_limit": [-1, -0.01, *NO_NUMBER],
}
WRONG_IN_CREATE: Mapping[str, list[Any]] = {
    **WRONG,
    "expires_in": [None, 5, "1h", timedelta(0), timedelta(-1), timedelta.max, SOON, True],
    "is_test": [None, 0, 1, "true", "false", "", []],
    "limit_policies": [None, 5, "cost", b"cost", True, {"max_value": 1, "period": "day"}, [5], [None], [["max_value"]]],
}
WRONG_IN_POLICY: Mapping[str, list[Any]] = {
    "max_value": [None, UNSET, -1, *NO_NUMBER],
    "period": [None, UNSET, 60, "", "year", "-60", "1.5", "٣", "60s", b"60", LONG],
    "metric": [None, "", "calls", 5, ["cost"], b"cost"],
    "warning_threshold": [None, -0.1, *NO_NUMBER],
    "name": [None, 5, b"x", "\ud800", LONG],
    "notification_method_id": [None, 5, b"x", "\ud800"],
}


def cases(wrong: Mapping[str, list[Any]]) -> pytest.MarkDecorator:
    """Give every wrong value of every field."""
    pairs = [(field, value) for field, values in wrong.items() for value in values]
    return pytest.mark.parametrize(
        ("field", "value"), pairs, ids=[f"{field}-{n}" for n, (field, _) in enumerate(pairs)]
    )


# ------------------------------------------------------------------ requests


@cases(WRONG_IN_CREATE)
def test_a_wrong_field_of_a_create_is_named(field: str, value: Any) -> None:
    """With what was expected and, cut to a bearable length, what was given."""
    with pytest.raises(InvalidRequestError, match=rf"^{field}(\[0\])?: expected .+") as caught:
        CreateKeyRequest(**{field: value})

    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 300
    assert caught.value.__cause__ is None


@cases(WRONG)
def test_a_wrong_field_of_an_update_is_named(field: str, value: Any) -> None:
    """An update takes the same values as a create."""
    with pytest.raises(InvalidRequestError, match=rf"^{field}: expected .+"):
        UpdateKeyRequest(**{field: value})


@cases(WRONG_IN_POLICY)
def test_a_wrong_field_of_a_policy_is_named(field: str, value: Any) -> None:
    """Also when it was given as a mapping."""
    fields = {"max_value": 1, "period": "day", field: value}

    with pytest.raises(InvalidRequestError, match=rf"^{field}: expected .+"):
        LimitPolicy(**fields)
    with pytest.raises(InvalidRequestError, match=rf"^{field}: expected .+"):
        CreateKeyRequest(limit_policies=[fields])


@pytest.mark.parametrize(
    "unknown", [{"max_value": 1}, {"period": "day"}, {"max_value": 1, "period": "day", "unit": 2}, {5: 6}]
)
def test_a_policy_with_other_fields_is_refused(unknown: Any) -> None:
    """The message says which of them, and what fields there are."""
    with pytest.raises(
        InvalidRequestError, match=r"limit_policies\[1\]: expected the fields max_value, period, metric"
    ):
        CreateKeyRequest(limit_policies=[LimitPolicy(max_value=1, period="day"), unknown])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ["", "x" * 50, "ü" * 50, "\U0001f511" * 50, "a\nb"]),
        ("max_usage", [-1, 1, 2**62]),
        ("rate_limit", [None, 0, 1, 2**62]),
        ("spending_limit", [None, 0, 0.0, 0.01, 5, 1e300]),
        ("is_test", [True, False]),
        ("limit_policies", [()]),
    ],
)
def test_every_right_value_is_taken(field: str, values: list[Any]) -> None:
    """And kept as it was given."""
    for value in values:
        assert getattr(CreateKeyRequest(**{field: value}), field) == value


@pytest.mark.parametrize("none_at_all", [[], (), iter([]), set(), {}.values()])
def test_no_policies_are_policies_too(none_at_all: Any) -> None:
    """An empty list is sent; it is not UNSET."""
    assert CreateKeyRequest(limit_policies=none_at_all).limit_policies == ()


@pytest.mark.parametrize("period", ["minute", "hour", "day", "week", "month", "1", "86400"])
@pytest.mark.parametrize("metric", ["cost", "request_count", "token_count"])
def test_every_documented_policy_is_taken(period: str, metric: str) -> None:
    """As an object or as a mapping, out of any iterable."""
    policy = LimitPolicy(max_value=10, period=period, metric=metric, warning_threshold=0.8, name="n")
    fields = attrs.asdict(policy, filter=lambda _, value: value is not UNSET)

    request = CreateKeyRequest(limit_policies=(item for item in (policy, fields)))

    assert request.limit_policies == (policy, policy)


def test_an_expiry_is_an_instant() -> None:
    """Whatever offset it was given with, and as text too."""
    east = SOON.astimezone(timezone(timedelta(hours=5, minutes=30)))

    for given_as in (SOON, east, "2030-01-31T12:00:00Z", "2030-01-31T17:30:00+05:30", east.isoformat()):
        assert CreateKeyRequest(expiry_date=given_as).expiry_date == SOON
        assert UpdateKeyRequest(expiry_date=given_as).expiry_date == SOON


def test_a_past_expiry_is_allowed() -> None:
    """The documentation's own sample has one."""
    assert CreateKeyRequest(expiry_date=datetime(2020, 1, 1, tzinfo=UTC))


def test_a_life_and_an_end_are_not_given_together() -> None:
    """One of them would have to lose."""
    with pytest.raises(InvalidRequestError, match="either expires_in or expiry_date"):
        CreateKeyRequest(expires_in=timedelta(1), expiry_date=SOON)


def test_nothing_given_is_unset() -> None:
    """And UNSET is false, has a name, and is not None."""
    for request in (CreateKeyRequest(), UpdateKeyRequest()):
        assert all(value is UNSET for value in attrs.asdict(request).values())
    assert not UNSET
    assert repr(UNSET) == "UNSET"
    assert CreateKeyRequest(rate_limit=None) != CreateKeyRequest()


def test_requests_are_values() -> None:
    """Frozen, equal when their fields are, and of use as keys of a dictionary."""
    request = CreateKeyRequest(name="a", limit_policies=[LimitPolicy(max_value=1, period="day")])

    assert attrs.evolve(request, name="b") == attrs.evolve(request, name="b")
    assert {request: 1}[attrs.evolve(request)] == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.name = "b"  # type: ignore[misc]


def test_what_is_almost_a_plain_type_is_taken() -> None:
    """An enumeration of strings or of numbers."""

    class Tier(enum.StrEnum):
        GOLD = "gold"

    class Limit(enum.IntEnum):
        HIGH = 1000

    request = CreateKeyRequest(name=Tier.GOLD, rate_limit=Limit.HIGH, max_usage=Limit.HIGH)

    assert (request.name, request.rate_limit) == ("gold", 1000)


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.datetimes(), st.timedeltas()
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@given(st.sampled_from([field.name for field in attrs.fields(CreateKeyRequest)]), anything)
def test_nothing_but_our_own_error_is_raised(field: str, value: Any) -> None:
    """Whatever is given for a field: it is taken, or an InvalidRequestError names the field."""
    try:
        CreateKeyRequest(**{field: value})
    except InvalidRequestError as error:
        assert field in str(error) or "max_value" in str(error) or "period" in str(error)  # noqa: PT017


class Plan(str, enum.Enum):  # noqa: UP042  a StrEnum is formatted as its value
    """Names, as some keep them."""

    ACME = "acme"
    OF_A_LONG_MEMBER_NAME_THAT_IS_NEITHER_SENT_NOR_COUNTED = "x" * 50
    DAY = "day"
    COST = "cost"


class Number(enum.IntEnum):
    """Whole numbers with names."""

    FIVE = 5


class Dollars(float):
    """A number of a class of its own."""


def test_a_member_of_an_enum_is_the_value_that_it_stands_for() -> None:
    """What is sent, counted, and written into a name with a tag is the text itself, and so of numbers."""
    policy = LimitPolicy(
        max_value=Number.FIVE,
        period=Plan.DAY,
        metric=Plan.COST,
        name=Plan.ACME,
        notification_method_id=Plan.ACME,
        warning_threshold=Dollars(2),
    )
    request = CreateKeyRequest(
        name=Plan.ACME,
        max_usage=Number.FIVE,
        rate_limit=Number.FIVE,
        spending_limit=Dollars(5),
        limit_policies=[policy],
    )
    change = UpdateKeyRequest(name=Plan.OF_A_LONG_MEMBER_NAME_THAT_IS_NEITHER_SENT_NOR_COUNTED, max_usage=Number.FIVE)

    assert f"{request.name} {change.name}" == f"acme {'x' * 50}"
    values = [getattr(value, field.name) for value in (policy, request, change) for field in attrs.fields(type(value))]
    assert {type(value) for value in values if value is not UNSET} == {str, int, float, tuple}


# ---------------------------------------------------------------------- keys


def test_a_key_tells_whether_it_has_expired() -> None:
    """By the local clock; one without an expiry never does."""
    now = datetime.now(UTC)

    assert TemporaryKey(id="i", expiry_date=now - timedelta(seconds=1)).expired
    assert not TemporaryKey(id="i", expiry_date=now + timedelta(hours=1)).expired
    assert not TemporaryKey(id="i").expired


def test_what_is_not_known_is_outside_of_repr_and_equality() -> None:
    """A server that adds a field must not make two keys differ, or a log grow."""
    one, other = TemporaryKey(id="i", extra={"tags": ["x"]}), TemporaryKey(id="i")

    assert one == other
    assert "tags" not in repr(one)


def test_a_created_key_shows_no_secret() -> None:
    """And is a TemporaryKey with one more field."""
    made = CreatedKey(id="i", api_key=Secret("vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"))

    assert isinstance(made, TemporaryKey)
    assert "5hSZiXrA" not in f"{made!r} {attrs.asdict(made)}"
    assert "vcjRcdm8.***" in repr(made)


def test_a_page_is_empty_by_default() -> None:
    """The last page of nothing."""
    assert KeyPage() == KeyPage(results=(), count=0, next_page=None)
