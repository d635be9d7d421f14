"""When refusals that do not fit are believed all the same."""

from respan_async.pacing.doubt import Doubt


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
