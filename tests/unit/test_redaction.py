"""What a server says is shown without secrets, however it writes them."""

import base64
import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from respan_async import Secret
from respan_async._http.redaction import printable, redacted, without_long_words

TOKEN = 'canary+bearer/0123456789"<abcdef>=='
KEY = "CANARY12.thiscanaryliveshereandnobodysees"


def fold(text: str, every: int, by: str) -> str:
    """Break a text into lines."""
    return by.join(text[begin : begin + every] for begin in range(0, len(text), every))


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "the beginning": lambda text: text[:12],
    "the middle": lambda text: text[11:23],
    "the end": lambda text: text[-12:],
    "in JSON": json.dumps,
    "in JSON, with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "in JSON, all escaped": lambda text: "".join(f"\\u{ord(letter):04X}" for letter in text),
    "in a URL": lambda text: quote(text, safe=""),
    "in a path": quote,
    "in a query": quote_plus,
    "in a URL, in small letters": lambda text: quote(text, safe="").lower(),
    "in a URL, all escaped": lambda text: "".join(f"%{ord(letter):02x}" for letter in text),
    "in HTML": html.escape,
    "in HTML, all in decimals": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "in HTML, all in hexadecimals": lambda text: "".join(f"&#x{ord(letter):X};" for letter in text),
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64, after one byte": lambda text: base64.b64encode(b"a" + text.encode()).decode(),
    "in base64, after two": lambda text: base64.b64encode(b"ab" + text.encode()).decode(),
    "in base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "in base64, in lines": lambda text: fold(base64.b64encode(text.encode()).decode(), 20, "\r\n"),
    "in hexadecimals": lambda text: text.encode().hex(),
    "in large hexadecimals": lambda text: text.encode().hex().upper(),
    "in lines": lambda text: fold(text, 10, "\n"),
    "in lines in JSON": lambda text: fold(text, 10, "\\n"),
    "letter by letter": lambda text: fold(text, 1, "  "),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_not_shown(way: str) -> None:
    """And what is around it is."""
    shown = redacted(f"you said {WAYS[way](TOKEN)}, did you?", [Secret(TOKEN)])

    assert shown.startswith("you said ")
    assert shown.endswith(", did you?")
    assert "***" in shown
    left = shown.removeprefix("you said ").removesuffix(", did you?")
    # Of base64, what shares its first and last character with something else is left.
    assert len(left.replace("***", "")) <= 3 if "base64" not in way else len(left) <= 16


def test_every_window_of_a_token_is_hidden_and_shorter_ones_are_not() -> None:
    """12 characters are the measure: the public prefix of a key, which has 8, may be shown."""
    for begin in range(len(KEY) - 11):
        assert redacted(KEY[begin : begin + 12], [Secret(KEY)]) == "***"
    assert redacted(f"{KEY[:8]} {KEY[9:20]}", [Secret(KEY)]) == f"{KEY[:8]} {KEY[9:20]}"


def test_two_tokens_in_a_row_are_two() -> None:
    """What is between them stays, and be it nothing."""
    assert redacted(f"{TOKEN} {TOKEN}", [Secret(TOKEN)]) == "*** ***"
    assert redacted("abcdefghijkl" * 2, [Secret("abcdefghijkl")]) == "******"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {KEY} is wrong", "key CANARY12.*** is wrong"),
        (f"key {KEY[:25]}\n{KEY[25:]} is wrong", "key CANARY12.*** is wrong"),
        (f"key {KEY[:20]}\\n{KEY[20:]} is wrong", "key CANARY12.*** is wrong"),
        (quote(KEY).replace(".", "%2e"), "CANARY12.***"),
        ("This is required. This field may not be blank.", "This is required. This field may not be blank."),
        ("call settings.configure before all else", "call settings.configure before all else"),
    ],
)
def test_what_looks_like_a_key_is_not_shown(text: str, shown: str) -> None:
    """Though nobody knows whose it is; and what people write is no key."""
    assert redacted(text, []) == shown


def test_long_words_are_not_shown_where_there_may_be_a_key_of_any_form() -> None:
    """A date is shorter, and a word of people has no digits."""
    text = '{"id":"x1","key":"rsp-live-0a1b2c3d","created":"2026-01-31T12:00:00Z","detail":"Authentication"}'

    assert without_long_words(text) == text.replace("rsp-live-0a1b2c3d", "***").replace("2026-01-31T12", "***")
    assert without_long_words("a" * 20) == "***"


def test_what_prints_is_left_alone() -> None:
    """And what a terminal or a log would obey is written out."""
    assert printable("Größe 漢字 'x'") == "Größe 漢字 'x'"
    assert printable("a\r\nb\x1b[2J\x9b\u202e\u2028\x00") == "a\\r\\nb\\x1b[2J\\x9b\\u202e\\u2028\\x00"


