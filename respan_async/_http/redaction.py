"""Removes secrets and control characters from a server's text, so that it can be shown.

A known secret, such as the bearer token, is found wherever 12 characters of it stand in a row: plain; in the escapes of
JSON, HTML and URLs; with white space or line breaks within; in base64, at any offset; in hexadecimal. An unknown secret
is found by the form of a key, or by the name of its field. Every pattern and every loop here is linear in the text.
"""

import base64
import re
from collections.abc import Collection, Iterable
from typing import Final

from respan_async.secret import Secret

WINDOW: Final = 12
"""The number of characters of a secret in a row that are masked."""

_ESCAPE: Final = re.compile(
    r"\s+|\\u([0-9a-fA-F]{4})|%([0-9a-fA-F]{2})|&#0*\d{1,7};|&#[xX]0*[0-9a-fA-F]{1,6};|&[a-z]{2,4};"
    r"|\\([nrt]|[^A-Za-z0-9])"  # before other letters, a backslash escapes nothing and stands for itself
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{16,}")
_HEXADECIMAL: Final = re.compile(r"[0-9a-fA-F]{24,}")

# An 8-character public prefix, a dot, and 32 secret characters, perhaps with a line break among them. There is no word
# boundary in front, because the escape of a line break or a percent sign ends in a letter or digit.
_KEY_TEXT: Final = re.compile(
    r"([A-Za-z0-9]{8})(?:\.|%2[eE])(?=[A-Za-z0-9_-]{10})"
    r"[A-Za-z0-9_-](?:(?:\s|\\[nrt]){0,3}[A-Za-z0-9_-]){15,31}[A-Za-z0-9_-]*"
)
_KEY_FIELD: Final = re.compile(r'("(?:api_key|hashed_key)"\s*:\s*)(?:"(?:[^"\\]|\\.)*"?|[^,}\s]+)')
_MASKED_KEY: Final = r"\1.***"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,15}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""Texts that cannot hold a secret: too short for one in base64 or hexadecimal, or in the form of a UUID, as most ids
are. Without escapes."""
_LONG_WORD: Final = re.compile(r"[A-Za-z0-9+/=_.~%-]{12,}")
_SURELY_LONG: Final = 20

_Span = tuple[int, int]


def redacted(text: str, secrets: Iterable[Secret]) -> str:
    """Return a text without these secrets, and without anything that looks like a key."""
    plain = _PLAIN.fullmatch(text) is not None  # the text cannot hold a key of any form
    for secret in secrets:
        text = _without(text, secret.reveal(), plain)
    return text if plain else _KEY_TEXT.sub(_MASKED_KEY, _KEY_FIELD.sub(r'\1"***"', text))


def without_long_words(text: str) -> str:
    """Return a text without words that may be a secret of any form: 12 characters with a digit, or 20 characters."""
    return _LONG_WORD.sub(_masked, text)


def printable(text: str) -> str:
    """Escape unprintable characters: line breaks, and control sequences of a terminal."""
    if text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return _KEY_TEXT.sub(_MASKED_KEY, escaped)  # an escape may complete half a key's prefix


def _masked(match: re.Match[str]) -> str:
    word = match[0]
    return "***" if len(word) >= _SURELY_LONG or any(letter.isdigit() for letter in word) else word


def _without(text: str, secret: str, plain: bool) -> str:
    size = min(WINDOW, len(secret))
    if plain and not _ESCAPE.search(secret):
        spans = [(at, at + size) for at in range(len(text) - size + 1) if text[at : at + size] in secret]
        return _cut_out(text, spans)
    windows = _windows(secret, size)
    spans = _found(text, windows, size)
    folded, starts, ends = _folded(text)
    found = [*_found(folded, windows, size), *_encoded(folded, secret)]
    # What looks like an escape may be part of the secret: a backslash that HTML leaves as it is.
    if (bare := _folded(secret)[0]) != secret and len(bare) >= WINDOW // 2:
        size = min(WINDOW, len(bare))
        found += _found(folded, _windows(bare, size), size)
    spans += [(starts[begin], ends[end - 1]) for begin, end in found]
    return _cut_out(text, spans)


def _cut_out(text: str, spans: Iterable[_Span]) -> str:
    parts: list[str] = []
    shown = 0
    for begin, end in _merged(spans):
        parts += [text[shown:begin], "***"]
        shown = end
    return "".join([*parts, text[shown:]])


def _folded(text: str) -> tuple[str, list[int], list[int]]:
    """Return a text without white space and escapes, and the position in the text of each remaining character."""
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    done = 0
    for match in _ESCAPE.finditer(text):
        begin, end = match.span()
        letters.append(text[done:begin])
        starts.extend(range(done, begin))
        ends.extend(range(done + 1, begin + 1))
        for letter in _meant(match):
            letters.append(letter)
            starts.append(begin)
            ends.append(end)
        done = end
    letters.append(text[done:])
    starts.extend(range(done, len(text)))
    ends.extend(range(done + 1, len(text) + 1))
    return "".join(letters), starts, ends


def _meant(match: re.Match[str]) -> str:
    """Return the character that an escape stands for; empty for white space."""
    of_json, of_url, quoted = match.groups()
    if of_json or of_url:
        letter = chr(int(of_json or of_url, 16))
    elif quoted:
        letter = "" if quoted in "nrt" else quoted
    else:
        from html import unescape  # a table of two thousand names, which few processes need

        letter = unescape(match[0])
    return "" if letter.isspace() else letter


def _encoded(text: str, secret: str) -> list[_Span]:
    """Find a secret in base64 or hexadecimal."""
    raw = secret.encode(errors="surrogatepass")
    if len(raw) < WINDOW:
        return []
    spans: list[_Span] = []
    size = WINDOW * 4 // 3
    standard = text.replace("-", "+").replace("_", "/")
    if runs := list(_BASE64.finditer(standard)):
        windows: set[str] = set()
        for before, mixed in ((0, 0), (1, 2), (2, 3)):  # bytes before it; characters that mix with those bytes
            coded = base64.b64encode(bytes(before) + raw).decode()
            windows |= _windows(coded[mixed : (before + len(raw)) * 8 // 6], size)
        for run in runs:
            spans += _found(run[0], windows, size, run.start())
    if runs := list(_HEXADECIMAL.finditer(text)):
        windows = _windows(raw.hex(), 2 * WINDOW)
        for run in runs:
            spans += _found(run[0].lower(), windows, 2 * WINDOW, run.start())
    return spans


def _windows(text: str, size: int) -> set[str]:
    return {text[begin : begin + size] for begin in range(len(text) - size + 1)}


def _found(text: str, windows: Collection[str], size: int, offset: int = 0) -> list[_Span]:
    """Return the positions of these windows, counted from an offset."""
    ats = (at for at in range(len(text) - size + 1) if text[at : at + size] in windows)
    return [(offset + at, offset + at + size) for at in ats]


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Join spans that overlap; adjacent spans stay separate."""
    merged: list[_Span] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged
