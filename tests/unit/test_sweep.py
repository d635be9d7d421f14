"""What proves that a key was left behind by an attempt of ours."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from respan_async import Effect, Suspect, TemporaryKey
from respan_async._calls.sweep import is_left_by

TAG = " ~abcdefghijkl"
SUSPECT = Suspect(
    name=f"tenant{TAG}",
    tag=TAG,
    effect=Effect.UNKNOWN,
    sent_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    sent={"name": f"tenant{TAG}"},
    reason="no answer",
)
KEY = TemporaryKey(id="id", name=f"tenant{TAG}")


def test_a_key_with_the_tag_is_left_by_its_attempt() -> None:
    """Where nothing else was sent, the name with its random tag is the proof."""
    assert is_left_by(SUSPECT, KEY)


@pytest.mark.parametrize(
    ("suspect", "key"),
    [
        ({"tag": None}, {}),
        ({"tag": " ~mnopqrstuvwx"}, {}),
        ({}, {"name": None}),
        ({}, {"name": f"other{TAG}"}),
        ({}, {"name": f"tenant{TAG} copy"}),
        ({}, {"revoked": True}),
        ({}, {"key_usage": 1}),
        ({}, {"last_used": datetime(2026, 2, 1, tzinfo=UTC)}),
    ],
    ids=str,
)
def test_another_tag_name_or_history_is_no_proof(suspect: dict[str, Any], key: dict[str, Any]) -> None:
    """One of them is enough to leave the key alone."""
    assert not is_left_by(attrs.evolve(SUSPECT, **suspect), attrs.evolve(KEY, **key))


@pytest.mark.parametrize(
    ("field", "sent", "shown", "agrees"),
    [
        ("max_usage", 5, 5, True),
        ("max_usage", 5, 6, False),
        ("max_usage", 5, None, True),
        ("rate_limit", None, None, True),
        ("rate_limit", None, 60, True),
        ("rate_limit", 60, 60.0, True),
        ("spending_limit", 0.1 + 0.2, 0.3, True),
        ("is_test", True, True, True),
        ("is_test", True, False, False),
        ("is_test", True, 1.5, False),
        ("expiry_date", "2026-03-01T12:00:00+00:00", datetime(2026, 3, 1, 12, tzinfo=UTC), True),
        ("expiry_date", "2026-03-01T13:00:00+01:00", datetime(2026, 3, 1, 12, tzinfo=UTC), True),
        ("expiry_date", "2026-03-01T12:00:01+00:00", datetime(2026, 3, 1, 12, tzinfo=UTC), False),
        ("expiry_date", 5, datetime(2026, 3, 1, 12, tzinfo=UTC), False),
        ("limit_policies", [{"max_value": 1}], [{"limit": 1}], True),
        ("plan", "small", "small", True),
        ("plan", "small", "large", False),
        ("plan", "small", 5, False),
    ],
)
def test_fields_are_compared_as_what_they_mean(field: str, sent: object, shown: object, agrees: bool) -> None:
    """Instants and numbers, however they are written; what an answer leaves out contradicts nothing."""
    suspect = attrs.evolve(SUSPECT, sent={**SUSPECT.sent, field: sent})
    known = field in attrs.fields_dict(TemporaryKey)
    fields: dict[str, Any] = {field: shown} if known else {"extra": {field: shown}}
    key = attrs.evolve(KEY, **fields)

    assert is_left_by(suspect, key) is agrees
