"""What proves that a key was left behind by an attempt of ours."""

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from respan_async import Effect, Suspect, TemporaryKey
from respan_async._calls.name_tags import new_tag, tag_in, tagged
from respan_async._calls.sweep import is_left_by

TAG = "abcdefghijk2"
SUSPECT = Suspect(
    name=f"tenant ~{TAG}",
    tag=TAG,
    effect=Effect.UNKNOWN,
    sent_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    sent={"name": f"tenant ~{TAG}", "max_usage": 5},
    reason="no answer",
)
KEY = TemporaryKey(id="id", name=f"tenant ~{TAG}")


def test_a_key_with_the_tag_is_left_by_its_attempt() -> None:
    """The random tag at the end of the name is the proof."""
    assert is_left_by(SUSPECT, KEY)


@pytest.mark.parametrize(
    "name", [f"tenant ~{TAG}", f"TENANT ~{TAG.upper()}", f"tenant~{TAG}", f"Tenant  ~{TAG} \n", f"other ~{TAG}", TAG]
)
def test_a_name_may_come_back_normalised(name: str) -> None:
    """White space and case say nothing against the tag, nor does the rest of the name."""
    assert is_left_by(SUSPECT, attrs.evolve(KEY, name=name))


@pytest.mark.parametrize("name", ["", "tenant", "tenant-42", "x" * 36])
def test_the_tag_that_a_name_was_given_is_the_one_found_in_it(name: str) -> None:
    """Whatever the name before it is."""
    tag = new_tag()

    assert tag_in(tagged(name, tag)) == tag


@pytest.mark.parametrize(
    ("suspect", "key"),
    [
        ({"tag": None}, {}),
        ({"tag": ""}, {"name": ""}),
        ({"tag": ""}, {"name": None}),
        ({"tag": "mnopqrstuvwx"}, {}),
        ({}, {"name": None}),
        ({}, {"name": f"tenant ~{TAG} copy"}),
        ({}, {"name": f"tenant ~{TAG[:-1]}"}),
        ({}, {"revoked": True}),
        ({}, {"used": True}),
    ],
    ids=str,
)
def test_another_tag_or_history_is_no_proof(suspect: dict[str, Any], key: dict[str, Any]) -> None:
    """One of them is enough to leave the key alone."""
    assert not is_left_by(attrs.evolve(SUSPECT, **suspect), attrs.evolve(KEY, **key))
