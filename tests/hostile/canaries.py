"""Canaries, and the seeker that looks for them in whatever anybody could get to see."""

import asyncio
import base64
import copy
import json
import logging
import pickle
import random
import re
import string
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

import attrs
from rich.traceback import Traceback

WINDOW: Final = 12
"""Characters of a secret in a row that nobody may see."""

_SPACE: Final = re.compile(r"\s+|\\[nrt]|│|┃")
_LETTERS: Final = string.ascii_letters + string.digits
_random: Final = random.Random(6)


def canary(size: int = 40) -> str:
    """Give a text that is nowhere by chance."""
    return "".join(_random.choices(_LETTERS, k=size))


BEARER: Final = f"br{canary()}"
OTHER_BEARER: Final = f"br{canary()}"
CIPHER_KEY: Final = base64.b64encode(_random.randbytes(32)).decode()
OLD_CIPHER_KEY: Final = base64.b64encode(_random.randbytes(32)).decode()
HEADER: Final = f"hd{canary()}"
PROXY: Final = f"px{canary()}"
PUBLIC: Final = "CANARY12"
API_KEY: Final = f"{PUBLIC}.{canary(32)}"
KEYS: Final = (base64.b64decode(CIPHER_KEY), base64.b64decode(OLD_CIPHER_KEY), CIPHER_KEY, OLD_CIPHER_KEY)


class Parts:
    """Every part of some texts that has a certain size, an even number."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[str, str] = {}
        self._halves: set[str] = set()

    def add(self, text: str, name: str) -> None:
        """Add every part of a text."""
        half = self._size // 2
        self._known |= {text[at : at + self._size]: name for at in range(len(text) - self._size + 1)}
        self._halves |= {text[at : at + half] for at in range(0, len(text) - half + 1, half)}

    def first_in(self, text: str) -> str | None:
        """Give the name of the first part that is in a text, and what is around it."""
        # Within every part is one of the text's pieces of half its size, one after the other; most texts have none.
        if not any(half in text for half in self._halves):
            return None
        for at in range(len(text) - self._size + 1):
            if (name := self._known.get(text[at : at + self._size])) is not None:
                return f"{name} as ...{text[max(at - 40, 0) : at + self._size + 20]!r}..."
        return None


class Seeker:
    """Find any 12 characters in a row of a secret, also without white space, in URLs, in base64, in hexadecimal.

    The public prefix of a key is no secret.

    Args:
        *secrets: Texts; of one with a dot after 8 characters, what comes after that. Bytes as they are.
    """

    def __init__(self, *secrets: str | bytes) -> None:
        self._plain, self._base64, self._hexadecimal = Parts(WINDOW), Parts(WINDOW * 4 // 3), Parts(WINDOW * 2)
        for secret in secrets:
            hidden = secret[9:] if isinstance(secret, str) and secret[8:9] == "." else secret
            raw = hidden.encode() if isinstance(hidden, str) else hidden
            assert len(raw) >= WINDOW
            name = f"{secret!r}"
            self._plain.add(raw.decode("latin-1"), name)
            for shift in range(3):
                coded = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")[shift + (shift > 0) : -1]
                self._base64.add(coded, name)
            self._hexadecimal.add(raw.hex(), name)

    def find(self, text: str | bytes) -> str | None:
        """Give the secret that is in a text, if one is."""
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        folded = _SPACE.sub("", text)
        versions = {text, folded, unquote(folded)} if "%" in text else {text, folded}
        for version in versions:
            found = self._plain.first_in(version)
            found = found or self._base64.first_in(version.replace("-", "+").replace("_", "/"))
            found = found or self._hexadecimal.first_in(version.lower())
            if found is not None:
                return found
        return None


class Witness(logging.Handler):
    """Take down everything that somebody could get to see, to be searched once all secrets are known."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, str] = {}

    def __call__(self, event: object) -> None:
        """Be a hook; and look at every task while it is at work."""
        self.look("an event", event)
        self.tasks()

    def note(self, where: str, text: str | bytes) -> None:
        """Take down a text."""
        self._seen.setdefault(text.decode("latin-1") if isinstance(text, bytes) else text, where)

    def look(self, where: str, *things: object) -> None:
        """Take down how things look, to whoever turns them into text or writes them away."""
        for thing in things:
            kind = f"{where}: {type(thing).__name__}"
            for show in _SHOWN:
                try:
                    self.note(kind, f"{show(thing)}")
                except Exception as error:  # noqa: BLE001  what is refused shows nothing but its refusal
                    self.note(f"{kind}, refused", f"{error!r} {error}")

    def tasks(self) -> None:
        """Take down how the running tasks look, as a debugger or asyncio's own messages show them."""
        for task in asyncio.all_tasks():
            if "/tests/" not in (code := task.get_coro().cr_code.co_filename) and "pytest" not in code:  # type: ignore[union-attr]
                self.note("a task", f"{task!r} {task.get_name()} {task.get_coro()!r}")

    def files(self, folder: Path, but: Callable[[Path], bool] = lambda _: False) -> None:
        """Take down every file below a folder, its name included."""
        for path in folder.rglob("*"):
            self.note("a file's name", str(path))
            if path.is_file() and not but(path):
                self.note(f"the file {path.name}", path.read_bytes())

    def catch(self, error: BaseException | None) -> None:
        """Take down all that an error gives away, and those that it comes with."""
        assert error is not None
        for one in _chain(error):
            self.look("an error", one, vars(one), one.args)
            self.note("an error's notes", repr(getattr(one, "__notes__", ())))
        self.note("a traceback", "".join(traceback.format_exception(error)))
        told = traceback.TracebackException.from_exception(error, capture_locals=True, compact=False)
        for frame, text in _library_locals(told):
            self.note(f"the locals of {frame}", text)
        for stack in Traceback.extract(type(error), error, error.__traceback__, show_locals=True).stacks:
            for shown in stack.frames:
                if "/tests/" not in shown.filename:
                    for name, node in (shown.locals or {}).items():
                        self.note(f"rich's locals of {shown.filename}:{shown.name}, {name}", str(node))

    def emit(self, record: logging.LogRecord) -> None:
        """Be a log handler: take down records, and what they come with."""
        self.note(f"a log record of {record.name}", f"{record.getMessage()} {vars(record)}")
        if record.exc_info and record.exc_info[1] is not None:
            self.catch(record.exc_info[1])

    def check(self, *secrets: str | bytes, least: int = 5) -> None:
        """Nothing of it holds a secret, in whatever way it is written."""
        assert len(self._seen) >= least
        seeker = Seeker(*secrets)
        found = [f"{where}: {what}" for text, where in self._seen.items() if (what := seeker.find(text)) is not None]
        assert not found, "\n".join(found)


