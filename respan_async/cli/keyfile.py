"""Where issued keys are kept: JSON lines, in a file of one's own or on standard output.

Rules for the file:

1. It is readable by its owner alone, from birth, and one run at a time has it.
2. A line is written whole, by one call that appends. What a failed write left of it is taken back.
3. A file that holds anything but such lines is left as it is. Only the end of a last line that was cut off, by a
   killed run, is mended.
"""

import contextlib
import errno
import fcntl
import os
import re
import select
import shlex
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Protocol

import attrs

from respan_async import codec
from respan_async.cli.exits import WrongUse
from respan_async.models import CreatedKey, TemporaryKey

STANDARD_OUTPUT: Final = 1

_BEGINNING: Final = b'{"ticket":'
_TORN: Final = re.compile(rb'\{"ticket":("(?:[^"\\]|\\.)*")(?:,"id":("(?:[^"\\]|\\.)*"))?')
_LONGEST: Final = 4 * 1024 * 1024


def line_of(key: TemporaryKey, ticket: str | None = None, *, sandbox: bool = False) -> bytes:
    """Return a key as one line of JSON.

    Args:
        key: The key; one just made with its secret.
        ticket: What it was issued for.
        sandbox: Say in the line that the key is make-believe.
    """
    fields: dict[str, Any] = {} if ticket is None else {"ticket": ticket}
    fields["id"] = key.id
    if isinstance(key, CreatedKey):
        fields["api_key"] = key.api_key.reveal()
    if sandbox:
        fields["sandbox"] = True
    for field in attrs.fields(TemporaryKey):
        if field.name not in ("id", "extra"):
            value = getattr(key, field.name)
            fields[field.name] = _instant(value) if isinstance(value, datetime) else value
    return codec.encode(fields) + b"\n"


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def digest(ticket: str) -> bytes:
    """Return 16 bytes that stand for a ticket, of which a million are still few."""
    return blake2b(ticket.encode(), digest_size=16).digest()


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however many calls the system makes of it.

    Raises:
        OSError: It could not be.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else's pipe, that does not wait by itself
            select.select([], [fd], [])


class KeyStore(Protocol):
    """Where keys go, as the job sees it."""

    name: str
    issued: set[bytes]
    mended: str | None

    def write(self, line: bytes) -> None:
        """Write one line, whole; `OSError` when it could not be."""

    def sync(self) -> None:
        """Have what was written survive a power cut."""


class KeyStream:
    """Standard output, which keeps nothing and so knows of nothing issued before."""

    name = "standard output"
    mended: str | None = None

    def __init__(self) -> None:
        self.issued: set[bytes] = set()

    def write(self, line: bytes) -> None:
        """Write one line."""
        write_all(STANDARD_OUTPUT, line)

    def sync(self) -> None:
        """Have what was written survive a power cut, where standard output is a file."""
        if stat.S_ISREG(os.fstat(STANDARD_OUTPUT).st_mode):
            os.fsync(STANDARD_OUTPUT)


class KeyFile:
    """A file of issued keys, open for more.

    Attributes:
        name: The path as it was given.
        issued: The digests of the tickets that are in it already.
        mended: What was done about a last line that was cut off, in one sentence; None when nothing was.
    """

    def __init__(self, path: str, fd: int, *, sandbox: bool) -> None:
        self.name = path
        self.issued: set[bytes] = set()
        self.mended: str | None = None
        self._fd = fd
        self._sandbox = sandbox
        self._read()

    def write(self, line: bytes) -> None:
        """Write one line, or nothing."""
        before = os.fstat(self._fd).st_size
        try:
            write_all(self._fd, line)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, before)
            raise

    def sync(self) -> None:
        """Have what was written survive a power cut."""
        os.fsync(self._fd)

    def _read(self) -> None:
        """Collect the tickets, then mend the end."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            size = number = 0
            torn = b""
            while line := file.readline(_LONGEST):
                number += 1
                if not line.endswith(b"\n"):
                    torn = line
                    break
                size += len(line)
                if line.strip():
                    self._take(line, number)
            if torn:
                self._mend(torn, number, size, more=bool(file.read(1)))

    def _take(self, line: bytes, number: int) -> None:
        try:
            value = codec.parse(line)
            ticket = value["ticket"]
            made_up = bool(value.get("sandbox"))
        except (ValueError, TypeError, KeyError):
            ticket, made_up = None, False
        if not isinstance(ticket, str):
            raise WrongUse(
                f"{self.name}:{number}: expected a JSON object with a ticket, as this command writes them; "
                "the file was left as it is, choose another --out"
            )
        if made_up is not self._sandbox:
            kind, other = ("the sandbox's", "real") if made_up else ("real", "the sandbox's")
            raise WrongUse(
                f"{self.name}:{number}: holds {kind} keys, which {other} ones do not go with; choose another --out"
            )
        self.issued.add(digest(ticket))

    def _mend(self, torn: bytes, number: int, size: int, *, more: bool) -> None:
        """Complete or cut off the last line of a run that was killed."""
        begun = torn.strip(b"\0")  # what a power cut leaves of a line
        if not more and not (begun.startswith(_BEGINNING) or _BEGINNING.startswith(begun)):
            more = True
        try:
            codec.parse(torn)
            whole = True
        except ValueError:
            whole = False
        if whole or more:
            self._take(torn, number)
            write_all(self._fd, b"\n")
            self.mended = f"{self.name}:{number}: the last line lacked its end, which was added"
            return
        os.ftruncate(self._fd, size)
        match = _TORN.match(begun)
        ticket = f" for {codec.parse(match[1])}" if match else ""
        self.mended = (
            f"{self.name}:{number}: the last line{ticket} had been cut off, and its key's secret with it; it was "
            "removed and counts as not issued"
        )
        if match and match[2]:
            self.mended += f"; the key may be alive: respan-keys delete -- {shlex.quote(codec.parse(match[2]))}"


@contextlib.contextmanager
def open_keys(path: str, *, sandbox: bool) -> Iterator[KeyStore]:
    """Open where keys go, `-` for standard output, and find what was issued already.

    Args:
        path: As it was given.
        sandbox: The keys are make-believe, and so must be those that are there already.

    Raises:
        WrongUse: It is not a place for secrets, or holds something else, or another run has it.
    """
    if path == "-":
        yield KeyStream()
        return
    fd = _open(path)
    try:
        _check(path, fd)
        yield KeyFile(path, fd, sandbox=sandbox)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # O_NONBLOCK: a named pipe without a reader would keep us waiting before it can be refused.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise WrongUse(f"{path}: expected a file, not a symbolic link; give the path it leads to") from None
        raise WrongUse(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise WrongUse(f"{path!r}: {error}") from None


def _check(path: str, fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise WrongUse(f"{path}: expected a regular file")
    if status.st_nlink > 1:
        raise WrongUse(f"{path}: expected a file with one name; this one has {status.st_nlink} (hard links)")
    if status.st_uid != os.geteuid():
        raise WrongUse(f"{path}: expected a file of your own; its owner could read the keys")
    if status.st_mode & 0o077:
        raise WrongUse(f"{path}: other users could read the keys; chmod 600 {shlex.quote(path)}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WrongUse(f"{path}: another run is writing to it") from None
