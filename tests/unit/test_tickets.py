"""Tickets: the caller's own ids, and fields that compare as they were given."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_async import CreateKeyRequest, InvalidRequestError
from respan_async.issuing import Ticket


@pytest.mark.parametrize("ticket_id", ["", "x" * 501, "line\nbreak", "nul\0", "\ud800", None, 5, b"bytes"])
def test_what_is_no_id_is_refused(ticket_id: Any) -> None:
    """The message names the field, and shows at most a little of what was given."""
    with pytest.raises(InvalidRequestError, match=r"ticket id: expected 1 to 500 printable characters") as caught:
        Ticket(ticket_id)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("request_", [None, {"name": "tenant"}, "tenant"])
def test_what_is_no_request_is_refused(request_: Any) -> None:
    """Only a request that was checked goes into a ledger."""
    with pytest.raises(InvalidRequestError, match="expected a CreateKeyRequest"):
        Ticket("tenant", request_)


def test_a_ticket_needs_no_fields() -> None:
    """Every field of a key is optional."""
    assert Ticket("tenant").fields == Ticket("another", CreateKeyRequest()).fields


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"expires_in": timedelta(hours=1)}, {"expires_in": timedelta(minutes=60)}),
        (
            {"expiry_date": datetime(2030, 1, 1, 12, tzinfo=UTC)},
            {"expiry_date": datetime(2030, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))},
        ),
        ({"expiry_date": "2030-01-01T12:00:00Z"}, {"expiry_date": datetime(2030, 1, 1, 12, tzinfo=UTC)}),
        ({"name": "a", "max_usage": 1}, {"max_usage": 1, "name": "a"}),
        (
            {"limit_policies": [{"max_value": 1, "period": "day"}]},
            {"limit_policies": [{"period": "day", "max_value": 1}]},
        ),
        ({"spending_limit": 1, "max_usage": 2}, {"spending_limit": 1.0, "max_usage": 2}),
        ({"spending_limit": 0}, {"spending_limit": -0.0}),
        (
            {"limit_policies": [{"max_value": 5, "period": "day", "warning_threshold": 0.5}]},
            {"limit_policies": [{"max_value": 5.0, "period": "day", "warning_threshold": 0.5}]},
        ),
    ],
)
def test_the_same_request_in_other_words_has_the_same_fields(one: dict[str, Any], other: dict[str, Any]) -> None:
    """So that a program that was rewritten a little goes on with its ledger."""
    assert Ticket("t", CreateKeyRequest(**one)).fields == Ticket("t", CreateKeyRequest(**other)).fields


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"expires_in": timedelta(hours=1)}, {"expires_in": timedelta(hours=1, microseconds=1)}),
        ({"rate_limit": None}, {}),
        ({"name": ""}, {}),
        ({"is_test": False}, {}),
        ({"is_test": True}, {"is_test": False}),
        ({"name": "tenant"}, {"name": "tenant "}),
        ({"spending_limit": 1}, {"spending_limit": 1.5}),
        ({"spending_limit": 0}, {"spending_limit": None}),
        ({"spending_limit": 1e300}, {"spending_limit": 1e299}),
    ],
)
def test_another_request_has_other_fields(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Unset, None, empty and False are four things."""
    assert Ticket("t", CreateKeyRequest(**one)).fields != Ticket("t", CreateKeyRequest(**other)).fields


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=36), st.integers(1, 10**9))
def test_fields_are_told_apart_whatever_the_name_is(name: str, max_usage: int) -> None:
    """Quotes, braces and other scripts do not confuse what is compared."""
    one = Ticket("t", CreateKeyRequest(name=name, max_usage=max_usage))

    assert one.fields == Ticket("t", CreateKeyRequest(name=name, max_usage=max_usage)).fields
    assert one.fields != Ticket("t", CreateKeyRequest(name=name, max_usage=max_usage + 1)).fields
    assert one.fields != Ticket("t", CreateKeyRequest(name=name[:-1], max_usage=max_usage)).fields
