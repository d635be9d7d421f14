"""When refusals that do not fit are believed all the same."""

import pytest

from respan_async._pacing.refusal_filter import RefusalFilter


def test_refusals_here_and_there_are_not_believed() -> None:
    """Two in a hundred answers are what other causes bring about."""
    refusal_filter = RefusalFilter()
    for _ in range(100):
        refusal_filter.refused()
        for _ in range(49):
            refusal_filter.admitted()

        assert not refusal_filter.is_over


def test_five_refusals_among_forty_answers_are_believed() -> None:
    """Whatever they say."""
    refusal_filter = RefusalFilter()
    for number in range(5):
        assert not refusal_filter.is_over, number
        refusal_filter.refused()
        for _ in range(8):
            refusal_filter.admitted()

    assert refusal_filter.is_over


def test_what_is_long_ago_no_longer_counts() -> None:
    """A limit that was once too high may be right today."""
    refusal_filter = RefusalFilter()
    for _ in range(5):
        refusal_filter.refused()
    for _ in range(60):
        refusal_filter.admitted()
    refusal_filter.refused()

    assert not refusal_filter.is_over


@pytest.mark.parametrize(("admitted", "over"), [(35, True), (36, False)])
def test_the_first_of_the_five_is_forgotten_with_the_forty_first_answer(admitted: int, over: bool) -> None:
    """Refusals are answers too."""
    refusal_filter = RefusalFilter()
    refusal_filter.refused()
    for _ in range(admitted):
        refusal_filter.admitted()

    for _ in range(4):
        refusal_filter.refused()

    assert refusal_filter.is_over is over
