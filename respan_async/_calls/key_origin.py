"""What a key itself says about its origin: whether the attempt of a suspect has made it.

1. The random tag at the end of the name says whose attempt it was. A name may be copied, though, by a program that
   replaces keys by new ones of the same name. So a key that was made long after the attempt, or keys with one tag that
   were made long after each other, may be that program's.
2. Where the server told an id in the answer to our own POST, the key with that id is the attempt's; unless it has
   another tag, or was there before the attempt: a server or a cache may answer with what was there already.
"""

from datetime import timedelta
from typing import Final

from respan_async._calls.name_tags import tag_in
from respan_async.errors import Suspect
from respan_async.models import TemporaryKey

ARRIVES_WITHIN: Final = 1800.0
"""Seconds after its attempt in which a key may be made.

A kernel repeats bytes that were not acknowledged for about 16 minutes (Linux, `tcp_retries2`), so a proxy's request may
reach the server that late; this is twice as long. A queue may hold it for longer, but then a key that nobody has seen
stays alive, which is harmless. A longer time would cost the keys of programs that replace keys every hour."""

_CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How long before its attempt a key may have been made, if two clocks differ a little."""


def is_left_by(suspect: Suspect, key: TemporaryKey) -> bool:
    """Whether this key has the tag of a suspect's attempt, and nobody has used it."""
    return bool(suspect.tag) and suspect.tag == tag_in(key.name) and not (key.revoked or key.used)


def is_made_late(suspect: Suspect, key: TemporaryKey, ahead: timedelta, within: float) -> bool:
    """Whether a key was made so long after a suspect's attempt that another program may have copied its name.

    The attempt's time is this machine's, whose clock may have been wrong then, or may be wrong now: a key is late if it
    is so by the one account and by the other. That of a clock that was slow at the attempt, and is right now, is too.

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
    """Whether a key is not the one that a suspect's attempt made, though the answer to that attempt told its id.

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
