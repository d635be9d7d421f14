"""Tells, from the fields of a key, whether the attempt of a suspect made it.

1. The random tag at the end of the name identifies the attempt. But a program that replaces keys by new ones of the
   same name copies the tag. So that program may have made a key that was made long after the attempt, and keys with
   the same tag that were made long after each other.
2. If the answer to our own POST told an id, the attempt made the key with that id; unless the key has another tag, or
   is older than the attempt, because a server or a cache may answer with an existing key.
"""

from datetime import timedelta
from typing import Final

from respan_async._calls.name_tags import tag_in
from respan_async.errors import Suspect
from respan_async.models import TemporaryKey

ARRIVES_WITHIN: Final = 1800.0
"""Seconds after its attempt in which a key may be made.

A kernel resends unacknowledged bytes for about 16 minutes (Linux, `tcp_retries2`), so a proxy's request may reach the
server that late; this is twice as long. A queue may hold the request for longer; then an orphaned key stays alive,
which is harmless. If this time were longer, a sweep would revoke the keys of programs that replace keys every hour."""

_CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How long before its attempt a key may seem to have been made, because two clocks differ a little."""


def is_left_by(suspect: Suspect, key: TemporaryKey) -> bool:
    """Whether this key has the tag of a suspect's attempt, and is not known to be used or revoked."""
    return bool(suspect.tag) and suspect.tag == tag_in(key.name) and not (key.revoked or key.used)


def is_made_late(suspect: Suspect, key: TemporaryKey, ahead: timedelta, within: float) -> bool:
    """Whether a key was made so long after a suspect's attempt that another program may have copied its name.

    The attempt's time comes from this machine's clock, which may have been wrong then, and may be wrong now. So a key
    is late only if it is late both without and with the correction by `ahead`. If the clock was slow at the attempt
    and is right now, a key that is not late is taken for late.

    Args:
        suspect: The suspect.
        key: A key with its tag.
        ahead: By how much the server's clock is ahead of this machine's.
        within: Seconds after the attempt in which its key may be made.
    """
    if key.created_at is None:
        return False
    late = key.created_at - suspect.sent_at
    return min(late, late - ahead).total_seconds() > within


def is_another(suspect: Suspect, key: TemporaryKey, ahead: timedelta) -> bool:
    """Whether a suspect's attempt did not make a key, though the answer to that attempt told the key's id.

    Args:
        suspect: The suspect.
        key: The key with that id.
        ahead: By how much the server's clock is ahead of this machine's.
    """
    if suspect.tag and key.name is not None and suspect.tag != tag_in(key.name):
        return True
    if suspect.tag or key.created_at is None:
        return False
    return key.created_at - suspect.sent_at - ahead < -_CLOCKS_DIFFER