HARD = ["x", " ", "%41", "\\u0041", "a b ", "A", "0af", "&amp;", '"api_key"', '"api_key": "', "aaaaaaaa.", "&#", "\\"]
HARD += ["%2e", "aaaaaaaa.bbbbbbbbbb", "aaaaaaaa.bbbbbbbbbb\n \n", TOKEN, TOKEN[:11], "&#9999999;", "&#0", "İ"]


@pytest.mark.parametrize("unit", HARD)
def test_no_text_takes_long_to_redact(unit: str) -> None:
    """What a server sends chooses the time: it grows no faster than the text."""
    short, long = (unit * (size // len(unit)) for size in (500, 4_000))

    def seconds(text: str) -> float:
        times = []
        for _ in range(2):
            began = time.process_time()
            without_long_words(redacted(text, [Secret(TOKEN)]))
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(long) < 30 * seconds(short) + 0.03


def test_what_prints_stays_as_it_is_beside_what_does_not() -> None:
    """Letters of any language, and a backslash."""
    assert printable("ü\\\n\x1b") == "ü\\\\n\\x1b"


def test_a_token_that_is_all_there_is_leaves_nothing() -> None:
    """From the first character on, and to the last."""
    escaped = "".join(f"%{ord(letter):02x}" for letter in TOKEN[1:])

    assert redacted(TOKEN[0] + escaped, [Secret(TOKEN)]) == "***"


@pytest.mark.parametrize("write", [lambda raw: base64.b64encode(raw).decode(), bytes.hex])
def test_a_token_of_one_window_is_found_in_other_writing(write: Callable[[bytes], str]) -> None:
    """It is as short as one that is looked for can be."""
    assert redacted(f"({write(b'abcdefghijkl')})", [Secret("abcdefghijkl")]) == "(***)"


@pytest.mark.parametrize("write", [lambda raw: base64.b64encode(raw).decode(), bytes.hex])
def test_every_run_of_other_writing_is_looked_through(write: Callable[[bytes], str]) -> None:
    """Not the last one alone, and each where it stands."""
    token, other = b"canary-bearer-0123456789", b"some-other-words-as-long"
    runs = [write(token), write(other), write(token)]

    assert redacted("İ " + ",".join(runs), [Secret(token.decode())]) == f"İ ***,{runs[1]},***"


@pytest.mark.parametrize("before", [b"", b"x", b"xx"])
def test_thirteen_characters_in_base64_are_found_whatever_comes_before_them(before: bytes) -> None:
    """One more than in plain text, for at its ends base64 mixes a character with its neighbours."""
    token = "canary-bearer-0123456789"
    for begin in (0, 5, len(token) - 13):
        written = base64.b64encode(before + token[begin : begin + 13].encode() + b"?????").decode()
        assert "***" in redacted(written, [Secret(token)])


def test_eleven_characters_in_other_writing_are_shown() -> None:
    """As they are in plain text: that little stands anywhere by chance."""
    token = "canary-bearer-0123456789"
    few = token[:11].encode() + b"...."

    assert redacted(base64.b64encode(few).decode(), [Secret(token)]) == base64.b64encode(few).decode()
    assert redacted(few.hex(), [Secret(token)]) == few.hex()


def test_a_token_whose_base64_has_signs_is_found_in_that_of_urls() -> None:
    """Where `+` and `/` are `-` and `_`."""
    token = "ab>cd?ef>gh?ij>kl?"
    written = base64.urlsafe_b64encode(token.encode()).decode()
    assert written.count("-") == written.count("_") == 3

    assert redacted(written, [Secret(token)]) == "***"


def test_a_token_that_is_itself_full_of_escapes() -> None:
    """It is found as it is, at the very beginning too, and without its escapes where that is not too short."""
    short, long = "%41%42%43%44", "%41%42%43%44%45%46"

    assert redacted(f"{short} was sent", [Secret(short)]) == "*** was sent"
    assert redacted("ABCD was sent", [Secret(short)]) == "ABCD was sent"
    assert redacted("ABCDEF was sent", [Secret(long)]) == "*** was sent"
    assert redacted("(ABCDEF)", [Secret(long)]) == "(***)"
    assert redacted(base64.b64encode(long.encode()).decode(), [Secret(long)]) == "***"


def test_a_token_with_half_a_character_is_no_error() -> None:
    """As one out of an environment that is not UTF-8 may have."""
    assert redacted("what somebody said", [Secret("\udc80" * 12)]) == "what somebody said"