def _vars(thing: Any) -> str:
    return repr(vars(thing)) if hasattr(thing, "__dict__") else ""


def _attrs(function: Callable[..., object]) -> Callable[[Any], object]:
    def show(thing: Any) -> object:
        if not attrs.has(type(thing)):
            return ""
        return function(cast("attrs.AttrsInstance", thing))

    return show


_SHOWN: Final[tuple[Callable[[Any], object], ...]] = (
    repr,
    str,
    ascii,
    lambda thing: f"{thing}",
    lambda thing: "%s %r" % (thing, thing),  # noqa: UP031  as logging does it
    lambda thing: repr([thing, {"a": thing}]),
    _vars,
    _attrs(attrs.asdict),
    _attrs(attrs.astuple),
    _attrs(copy.copy),
    _attrs(copy.deepcopy),
    lambda thing: pickle.dumps(thing).decode("latin-1"),
    lambda thing: json.dumps(thing, default=str),
    lambda thing: json.dumps(thing),
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that are chained to it."""
    left, done = [error], set[int]()
    while left:
        one = left.pop()
        if id(one) not in done:
            done.add(id(one))
            yield one
            more = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
            left += [other for other in (one.__cause__, one.__context__, *more) if other is not None]


def _library_locals(told: traceback.TracebackException) -> Iterator[tuple[str, str]]:
    """Give the locals of every frame in a chain of exceptions, but for the test's own."""
    for frame in told.stack:
        if "/tests/" not in frame.filename:
            yield f"{frame.filename}:{frame.name}", repr(frame.locals)
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            yield from _library_locals(other)
