"""A secret does not show itself, whoever asks."""

import copy
import json
import logging
import pickle
import traceback
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_async import Secret

TEXT = "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"
HIDDEN = TEXT.partition(".")[2]


def test_only_reveal_gives_the_text() -> None:
    """And gives it as it is."""
    assert Secret(TEXT).reveal() == TEXT


def test_a_key_of_the_known_form_shows_its_public_prefix() -> None:
    """Eight characters, by which people tell keys apart."""
    assert repr(Secret(TEXT)) == str(Secret(TEXT)) == "Secret('vcjRcdm8.***')"


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "vcjRcdm8",
        "vcjRcdm8.short",
        "vcjRcdm.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
        "vcjRcdm8x.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
        "vcjR dm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
        "vcjR-dm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
        "eyJhbGciOi.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        ".5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV",
    ],
)
def test_anything_else_shows_nothing(text: str) -> None:
    """Of a text of another form, no part is known to be public."""
    assert repr(Secret(text)) == "Secret('***')"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>60}",
        lambda secret: f"{secret:>60}",
        lambda secret: "{}".format(secret),  # noqa: UP032
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: str([secret, {"key": secret}, (secret,)]),
        lambda secret: json.dumps({"key": secret}, default=str),
        lambda secret: orjson.dumps({"key": secret}, default=str).decode(),
        lambda secret: logging.LogRecord("", 0, "", 0, "%s", (secret,), None).getMessage(),
        lambda secret: str(KeyError(secret)),
    ],
)
def test_no_way_to_text_shows_it(show: Any) -> None:
    """However it is turned into one."""
    shown = show(Secret(TEXT))

    assert HIDDEN not in shown
    assert "vcjRcdm8.***" in shown


def test_a_format_is_of_what_is_shown() -> None:
    """A precision does not cut the text itself."""
    assert f"{Secret(TEXT):.10}" == "Secret('vc"


@pytest.mark.parametrize("dump", [json.dumps, orjson.dumps, pickle.dumps, copy.copy, copy.deepcopy])
def test_nobody_writes_it_away_by_mistake(dump: Any) -> None:
    """JSON, pickles and copies: whoever wants the text asks for it by `reveal()`."""
    with pytest.raises(TypeError) as caught:
        dump(Secret(TEXT))
    with pytest.raises(TypeError):
        dump({"key": [Secret(TEXT)]} if dump is not copy.copy else Secret(TEXT))

    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_pickles_it(protocol: int) -> None:
    """Old ones go another way."""
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(TEXT), protocol)


@pytest.mark.parametrize(
    "use",
    [
        lambda secret: secret + "",
        lambda secret: "" + secret,
        lambda secret: len(secret),
        lambda secret: secret[0],
        lambda secret: list(secret),
        lambda secret: "vcj" in secret,
        lambda secret: bytes(secret),
        lambda secret: "".join([secret]),
        lambda secret: vars(secret),
        lambda secret: secret < secret,
    ],
)
def test_it_is_no_string(use: Any) -> None:
    """Nothing that works on strings works on it."""
    with pytest.raises(TypeError):
        use(Secret(TEXT))


def test_a_class_with_a_secret_does_not_show_it() -> None:
    """`attrs.asdict` walks into attrs classes; it is none."""

    @attrs.frozen
    class Holder:
        key: Secret

    holder = Holder(Secret(TEXT))

    assert not attrs.has(Secret)
    assert HIDDEN not in repr(holder) + repr(attrs.asdict(holder)) + repr(attrs.astuple(holder))


def test_a_traceback_with_locals_does_not_show_it() -> None:
    """As error trackers make them."""

    def fail(key: Secret) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail(Secret(TEXT))
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)

    assert "vcjRcdm8.***" in repr(told.stack[-1].locals)
    assert HIDDEN not in repr(told.stack[-1].locals)


def test_a_log_record_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """Neither its message nor its arguments."""
    with caplog.at_level(logging.INFO):
        logging.getLogger("anybody").info("made %s", Secret(TEXT), extra={"key": Secret(TEXT)})

    assert "vcjRcdm8.***" in caplog.text
    assert HIDDEN not in caplog.text + repr(vars(caplog.records[0]))


def test_equality_is_of_texts_and_only_among_secrets() -> None:
    """And equal secrets have one hash."""
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "x")
    assert Secret(TEXT) != TEXT
    assert Secret(TEXT) != Secret("vcjRcdm8.another-secret-of-that-prefix-1")
    assert {Secret(TEXT), Secret(TEXT)} == {Secret(TEXT)}
    assert hash(Secret(TEXT)) != hash(TEXT)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_is_held_and_compared(one: str, other: str) -> None:
    """Also one that UTF-8 cannot carry."""
    assert Secret(one).reveal() == one
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one + "\ud800") == Secret(one + "\ud800")


@given(st.text(min_size=1, alphabet=st.characters(categories=["L", "N"])), st.text(min_size=12))
def test_nothing_after_a_dot_is_shown(prefix: str, rest: str) -> None:
    """Whatever comes before it."""
    assert rest not in repr(Secret(f"{prefix}.{rest}"))


@pytest.mark.parametrize("wrong", [None, 5, b"vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV", [TEXT], Secret(TEXT)])
def test_it_holds_a_string(wrong: Any) -> None:
    """What was passed may be the secret in another wrapping: the type alone is named."""
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}") as caught:
        Secret(wrong)

    assert HIDDEN not in str(caught.value)


def test_it_holds_something() -> None:
    """An empty secret is a mistake somewhere else."""
    with pytest.raises(ValueError, match="non-empty"):
        Secret("")


def test_it_takes_no_attributes() -> None:
    """It has one slot, and no dictionary that anybody could print."""
    with pytest.raises(AttributeError):
        Secret(TEXT).note = "hello"  # type: ignore[attr-defined]


def test_an_erased_secret_is_gone() -> None:
    """It says so, shows so, and equals no other."""
    erased = Secret.erased()

    assert erased.is_erased
    assert not Secret(TEXT).is_erased
    assert repr(erased) == "Secret(erased)"
    assert erased != Secret.erased()
    assert erased != Secret(TEXT)
    with pytest.raises(ValueError, match="no longer kept"):
        erased.reveal()
