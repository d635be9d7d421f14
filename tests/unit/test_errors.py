"""The error tree: its classes, their words, and what survives a trip to another process."""

import copy
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from respan_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    ConfigurationError,
    DeadlineExceededError,
    Effect,
    InternalServerError,
    InvalidRequestError,
    RateLimitError,
    RespanError,
    Suspect,
    errors,
)


def tree(root: type[RespanError]) -> Iterator[type[RespanError]]:
    """Give a class and everything below it that this library raises for others to catch."""
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = sorted(set(tree(RespanError)), key=lambda kind: kind.__name__)
SUSPECT = Suspect(
    name="tenant-42 ~abcdefghijkl",
    tag="abcdefghijkl",
    id="key-1",
    effect=Effect.LOST,
    sent_at=datetime(2030, 1, 31, 12, tzinfo=UTC),
    sent={"name": "tenant-42 ~abcdefghijkl", "max_usage": 5},
    reason="the answer broke off",
)
FACTS = {
    "effect": Effect.LOST,
    "suspects": (SUSPECT,),
    "status": 418,
    "request_id": "r-1",
    "body": '{"detail": "no"}',
    "attempts": 3,
    "retryable": True,
}

every = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def test_there_is_a_tree() -> None:
    """What is walked over below is the whole of it."""
    defined = {thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert set(CLASSES) == defined
    assert len(CLASSES) >= 17


@every
def test_every_error_survives_pickling(kind: type[RespanError]) -> None:
    """With its class, its message and every attribute; also those that are set later."""
    error = kind("what happened", **FACTS)  # type: ignore[arg-type]
    error.__dict__["retry_at"] = datetime(2030, 1, 31, tzinfo=UTC)
    error.__dict__["retry_after"] = 2.5

    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(same) is kind
        assert str(same) == "what happened"
        assert vars(same) == vars(error)
        assert {name: getattr(same, name) for name in FACTS} == FACTS


@every
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_every_protocol(kind: type[RespanError], protocol: int) -> None:
    """Some process pools and queues use an old one."""
    same = pickle.loads(pickle.dumps(kind("what happened", attempts=2), protocol))

    assert (type(same), str(same), same.attempts) == (kind, "what happened", 2)


@every
def test_a_docstring_is_the_default_message(kind: type[RespanError]) -> None:
    """Its first line, and nothing of what comes after."""
    error = kind()

    assert str(error) == (kind.__doc__ or "").splitlines()[0]
    assert str(error).endswith(".") or str(error).endswith(")")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@every
def test_a_fresh_error_means_nothing_was_done(kind: type[RespanError]) -> None:
    """Defaults: no effect, no suspects, no answer, not to be repeated."""
    error = kind()

    assert (error.effect, error.suspects, error.attempts) == (Effect.NONE, (), 0)
    assert (error.status, error.request_id, error.body, error.retryable) == (None, None, None, False)


@every
def test_every_error_is_caught_as_one(kind: type[RespanError]) -> None:
    """By `except RespanError`, and never by what is not meant for programs' errors."""
    assert issubclass(kind, RespanError)
    assert issubclass(kind, Exception)
    assert not issubclass(kind, ConnectionError)


@every
def test_the_drawing_shows_every_class_in_its_place(kind: type[RespanError]) -> None:
    """The tree in the docstring of the module is the tree in the code."""
    drawn = errors.__doc__ or ""
    assert re.search(rf"\b{kind.__name__}\b", drawn)

    also = {"ValueError": ValueError, "TimeoutError": TimeoutError}
    line = next(line for line in drawn.splitlines() if re.search(rf"\b{kind.__name__}\b", line))
    beside = re.search(r"\(also (\w+)\)", line)
    assert issubclass(kind, also[beside[1]] if beside else RespanError)
    assert not any(issubclass(kind, other) for name, other in also.items() if not beside or name != beside[1])


def test_the_drawing_shows_nothing_else() -> None:
    """Every name in it is a class."""
    drawn = set(re.findall(r"\b([A-Z]\w+Error)\b", errors.__doc__ or ""))

    assert drawn - {"ValueError", "TimeoutError"} == {kind.__name__ for kind in CLASSES}


def test_a_wrong_argument_is_a_value_error() -> None:
    """So that code which knows nothing of this library understands it."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(APITimeoutError, APIConnectionError)


def test_a_status_has_a_class() -> None:
    """Each of the drawing its own, 5xx one together, and all others the common one."""
    named = {int(number): name for name, number in re.findall(r"(\w+) (\d{3})\b", errors.__doc__ or "")}
    assert len(named) == 7

    for status in (*range(300, 600), 999):
        expected = named.get(status, "InternalServerError" if status >= 500 else "APIStatusError")
        assert errors.class_for(status).__name__ == expected
        assert issubclass(errors.class_for(status), APIStatusError)


def test_what_only_some_errors_know_is_none_at_first() -> None:
    """`retry_after` of a refusal, `retry_at` of a deadline."""
    assert RateLimitError().retry_after is None
    assert BadRequestError().retry_after is None
    assert InternalServerError().retry_after is None
    assert DeadlineExceededError().retry_at is None


def test_effects_have_an_order() -> None:
    """From harmless to worst, whichever way round they are compared."""
    none, unknown, lost = Effect

    assert [none.or_worse(unknown), unknown.or_worse(none), lost.or_worse(unknown), unknown.or_worse(lost)] == [
        unknown,
        unknown,
        lost,
        lost,
    ]
    assert none.or_worse(none) is none


def test_a_suspect_does_not_show_what_was_sent() -> None:
    """Its repr goes into logs; the fields of a request do not belong there."""
    assert "max_usage" not in repr(SUSPECT)
    assert "tenant-42" in repr(SUSPECT)
