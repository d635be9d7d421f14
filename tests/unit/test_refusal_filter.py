"""When refusals that do not fit are believed all the same."""

import pytest

from respan_async._pacing.refusal_filter import Doubt


def test_refusals_here_and_there_are_not_believed() -> None:
    """Two in a hundred answers are what other causes bring about."""
    doubt = Doubt()
    for _ in range(100):
        doubt.refused()
        for _ in range(49):
            doubt.admitted()

        assert not doubt.is_over


def test_five_refusals_among_forty_answers_are_believed() -> None:
    """Whatever they say."""
    doubt = Doubt()
    for number in range(5):
        assert not doubt.is_over, number
        doubt.refused()
        for _ in range(8):
            doubt.admitted()

    assert doubt.is_over


def test_what_is_long_ago_no_longer_counts() -> None:
    """A limit that was once too high may be right today."""
    doubt = Doubt()
    for _ in range(5):
        doubt.refused()
    for _ in range(60):
        doubt.admitted()
    doubt.refused()

    assert not doubt.is_over


@pytest.mark.parametrize(("admitted", "over"), [(35, True), (36, False)])
def test_the_first_of_the_five_is_forgotten_with_the_forty_first_answer(admitted: int, over: bool) -> None:
    """Refusals are answers too."""
    doubt = Doubt()
    doubt.refused()
    for _ in range(admitted):
        doubt.admitted()

    for _ in range(4):
        doubt.refused()

    assert doubt.is_over is over
