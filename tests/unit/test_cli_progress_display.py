"""What a person gets to see."""

import logging

import pytest

from respan_async._pacing.rate_limit import RateLimit
from respan_async.cli.arguments import read_arguments
from respan_async.cli.console import ConsoleLogHandler, printable, say
from respan_async.cli.progress_bar import Bar
from respan_async.cli.progress_display import CheckProgress, PlainProgress, ProgressState, clock, display


def status(issued: int, **more: object) -> ProgressState:
    values = {"failed": 0, "refused": 0, "rate": 1.0, "eta": 90.0, **more}
    return ProgressState(total=300, issued=issued, **values)  # type: ignore[arg-type]  # a test's shorthand


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line every two seconds while there is news, and one at the end."""
    now = 0.0
    plain = PlainProgress(lambda: now)
    for now in (0.5, 1.0, 2.0, 2.5, 3.9, 4.5, 7.0):
        plain.show(status(min(int(now * 10), 45)))
    plain.close(status(50, eta=None, held="paused for 0:37"))

    assert capsys.readouterr().err.splitlines() == [
        "20/300 issued, 1.0/s, 1:30 left, 0 refused, 0 failed",
        "45/300 issued, 1.0/s, 1:30 left, 0 refused, 0 failed",
        "50/300 issued, 1.0/s, 0 refused, 0 failed; paused for 0:37",
    ]


def test_no_bar_without_a_terminal() -> None:
    """The bar is for terminals."""
    assert isinstance(display(keys_on_terminal=False), PlainProgress)


def test_a_bar_says_what_the_plain_lines_do(capsys: pytest.CaptureFixture[str]) -> None:
    """How many of how many, how fast, how long still; lines that are said stay, and are escaped."""
    bar = Bar()
    bar.show(status(20))
    bar.say("interrupted\x1b[2J")
    bar.close(status(45, refused=2, failed=1))

    said = capsys.readouterr().err
    assert "interrupted\\x1b[2J\n" in said
    assert "45/300 issued" in said
    assert "1.0/s  1:30 left  2 refused  1 failed" in said


def test_clock() -> None:
    """Seconds are shown as people read them."""
    assert [clock(seconds) for seconds in (0, 7.4, 61, 10_000)] == ["0:00", "0:07", "1:01", "2:46:40"]


def test_nothing_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters, from a server or a file, are shown as what they are."""
    say("a\x1b]0;owned\x07b\r\n\u202ec")

    assert capsys.readouterr().err == "a\\x1b]0;owned\\x07b\\r\\n\\u202ec\n"
    assert len(printable("x" * 5000)) < 1100


def test_a_traceback_is_shown_to_who_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESPAN_KEYS_DEBUG in the environment shows where a logged error came from."""
    monkeypatch.setenv("RESPAN_KEYS_DEBUG", "1")
    with ConsoleLogHandler(say, verbose=False):
        try:
            raise KeyError("x")
        except KeyError:
            logging.getLogger("asyncio").exception("broken")

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["KeyError: 'x'", "error: broken: KeyError"]


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings are shown, the first twenty; what the client tells besides, only when asked for; never a traceback."""
    logger = logging.getLogger("respan_async")
    for verbose in (False, True):
        with ConsoleLogHandler(say, verbose=verbose):
            logger.info("told")
            for number in range(25):
                logger.warning("odd \x1b %d", number)
            logging.getLogger("asyncio").error("broken", exc_info=KeyError("x"))

    lines = capsys.readouterr().err.splitlines()
    assert lines[:1] == ["warning: odd \\x1b 0"]
    assert lines[20:22] == ["... and 6 more warnings; -v shows them", "info: told"]
    assert lines[-1] == "error: broken: KeyError"
    assert len(lines) == 48


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60/60s", RateLimit(60, per=60)),
        ("100/1s", RateLimit(100, per=1)),
        ("5/2m", RateLimit(5, per=120)),
        ("auto", "auto"),
    ],
)
def test_rates(text: str, expected: object) -> None:
    """A rate is requests per time, or to be learned."""
    assert read_arguments(["issue", "x.csv", "--rate", text]).rate == expected


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["issue"],
        ["issue", "x.csv", "--rate", "fast"],
        ["issue", "x.csv", "--rate", "0/1s"],
        ["issue", "x.csv", "--rate", "1/0s"],
        ["issue", "x.csv", "--max-in-flight", "0"],
        ["issue", "x.csv", "--api-key", "x"],
        ["issue", "x.csv", "--sand"],
        ["create", "--expires-in", "soon"],
        ["list", "--page", "0"],
        ["show"],
        ["sweep", "--ledger", "x", "--grace", "-1"],
        ["ledger"],
        ["ledger", "rotate", "--json"],
        ["sandbox", "--port", "70000"],
        ["sandbox", "--latency", "-1"],
        ["sandbox", "--fault", "gremlins:0.1"],
        ["sandbox", "--fault", "reset:2"],
        ["sandbox", "--fault", "reset"],
        ["sandbox", "--fault", "reset:often"],
    ],
)
def test_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments end with 2, and a word about it on standard error."""
    with pytest.raises(SystemExit) as caught:
        read_arguments(argv)

    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_fault_with_its_own_number() -> None:
    """The last number is the probability, and another one before it the fault's."""
    arguments = read_arguments(["sandbox", "--fault", "refuse:2.5:0.1", "--fault", "reset:1", "--limit", "none"])

    assert arguments.fault == [("refuse:2.5", 0.1), ("reset", 1.0)]
    assert arguments.limit is None


def test_a_long_check_gives_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    """A line every two seconds, and none for a file that is checked in less."""
    now = 0.0
    tell = CheckProgress("t.csv", lambda: now)
    for lines in range(0, 1_100_000, 100_000):
        tell(lines)
        now += 0.45

    assert capsys.readouterr().err.splitlines() == [
        "t.csv: 500,000 lines checked",
        "t.csv: 1,000,000 lines checked",
    ]
