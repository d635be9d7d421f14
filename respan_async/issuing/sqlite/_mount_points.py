"""Refuses a ledger's file that is mounted alone, without its folder, as `docker run -v ./keys.db:/data/keys.db` does.

SQLite keeps the log beside the file, and the owners keep their locks there. If only the file is mounted, each container
has a separate folder with a separate log and locks. So two containers would not see each other's commits, and both
would make a key for the same ticket.
"""

import os
import re
from pathlib import Path
from typing import Final

from respan_async.errors import LedgerError

_MOUNTS: Final = Path("/proc/self/mountinfo")
"""The file with a line for each mount of this process, see proc(5); systems other than Linux have no such file."""

_PLACE: Final = 4
"""The field with the mount point."""

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def check_not_mounted_alone(path: Path, mounts: Path = _MOUNTS) -> None:
    """Refuse a ledger whose file is itself a mount point.

    Args:
        path: The ledger's file, which may not exist yet.
        mounts: The file in which the system lists the mounts.

    Raises:
        LedgerError: The file is a mount point.
    """
    try:
        lines = mounts.read_bytes().split(b"\n")
    except OSError:
        return
    place = os.path.realpath(os.fsencode(path))
    # A later mount of a folder above the file covers an earlier one of the file.
    places = [mounted for line in lines if _contains(mounted := _place_in(line), place)]
    if places and places[-1] == place:
        raise LedgerError(
            f"{path}: this file is mounted alone, and its log and locks would lie beside it where no other container "
            "sees them; mount the folder, not the file"
        )


def _contains(mounted: bytes, place: bytes) -> bool:
    """Whether a mount point is this place, or a folder above it."""
    return mounted == place or (mounted != b"" and place.startswith(mounted.rstrip(b"/") + b"/"))


def _place_in(line: bytes) -> bytes:
    """Return the mount point of a line, in which white space and backslashes are octal escapes."""
    fields = line.split(b" ")
    place = fields[_PLACE] if len(fields) > _PLACE else b""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), place)
