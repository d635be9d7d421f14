"""Whatever comes in, from a server, a person or a damaged file: a value, or an error of ours that shows no secret."""

import random
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import __main__ as fuzz
from tests.fuzz.payloads import mutated
from tests.fuzz.targets import TARGETS, corpus

NAMES = list(TARGETS)


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Give good inputs with something wrong in them, and anything at all."""
    known = st.sampled_from(corpus(name))
    return st.one_of(
        st.builds(mutated, known, st.integers(0, 2**32).map(random.Random)),
        st.binary(max_size=400),
        st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")),
        st.builds(lambda start, end: start + end, known, st.binary(max_size=40)),
    )


def hunt(name: str, examples: int) -> None:
    """Run a target on that many inputs."""

    @settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
    )
    @given(inputs(name))
    def target(data: bytes) -> None:
        TARGETS[name].run(data)

    target()


@pytest.mark.parametrize("name", NAMES)
def test_what_once_broke_a_promise_does_so_no_more(name: str) -> None:
    """Every good input and every file of the corpus."""
    for data in corpus(name):
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", NAMES)
def test_no_input_breaks_a_promise(name: str) -> None:
    """A few inputs each time; more in the two tests below."""
    hunt(name, 25)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: python -m tests.fuzz TARGET"),
        (["nothing"], "usage: python -m tests.fuzz TARGET"),
        (["row", "--help"], "usage: python -m tests.fuzz TARGET"),
        (["row"], "pip install -e '.[test,fuzz]'"),
    ],
)
def test_atheris_is_not_needed_to_be_told_how_it_is_run(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The usage, with every target and an end of the time; and without atheris, what to install."""
    monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
    monkeypatch.setitem(sys.modules, "atheris", None)
    ended = ""
    try:
        fuzz.main()
    except SystemExit as exit_:
        ended = str(exit_.code)
    out, err = capsys.readouterr()

    assert said in out + err + ended
    assert fuzz.NAMES == NAMES
    assert "-max_total_time=60" in fuzz.USAGE


@pytest.mark.hostile
@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_many_breaks_a_promise(name: str) -> None:
    """As above, with more of them."""
    hunt(name, 500)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_very_many_breaks_a_promise(name: str) -> None:
    """As above, for minutes."""
    hunt(name, 20_000)


@pytest.mark.hostile
@pytest.mark.parametrize("name", NAMES)
def test_a_long_input_takes_no_longer_than_its_length(name: str) -> None:
    """One atom repeated: of four times as many it is some four times as long, where a square would be sixteen times."""
    size = TARGETS[name].size
    for head, unit in TARGETS[name].repeated:

        def taken(size: int, head: bytes = head, unit: bytes = unit) -> float:
            data = head + unit * (size // len(unit))
            began = time.thread_time()
            TARGETS[name].run(data)
            return time.thread_time() - began

        quarter = min(taken(size // 4), taken(size // 4))
        assert taken(size) < 10 * quarter + 0.2, (head, unit)
